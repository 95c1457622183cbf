"""Whether the parts of a line have drifted, drawn over time from a table that `predict` wrote."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from mvtec_tf import drift
from mvtec_tf.data import csv_table, moments
from mvtec_tf.data.csv_table import CsvTable, Places
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import predicted
from mvtec_tf.graphs.loading import newest
from mvtec_tf.jobs.report_folder import report_folder
from mvtec_tf.jobs.settings import DriftSettings
from mvtec_tf.serving import drift_report, drifting
from mvtec_tf.serving.drifting import Line
from mvtec_tf.serving.settings import PredictSettings

_JUDGED = "judged.csv"
_NEEDED = ("path", "verdict", *drift.COLUMNS)


def draw_drift(settings: DriftSettings) -> Line:
    """Sets the parts in their order, tests them, and writes page, pictures and table of alarms.

    Returns:
      The parts with what the test says of them.

    Raises:
      UsageError: settings contradict each other.
      UserError: the table, the folder or the model cannot be used, or a part's place in the order is not known.
    """
    settings.check()
    if settings.folder and not os.path.isdir(settings.folder):
        raise UserError(f"`folder`={settings.folder}: expected a folder of photographs, found none there.")
    with report_folder(settings.out, judged=settings.folder):
        reference = drifting.read_reference(newest(settings.model)) if settings.model else None
        table = settings.table or _judged(settings)
        rows = [row for _, row in predicted.open_table(table, _NEEDED)]
        words, places, keys = _order(settings, [row["path"] for row in rows])
        order = sorted(range(len(rows)), key=keys.__getitem__)
        rows, places = [rows[number] for number in order], [places[number] for number in order]
        line = Line(reference, settings.drift_alarm, words)
        line.add(rows)
        values = [drifting.values_of(row) for row in rows]
        there = [number for number, found in enumerate(values) if found]
        if not line.names:
            why = line.summary() or f"It has {counted(len(rows), 'row')}, none of them with a verdict."
            raise UserError(f"{table}: there is nothing to draw. {why}")
        title = f"Drift: {pathlib.Path(settings.folder or table).name}"
        shown = [places[number] for number in there]
        drift_report.write(settings.out, line, np.array([values[number] for number in there]), shown, title)
    print(line.summary())
    print(f"Page: {pathlib.Path(settings.out) / drift_report.PAGE_FILE}")
    print(settings.out)
    return line


def _judged(settings: DriftSettings) -> pathlib.Path:
    """The table of the folder's photographs, which is gone on with where it is there."""
    # Not above: a table is drawn without TensorFlow.
    from mvtec_tf.serving.predict import judge_given, what_failed

    out = pathlib.Path(settings.out) / _JUDGED
    table = judge_given(PredictSettings(model=settings.model, out=str(out), paths=(settings.folder,)))
    # Of files that cannot be judged; what is wrong with the model leaves no table.
    if failed := what_failed(table.failed, table.unjudged, len(table.names), out):
        print(f"Note: {failed}", flush=True)
    return out


def _order(settings: DriftSettings, paths: Sequence[str]) -> tuple[str, list[str], Sequence[Any]]:
    """What the order is in words, and of each path what says its place in it, as it is shown and as it is compared.

    Raises:
      UserError: some have no place.
    """
    if not settings.list and settings.order == "table":
        return "their order in the table", [""] * len(paths), range(len(paths))
    if not settings.list and settings.order == "name":
        return "name", list(paths), paths
    if settings.list:
        words = f"the column {settings.column} of {settings.list}"
        found, of_whom = _listed(settings.list, settings.column, paths), f"in the column {settings.column} of the list"
    else:
        words, of_whom = "the time of their Exif data", "in its Exif data"
        found = [(f"{path}, Exif data", _taken(path)) for path in paths]
    if missing := [path for path, (_, place) in zip(paths, found, strict=True) if not place]:
        raise UserError(
            f"{len(missing)} of {len(paths)} parts, {missing[0]} first, have no time {of_whom}. Leave them out of the "
            "table, or choose another order."
        )
    if not found:
        return words, [], []
    form, values = moments.read(found)
    return f"{words} ({form})", [place for _, place in found], values


def _listed(file: str, column: str, paths: Sequence[str]) -> list[tuple[str, str]]:
    """(Where it stands, what is written) in a list of each path, written as in the table or from the list's folder; of
    a path that is not there, nothing is written.

    Raises:
      UserError: it names one twice and says two things.
    """
    table = CsvTable(pathlib.Path(file), ("path", column))
    places = Places(pathlib.Path(file).absolute().parent)
    said: dict[str, tuple[int, str]] = {}
    for line, row in table:
        there = places.find(row["path"])
        for name in (row["path"], os.path.realpath(there) if there else csv_table.plain_path(row["path"])):
            first, before = said.setdefault(name, (line, row[column]))
            if before != row[column]:
                raise UserError(
                    f"{file}, line {line}: {row['path']} has {row[column]!r} in the column {column}, and {before!r} in "
                    f"line {first}. Keep one of them."
                )
    found = [said.get(path) or said.get(os.path.realpath(path), (0, "")) for path in paths]
    return [(f"{file}, line {line}, column {column}", cell) for line, cell in found]


def _taken(path: str) -> str:
    """When a photograph was taken, as Exif writes it: 2026:11:27 15:00:00; "" where it does not say."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). Its time is in its Exif data only.") from error
    own = exif.get_ifd(ExifTags.IFD.Exif)
    taken = own.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime) or ""
    # Some cameras pad both; a microsecond is the finest that is read.
    taken, fraction = (str(one).strip("\0 ") for one in (taken, own.get(ExifTags.Base.SubsecTimeOriginal, "")))
    return f"{taken}.{fraction[:6]}" if taken and fraction else taken
