"""Whether there are enough good images: the figures without labels over the number of good objects to learn from.

Each draw takes its objects at random, the fewer among the more, and is judged on the images of budget 0. Whether more
would help is asked of those that are there: what the second half of them has added to the first.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.ticker import NullLocator

from mvtec_tf import conformal
from mvtec_tf.data.protocol import ALL
from mvtec_tf.evaluation.intervals import LEVEL
from mvtec_tf.evaluation.report import canvas
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Column, Pictures, Section, Table
from mvtec_tf.label_efficiency import advice
from mvtec_tf.label_efficiency.cell import CellResult
from mvtec_tf.label_efficiency.findings import COMPARED, Findings, Method, Standing, gain, standing_of
from mvtec_tf.label_efficiency.grid import HALF, NO_LABELS, Cell, Grid
from mvtec_tf.label_efficiency.pictures import CURVES, MOST_CATEGORIES, MOST_METHODS
from mvtec_tf.label_efficiency.statistics import Estimate
from mvtec_tf.label_efficiency.words import signed

KIND = "good_objects"
# Shares of false alarms that a line may be asked to keep.
_PROMISES = (0.01, 0.001)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One method on one category without labels.

    Attributes:
      category, method: which.
      points: number of good objects, as it is written -> (objects, figures), fewest objects first.
      doubled: metric of COMPARED -> all good objects above half of them, draw by draw; empty without both.
    """

    category: str
    method: Method
    points: Mapping[str, tuple[int, Standing]]
    doubled: Mapping[str, Estimate]


def find(grid: Grid, results: Mapping[Cell, CellResult], found: Findings) -> list[Curve]:
    """The curves of complete draws, by category, in the order of the methods; none if no number was asked for."""
    if all(cell.good == ALL for cell in grid.cells):
        return []
    own = [each for each in results.values() if each.cell.budget == NO_LABELS and each.cell.seed in found.seeds]
    curves = []
    for category in found.categories:
        for method in found.methods:
            mine = [one for one in own if (one.cell.category, one.cell.encoder, one.cell.head) == (category, *method)]
            points = {}
            for good in {each.cell.good for each in mine}:
                here = [each for each in mine if each.cell.good == good]
                points[good] = grid.good_objects(here[0].cell), standing_of(method, here)
            points = dict(sorted(points.items(), key=lambda item: (item[1][0], item[0])))
            both = [points[good][1] for good in (ALL, HALF) if good in points]
            doubled = {name: gain(*both, name) for name in COMPARED} if len(both) == 2 else {}
            if points:
                curves.append(Curve(category, method, points, doubled))
    return curves


def sentences(curves: Sequence[Curve], found: Findings) -> list[str]:
    """Whether the good images of each category are enough, by the method that is to be taken without labels."""
    said = []
    for category in found.categories:
        place = found.place(category, NO_LABELS)
        method = None if place is None else advice.taken(found, place)
        said += [_sentence(one, found) for one in curves if (one.category, one.method) == (category, method)]
    if said:
        one, other = (f"{100 * share:g} %" for share in _PROMISES)
        least, most = (f"{conformal.objects_needed(share):,}" for share in _PROMISES)
        said.append(
            f"A promise that at most {one} of new good parts are stopped needs {least} good objects, one of at most "
            f"{other} {most}."
        )
    return said


def _sentence(curve: Curve, found: Findings) -> str:
    name = found.name(curve.method)
    if not curve.doubled:
        return f"Whether the good images of {curve.category} are enough cannot be said: {name} has no figure of half."
    (most, _), (half, _) = curve.points[ALL], curve.points[HALF]
    figure = curve.doubled[COMPARED[0]]
    if figure.p_value is None:
        verdict = "a single draw does not tell whether more would help: `seeds`=10"
    elif figure.p_value < 1 - LEVEL and figure.metric.value > 0:
        verdict = "they are not enough yet: photograph more good parts"
    else:
        verdict = "that more good images would help is not shown"
    return (
        f"Are the good images of {curve.category} enough? With {most} good objects instead of {half} the ROC-AUC of "
        f"{name} without labels differs by {signed(figure)}: {verdict}."
    )


