"""Curves of the label-efficiency grid: one picture a category and figure, one line a head."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes

from mvtec_tf.evaluation.report import canvas
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.label_efficiency.findings import Findings, Method, Place
from mvtec_tf.label_efficiency.grid import order_of
from mvtec_tf.label_efficiency.words import short_budget

# Figure -> its name, and what no look at the images would give.
CURVES = {"roc_auc": "ROC-AUC", "balanced_accuracy": "Balanced accuracy", "f1": "F1"}
_CHANCE = {"roc_auc": "chance", "balanced_accuracy": "chance", "f1": "always defective"}
MOST_METHODS = len(canvas.SERIES_COLOURS)
# More pictures would make a page that no browser likes to open; the tables have all.
MOST_CATEGORIES = 16
_SPREAD = 0.5


def pictures(found: Findings) -> Iterator[Picture]:
    """The curves of the first `MOST_CATEGORIES` categories and `MOST_METHODS` methods."""
    for index, category in enumerate(found.categories[:MOST_CATEGORIES], 1):
        for name in CURVES:
            yield _picture(found, category, name, f"{name}_{index:02d}.png")


@canvas.own_style()
def _picture(found: Findings, category: str, name: str, file_name: str) -> Picture:
    shown = found.methods[:MOST_METHODS]
    figure = canvas.empty(2.5 + 0.17 * (len(shown) + 1))
    axes = canvas.axes_of(figure, "", CURVES[name])
    at = _positions(found.budgets)
    places = found.of_category(category)
    for number, method in enumerate(shown):
        _curve(axes, found, places, method, name, at, number)
    _trivial(axes, places, name, at)
    axes.set_xticks(list(at.values()), [_tick(budget) for budget in at], fontsize=canvas.SMALL)
    axes.set_xlim(min(at.values()) - 0.6, max(at.values()) + 0.6)
    axes.set_ylim(top=min(1.02, axes.get_ylim()[1]))
    axes.set_xlabel(_axis(found.budgets), fontsize=canvas.FONT, color=canvas.INK)
    canvas.grid(axes, "y")
    canvas.legend(figure, axes, columns=1)
    caption = _caption(found, places, name)
    alt = f"{CURVES[name]} over the label budget, category {category}. {caption}"
    return Picture(name, category, file_name, canvas.png(figure), alt, caption, f"{category}: {CURVES[name]}")


def _positions(budgets: Sequence[str]) -> dict[str, float]:
    """budget -> place on the axis; numbers of defects stand apart from the shares."""
    found, gap = {}, 0.0
    for index, budget in enumerate(budgets):
        if index and order_of(budget)[0] == 2 and order_of(budgets[index - 1])[0] != 2:
            gap = 0.7
        found[budget] = index + gap
    return found


def _axis(budgets: Sequence[str]) -> str:
    kinds = {order_of(budget)[0] == 2: None for budget in budgets}
    names = {False: "labelled share of test images", True: "labelled defects"}
    return " | ".join(names[kind] for kind in sorted(kinds))


def _tick(budget: str) -> str:
    return short_budget(budget).replace(" %", "%").replace(" defects", "\ndef.").replace(" defect", "\ndef.")


def _curve(
    axes: Axes,
    found: Findings,
    places: Sequence[Place],
    method: Method,
    name: str,
    at: dict[str, float],
    number: int,
) -> None:
    """Marks with intervals; shares are joined by a line, numbers of defects are not a part of it."""
    offset = _SPREAD * ((number + 0.5) / min(len(found.methods), MOST_METHODS) - 0.5)
    style = {"color": canvas.SERIES_COLOURS[number], "marker": canvas.SERIES_MARKERS[number], "markersize": 4}
    label = canvas.shortened(found.name(method), 40)
    for counts in (False, True):
        points = [
            (at[place.budget] + offset, standing.estimates[name].metric)
            for place in places
            for standing in place.standings
            if standing.method == method and (order_of(place.budget)[0] == 2) == counts
        ]
        points = [(x, metric) for x, metric in points if metric.value is not None]
        if not points:
            continue
        x, y = np.array([x for x, _ in points]), np.array([metric.value for _, metric in points])
        low = np.array([metric.value if metric.low is None else metric.low for _, metric in points])
        high = np.array([metric.value if metric.high is None else metric.high for _, metric in points])
        axes.vlines(x, low, high, color=style["color"], linewidth=0.9, alpha=0.7)
        axes.plot(x, y, label=label, linewidth=1.2, linestyle="" if counts else "-", **style)
        label = ""


def _trivial(axes: Axes, places: Sequence[Place], name: str, at: dict[str, float]) -> None:
    level = 0.5
    if name == "f1":
        level = float(np.mean([place.standings[0].always_defective_f1 for place in places]))
    elif axes.get_ylim()[0] > 0.6:
        # Far below all curves: a line there would press them together.
        return
    ends = [min(at.values()) - 0.5, max(at.values()) + 0.5]
    axes.plot(ends, [level] * 2, "--", color=canvas.TRIVIAL_COLOUR, linewidth=1.2, label=_CHANCE[name])


def _caption(found: Findings, places: Sequence[Place], name: str) -> str:
    (leading,) = [place for place in places if place.budget == found.leading_budget] or [places[-1]]
    best = leading.standings[0]
    value = best.estimates[name].metric.value
    text = "no value" if value is None else f"{value:.3f}"
    lines = "Bars are 95 % intervals." if len(found.seeds) > 1 else "A single draw: no intervals."
    more = f" {MOST_METHODS} of {len(found.methods)} are drawn." if len(found.methods) > MOST_METHODS else ""
    return f"{found.name(best.method)} at {short_budget(leading.budget)}: {text}. {lines}{more}"
