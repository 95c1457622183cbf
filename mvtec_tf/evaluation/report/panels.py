"""The drawing of each kind of picture of a scope, and the words below it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mvtec_tf.evaluation import calibration, metrics, sample, thresholds
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report import canvas, summary
from mvtec_tf.evaluation.scope import Scope
from mvtec_tf.evaluation.thresholds import Threshold

# More bars than these are a wall; the tables have all of them.
MOST_BARS = 24
_OPACITY = 0.22


def draw_confusion(figure: Figure, scope: Scope) -> None:
    """Counts of calls, tinted by their share of the row."""
    axes = figure.add_subplot()
    counts = scope.counts
    rows = (
        (counts.tn, counts.fp, scope.good, canvas.GOOD_COLOUR),
        (counts.fn, counts.tp, scope.defective, canvas.DEFECTIVE_COLOUR),
    )
    names = (("passed", "falsely stopped"), ("missed", "found"))
    for y, (*cells, whole, colour) in enumerate(rows):
        for x, count in enumerate(cells):
            share = count / whole if whole else 0.0
            # At most a light tint, so that dark letters can be read on each of them.
            tint = 1 - 0.45 * share * (1 - np.array(to_rgb(colour)))
            cell = Rectangle((x - 0.49, y - 0.49), 0.98, 0.98, facecolor=tint, edgecolor="#bdbdbd", linewidth=0.8)
            axes.add_patch(cell)
            axes.text(x, y - 0.08, f"{count:,}", ha="center", va="center", fontsize=15, color=canvas.INK)
            below = f"{names[y][x]}\n{100 * share:.1f} %" if whole else names[y][x]
            axes.text(x, y + 0.24, below, ha="center", va="center", fontsize=canvas.SMALL, color=canvas.INK)
    axes.set_xlim(-0.5, 1.5)
    axes.set_ylim(1.5, -0.5)
    axes.set_xticks([0, 1], ["called good", "called defective"], fontsize=canvas.FONT, color=canvas.INK)
    axes.set_yticks([0, 1], ["good", "defective"], fontsize=canvas.FONT, color=canvas.INK, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_roc(figure: Figure, scope: Scope) -> None:
    """ROC curve with its band; chance as the diagonal, the two classifiers that call all alike in the corners."""
    axes = canvas.axes_of(figure, "good images falsely stopped", "defective images found")
    points = metrics.curve(scope.labels, scope.scores)
    axes.plot([0, 1], [0, 1], "--", color=canvas.TRIVIAL_COLOUR, linewidth=1.2, label="chance")
    _band(axes, scope, "roc")
    x, y = np.append(0, points.fp) / scope.good, np.append(0, points.tp) / scope.defective
    axes.plot(x, y, color=canvas.GOOD_COLOUR, linewidth=1.8, label="model")
    if scope.counts:
        _operating_point(axes, scope.counts.fp / scope.good, scope.counts.tp / scope.defective)
    style = {"color": canvas.TRIVIAL_COLOUR, "markersize": 5, "zorder": 3}
    axes.plot([0, 1], [0, 1], "s", label="always good, always defective", **style)
    canvas.unit_square(axes)
    canvas.legend(figure, axes, columns=2)


def draw_pr(figure: Figure, scope: Scope) -> None:
    """Precision over recall with its band; always-defective's precision as a line."""
    axes = canvas.axes_of(figure, "recall: defective images found", "precision: defective of the stopped")
    points = metrics.curve(scope.labels, scope.scores)
    prevalence = scope.defective / scope.images
    axes.plot([0, 1], [prevalence] * 2, "--", color=canvas.TRIVIAL_COLOUR, linewidth=1.2, label="always defective")
    _band(axes, scope, "precision_recall")
    recall, precision = points.tp / scope.defective, points.tp / (points.tp + points.fp)
    # Steps, not slopes: between two thresholds average precision counts the lower one's precision.
    axes.plot(
        np.append(0, recall),
        np.append(precision[0], precision),
        drawstyle="steps-pre",
        color=canvas.GOOD_COLOUR,
        linewidth=1.8,
        label="model",
    )
    if scope.counts and scope.counts.tp + scope.counts.fp:
        counts = scope.counts
        _operating_point(axes, counts.tp / scope.defective, counts.tp / (counts.tp + counts.fp))
    canvas.unit_square(axes)
    canvas.legend(figure, axes)


def _band(axes: Axes, scope: Scope, name: str) -> None:
    if name not in scope.bands:
        return
    low, high = scope.bands[name]
    axes.fill_between(sample.GRID, low, high, color=canvas.GOOD_COLOUR, alpha=_OPACITY, linewidth=0)


def _operating_point(axes: Axes, x: float, y: float) -> None:
    style = {"color": canvas.DEFECTIVE_COLOUR, "markeredgecolor": "white", "markersize": 8, "zorder": 4}
    axes.plot(x, y, "o", label="at threshold", **style)


