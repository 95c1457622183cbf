"""The report on one table of predictions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mvtec_tf.evaluation import metrics, thresholds, trivial
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.doubt import Doubt
from mvtec_tf.evaluation.intervals import LEVEL
from mvtec_tf.evaluation.report import page, summary
from mvtec_tf.evaluation.report import pictures as figures
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Cell, Column, Pictures, Section, Table
from mvtec_tf.evaluation.report.pictures import KINDS
from mvtec_tf.evaluation.report.summary import METRIC_TEXTS
from mvtec_tf.evaluation.scope import Scope
from mvtec_tf.evaluation.thresholds import Threshold

_TRIVIAL_HEADS = {
    trivial.ALWAYS_DEFECTIVE: "always defective",
    trivial.ALWAYS_GOOD: "always good",
    trivial.CHANCE: "chance",
}

# `doubt.FIGURES` in words.
_DOUBT = {
    "reviewed": "Parts that a person looks at",
    "reviewed_good": "Good ones of which the model is unsure",
    "reviewed_defective": "Defective ones of which it is unsure",
    "missed": "Defective parts that pass",
    "stopped": "Good parts that are stopped",
    "cost": "Cost of a part, three verdicts",
    "cost_two_way": "Cost of a part, two verdicts of the least cost",
    "difference": "Difference of both",
    "cost_own": "Cost of a part, two verdicts at the threshold above",
}


def render(
    judged: Assessment,
    sentences: Sequence[str],
    pictures: Sequence[Picture],
    title: str,
    notes: Iterable[tuple[str, str]] = (),
    provenance: Mapping[str, Any] | None = None,
    more: Sequence[Section] = (),
    drawn: Sequence[Picture] = (),
) -> str:
    """The whole page as HTML, at most 8 MB; pictures of `more` for which there is no room are left out.

    Args:
      judged: the figures.
      sentences: the answer in plain words, first on the page.
      pictures: see `figures.pictures`.
      title: which model or run this is.
      notes: (heading, text) each, shown with where the data came from.
      provenance: what the run recorded of itself, shown as a table; values JSON can hold.
      more: sections on what there is beside the table.
      drawn: see `diagrams.pictures`.
    """
    sections = [
        _overall(judged),
        _by_category(judged) if len(judged.categories) > 1 else None,
        _thresholds(judged, (provenance or {}).get("score_unit", "")),
        _doubt(judged.doubt),
        _pictures(judged, pictures),
        *more,
        _how_sure(judged),
        page.diagrams(drawn),
        _origin(judged, notes, provenance),
    ]
    return page.html(title, sentences, sections, judged.verdict)


def _overall(judged: Assessment) -> Section:
    overall = judged.overall
    found = [overall.metrics, *(overall.trivial[name] for name in _TRIVIAL_HEADS)]
    titles = ["model", *_TRIVIAL_HEADS.values()]
    groups = [("All images", len(titles))]
    if len(judged.categories) > 1:
        found += [judged.mean, judged.mean_trivial[trivial.ALWAYS_DEFECTIVE]]
        titles += ["model", "always defective"]
        groups.append((f"Mean over {len(judged.categories)} categories", 2))
    rows = [
        [Cell(*METRIC_TEXTS[name]), *(Cell(each[name], digits=summary.TABLE_DIGITS) for each in found)]
        for name in _names(judged)
    ]
    columns = [Column(title, "model" if title == "model" else "trivial") for title in titles]
    text = (
        "Beside each figure stand those of classifiers that do not look: calling every image defective, calling every "
        "image good, and throwing a coin. A figure that is not better than its neighbours is no achievement. Below a "
        f"figure: its {100 * LEVEL:g} % interval."
    )
    return Section("Figures", [text, Table([Column(), *columns], rows, groups=groups)])


def _names(judged: Assessment) -> list[str]:
    """The metrics that the tables hold: of good images alone those that are of good images."""
    names = summary.names_with_values(judged.overall.metrics)
    return names if judged.overall.defective else [name for name in names if name in metrics.OF_GOOD]


def _by_category(judged: Assessment) -> Section:
    names = _names(judged)
    text = (
        "Below each figure its interval and, in grey after a slash, the figure of calling every image of that category "
        "defective."
    )
    titles = ["Category", "Missed", "Falsely stopped", *(METRIC_TEXTS[name][0] for name in names)]
    return Section("By category", [text, Table(titles, [_row(scope, names) for scope in judged.categories.values()])])


def _row(scope: Scope, names: Sequence[str]) -> list[str | Cell]:
    counts = scope.counts
    missed = f"{counts.fn if counts else '-'} of {scope.defective}"
    stopped = f"{counts.fp if counts else '-'} of {scope.good}"
    cells = (Cell(scope.metrics[name], beside=scope.always_defective[name]) for name in names)
    return [scope.name, missed, stopped, *cells]


def _pictures(judged: Assessment, pictures: Sequence[Picture]) -> Section:
    blocks: list[Any] = [Pictures([picture for picture in pictures if not picture.scope], large=True)]
    for name, kind in KINDS.items():
        if own := [picture for picture in pictures if picture.scope and picture.kind == name]:
            blocks.append(Section(f"{kind.title}, by category", [kind.reading, Pictures(own)]))
    return Section("Pictures of all images", blocks, figures.missing(judged))


def _thresholds(judged: Assessment, unit: str) -> Section:
    chosen = judged.threshold
    own = {"all categories": chosen.whole} if chosen.per == thresholds.PER_MODEL else chosen.categories
    text = (
        f"A score that reaches the threshold is called defective. {f'Scores are {unit}. ' if unit else ''}The interval "
        "says where other calibrate images of the same kind would have put it; it is not part of the figures' "
        "intervals, which take the threshold as it is."
    )
    columns = ("Category", "Threshold", "95 % interval", Column("How it was found", "words"))
    table = Table(columns, [_threshold_row(name, threshold) for name, threshold in own.items()])
    # Whether each category's good evaluated images are like those that the threshold rests on.
    several = len(judged.shifts) > 1
    notes = [f"{f'{name}: ' if several else ''}{each.in_words()}." for name, each in judged.shifts.items()]
    return Section("Thresholds", [text, table], notes)


def _threshold_row(name: str, threshold: Threshold) -> tuple[str, ...]:
    value = "none" if threshold.value is None else summary.number(threshold.value)
    limits = "-" if threshold.low is None else f"{summary.number(threshold.low)} to {summary.number(threshold.high)}"
    warning = f" Warning: {threshold.warning}." if threshold.warning else ""
    return name, value, limits, f"{threshold.reason[:1].upper()}{threshold.reason[1:]}.{warning}"


def _doubt(found: Doubt | None) -> Section | None:
    if found is None:
        return None
    zones = [
        (name or "all", "none" if zone.is_empty else summary.number(zone.low), summary.number(zone.high))
        for name, zone in found.zones.items()
        # Beside categories' own it is of those that have not been judged.
        if name or len(found.zones) == 1
    ]
    weighed = (
        f"Good and defective images are weighed as if {100 * found.share:.3g} % of the parts were defective, as of the "
        f"{'evaluated' if found.told else 'calibrate'} rows."
    )
    figures = [weighed, Table(("", "model"), [(_DOUBT[name], metric) for name, metric in found.figures.items()])]
    blocks: list[Any] = [f"{found.reason[:1].upper()}{found.reason[1:]}."]
    blocks += [Table(("Category", "Unsure from", "Defective from"), zones)] if zones else []
    warnings = [f"Not to be relied on: {found.warning}."] if found.warning else []
    warnings += [f"{name}: {why}, so no verdict of it is unsure." for name, why in found.without.items()]
    return Section("Unsure", blocks + (figures if found.figures else []), warnings)


def _how_sure(judged: Assessment) -> Section:
    return page.how_sure(
        judged.bootstrap,
        judged.groups,
        "; images of one object are one group. They say how far other images would move a figure, not how far another "
        "training run would. Of a rate of fewer than five objects, or of all but so few, exact binomial limits stand "
        "instead.",
        judged.costs,
        ", at the share of defects of these images, which is rarely that of a production line.",
    )


def _seen_before(judged: Assessment) -> str:
    if not judged.leak:
        return "no image of theirs and no other image of the same object is in another split."
    more = judged.leak.images - len(judged.leak.names)
    rest = f" and {more:,} more" if more else ""
    return f"these of them had been seen before: {', '.join(judged.leak.names)}{rest}."


def _origin(judged: Assessment, notes: Iterable[tuple[str, str]], provenance: Mapping[str, Any] | None) -> Section:
    rows = [
        (split, f"{images:,}", f"{images - defective:,}", f"{defective:,}")
        for split, (images, defective) in judged.splits.items()
    ]
    blocks: list[Any] = [
        f"Rows of the table of predictions. Only the evaluate rows are judged; {_seen_before(judged)}",
        Table(("Split", "Images", "Good", "Defective"), rows),
        *(Section(heading, [text]) for heading, text in notes),
    ]
    if provenance:
        # The architecture is drawn; and a report is of what came to its end, though the run is marked so only after it.
        told = {name: value for name, value in provenance.items() if name not in ("architecture", "status")}
        blocks.append(Section("Record of the run", [page.record(told)]))
    return Section("Where the data came from", blocks)
