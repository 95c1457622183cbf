"""Drift in a table of verdicts: which statistics of its parts have moved, by how much, since which of them."""

import csv
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mvtec_tf import drift, files
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import predicted
from mvtec_tf.graphs.loading import require_model

# From this share of defects on, parts score higher, and lie farther from good ones, whatever the line is like.
_MANY = 0.1
# Ending of the table of alarms beside a watch's table, whose stem it has: two cameras may share a folder.
ENDING = ".drift.csv"
_FILE_COLUMNS = ("statistic", "since_part", "since_path", "raised_at_part", "standard_deviations", "over_at_part")
_WITHOUT = (
    "Drift was not looked for: the model says nothing of how usual an image is. It was made by an older version, or of "
    "too few held-out good objects; fit it anew to have that."
)


class Line:
    """The parts of a table in its order, each with what the test says of those up to it.

    Args:
      reference: see `drift.Detector`.
      alarm: probability of a false alarm, a part.
      order: of the parts, in words.

    Attributes:
      names: of the parts that have all statistics.
      defective: how many of these were called so.
      without: how many verdicts came without.
    """

    def __init__(
        self, reference: np.ndarray | None = None, alarm: float = drift.ALARM, order: str = "their order in the table"
    ) -> None:
        self.names: list[str] = []
        self.defective = self.without = 0
        self._alarm, self._order = alarm, order
        self._reference = reference
        self._against = "the ones before them" if reference is None else "the training images"
        self._detector = drift.Detector(reference, alarm)

    @property
    def alarms(self) -> list[drift.Alarm]:
        """That have risen, in their order."""
        return self._detector.alarms

    @property
    def lacking(self) -> int:
        """How many parts there must be before any could have moved, where there are fewer; else 0."""
        fewest = 0 if self.alarms else drift.fewest(self._reference, self._alarm)
        return fewest if len(self.names) < fewest else 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> list[drift.Alarm]:
        """Takes rows with their columns as text or numbers; returns the alarms that rise with them."""
        risen = []
        for row in rows:
            values = values_of(row)
            if values is None:
                self.without += bool(row["verdict"])
                continue
            self.names.append(row["path"])
            self.defective += row.get("verdict") == predicted.DEFECTIVE
            risen += self._detector.add(values)
        return risen

    def told(self, alarm: drift.Alarm) -> str:
        """An alarm in words, with the file of the part that it began with; the table of alarms has its whole path."""
        return alarm.in_words(pathlib.PurePath(self.names[alarm.since - 1]).name)

    @property
    def state(self) -> str:
        """`moved`, or `not_moved`; `too_few` parts to know, `unknown` without statistics; "" of no part at all."""
        if not self.names:
            return "unknown" if self.without else ""
        if self.lacking:
            return "too_few"
        return "moved" if self.alarms else "not_moved"

    def summary(self) -> str:
        """The closing line: what has moved, or that nothing has, or why that is not known."""
        if not self.names:
            return _WITHOUT if self.without else ""
        chance = f"one false alarm expected in {1 / self._alarm:,.0f} parts at most"
        order = f"{counted(len(self.names), 'part')} by {self._order}, set against {self._against}; {chance}"
        more = f" {self.without:,} verdicts came without the statistics." if self.without else ""
        if self.lacking:
            return f"Whether there is drift cannot be known of fewer than {self.lacking:,} parts ({order}).{more}"
        if not self.alarms:
            return f"No drift: {', '.join(drift.STATISTICS)} have not moved ({order}).{more}"
        there = [alarm for alarm in self.alarms if not alarm.over]
        over = len(self.alarms) - len(there)
        # What is over is listed where nothing else is, and in the table of alarms.
        told = "; ".join(map(self.told, there or self.alarms))
        told += f"; {over:,} more that are over" if there and over else ""
        if self.defective > _MANY * len(self.names) and {"distance", "score"} & {one.statistic for one in self.alarms}:
            more = f" {self.defective:,} of them were called defective, which alone moves distance and score.{more}"
        return f"Drift, in standard deviations of the training images: {told} ({order}).{more}"

    def write(self, file: files.PathLike) -> None:
        """Writes all alarms as a table, whole."""
        rows = [
            (one.statistic, one.since, self.names[one.since - 1], one.raised, round(one.size, 3), one.over or "")
            for one in self.alarms
        ]
        files.write_csv(file, _FILE_COLUMNS, rows)


def values_of(row: Mapping[str, Any]) -> list[float] | None:
    """The statistics in a row, None where one is missing. Raises UserError: one is no number."""
    values = [row.get(name) for name in drift.COLUMNS]
    if None in values or "" in values:
        return None
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        wrong = "; ".join(map(str, values))
        commas = "A spreadsheet has written decimal commas. " if any("," in str(value) for value in values) else ""
        raise UserError(
            f"{row['path']}: expected numbers in {', '.join(drift.COLUMNS)}, like -0.25, with a decimal point; found "
            f"{wrong}. {commas}Take the table as predict wrote it."
        )
    return numbers


def read_reference(export: files.PathLike) -> np.ndarray | None:
    """What an export says of the training's held-out good images, float [N, 5]; None of one that does not.

    Raises:
      UserError: there is no export, or the file cannot be read.
    """
    require_model(export)
    file = pathlib.Path(export) / "assets.extra" / drift.REFERENCE_FILE
    if not file.is_file():
        return None
    try:
        with file.open(encoding="utf-8", newline="") as handle:
            return np.array([[float(row[name]) for name in drift.COLUMNS] for row in csv.DictReader(handle)])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error!r}). Export the model anew.") from error