def draw_histogram(figure: Figure, scope: Scope) -> None:
    """Scores of good images above, of defective ones below, and the threshold through both."""
    # Two rows on one axis: bars that overlap hide each other, and mixed colours mean nothing.
    upper, lower = figure.subplots(2, 1, sharex=True)
    low, high, shown = _range(scope.scores, scope.threshold.value)
    bins = np.linspace(low, high, 31)
    classes = ((upper, "good", canvas.GOOD_COLOUR), (lower, "defective", canvas.DEFECTIVE_COLOUR))
    for label, (axes, name, colour) in enumerate(classes):
        chosen = scope.scores[scope.labels == label]
        axes.hist(chosen, bins=bins, color=colour, edgecolor="white", linewidth=0.3)
        canvas.style(axes)
        axes.set_ylabel(f"{name}\n({len(chosen):,} images)", fontsize=canvas.SMALL, color=canvas.INK)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
        axes.set_xlim(low, high)
        if shown:
            axes.axvline(scope.threshold.value, color=canvas.INK, linewidth=1.4, linestyle=(0, (4, 2)))
    lower.set_xlabel("score (higher: more defective)", fontsize=canvas.FONT, color=canvas.INK)
    lower.xaxis.set_major_locator(MaxNLocator(nbins=5))
    upper.set_title(_threshold_in_words(scope.threshold, shown, high), fontsize=canvas.FONT, color=canvas.INK)


def _threshold_in_words(threshold: Threshold, shown: bool, highest: float) -> str:
    if threshold.value is None:
        return "no threshold" if threshold.method == thresholds.NONE else "each category has its own threshold"
    if shown:
        return f"dashed: threshold {summary.number(threshold.value)}"
    side = "above" if threshold.value > highest else "below"
    return f"threshold {summary.number(threshold.value)} is far {side} all scores"


def _range(scores: np.ndarray, threshold: float | None) -> tuple[float, float, bool]:
    """Lowest and highest score shown, and whether the threshold is among them.

    A threshold far outside would squeeze all scores into one bar.
    """
    low, high = float(scores.min()), float(scores.max())
    width = high - low
    margin = max(0.04 * width, 1e-12 * abs(low)) or 0.04
    shown = threshold is not None and low - max(width, margin) <= threshold <= high + max(width, margin)
    if shown:
        low, high = min(low, threshold), max(high, threshold)
    return low - margin, high + margin, shown


def draw_categories(figure: Figure, scope: Scope) -> None:
    """Recall and specificity of each category, a pair of bars with intervals each."""
    shown = scope.categories[:MOST_BARS]
    rows = [(each.name, each.metrics["recall"], each.metrics["specificity"]) for each in shown]
    axes = _bars(figure, [name for name, *_ in rows], "share of the images")
    for offset, column, colour, label in (
        (-0.2, 1, canvas.DEFECTIVE_COLOUR, "recall (defects found)"),
        (0.2, 2, canvas.GOOD_COLOUR, "specificity (good passed)"),
    ):
        _draw_bars(axes, [row[column] for row in rows], offset, 0.36, colour, label)
    canvas.legend(figure, axes, columns=1)


def draw_defects(figure: Figure, scope: Scope) -> None:
    """Recall of each defect type, a bar with its interval each."""
    parts = scope.parts[:MOST_BARS]
    axes = _bars(figure, [part.name for part in parts], "share of them that was found")
    _draw_bars(axes, [part.recall for part in parts], 0, 0.6, canvas.DEFECTIVE_COLOUR, "")
    for row, part in enumerate(parts):
        style = {"fontsize": canvas.SMALL, "color": canvas.INK, "va": "center"}
        axes.text(1.04, row, f"{part.found}/{part.images}", **style)


def height_of_categories(scope: Scope) -> float:
    """Inches that the picture needs."""
    return max(canvas.HEIGHT, 1.2 + 0.36 * min(len(scope.categories), MOST_BARS))


def height_of_defects(scope: Scope) -> float:
    """Inches that the picture needs."""
    return max(2.0, 0.8 + 0.27 * min(len(scope.parts), MOST_BARS))


