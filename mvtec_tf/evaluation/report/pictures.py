"""The pictures of an assessment: one small PNG per panel, so that a page can lay them out for its width."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import metrics, sample, thresholds
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report import canvas, summary
from mvtec_tf.evaluation.report.canvas import DEFECTIVE_COLOUR, GOOD_COLOUR, INK, TRIVIAL_COLOUR, Picture
from mvtec_tf.evaluation.scope import Scope
from mvtec_tf.evaluation.thresholds import Threshold

# Pictures of more categories would make a report that no browser likes to open.
MOST_CATEGORIES = 24
# More bars than these are a wall; the tables have all of them.
MOST_BARS = 24
_OPACITY = 0.22


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of picture.

    Attributes:
      title: in words.
      reading: what to look at in every picture of this kind.
      draw: draws a scope and says its caption.
      missing: why a scope has no such picture, "" if it has.
      applies: whether such a picture of a scope would say anything that others do not.
    """

    title: str
    reading: str
    draw: Callable[[Scope], tuple[Figure, str]]
    missing: Callable[[Scope], str]
    applies: Callable[[Scope], bool] = lambda scope: True


def pictures(judged: Assessment) -> Iterator[Picture]:
    """All panels that can be drawn: of all images, then kind by kind of the categories.

    A single category is all images, and is drawn once. Of more than `MOST_CATEGORIES` categories
    the first are drawn.
    """
    for name, kind in KINDS.items():
        if kind.applies(judged.overall) and not kind.missing(judged.overall):
            yield _picture(name, judged.overall, f"{name}.png", kind.title, kind.reading)
    scopes = list(judged.categories.values())[:MOST_CATEGORIES] if len(judged.categories) > 1 else []
    for name, kind in KINDS.items():
        for index, scope in enumerate(scopes, 1):
            if kind.applies(scope) and not kind.missing(scope):
                yield _picture(name, scope, canvas.file_name(name, index, scope.name), scope.name)


def missing(judged: Assessment) -> list[str]:
    """Which pictures could not be drawn and why, a sentence each."""
    several = len(judged.categories) > 1
    scopes = [judged.overall, *list(judged.categories.values())[:MOST_CATEGORIES]] if several else [judged.overall]
    sentences = []
    for kind in KINDS.values():
        reasons = {scope.name: reason for scope in scopes if kind.applies(scope) and (reason := kind.missing(scope))}
        for reason in dict.fromkeys(reasons.values()):
            names = [name or "all images" for name, found in reasons.items() if found == reason]
            sentences.append(f"{kind.title}: no picture of {', '.join(names)}, because {reason}.")
    if several and len(judged.categories) > MOST_CATEGORIES:
        sentences.append(
            f"Pictures are shown of the first {MOST_CATEGORIES} of {len(judged.categories)} categories; "
            "the tables have all of them."
        )
    return sentences


@canvas.own_style()
def _picture(name: str, scope: Scope, file_name: str, heading: str, reading: str = "") -> Picture:
    figure, caption = KINDS[name].draw(scope)
    subject = f"category {scope.name}" if scope.name else "all evaluated images"
    alt = f"{KINDS[name].title}, {subject}. {caption}"
    return Picture(name, scope.name, file_name, canvas.png(figure), alt, caption, heading, reading)


def _draw_confusion(scope: Scope) -> tuple[Figure, str]:
    """Counts of calls, tinted by their share of the row."""
    figure, counts = canvas.empty(), scope.counts
    axes = canvas.confusion_axes(figure, 2)
    rows = ((counts.tn, counts.fp, scope.good, GOOD_COLOUR), (counts.fn, counts.tp, scope.defective, DEFECTIVE_COLOUR))
    names = (("passed", "falsely stopped"), ("missed", "found"))
    for y, (*cells, whole, colour) in enumerate(rows):
        for x, count in enumerate(cells):
            share = count / whole if whole else 0.0
            canvas.field(axes, x, y, share, colour, 0.8)
            axes.text(x, y - 0.08, f"{count:,}", ha="center", va="center", fontsize=15, color=INK)
            below = f"{names[y][x]}\n{100 * share:.1f} %" if whole else names[y][x]
            axes.text(x, y + 0.24, below, ha="center", va="center", fontsize=canvas.SMALL, color=INK)
    axes.set_xticks([0, 1], ["called good", "called defective"], fontsize=canvas.FONT, color=INK)
    axes.set_yticks([0, 1], ["good", "defective"], fontsize=canvas.FONT, color=INK, rotation=90, va="center")
    return figure, (
        f"Missed {summary.part(counts.fn, scope.defective, 'defective images', scope.metrics['fnr'])}, "
        f"falsely stopped {summary.part(counts.fp, scope.good, 'good ones', scope.metrics['fpr'])}."
    )


