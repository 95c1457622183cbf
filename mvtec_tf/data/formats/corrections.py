"""Corrected labels: a table of suspects with the label that each should have, and the images with it as a list.

The table is that of `explore` and `fit`, `suspects.csv`: an empty `label` leaves an image as it is.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from mvtec_tf import files
from mvtec_tf.data import csv_table, words
from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats import image_list
from mvtec_tf.data.record import DEFECTIVE, GOOD, TEST, Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError

# Of a table of suspects; the last is for the person who has looked.
COLUMNS = ("path", "given", "why", "score", "neighbour", "label")
LABELS = (GOOD, DEFECTIVE)


def corrected(records: Sequence[Record], table: files.PathLike) -> tuple[tuple[Record, ...], str]:
    """The records with the labels that the table corrects, and a sentence on what has changed.

    An object with a defective image is for testing, whole; a good one stays where it was.

    Args:
      records: of the scanner.
      table: CSV with the columns path and label, see `COLUMNS`; paths are those of all tables.

    Raises:
      UserError: names the file and the line of what is wrong; or no label is filled in.
    """
    path = pathlib.Path(table)
    known = {record.path: record for record in records}
    found: dict[str, int] = {}
    for line, row in CsvTable(path, ("path", "label"), COLUMNS):
        name, word, where = csv_table.plain_path(row["path"]), row["label"], f"{path}, line {line}"
        if not word:
            continue
        label = words.label_of(word)
        if label is None:
            raise UserError(f"{where}: label is {word!r}, expected {GOOD}, {DEFECTIVE}, or nothing to leave it.")
        if name not in known:
            raise UserError(
                f"{where}: no image {row['path']} in `data_dir`. Name the images that the table was made of; paths are "
                f"as in images.csv, such as {records[0].path}."
            )
        if found.setdefault(name, label) != label:
            raise UserError(f"{where}: {name} has another label in a line before. Keep one of them.")
    if not found:
        raise UserError(
            f"{path}: the column label is empty in every line. Look at the images and write {GOOD} or {DEFECTIVE} "
            "where the label given is wrong."
        )
    changed = [name for name, label in found.items() if known[name].label != label]
    relabelled = [_relabelled(one, found.get(one.path, one.label)) for one in records]
    defective = {one.group for one in relabelled if one.label}
    moved = [one for one in relabelled if one.group in defective and one.split != TEST]
    done = tuple(dataclasses.replace(one, split=TEST) if one in moved else one for one in relabelled)
    of_all = f"{len(changed)} of {counted(len(found), 'label')} in {path}"
    return done, f"Corrected: {of_all}; {counted(len(moved), 'image goes', 'images go')} to testing."


def _relabelled(record: Record, label: int) -> Record:
    if record.label == label:
        return record
    return dataclasses.replace(record, label=label, defect=DEFECTIVE if label else GOOD, mask="")


def write_list(path: files.PathLike, records: Sequence[Record]) -> None:
    """Writes the records as a list for `data_dir`, see `image_list`: read again, they are the same."""
    folder = pathlib.Path(path).resolve().parent
    files.write_csv(path, (*image_list.REQUIRED, *image_list.OPTIONAL), (_line(one, folder) for one in records))


def _line(record: Record, folder: pathlib.Path) -> tuple[str, ...]:
    image, mask = (os.path.relpath(file, folder) if file else "" for file in (record.file, record.mask))
    group = "" if record.group == record.path else record.group.removeprefix(f"{record.category}/")
    defect = record.defect if record.label else ""
    return image, LABELS[record.label], record.category, defect, mask, group, record.split