def _bars(figure: Figure, names: Sequence[str], title: str) -> Axes:
    axes = figure.add_subplot()
    canvas.style(axes)
    axes.set_yticks(range(len(names)), [canvas.shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_xlabel(title, fontsize=canvas.FONT, color=canvas.INK)
    canvas.grid(axes, "x")
    return axes


def _draw_bars(
    axes: Axes, values: Sequence[Metric], offset: float, height: float, colour: str, label: str
) -> None:
    there = [(row, metric) for row, metric in enumerate(values) if metric.value is not None]
    places = [row + offset for row, _ in there]
    # Paler than the intervals upon them, which are what is to be read.
    axes.barh(places, [metric.value for _, metric in there], height, color=colour, alpha=0.6, label=label)
    for place, (_, metric) in zip(places, there, strict=True):
        if metric.low is not None:
            axes.plot([metric.low, metric.high], [place, place], color=canvas.INK, linewidth=1.3, solid_capstyle="butt")
            axes.plot([metric.low, metric.high], [place, place], "|", color=canvas.INK, markersize=5)
    for row, metric in enumerate(values):
        if metric.value is None:
            axes.text(0.01, row + offset, "none", fontsize=canvas.SMALL - 1, color=canvas.TRIVIAL_COLOUR, va="center")


def draw_reliability(figure: Figure, scope: Scope) -> None:
    """Share of defects over the probability said, and below it how many images each point stands for."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    found = calibration.reliability(scope.labels, scope.probabilities)
    upper.plot([0, 1], [0, 1], "--", color=canvas.TRIVIAL_COLOUR, linewidth=1.2, label="means what it says")
    if "reliability" in scope.bands:
        bins = np.unique(calibration.bin_of(scope.probabilities))
        low, high = scope.bands["reliability"][:, bins]
        upper.vlines(found.predicted, low, high, color=canvas.GOOD_COLOUR, linewidth=1.4)
    upper.plot(found.predicted, found.observed, "o", color=canvas.GOOD_COLOUR, markersize=5, label="model", zorder=3)
    upper.set_ylim(-0.04, 1.04)
    upper.set_ylabel("share defective", fontsize=canvas.FONT, color=canvas.INK)
    canvas.grid(upper)
    lower.bar(found.predicted, found.images, 0.8 / calibration.BINS, color=canvas.GOOD_COLOUR)
    lower.set_xlim(-0.05, 1.05)
    lower.set_ylabel("images", fontsize=canvas.FONT, color=canvas.INK)
    lower.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True, min_n_ticks=1))
    lower.set_xlabel("probability of being defective, as said", fontsize=canvas.FONT, color=canvas.INK)
    for axes in (upper, lower):
        canvas.style(axes)
    canvas.legend(figure, upper)


def describe_confusion(scope: Scope) -> str:
    """Caption."""
    counts = scope.counts
    return (
        f"Missed {summary.part(counts.fn, scope.defective, 'defective images', scope.metrics['fnr'])}, "
        f"falsely stopped {summary.part(counts.fp, scope.good, 'good ones', scope.metrics['fpr'])}."
    )


def describe_roc(scope: Scope) -> str:
    """Caption."""
    return f"ROC-AUC {summary.with_limits(scope.metrics['roc_auc'])}; chance is 0.500.{_off_the_curve(scope)}"


def describe_pr(scope: Scope) -> str:
    """Caption."""
    trivial = summary.figure(scope.always_defective["pr_auc"])
    text = f"PR-AUC {summary.with_limits(scope.metrics['pr_auc'])}; always-defective gets {trivial}."
    return text + _off_the_curve(scope)


def _off_the_curve(scope: Scope) -> str:
    own = scope.counts is not None and scope.threshold.value is None
    return " Of thresholds by category the dot need not lie on the curve of a single one." if own else ""


def describe_categories(scope: Scope) -> str:
    """Caption."""
    recalls = [(each.metrics["recall"].value, each.name) for each in scope.categories]
    found = [pair for pair in recalls if pair[0] is not None]
    worst = f"Lowest recall: {min(found)[1]}, {min(found)[0]:.3f}." if found else "No category has defective images."
    return worst + _cut(len(scope.categories), "categories")


def describe_defects(scope: Scope) -> str:
    """Caption."""
    worst = min(scope.parts, key=lambda part: part.recall.value)
    text = f"Lowest recall: {worst.name}, found {summary.part(worst.found, worst.images, 'images', worst.recall)}."
    return text + _cut(len(scope.parts), "defect types")


def _cut(count: int, what: str) -> str:
    return f" The first {MOST_BARS} of {count} {what} are drawn." if count > MOST_BARS else ""


def describe_reliability(scope: Scope) -> str:
    """Caption."""
    brier, error = scope.metrics["brier"], scope.metrics["expected_calibration_error"]
    return f"Brier score {summary.with_limits(brier)}, expected calibration error {summary.with_limits(error)}."


def describe_histogram(scope: Scope) -> str:
    """Caption."""
    spans = []
    for label, name in ((0, "good"), (1, "defective")):
        scores = scope.scores[scope.labels == label]
        if len(scores):
            spans.append(f"{name} from {summary.number(scores.min())} to {summary.number(scores.max())}")
    return f"Scores: {', '.join(spans)}."


def needs_calls(scope: Scope) -> str:
    """Why there is no picture of calls."""
    return "" if scope.counts else "there is no threshold"


def needs_both_classes(scope: Scope) -> str:
    """Why there is no picture of a curve."""
    return scope.metrics["roc_auc"].reason


def needs_defects(scope: Scope) -> str:
    """Why there is no picture of defect types."""
    return needs_calls(scope) or ("" if scope.parts else "there are no defective images")


def needs_probabilities(scope: Scope) -> str:
    """Why there is no picture of probabilities."""
    return metrics.NO_PROBABILITY if scope.probabilities is None else scope.metrics["expected_calibration_error"].reason
