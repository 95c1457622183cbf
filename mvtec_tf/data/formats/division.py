"""Which good images are for testing, where the source of the images does not say.

The choice is a property of the data set and not of a run: it depends on the names alone, not on
any seed, so that every method and every day has the same test images.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Sequence

from mvtec_tf.data.record import TEST, TRAIN, Record

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
        dataclasses.replace(record, split=TEST if record.group in defective or _is_drawn(record) else TRAIN)
        for record in records
    ]


def describe(name: str, records: Sequence[Record]) -> str:
    """One sentence on what `divide` did to the category `name`."""
    good = [record for record in records if not record.label]
    tests = sum(record.split == TEST for record in good)
    return (
        f"{name}: nothing says which good images are for testing, so {tests} of {len(good)} are, chosen by their names "
        f"(about {100 * TEST_SHARE:.0f} %, the same in every run), and all {len(records) - len(good)} defective ones."
    )


def _is_drawn(record: Record) -> bool:
    name = record.group.removeprefix(f"{record.category}/")
    # macOS writes an umlaut as two code points, other systems as one: the same name must fall on the same side.
    text = unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:_HASHED], "big") < TEST_SHARE * 256**_HASHED
