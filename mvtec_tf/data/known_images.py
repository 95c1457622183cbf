"""What is known of an image file: by its content, from the list that a run keeps of its images, or by its place.

A folder's name alone says nothing: `test/monday/` may be a day as well as a defect.
"""

import os
import pathlib
from collections.abc import Iterable

from mvtec_tf import files
from mvtec_tf.data import words
from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats import layout
from mvtec_tf.data.record import DEFECTIVE, FACTS, GOOD, TEST, TRAIN, Record
from mvtec_tf.errors import UserError

# In a run, and in its exports.
FILE = "images.csv"
_COLUMNS = ("sha256", *FACTS)
# CATEGORY/test/DEFECT/IMAGE
_STEPS_OF_MVTEC = 3


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
    split, defect = part, ""
    if part in (TRAIN, TEST) and len(steps) == _STEPS_OF_MVTEC:
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
