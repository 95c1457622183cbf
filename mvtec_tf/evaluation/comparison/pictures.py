"""Pictures of a comparison: each method has one colour and one marker in all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.comparison.compare import ALL, CATEGORY, Comparison, Standing
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report import canvas
from mvtec_tf.evaluation.report.canvas import Picture

# As many as there are colours that can be told apart; the tables have all methods.
MOST_METHODS = len(canvas.SERIES_COLOURS)
_MOST_CATEGORIES = 24
_SHOWN = {"roc_auc": "ROC-AUC", "balanced_accuracy": "Balanced accuracy", "f1": "F1", "recall": "Recall"}
_SHOWN |= {"specificity": "Specificity", "pr_auc": "PR-AUC"}


def pictures(compared: Comparison) -> Iterator[Picture]:
    """All panels that can be drawn; of more than `MOST_METHODS` methods the first."""
    shown = compared.standings[:MOST_METHODS]
    for kind, (title, draw) in KINDS.items():
        with canvas.own_style():
            drawn = draw(compared, shown)
        if drawn:
            figure, caption = drawn
            yield Picture(kind, "", f"{kind}.png", canvas.png(figure), f"{title}. {caption}", caption, title)


def _draw_differences(compared: Comparison, shown: Sequence[Standing]) -> tuple[Figure, str] | None:
    others = [each for each in shown if each.differences]
    names = [name for name in _SHOWN if any(each.differences[ALL][name].value is not None for each in others)]
    if not names:
        return None
    figure = canvas.empty(max(2.4, 1.2 + 0.2 * len(names) * max(len(others), 2)))
    found = {each: [each.differences[ALL][name] for name in names] for each in others}
    axes = _dot_plot(figure, [_SHOWN[name] for name in names], found, 0, shown)
    axes.set_xlabel(f"difference from {canvas.shortened(shown[0].method.name)}", fontsize=canvas.FONT, color=canvas.INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    caption = (
        f"How far each method is above (right) or below (left) {shown[0].method.name} on the same images, with the "
        "95 % interval of the difference. Where the line crosses the dashed zero, neither is shown to be better."
    )
    return figure, caption


def _draw_roc(compared: Comparison, shown: Sequence[Standing]) -> tuple[Figure, str] | None:
    if shown[0].scopes[0].metrics["roc_auc"].value is None:
        return None
    figure = canvas.empty(_with_legend(len(shown) + 1))
    axes = canvas.roc_axes(figure)
    for each in shown:
        for run, scope in enumerate(each.scopes):
            points = metrics.curve(scope.labels, scope.scores).roc()
            axes.plot(*points, label="" if run else _label(each), **_line(each, shown))
    canvas.legend(figure, axes, columns=1)
    areas = ", ".join(f"{each.method.name} {metrics.figure(each.figures[ALL]['roc_auc'])}" for each in shown)
    text = f"ROC-AUC: {areas}; chance is 0.500. The nearer to the upper left corner, the better."
    return figure, text + _several_runs(shown)


def _draw_precision_recall(compared: Comparison, shown: Sequence[Standing]) -> tuple[Figure, str] | None:
    whole = shown[0].scopes[0]
    if whole.metrics["pr_auc"].value is None:
        return None
    figure = canvas.empty(_with_legend(len(shown) + 1))
    share = whole.defective / whole.images
    axes = canvas.precision_recall_axes(figure, share)
    for each in shown:
        for run, scope in enumerate(each.scopes):
            points = metrics.curve(scope.labels, scope.scores).precision_recall()
            axes.plot(*points, drawstyle="steps-pre", label="" if run else _label(each), **_line(each, shown))
    canvas.legend(figure, axes, columns=1)
    areas = ", ".join(f"{each.method.name} {metrics.figure(each.figures[ALL]['pr_auc'])}" for each in shown)
    text = f"PR-AUC: {areas}; always-defective, the dashed line, gets {share:.3f}."
    return figure, text + _several_runs(shown)


def _draw_categories(compared: Comparison, shown: Sequence[Standing]) -> tuple[Figure, str] | None:
    if len(compared.categories) < 2:
        return None
    name = compared.leading
    categories = compared.categories[:_MOST_CATEGORIES]
    figure = canvas.empty(1.2 + 0.16 * len(categories) * max(len(shown), 2) + 0.17 * len(shown))
    found = {each: [each.figures[CATEGORY, category][name] for category in categories] for each in shown}
    axes = _dot_plot(figure, [canvas.shortened(category) for category in categories], found, 0.5, shown)
    axes.set_xlim(right=1.02)
    axes.set_xlabel(_SHOWN[name], fontsize=canvas.FONT, color=canvas.INK)
    text = f"{_SHOWN[name]} of each method by category, with 95 % intervals; on the dashed line nothing is told apart."
    if len(compared.categories) > _MOST_CATEGORIES:
        text += f" The first {_MOST_CATEGORIES} of {len(compared.categories)} categories are drawn."
    return figure, text


def _draw_labels(compared: Comparison, shown: Sequence[Standing]) -> tuple[Figure, str] | None:
    """The label-efficiency curve: one line a series, one point a method; all methods, however many."""
    name = compared.leading
    known = [
        each
        for each in compared.standings
        if each.method.labels_used is not None and each.figures[ALL][name].value is not None
    ]
    if len({each.method.labels_used for each in known}) < 2:
        return None
    series: dict[str, list[Standing]] = {}
    for each in known:
        series.setdefault(each.method.series, []).append(each)
    figure = canvas.empty(_with_legend(len(series) + 1, 2.7))
    axes = canvas.axes_of(figure, "labelled test images used", _SHOWN[name])
    axes.axhline(0.5, color=canvas.TRIVIAL_COLOUR, linestyle="--", linewidth=1.2, label="always defective, chance")
    for position, (title, points) in enumerate(list(series.items())[:MOST_METHODS]):
        points = sorted(points, key=lambda each: each.method.labels_used)
        x = [each.method.labels_used for each in points]
        found = [each.figures[ALL][name] for each in points]
        colour, marker = canvas.SERIES_COLOURS[position], canvas.SERIES_MARKERS[position]
        label = canvas.shortened(title, 34)
        axes.plot(x, [each.value for each in found], marker=marker, color=colour, linewidth=1.5, label=label)
        for place, each in zip(x, found, strict=True):
            if each.low is not None:
                axes.vlines(place, each.low, each.high, color=colour, linewidth=1.4)
    axes.set_ylim(top=1.02)
    axes.set_xlim(left=0)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    canvas.grid(axes)
    canvas.legend(figure, axes, columns=1)
    text = (
        f"{_SHOWN[name]} over the number of labelled test images that each method used, with 95 % intervals. A method "
        "that needs fewer labels stands as high further left."
    )
    if len(series) > MOST_METHODS:
        text += f" The first {MOST_METHODS} of {len(series)} methods are drawn."
    return figure, text


def colour_of(each: Standing, shown: Sequence[Standing]) -> str:
    """The colour of a method in all pictures."""
    return canvas.SERIES_COLOURS[list(shown).index(each)]


def _dot_plot(
    figure: Figure,
    names: Sequence[str],
    found: Mapping[Standing, Sequence[Metric]],
    trivial: float,
    shown: Sequence[Standing],
) -> Axes:
    """A row of each name, in it a dot with its interval of each method; a dashed line where nothing is told apart."""
    axes = figure.add_subplot()
    canvas.style(axes)
    axes.axvline(trivial, color=canvas.TRIVIAL_COLOUR, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color="#e6e6e6", linewidth=0.6)
    for position, (each, figures) in enumerate(found.items()):
        # Evenly over the row, with as much room to the next row as between two dots.
        offset = ((position + 0.5) / len(found) - 0.5) * 0.84
        colour, marker = colour_of(each, shown), canvas.SERIES_MARKERS[list(shown).index(each)]
        there = [(row + offset, metric) for row, metric in enumerate(figures) if metric.value is not None]
        for place, metric in there:
            if metric.low is not None:
                axes.hlines(place, metric.low, metric.high, color=colour, linewidth=1.5)
        values, places = [metric.value for _, metric in there], [place for place, _ in there]
        axes.plot(values, places, marker, color=colour, markersize=5, label=_label(each))
    canvas.grid(axes, "x")
    canvas.legend(figure, axes, columns=1)
    return axes


def _line(each: Standing, shown: Sequence[Standing]) -> dict[str, object]:
    width = 1.8 if len(each.scopes) == 1 else 1.0
    style = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))[list(shown).index(each) % 4]
    return {"color": colour_of(each, shown), "linewidth": width, "linestyle": style}


def _label(each: Standing) -> str:
    return canvas.shortened(each.method.name, 34)


def _several_runs(shown: Sequence[Standing]) -> str:
    several = any(len(each.scopes) > 1 for each in shown)
    return " Of a method with several seeds each run is a thin line." if several else ""


def _with_legend(lines: int, axes: float = 2.9) -> float:
    """Height of a figure with so many lines above its axes, in inches."""
    return axes + 0.17 * lines


# In the order of the report.
KINDS: dict[str, tuple[str, Callable[[Comparison, Sequence[Standing]], tuple[Figure, str] | None]]] = {
    "comparison_labels": ("Label efficiency", _draw_labels),
    "comparison_differences": ("Differences", _draw_differences),
    "comparison_roc": ("ROC curves", _draw_roc),
    "comparison_precision_recall": ("Precision and recall", _draw_precision_recall),
    "comparison_by_category": ("By category", _draw_categories),
}