def section(curves: Sequence[Curve], found: Findings, pictures: Sequence[Picture]) -> Section | None:
    """Curves and tables, None without curves; cells that could not be computed have a dash, and their reasons below."""
    if not curves:
        return None
    text = (
        "Without labels, on the evaluated images of budget 0: means over draws of so many good training objects, the "
        "fewer among the more, with 95 % intervals. A single object leaves none to hold out, so there is no threshold, "
        "and only what needs none is defined. A dash is a cell that the head refuses; Left out has its reason."
    )
    parts = []
    for category in found.categories:
        own = [one for one in curves if one.category == category]
        goods = sorted({(objects, good) for one in own for good, (objects, _) in one.points.items()})
        rows = [
            [f"{found.name(one.method)}, {CURVES[name]}", *(_figure(one, good, name) for _, good in goods)]
            for one in own
            for name in COMPARED
        ]
        columns = [Column("Good objects", "left"), *(f"{n}" if good == str(n) else f"{good}: {n}" for n, good in goods)]
        parts.append(Section(category, [Table(columns, rows)]))
    return Section("Are there enough good images", [text, Pictures(pictures), *parts])


def _figure(curve: Curve, good: str, name: str) -> Any:
    return curve.points[good][1].estimates[name].metric if good in curve.points else "\N{EN DASH}"


def pictures(curves: Sequence[Curve], found: Findings) -> Iterator[Picture]:
    """ROC-AUC over the number of good objects, a picture a category."""
    for index, category in enumerate(found.categories[:MOST_CATEGORIES], 1):
        yield _picture(curves, found, category, index)


@canvas.own_style()
def _picture(curves: Sequence[Curve], found: Findings, category: str, index: int) -> Picture:
    own = [one for one in curves if one.category == category][:MOST_METHODS]
    figure = canvas.empty(2.5 + 0.17 * (len(own) + 1))
    axes = canvas.axes_of(figure, "", CURVES[COMPARED[0]])
    said = []
    for number, curve in enumerate(own):
        drawn = [(x, one.estimates[COMPARED[0]].metric) for x, one in curve.points.values()]
        drawn = [(x, metric) for x, metric in drawn if metric.value is not None]
        style = {"color": canvas.SERIES_COLOURS[number], "marker": canvas.SERIES_MARKERS[number], "markersize": 4}
        name = canvas.shortened(found.name(curve.method), 40)
        axes.plot([x for x, _ in drawn], [one.value for _, one in drawn], label=name, linewidth=1.2, **style)
        for x, one in drawn:
            if one.low is not None:
                axes.vlines(x, one.low, one.high, color=style["color"], linewidth=0.9, alpha=0.7)
        said += [f"{name} with {x}: {one.value:.3f}" for x, one in drawn[-1:]]
    ticks = sorted({x for curve in own for x, _ in curve.points.values()})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(x) for x in ticks], fontsize=canvas.SMALL)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(top=min(1.02, axes.get_ylim()[1]))
    axes.set_xlabel("good training objects", fontsize=canvas.FONT, color=canvas.INK)
    canvas.grid(axes, "y")
    canvas.legend(figure, axes, columns=1)
    caption = f"{'; '.join(said)}. Bars are 95 % intervals."
    alt = f"ROC-AUC without labels over the number of good training objects, category {category}. {caption}"
    return Picture(
        KIND, category, f"{KIND}_{index:02d}.png", canvas.png(figure), alt, caption, f"{category}: ROC-AUC"
    )


def as_json(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """For `summary.json`: of each curve its points, and what the second half of the good objects adds."""
    return [
        {
            "category": one.category,
            "encoder": one.method[0],
            "head": one.method[1],
            "points": [
                {"good": good, "objects": objects, "draws": len(each.results)}
                | {name: each.estimates[name].metric.as_json() for name in COMPARED}
                for good, (objects, each) in one.points.items()
            ],
            "all_above_half": {
                name: each.metric.as_json() | {"p_value": each.p_value} for name, each in one.doubled.items()
            },
        }
        for one in curves
    ]
