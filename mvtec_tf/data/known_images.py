"""What is known of an image file: by its content, from the list that a run keeps of its images, or by its place.

A folder's name alone says nothing: `test/monday/` may be a day as well as a defect.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from mvtec_tf import files
from mvtec_tf.data import words
from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats import layout
from mvtec_tf.data.record import DEFECTIVE, FACTS, GOOD, SPLITS, TRAIN, VALIDATION, Record
from mvtec_tf.errors import UserError

# In a run, and in its exports.
FILE = "images.csv"
_COLUMNS = ("sha256", *FACTS)
# CATEGORY/test/DEFECT/IMAGE
_STEPS_OF_MVTEC = 3
# Of a file without content, which is no photograph: who reads it says so.
_EMPTY = hashlib.sha256().hexdigest()


def write(path: files.PathLike, records: Iterable[Record]) -> None:
    """Writes the list of a run's images, each with the SHA-256 of its file."""
    rows = ([files.sha256(record.file), *record.facts] for record in records)
    files.write_csv(path, _COLUMNS, rows)


def read(path: files.PathLike) -> dict[str, list[Record]]:
    """SHA-256 of a file -> the records of the images with this content; their `file` is empty.

    Raises:
      UserError: it is no such list.
    """
    found: dict[str, list[Record]] = {}
    for line, row in CsvTable(pathlib.Path(path), _COLUMNS, strip=False):
        if row["label"] not in ("0", "1"):
            raise UserError(f"{path}, line {line}: label {row['label']!r}, expected 0 or 1.")
        facts = {name: row[name] for name in FACTS} | {"label": int(row["label"]), "file": ""}
        found.setdefault(row["sha256"], []).append(Record(**facts))
    return found


def digests(path: files.PathLike) -> dict[str, str]:
    """Path of each image of such a list -> SHA-256 of its file. Raises as `read`."""
    return {record.path: digest for digest, images in read(path).items() for record in images}


def without_copies(records: Sequence[Record]) -> tuple[tuple[Record, ...], list[tuple[Record, str]]]:
    """Leaves out the other copies of a photograph that stands for several objects: one seen could be evaluated.

    By bytes alone, which a run reads for its fingerprint anyway; `explore_data` also finds copies that were changed.

    Returns:
      The records that are used, and the others, each with what it is a copy of.

    Raises:
      UserError: names two files of the same bytes, of which one is good and one defective.
    """
    first_of: dict[str, Record] = {}
    copies: list[tuple[Record, str]] = []
    # Training images are open to every method, so the copy in the test is the one that says nothing.
    for record in sorted(records, key=lambda one: one.split != TRAIN):
        digest = files.sha256(record.file)
        first = record if digest == _EMPTY else first_of.setdefault(digest, record)
        if first.label != record.label:
            good, defective = sorted((first, record), key=lambda one: one.label)
            raise UserError(
                f"{good.path} is good and {defective.path} defective, but both files hold the same photograph. Take "
                "one of them away; mvtec-tf explore lists all such."
            )
        if first.group != record.group:
            copies.append((record, f"an exact copy of {first.path}"))
    left_out = {record.path for record, _ in copies}
    return tuple(record for record in records if record.path not in left_out), copies


def of_place(file: files.PathLike) -> Record | None:
    """What the folders around an image say, None if they are no category beyond doubt.

    That is the MVTec layout with `train/good` or `test/good`, or `good` and `defective` beside each other. The group is
    not known, "".
    """
    path = os.path.abspath(file)
    folder = layout.category_of(os.path.dirname(path))
    if not folder:
        return None
    category = words.composed(os.path.basename(folder))
    steps = words.composed(os.path.relpath(path, folder)).split(os.sep)
    part = words.part_of(steps[0])
    split, defect = TRAIN if part == VALIDATION else part, ""
    if part in SPLITS and len(steps) == _STEPS_OF_MVTEC:
        defect = GOOD if words.is_good(steps[1]) else _type_of(steps[1])
    elif part in (GOOD, DEFECTIVE) and {GOOD, DEFECTIVE} <= set(layout.parts(folder)):
        split, defect = "", GOOD if part == GOOD else _defect_of(steps)
    if not defect or (split == TRAIN and defect != GOOD):
        return None
    return Record("/".join((category, *steps)), path, category, defect, int(defect != GOOD), split, "")


def _defect_of(steps: list[str]) -> str:
    """Of `defective/IMAGE` or `defective/DEFECT/IMAGE`; "" of anything else."""
    if len(steps) == 2:
        return DEFECTIVE
    return _type_of(steps[1]) if len(steps) == _STEPS_OF_MVTEC and not words.is_good(steps[1]) else ""


def _type_of(folder: str) -> str:
    return "" if words.sounds_good(folder) or words.is_masks(folder) else folder
