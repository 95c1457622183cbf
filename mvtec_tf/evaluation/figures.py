"""Pictures of an assessment, one small PNG per panel, so that a page can lay them out for its width.

Drawn by matplotlib's object interface (no pyplot: its global state would leak into a caller's
plots). Good is blue and defective is orange in all of them, from the palette of Okabe and Ito,
which colour-blind readers can tell apart; grey dashes are what no look at the image would give.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mvtec_tf.evaluation import metrics, summary
from mvtec_tf.evaluation.assessment import Assessment, Scope
from mvtec_tf.evaluation.thresholds import Threshold

GOOD_COLOUR = "#0072B2"
DEFECTIVE_COLOUR = "#D55E00"
TRIVIAL_COLOUR = "#595959"
INK = "#1a1a1a"

# Shown about 360 CSS pixels wide, 100 to the inch, so that 9 point letters are 12 pixels high.
_SIZE = (3.6, 3.2)
_DPI = 200
_FONT = 9
# Pictures of more categories would make a report that no browser likes to open.
MOST_CATEGORIES = 24


@dataclasses.dataclass(frozen=True)
class Picture:
    """One panel.

    Attributes:
      kind: a key of `KINDS`.
      scope: category name, "" for all images.
      file_name: its name in the folder of figures.
      png: the image file's content.
      alt: what it shows, for those who cannot see it.
      caption: what to see in it, with its numbers.
    """

    kind: str
    scope: str
    file_name: str
    png: bytes
    alt: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of picture.

    Attributes:
      title: in words.
      reading: what to look at in every picture of this kind.
      draw: draws a scope into an empty figure.
      describe: the caption of a scope's picture.
      missing: why a scope has no such picture, "" if it has.
    """

    title: str
    reading: str
    draw: Callable[[Figure, Scope, Threshold], None]
    describe: Callable[[Scope, Threshold], str]
    missing: Callable[[Scope], str]


def pictures(judged: Assessment) -> Iterator[Picture]:
    """All panels that can be drawn: of all images, then kind by kind of the categories.

    A single category is all images, and is drawn once. Of more than `MOST_CATEGORIES` categories
    the first are drawn.
    """
    for name, kind in KINDS.items():
        if not kind.missing(judged.overall):
            yield _picture(name, judged.overall, judged.threshold, f"{name}.png")
    scopes = list(judged.categories.values())[:MOST_CATEGORIES] if len(judged.categories) > 1 else []
    for name, kind in KINDS.items():
        for index, scope in enumerate(scopes, 1):
            if not kind.missing(scope):
                # Category names are free text; the number keeps two alike ones apart.
                file_name = f"{name}_{index:02d}_{re.sub('[^A-Za-z0-9-]+', '_', scope.name)}.png"
                yield _picture(name, scope, judged.threshold, file_name)


def missing(judged: Assessment) -> list[str]:
    """Which pictures could not be drawn and why, a sentence each."""
    several = len(judged.categories) > 1
    scopes = [judged.overall, *list(judged.categories.values())[:MOST_CATEGORIES]] if several else [judged.overall]
    sentences = []
    for kind in KINDS.values():
        reasons = {scope.name: reason for scope in scopes if (reason := kind.missing(scope))}
        for reason in dict.fromkeys(reasons.values()):
            names = [name or "all images" for name, found in reasons.items() if found == reason]
            sentences.append(f"{kind.title}: no picture of {', '.join(names)}, because {reason}.")
    if several and len(judged.categories) > MOST_CATEGORIES:
        sentences.append(
            f"Pictures are shown of the first {MOST_CATEGORIES} of {len(judged.categories)} categories; "
            "the tables have all of them."
        )
    return sentences


def _picture(name: str, scope: Scope, threshold: Threshold, file_name: str) -> Picture:
    kind = KINDS[name]
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained", facecolor="white")
    kind.draw(figure, scope, threshold)
    caption = kind.describe(scope, threshold)
    subject = f"category {scope.name}" if scope.name else "all evaluated images"
    alt = f"{kind.title}, {subject}. {caption}"
    return Picture(name, scope.name, file_name, _png(figure), alt, caption)


