"""Which good images are for testing, where the source of the images does not say.

The choice is a property of the data set and not of a run: it depends on the names alone, not on
any seed, so that every method and every day has the same test images.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from mvtec_tf.data.record import TEST, TRAIN, Record
from mvtec_tf.data.words import composed, counted

# MVTec AD keeps 11 % of its good images for testing, too few to tell a false alarm rate of 1 % from one of 5 %; a
# share of 30 % leaves enough for training and, halved by the protocol, 15 % for judging.
TEST_SHARE = 0.3
_HASHED = 8  # bytes of the digest: more than a float64 holds


def divide(records: Sequence[Record]) -> list[Record]:
    """Gives every record its split, whole groups at a time.

    A group with a defective image is for testing. Of the groups of good images, those are for testing whose
    name hashes into the first `TEST_SHARE` of all values: each group's side depends on its own name only,
    so that a new photograph moves no other, and a renamed category none at all.

    Args:
      records: images of one category; their `split` is not looked at.
    """
    defective = {record.group for record in records if record.label}
    return [
        dataclasses.replace(record, split=TEST if record.group in defective or _hash(record) < TEST_SHARE else TRAIN)
        for record in records
    ]


def described(name: str, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records of the category `name` with splits by `divide` and `with_good_tests`, and a sentence on that."""
    records = with_good_tests(name, divide(records))[0]
    good = [record for record in records if not record.label]
    tests, defective = sum(record.split == TEST for record in good), len(records) - len(good)
    others = f", and the {counted(defective, 'defective one')}" if defective else ""
    return records, [
        f"{name}: nothing says which good images are for testing, so {tests} of {len(good)} are, chosen by their names "
        f"(about {100 * TEST_SHARE:.0f} %, the same in every run){others}."
    ]


def with_good_tests(name: str, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Keeps good training images for testing where the source of the images has no good test image.

    Without one no rate of false alarms can be known. Objects are chosen as by `divide`; where no name of so few hashes
    into the share, it is the object whose name hashes lowest. An only object stays for training.

    Args:
      name: of the category.
      records: its images, each with its split.

    Returns:
      The records, and a sentence where something was changed.
    """
    hashes = {record.group: _hash(record) for record in records if not record.label and record.split == TRAIN}
    if len(hashes) < 2 or any(not record.label and record.split == TEST for record in records):
        return list(records), []
    order = sorted(hashes, key=hashes.__getitem__)
    drawn = [group for group in order if hashes[group] < TEST_SHARE] or order[:1]
    kept = set(drawn[: len(order) - 1])
    moved = [dataclasses.replace(one, split=TEST) if one.group in kept else one for one in records]
    tests, good = (sum(not one.label and one.split in splits for one in moved) for splits in ((TEST,), (TEST, TRAIN)))
    types = ", ".join(sorted({record.defect for record in records if record.label}))
    taken = f"All test images were taken for defects, of the types {types}: is one of these a word for good? "
    sentence = (
        f"{name}: all good images are for training, and no good test images were found. {taken if types else ''}"
        f"Against what their source says, {tests} of the {good} are kept for testing, chosen by their names (about "
        f"{100 * TEST_SHARE:.0f} %, the same in every run): without any, nobody could say how many good parts are "
        "falsely stopped."
    )
    return moved, [sentence]


def _hash(record: Record) -> float:
    """The name of the record's object, hashed into 0 to 1."""
    name = record.group.removeprefix(f"{record.category}/")
    # macOS writes an umlaut as two code points, other systems as one: the same name must fall on the same side.
    digest = hashlib.sha256(composed(name).encode()).digest()
    return int.from_bytes(digest[:_HASHED], "big") / 256**_HASHED
