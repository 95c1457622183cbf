"""The page about drift: every statistic over the parts of a table, and since when it has moved."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from mvtec_tf import drift, files
from mvtec_tf.drift import Alarm
from mvtec_tf.evaluation.report import canvas, page
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.judge import FIGURES_DIR, write_pictures
from mvtec_tf.evaluation.report.page import Pictures, Section, Table
from mvtec_tf.serving.drifting import Line

PAGE_FILE, TABLE_FILE = "drift.html", "drift.csv"
_KIND = "drift"
_MEANINGS = {
    "brightness": "mean of the grey values",
    "contrast": "standard deviation of the grey values",
    "sharpness": "standard deviation of their Laplacian, relative to the contrast",
    "distance": "of what the encoder sees from the mean of the training images",
    "score": "the model's own; a higher one is more defective, and only that is looked for",
}
# Windows of the running median, over all parts.
_WINDOWS = 60
# Share of the parts beyond either end of an axis: one part far away would press all others together.
_BEYOND = 0.005


def write(out: files.PathLike, line: Line, values: np.ndarray, places: Sequence[str], title: str) -> None:
    """Writes the pictures, the table of alarms and the page, which comes last.

    Args:
      out: folder, made if missing.
      line: with all parts, N.
      values: float [N, 5], their statistics.
      places: of each part, what says its place in the order: a time, a name.
      title: of the page.
    """
    out = pathlib.Path(out)
    found = [_picture(number, line, values[:, number], places) for number in range(len(drift.STATISTICS))]
    write_pictures(out / FIGURES_DIR, found, [f"{_KIND}_{name}" for name in drift.STATISTICS])
    line.write(out / TABLE_FILE)
    rows = [
        (
            one.statistic,
            f"{one.size:+.1f}",
            f"{one.since:,} ({_at(line, places, one.since)})",
            f"{one.raised:,}",
            f"{one.over:,}" if one.over else "-",
        )
        for one in line.alarms
    ]
    titles = ("Statistic", "Moved by", "Since part", "Known at part", "Over at part")
    nothing = "That cannot be known of so few parts." if line.lacking else "Nothing has moved."
    blocks = [Table(titles, rows)] if rows else [nothing]
    about = (
        "Everything is in standard deviations of the held-out good training images, whose mean is 0; grey lines at -2 "
        "and 2. Dots are parts, the line is their running median, orange is what has moved. Its beginning is estimated."
    )
    sections = [Section("What has moved", blocks), Section("Part by part", [about, Pictures(found, large=True)])]
    kind = "unproven" if line.alarms else ""
    files.write_text(out / PAGE_FILE, page.html(title, [line.summary()], sections, kind))


@canvas.own_style()
def _picture(number: int, line: Line, values: np.ndarray, places: Sequence[str]) -> Picture:
    name = drift.STATISTICS[number]
    parts = np.arange(1, len(values) + 1)
    alarms = [alarm for alarm in line.alarms if alarm.statistic == name]
    figure = canvas.empty(2.4)
    axes = canvas.axes_of(figure, "part", "standard deviations")
    axes.axhline(-2, color="#bdbdbd", linewidth=0.8)
    axes.axhline(2, color="#bdbdbd", linewidth=0.8)
    for alarm in alarms:
        axes.axvspan(alarm.since, alarm.over or len(values), color=canvas.DEFECTIVE_COLOUR, alpha=0.2, linewidth=0)
    width = math.ceil(len(values) / _WINDOWS)
    windows = np.array_split(np.arange(len(values)), math.ceil(len(values) / width))
    middle, median = ([float(np.median(of[window])) for window in windows] for of in (parts, values))
    # Dots of few parts lie on the line, which would hide them.
    dots = {"markersize": 5} if width == 1 else {"markersize": 1.5, "alpha": 0.6, "zorder": 1}
    axes.plot(parts, values, ".", color=canvas.TRIVIAL_COLOUR, **dots)
    axes.plot(middle, median, "-", color=canvas.GOOD_COLOUR, linewidth=1.2, zorder=2)
    low, high = np.quantile(values, [_BEYOND, 1 - _BEYOND])
    room = 0.08 * (max(high, 2) - min(low, -2))
    axes.set_ylim(min(low, -2) - room, max(high, 2) + room)
    canvas.grid(axes, "y")
    moved = "; ".join(_told(alarm, line, places) for alarm in alarms) or "has not moved"
    moved = "too few to say whether it has moved" if line.lacking else moved
    beyond = int(((values < axes.get_ylim()[0]) | (values > axes.get_ylim()[1])).sum())
    caption = f"{_MEANINGS[name][0].upper()}{_MEANINGS[name][1:]}."
    caption += "" if line.lacking else f" {name.capitalize()} {moved}."
    caption += f" Parts beyond the axis: {beyond:,}." if beyond else ""
    file_name = f"{_KIND}_{name}.png"
    alt = f"{name} of {len(values):,} parts: {moved}"
    return Picture(f"{_KIND}_{name}", "", file_name, canvas.png(figure), alt, caption, name.capitalize())


def _told(alarm: Alarm, line: Line, places: Sequence[str]) -> str:
    until = f" until part {alarm.over:,}" if alarm.over else ""
    return f"moved by {alarm.size:+.1f} since part {alarm.since:,} ({_at(line, places, alarm.since)}){until}"


def _at(line: Line, places: Sequence[str], part: int) -> str:
    """What a part is called, and its place in the order."""
    name, place = line.names[part - 1], places[part - 1]
    return pathlib.PurePath(name).name + ("" if place in ("", name) else f", {place}")
