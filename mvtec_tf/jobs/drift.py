"""Whether the parts of a line have drifted, drawn over time from a table that `predict` wrote."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from mvtec_tf import drift
from mvtec_tf.data.csv_table import CsvTable, Places
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import predicted
from mvtec_tf.graphs.loading import newest
from mvtec_tf.jobs.settings import DriftSettings
from mvtec_tf.ownership import Owned
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
      UserError: the table or the model cannot be used, or a part's place in the order is not known.
    """
    settings.check()
    with Owned(settings.out, "`out`"):
        table = settings.table or _judged(settings)
        rows = [row for _, row in predicted.open_table(table, _NEEDED)]
        places = _places(settings, rows)
        if places:
            order = sorted(range(len(rows)), key=_key(places))
            rows, places = [rows[number] for number in order], [places[number] for number in order]
        reference = drifting.read_reference(newest(settings.model)) if settings.model else None
        line = Line(reference, settings.drift_alarm, _in_words(settings))
        line.add(rows)
        values = [drifting.values_of(row) for row in rows]
        there = [number for number, found in enumerate(values) if found]
        if not line.names:
            why = line.summary() or f"It has {len(rows)} rows, none of them with a verdict."
            raise UserError(f"{table}: there is nothing to draw. {why}")
        title = f"Drift: {pathlib.Path(settings.folder or table).name}"
        shown = [places[number] if places else "" for number in there]
        drift_report.write(settings.out, line, np.array([values[number] for number in there]), shown, title)
    print(line.summary())
    print(f"Page: {pathlib.Path(settings.out) / drift_report.PAGE_FILE}")
    print(settings.out)
    return line


def _judged(settings: DriftSettings) -> pathlib.Path:
    """The table of the folder's photographs, which is gone on with where it is there."""
    # Not above: a table is drawn without TensorFlow.
    from mvtec_tf.serving.predict import predict

    out = pathlib.Path(settings.out) / _JUDGED
    try:
        predict(PredictSettings(model=settings.model, out=str(out), paths=(settings.folder,)))
    except UserError as error:
        # Of files that cannot be judged; what is wrong with the model leaves no table.
        if not out.is_file():
            raise
        print(f"Note: {error}", flush=True)
    return out


def _in_words(settings: DriftSettings) -> str:
    words = {"table": "their order in the table", "name": "name", "exif": "the time of their Exif data"}
    return f"the column {settings.column} of {settings.list}" if settings.list else words[settings.order]


def _places(settings: DriftSettings, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What says each row's place in the order; nothing where the table's own order holds.

    Raises:
      UserError: some have none.
    """
    paths = [row["path"] for row in rows]
    if settings.list:
        found, of_whom = _listed(settings.list, settings.column, paths), f"in the column {settings.column} of the list"
    elif settings.order == "exif":
        found, of_whom = [_taken(path) for path in paths], "in its Exif data"
    else:
        return paths if settings.order == "name" else []
    if missing := [path for path, place in zip(paths, found, strict=True) if not place]:
        raise UserError(
            f"{len(missing)} of {len(paths)} parts, {missing[0]} first, have no time {of_whom}. Leave them out of the "
            "table, or choose another order."
        )
    return found


def _listed(file: str, column: str, paths: Sequence[str]) -> list[str]:
    """What a list says of each path, written as in the table or from the list's folder; "" where nothing."""
    table = CsvTable(pathlib.Path(file), ("path", column))
    places = Places(pathlib.Path(file).absolute().parent)
    said: dict[str, str] = {}
    for _, row in table:
        said[row["path"]] = row[column]
        if there := places.find(row["path"]):
            said[os.path.realpath(there)] = row[column]
    return [said.get(path) or said.get(os.path.realpath(path), "") for path in paths]


def _taken(path: str) -> str:
    """When a photograph was taken, as Exif writes it: 2026:11:27 15:00:00; "" where it does not say."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). Its time is in its Exif data only.") from error
    own = exif.get_ifd(ExifTags.IFD.Exif)
    taken = own.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime) or ""
    fraction = own.get(ExifTags.Base.SubsecTimeOriginal, "")
    return f"{taken}.{fraction}" if taken and fraction else str(taken)


def _key(places: Sequence[str]) -> Any:
    """The order of row numbers: by number where all places are numbers, else by text; equal ones as in the table."""
    try:
        numbers = [float(place) for place in places]
    except ValueError:
        return places.__getitem__
    return numbers.__getitem__
