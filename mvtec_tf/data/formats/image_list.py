"""Reading a CSV list of photographs: `path,label` and, optionally, `category,defect,mask,group,split`."""

import functools
import os
import pathlib
from collections import defaultdict

from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats import division
from mvtec_tf.data.record import GOOD, IMAGE_SUFFIXES, TEST, TRAIN, Category, Record
from mvtec_tf.errors import UserError

SUFFIX = ".csv"
REQUIRED = ("path", "label")
OPTIONAL = ("category", "defect", "mask", "group", "split")
DEFECTIVE = "defective"
LABELS = {"0": 0, "1": 1, GOOD: 0, DEFECTIVE: 1}
# So many wrong lines are listed; with a wrong folder every line is wrong.
_LISTED = 5


class _RowError(Exception):
    """What is wrong with one line."""


def categories(path: pathlib.Path) -> list[Category]:
    """The categories of a CSV file; all lines are checked.

    Paths of images and masks are relative to the folder of the file. An image is named CATEGORY/path
    in all tables, or just by its path if that begins with the category already.

    - `label`: 0 or good, 1 or defective.
    - `category`: of the product; without it the name of the file without `.csv`.
    - `defect`: type of a defective image; "defective" where it is empty.
    - `mask`: file of the pixel mask.
    - `group`: the physical object; images with one name here show the same.
    - `split`: train or test, for all images of a category or for none; train is for good images. Without
      it, `division.divide` decides.

    Raises:
      UserError: names the file and the first wrong lines, or a category without good images for training.
    """
    table = CsvTable(path, REQUIRED)
    found: dict[str, dict[str, tuple[int, Record]]] = defaultdict(dict)
    lines: dict[str, int] = {}
    wrong: list[str] = []
    for line, row in table:
        try:
            record = _record(path, row)
            _refuse_twice(record, line, lines, found[record.category])
        except _RowError as error:
            wrong.append(f"line {line}: {error}")
            continue
        found[record.category][record.path] = (line, record)
    if wrong:
        more = f"\n  ... and {len(wrong) - _LISTED} more lines" if len(wrong) > _LISTED else ""
        raise UserError(f"{path}: {len(wrong)} wrong line(s):\n  " + "\n  ".join(wrong[:_LISTED]) + more)
    if not found:
        raise UserError(f"{path}: no images in it, only a header.")
    unused = [name for name in table.columns if name not in REQUIRED + OPTIONAL]
    ignored = [f"{path}: columns that are not used: {', '.join(unused)}."] if unused else []
    return [
        Category(name, path, functools.partial(_read_category, path, name, found[name], [] if i else ignored))
        for i, name in enumerate(sorted(found))
    ]


def _read_category(
    path: pathlib.Path, name: str, rows: dict[str, tuple[int, Record]], sentences: list[str]
) -> tuple[list[Record], list[str]]:
    records = [rows[key][1] for key in sorted(rows)]
    if not any(not record.label for record in records):
        raise UserError(f"{path}: no good images of category {name!r} in it. Every method learns from good images.")
    undivided = [line for line, record in rows.values() if not record.split]
    if undivided and len(undivided) < len(rows):
        raise UserError(
            f"{path}, line {min(undivided)}: split is empty, but other images of category {name!r} have one. "
            "Give it for all of them or for none."
        )
    if undivided:
        records = division.divide(records)
        sentences = [*sentences, division.describe(name, records)]
    if not any(record.split == TRAIN for record in records):
        raise UserError(
            f"{path}: no good images of category {name!r} are for training. "
            + ("Add good images." if undivided else f"Write {TRAIN} into the column split of some good ones.")
        )
    return records, sentences


def _record(table: pathlib.Path, row: dict[str, str]) -> Record:
    label = LABELS.get(row["label"].casefold())
    if label is None:
        raise _RowError(f"label is {row['label']!r}, expected 0 or {GOOD}, 1 or {DEFECTIVE}")
    category = _plain_name(row, "category") or table.stem
    name, file = _existing(table.parent, row["path"], "path")
    if pathlib.Path(file).suffix.lower() not in IMAGE_SUFFIXES:
        raise _RowError(f"{row['path']}: expected an image, {', '.join(IMAGE_SUFFIXES)}")
    path = name if name.startswith(f"{category}/") else f"{category}/{name}"
    group = row.get("group", "")
    return Record(
        path=path,
        file=file,
        category=category,
        defect=_defect(row, label),
        label=label,
        split=_split(row, label),
        group=f"{category}/{group}" if group else path,
        mask=_existing(table.parent, row["mask"], "mask")[1] if row.get("mask") else "",
    )


def _existing(folder: pathlib.Path, written: str, column: str) -> tuple[str, str]:
    """(name relative to the folder, file) of a path as it is written in the table."""
    if not written:
        raise _RowError(f"{column} is empty")
    # A list that was made on Windows; no image of a product line has a backslash in its name.
    written = written.replace("\\", "/")
    file = os.path.normpath(folder / written)
    if not os.path.isfile(file):
        raise _RowError(f"{column} {written}: no such file. Paths are relative to {folder}")
    return pathlib.Path(os.path.relpath(file, folder)).as_posix(), file


def _plain_name(row: dict[str, str], column: str) -> str:
    name = row.get(column, "")
    # Names of categories and defects become names of files in reports.
    if "/" in name or "\\" in name or name.startswith("."):
        raise _RowError(f"{column} is {name!r}, expected a name without / or \\ that begins with no dot")
    return name


def _defect(row: dict[str, str], label: int) -> str:
    defect = _plain_name(row, "defect")
    if label and defect.casefold() == GOOD:
        raise _RowError(f"label says {DEFECTIVE}, defect says {defect!r}")
    if not label and defect.casefold() not in ("", GOOD):
        raise _RowError(f"label says {GOOD}, defect says {defect!r}")
    return (defect or DEFECTIVE) if label else GOOD


def _split(row: dict[str, str], label: int) -> str:
    split = row.get("split", "").casefold()
    if split not in ("", TRAIN, TEST):
        raise _RowError(f"split is {row['split']!r}, expected {TRAIN}, {TEST}, or nothing in all lines")
    if split == TRAIN and label:
        raise _RowError(
            f"a defective image for {TRAIN}. Only good images are: write {TEST}, and the protocol draws the labelled "
            "defects to learn from among these"
        )
    return split


def _refuse_twice(
    record: Record, line: int, lines: dict[str, int], others: dict[str, tuple[int, Record]]
) -> None:
    first = lines.setdefault(record.file, line)
    if first != line:
        raise _RowError(f"{record.file} stands in line {first} already")
    if record.path in others:
        raise _RowError(
            f"{record.file} would be named {record.path}, as is {others[record.path][1].file} of line "
            f"{others[record.path][0]}. Give the category another name"
        )