def _draw_roc(scope: Scope) -> tuple[Figure, str]:
    """ROC curve with its band; chance as the diagonal, the two classifiers that call all alike in the corners."""
    figure = canvas.empty()
    axes = canvas.roc_axes(figure)
    _band(axes, scope, "roc")
    axes.plot(*metrics.curve(scope.labels, scope.scores).roc(), color=GOOD_COLOUR, linewidth=1.8, label="model")
    if scope.counts:
        _operating_point(axes, scope.counts.fp / scope.good, scope.counts.tp / scope.defective)
    style = {"color": TRIVIAL_COLOUR, "markersize": 5, "zorder": 3}
    axes.plot([0, 1], [0, 1], "s", label="always good, always defective", **style)
    canvas.legend(figure, axes, columns=2)
    return figure, f"ROC-AUC {metrics.with_limits(scope.metrics['roc_auc'])}; chance is 0.500.{_off_the_curve(scope)}"


def _draw_precision_recall(scope: Scope) -> tuple[Figure, str]:
    """Precision over recall with its band; always-defective's precision as a line."""
    figure = canvas.empty()
    axes = canvas.precision_recall_axes(figure, scope.defective / scope.images)
    _band(axes, scope, "precision_recall")
    points = metrics.curve(scope.labels, scope.scores).precision_recall()
    # Steps, not slopes: between two thresholds average precision counts the lower one's precision.
    axes.plot(*points, drawstyle="steps-pre", color=GOOD_COLOUR, linewidth=1.8, label="model")
    if scope.counts and scope.counts.called:
        _operating_point(axes, scope.counts.tp / scope.defective, scope.counts.tp / scope.counts.called)
    canvas.legend(figure, axes)
    trivial = metrics.figure(scope.always_defective["pr_auc"])
    text = f"PR-AUC {metrics.with_limits(scope.metrics['pr_auc'])}; always-defective gets {trivial}."
    return figure, text + _off_the_curve(scope)


def _band(axes: Axes, scope: Scope, name: str) -> None:
    if name in scope.bands:
        axes.fill_between(sample.GRID, *scope.bands[name], color=GOOD_COLOUR, alpha=_OPACITY, linewidth=0)


def _operating_point(axes: Axes, x: float, y: float) -> None:
    style = {"color": DEFECTIVE_COLOUR, "markeredgecolor": "white", "markersize": 8, "zorder": 4}
    axes.plot(x, y, "o", label="at threshold", **style)


def _off_the_curve(scope: Scope) -> str:
    own = scope.counts is not None and scope.threshold.value is None
    return " Of thresholds by category the dot need not lie on the curve of a single one." if own else ""