def _png(figure: Figure) -> bytes:
    """The figure as a PNG with a palette: a third of the size, with no difference that an eye can see.

    No time and no writer's name goes into it: the same table gives the same bytes.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    image.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        buffer, format="PNG", optimize=True
    )
    return buffer.getvalue()


def _axes(figure: Figure, x: str, y: str) -> Axes:
    axes = figure.add_subplot()
    _style(axes)
    axes.set_xlabel(x, fontsize=_FONT, color=INK)
    axes.set_ylabel(y, fontsize=_FONT, color=INK)
    return axes


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=_FONT - 0.5, colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _operating_point(axes: Axes, x: float, y: float) -> None:
    axes.plot(x, y, "o", color=DEFECTIVE_COLOUR, markeredgecolor="white", markersize=8, label="at threshold", zorder=4)


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the axes: inside there is no corner that no curve runs through."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=3,
        fontsize=_FONT - 0.5,
        frameon=False,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
    )


def _draw_confusion(figure: Figure, scope: Scope, threshold: Threshold) -> None:
    axes = figure.add_subplot()
    counts = scope.counts
    rows = ((counts.tn, counts.fp, scope.good, GOOD_COLOUR), (counts.fn, counts.tp, scope.defective, DEFECTIVE_COLOUR))
    names = (("passed", "falsely stopped"), ("missed", "found"))
    for y, (*cells, whole, colour) in enumerate(rows):
        for x, count in enumerate(cells):
            share = count / whole if whole else 0.0
            # At most a light tint, so that dark letters can be read on each of them.
            tint = 1 - 0.45 * share * (1 - np.array(to_rgb(colour)))
            cell = Rectangle((x - 0.49, y - 0.49), 0.98, 0.98, facecolor=tint, edgecolor="#bdbdbd", linewidth=0.8)
            axes.add_patch(cell)
            axes.text(x, y - 0.08, f"{count:,}", ha="center", va="center", fontsize=15, color=INK)
            below = f"{names[y][x]}\n{100 * share:.1f} %" if whole else names[y][x]
            axes.text(x, y + 0.24, below, ha="center", va="center", fontsize=_FONT - 0.5, color=INK)
    axes.set_xlim(-0.5, 1.5)
    axes.set_ylim(1.5, -0.5)
    axes.set_xticks([0, 1], ["called good", "called defective"], fontsize=_FONT, color=INK)
    axes.set_yticks([0, 1], ["good", "defective"], fontsize=_FONT, color=INK, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_roc(figure: Figure, scope: Scope, threshold: Threshold) -> None:
    axes = _axes(figure, "good images falsely stopped", "defective images found")
    points = metrics.curve(scope.labels, scope.scores)
    axes.plot([0, 1], [0, 1], "--", color=TRIVIAL_COLOUR, linewidth=1.2, label="chance")
    x, y = np.append(0, points.fp) / scope.good, np.append(0, points.tp) / scope.defective
    axes.plot(x, y, color=GOOD_COLOUR, linewidth=1.8, label="model")
    if scope.counts:
        _operating_point(axes, scope.counts.fp / scope.good, scope.counts.tp / scope.defective)
    _unit_square(axes)
    _legend(figure, axes)


def _draw_pr(figure: Figure, scope: Scope, threshold: Threshold) -> None:
    axes = _axes(figure, "recall: defective images found", "precision: defective of the stopped")
    points = metrics.curve(scope.labels, scope.scores)
    prevalence = scope.defective / scope.images
    axes.plot([0, 1], [prevalence] * 2, "--", color=TRIVIAL_COLOUR, linewidth=1.2, label="always defective")
    recall, precision = points.tp / scope.defective, points.tp / (points.tp + points.fp)
    # Steps, not slopes: between two thresholds average precision counts the lower one's precision.
    axes.plot(
        np.append(0, recall),
        np.append(precision[0], precision),
        drawstyle="steps-pre",
        color=GOOD_COLOUR,
        linewidth=1.8,
        label="model",
    )
    if scope.counts and scope.counts.tp + scope.counts.fp:
        counts = scope.counts
        _operating_point(axes, counts.tp / scope.defective, counts.tp / (counts.tp + counts.fp))
    _unit_square(axes)
    _legend(figure, axes)


def _draw_histogram(figure: Figure, scope: Scope, threshold: Threshold) -> None:
    # Two rows on one axis: bars that overlap hide each other, and mixed colours mean nothing.
    upper, lower = figure.subplots(2, 1, sharex=True)
    low, high, shown = _range(scope.scores, threshold.value)
    bins = np.linspace(low, high, 31)
    for axes, label, name, colour in ((upper, 0, "good", GOOD_COLOUR), (lower, 1, "defective", DEFECTIVE_COLOUR)):
        chosen = scope.scores[scope.labels == label]
        axes.hist(chosen, bins=bins, color=colour, edgecolor="white", linewidth=0.3)
        _style(axes)
        axes.set_ylabel(f"{name}\n({len(chosen):,} images)", fontsize=_FONT - 0.5, color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
        axes.set_xlim(low, high)
        if shown:
            axes.axvline(threshold.value, color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    lower.set_xlabel("score (higher: more defective)", fontsize=_FONT, color=INK)
    lower.xaxis.set_major_locator(MaxNLocator(nbins=5))
    if threshold.value is None:
        upper.set_title("no threshold", fontsize=_FONT, color=INK)
    elif shown:
        upper.set_title(f"dashed: threshold {summary.number(threshold.value)}", fontsize=_FONT, color=INK)
    else:
        side = "above" if threshold.value > high else "below"
        text = f"threshold {summary.number(threshold.value)} is far {side} all scores"
        upper.set_title(text, fontsize=_FONT, color=INK)


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


def _describe_confusion(scope: Scope, threshold: Threshold) -> str:
    counts = scope.counts
    return (
        f"Missed {summary.part(counts.fn, scope.defective, 'defective images')}, "
        f"falsely stopped {summary.part(counts.fp, scope.good, 'good ones')}."
    )


def _describe_roc(scope: Scope, threshold: Threshold) -> str:
    return f"ROC-AUC {summary.figure(scope.metrics['roc_auc'])}; chance is 0.500."


def _describe_pr(scope: Scope, threshold: Threshold) -> str:
    trivial = summary.figure(scope.always_defective["pr_auc"])
    return f"PR-AUC {summary.figure(scope.metrics['pr_auc'])}; always-defective gets {trivial}."


def _describe_histogram(scope: Scope, threshold: Threshold) -> str:
    spans = []
    for label, name in ((0, "good"), (1, "defective")):
        scores = scope.scores[scope.labels == label]
        if len(scores):
            spans.append(f"{name} from {summary.number(scores.min())} to {summary.number(scores.max())}")
    return f"Scores: {', '.join(spans)}."


def _needs_threshold(scope: Scope) -> str:
    return "" if scope.counts else "there is no threshold"


def _needs_both_classes(scope: Scope) -> str:
    return scope.metrics["roc_auc"].reason


# In the order of the report; a kind that is added here is drawn, captioned and shown.
KINDS: Mapping[str, Kind] = {
    "confusion_matrix": Kind(
        "Confusion matrix",
        "Upper row: good images, lower row: defective ones; the darker a field, the larger its share of the row. "
        "A model that looks is dark from the upper left to the lower right. Dark only on the right means that "
        "everything is called defective.",
        _draw_confusion,
        _describe_confusion,
        _needs_threshold,
    ),
    "roc": Kind(
        "ROC curve",
        "How many defects are found for how many good images falsely stopped, at every threshold. The nearer to the "
        "upper left corner, the better; on the dashed diagonal the score says nothing. The dot is the threshold used.",
        _draw_roc,
        _describe_roc,
        _needs_both_classes,
    ),
    "precision_recall": Kind(
        "Precision and recall",
        "How many of the stopped images are truly defective, for how many defects found. Only what lies above the "
        "dashed line is better than stopping everything. The dot is the threshold used.",
        _draw_pr,
        _describe_pr,
        _needs_both_classes,
    ),
    "score_histogram": Kind(
        "Scores by class",
        "How many images have which score, good ones above and defective ones below. The less the two overlap, the "
        "better. What lies right of the dashed threshold is called defective.",
        _draw_histogram,
        _describe_histogram,
        lambda scope: "",
    ),
}