def _draw_histogram(scope: Scope) -> tuple[Figure, str]:
    """Scores of good images above, of defective ones below, and the threshold through both."""
    figure = canvas.empty()
    # Two rows on one axis: bars that overlap hide each other, and mixed colours mean nothing.
    upper, lower = figure.subplots(2, 1, sharex=True)
    low, high, shown = _range(scope.scores, scope.threshold.value)
    bins, spans = np.linspace(low, high, 31), []
    classes = ((upper, "good", GOOD_COLOUR), (lower, "defective", DEFECTIVE_COLOUR))
    for label, (axes, name, colour) in enumerate(classes):
        chosen = scope.scores[scope.labels == label]
        if len(chosen):
            spans.append(f"{name} from {summary.number(chosen.min())} to {summary.number(chosen.max())}")
        axes.hist(chosen, bins=bins, color=colour, edgecolor="white", linewidth=0.3)
        canvas.style(axes)
        axes.set_ylabel(f"{name}\n({counted(len(chosen), 'image')})", fontsize=canvas.SMALL, color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
        axes.set_xlim(low, high)
        if shown:
            axes.axvline(scope.threshold.value, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    lower.set_xlabel("score (higher: more defective)", fontsize=canvas.FONT, color=INK)
    lower.xaxis.set_major_locator(MaxNLocator(nbins=5))
    upper.set_title(_threshold_in_words(scope.threshold, shown, high), fontsize=canvas.FONT, color=INK)
    return figure, f"Scores: {', '.join(spans)}."


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


def _draw_categories(scope: Scope) -> tuple[Figure, str]:
    """Recall and specificity of each category, a pair of bars with intervals each."""
    shown = scope.categories[:MOST_BARS]
    figure = canvas.empty(max(canvas.HEIGHT, 1.2 + 0.36 * len(shown)))
    axes = _bars(figure, [each.name for each in shown], "share of the images")
    for offset, name, colour, label in (
        (-0.2, "recall", DEFECTIVE_COLOUR, "recall (defects found)"),
        (0.2, "specificity", GOOD_COLOUR, "specificity (good passed)"),
    ):
        _draw_bars(axes, [each.metrics[name] for each in shown], offset, 0.36, colour, label)
    canvas.legend(figure, axes, columns=1)
    recalls = [(each.metrics["recall"].value, each.name) for each in scope.categories]
    found = [pair for pair in recalls if pair[0] is not None]
    worst = f"Lowest recall: {min(found)[1]}, {min(found)[0]:.3f}." if found else "No category has defective images."
    return figure, worst + _cut(len(scope.categories), "categories")


def _draw_defects(scope: Scope) -> tuple[Figure, str]:
    """Recall of each defect type, a bar with its interval each."""
    parts = scope.parts[:MOST_BARS]
    figure = canvas.empty(max(2.0, 0.8 + 0.27 * len(parts)))
    axes = _bars(figure, [part.name for part in parts], "share of them that was found")
    _draw_bars(axes, [part.recall for part in parts], 0, 0.6, DEFECTIVE_COLOUR, "")
    for row, part in enumerate(parts):
        axes.text(1.04, row, f"{part.found}/{part.images}", fontsize=canvas.SMALL, color=INK, va="center")
    worst = min(scope.parts, key=lambda part: part.recall.value)
    text = f"Lowest recall: {worst.name}, found {summary.part(worst.found, worst.images, 'images', worst.recall)}."
    return figure, text + _cut(len(scope.parts), "defect types")


def _cut(count: int, what: str) -> str:
    return f" The first {MOST_BARS} of {count} {what} are drawn." if count > MOST_BARS else ""


def _bars(figure: Figure, names: Sequence[str], title: str) -> Axes:
    axes = figure.add_subplot()
    canvas.style(axes)
    axes.set_yticks(range(len(names)), [canvas.shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_xlabel(title, fontsize=canvas.FONT, color=INK)
    canvas.grid(axes, "x")
    return axes


def _draw_bars(
    axes: Axes, values: Sequence[Metric], offset: float, height: float, colour: str, label: str
) -> None:
    there = [(row + offset, metric) for row, metric in enumerate(values) if metric.value is not None]
    # Paler than the intervals upon them, which are what is to be read.
    widths = [metric.value for _, metric in there]
    axes.barh([place for place, _ in there], widths, height, color=colour, alpha=0.6, label=label)
    for place, metric in there:
        if metric.low is not None:
            axes.plot([metric.low, metric.high], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
            axes.plot([metric.low, metric.high], [place, place], "|", color=INK, markersize=5)
    for row, metric in enumerate(values):
        if metric.value is None:
            axes.text(0.01, row + offset, "none", fontsize=canvas.SMALL - 1, color=TRIVIAL_COLOUR, va="center")


def _draw_reliability(scope: Scope) -> tuple[Figure, str]:
    """Share of defects over the probability said, and below it how many images each point stands for."""
    figure = canvas.empty()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    found = sample.reliability(scope.labels, scope.probabilities)
    upper.plot([0, 1], [0, 1], "--", color=TRIVIAL_COLOUR, linewidth=1.2, label="means what it says")
    if "reliability" in scope.bands:
        bins = np.unique(sample.bin_of(scope.probabilities))
        upper.vlines(found.predicted, *scope.bands["reliability"][:, bins], color=GOOD_COLOUR, linewidth=1.4)
    upper.plot(found.predicted, found.observed, "o", color=GOOD_COLOUR, markersize=5, label="model", zorder=3)
    upper.set_ylim(-0.04, 1.04)
    upper.set_ylabel("share defective", fontsize=canvas.FONT, color=INK)
    canvas.grid(upper)
    lower.bar(found.predicted, found.images, 0.8 / sample.BINS, color=GOOD_COLOUR)
    lower.set_xlim(-0.05, 1.05)
    lower.set_ylabel("images", fontsize=canvas.FONT, color=INK)
    lower.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True, min_n_ticks=1))
    lower.set_xlabel("probability of being defective, as said", fontsize=canvas.FONT, color=INK)
    for axes in (upper, lower):
        canvas.style(axes)
    canvas.legend(figure, upper)
    brier, error = (metrics.with_limits(scope.metrics[name]) for name in metrics.OF_PROBABILITY)
    return figure, f"Brier score {brier}, expected calibration error {error}."


def _needs_calls(scope: Scope) -> str:
    return "" if scope.counts else "there is no threshold"


def _needs_both_classes(scope: Scope) -> str:
    return scope.metrics["roc_auc"].reason


def _needs_probabilities(scope: Scope) -> str:
    return metrics.NO_PROBABILITY if scope.probabilities is None else scope.metrics["expected_calibration_error"].reason


# In the order of the report; a kind that is added here is drawn, captioned and shown.
KINDS: Mapping[str, Kind] = {
    "confusion_matrix": Kind(
        "Confusion matrix",
        "Upper row: good images, lower row: defective ones; the darker a field, the larger its share of the row. "
        "A model that looks is dark from the upper left to the lower right. Dark only on the right means that "
        "everything is called defective.",
        _draw_confusion,
        _needs_calls,
    ),
    "roc": Kind(
        "ROC curve",
        "How many defects are found for how many good images falsely stopped, at every threshold. The nearer to the "
        "upper left corner, the better; on the dashed diagonal the score says nothing. The "
        "band holds 95 % of the resampled curves; the dot is the threshold used.",
        _draw_roc,
        _needs_both_classes,
    ),
    "precision_recall": Kind(
        "Precision and recall",
        "How many of the stopped images are truly defective, for how many defects found. Only what lies above the "
        "dashed line is better than stopping everything. The band holds 95 % of the resampled curves; the dot is the "
        "threshold used.",
        _draw_precision_recall,
        _needs_both_classes,
    ),
    "score_histogram": Kind(
        "Scores by class",
        "How many images have which score, good ones above and defective ones below. The less the two overlap, the "
        "better. What lies right of the dashed threshold is called defective.",
        _draw_histogram,
        lambda scope: "",
    ),
    "recall_by_category": Kind(
        "Recall and specificity by category",
        "Both bars of a category should be long; the thin lines are 95 % intervals. A long orange bar beside a short "
        "blue one means that nearly everything of that category is called defective.",
        _draw_categories,
        _needs_calls,
        lambda scope: bool(scope.categories),
    ),
    "recall_by_defect": Kind(
        "Recall by defect type",
        "Which defects are found and which are overlooked, with 95 % intervals: few images of a type leave its bar "
        "nearly unknown.",
        _draw_defects,
        lambda scope: _needs_calls(scope) or ("" if scope.parts else "there are no defective images"),
        lambda scope: not scope.categories,
    ),
    "reliability": Kind(
        "Reliability of the probability",
        "Of the images with about one probability, how many are defective. On the dashed line a probability means what "
        "it says; below it defects are cried too loud. The bars show how many images a point stands for.",
        _draw_reliability,
        _needs_probabilities,
    ),
}
