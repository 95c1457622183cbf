"""The report on one table of predictions."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mvtec_tf.evaluation import intervals, metrics, thresholds, trivial
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.report import page, section, summary
from mvtec_tf.evaluation.report import pictures as figures
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import METRIC_TEXTS, Footnotes
from mvtec_tf.evaluation.report.pictures import KINDS
from mvtec_tf.evaluation.report.section import Section
from mvtec_tf.evaluation.scope import Scope
from mvtec_tf.evaluation.thresholds import Threshold

_TRIVIAL_HEADS = {
    trivial.ALWAYS_DEFECTIVE: "always defective",
    trivial.ALWAYS_GOOD: "always good",
    trivial.CHANCE: "chance",
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
    first = [
        f"<h1>{escape(title)}</h1>",
        page.answer(sentences, judged.verdict),
        _overall_table(judged),
        _category_table(judged) if len(judged.categories) > 1 else "",
        _thresholds(judged, (provenance or {}).get("score_unit", "")),
        _picture_sections(judged, pictures),
    ]
    last = [
        _how_sure(judged),
        page.diagrams(drawn),
        _origin(judged, notes, provenance),
    ]
    room = section.MOST_BYTES - len(page.html(title, [*first, *last]).encode())
    return page.html(title, [*first, section.render(more, room), *last])


def _overall_table(judged: Assessment) -> str:
    overall = judged.overall
    columns = [overall.metrics, *(overall.trivial[name] for name in _TRIVIAL_HEADS)]
    titles = ["model", *_TRIVIAL_HEADS.values()]
    groups = f'<th colspan="{len(titles)}" scope="colgroup">All images</th>'
    if len(judged.categories) > 1:
        columns += [judged.mean, judged.mean_trivial[trivial.ALWAYS_DEFECTIVE]]
        titles += ["model", "always defective"]
        groups += f'<th colspan="2" scope="colgroup">Mean over {len(judged.categories)} categories</th>'
    footnotes = Footnotes()
    rows = []
    for name in _names(judged):
        label, says = METRIC_TEXTS[name]
        texts = [footnotes.cell(column[name], digits=summary.TABLE_DIGITS) for column in columns]
        cells = [
            f'<td class="{"model" if title == "model" else "trivial"}">{text}</td>'
            for title, text in zip(titles, texts, strict=True)
        ]
        rows.append(f'<tr><th scope="row">{label}<span class="says">{says}</span></th>{"".join(cells)}</tr>')
    second = "".join(
        f'<th scope="col" class="{"model" if title == "model" else "trivial"}">{title}</th>' for title in titles
    )
    return (
        "<section><h2>Figures</h2><p>Beside each figure stand those of classifiers that do not look: calling every "
        "image defective, calling every image good, and throwing a coin. A figure that is not better than its "
        f"neighbours is no achievement. Below a figure: its {100 * intervals.LEVEL:g} % interval.</p>"
        + page.table(f"<tr><th></th>{groups}</tr><tr><th></th>{second}</tr>", rows)
        + f"{footnotes.html()}</section>"
    )


def _names(judged: Assessment) -> list[str]:
    """The metrics that the tables hold: of good images alone those that are of good images."""
    names = summary.names_with_values(judged.overall.metrics)
    return names if judged.overall.defective else [name for name in names if name in metrics.OF_GOOD]


def _category_table(judged: Assessment) -> str:
    footnotes = Footnotes()
    names = _names(judged)
    rows = [_category_row(scope, names, footnotes) for scope in judged.categories.values()]
    head = page.heads(["Category", "Missed", "Falsely stopped", *(METRIC_TEXTS[name][0] for name in names)])
    return (
        "<section><h2>By category</h2><p>Below each figure its interval and, in grey after a slash, the figure of "
        "calling every image of that category defective.</p>"
        + page.table(f"<tr>{head}</tr>", rows)
        + f"{footnotes.html()}</section>"
    )


def _category_row(scope: Scope, names: Sequence[str], footnotes: Footnotes) -> str:
    counts = scope.counts
    missed = f"{counts.fn if counts else '-'} of {scope.defective}"
    stopped = f"{counts.fp if counts else '-'} of {scope.good}"
    cells = "".join(
        f"<td>{footnotes.cell(scope.metrics[name])}"
        f'<span class="trivial">/ {footnotes.cell(scope.always_defective[name])}</span></td>'
        for name in names
    )
    name = f'<span class="name">{escape(scope.name)}</span>'
    return f'<tr><th scope="row">{name}</th><td>{missed}</td><td>{stopped}</td>{cells}</tr>'


def _picture_sections(judged: Assessment, pictures: Sequence[Picture]) -> str:
    overall = [picture for picture in pictures if not picture.scope]
    panels = "".join(page.panel(picture, KINDS[picture.kind].title, KINDS[picture.kind].reading) for picture in overall)
    parts = [f'<section><h2>Pictures of all images</h2><div class="panels large">{panels}</div>']
    for name, kind in KINDS.items():
        panels = "".join(
            page.panel(picture, picture.scope) for picture in pictures if picture.scope and picture.kind == name
        )
        if panels:
            parts.append(
                f"<h3>{escape(kind.title)}, by category</h3><p>{escape(kind.reading)}</p>"
                f'<div class="panels">{panels}</div>'
            )
    absent = "".join(f"<li>{escape(sentence)}</li>" for sentence in figures.missing(judged))
    parts.append(f'<ul class="notes">{absent}</ul>' if absent else "")
    return "".join(parts) + "</section>"


def _thresholds(judged: Assessment, unit: str) -> str:
    chosen = judged.threshold
    own = {"all categories": chosen.whole} if chosen.per == thresholds.PER_MODEL else chosen.categories
    rows = [_threshold_row(name, threshold) for name, threshold in own.items()]
    head = page.heads(["Category", "Threshold", "95 % interval", "How it was found"])
    return (
        "<section><h2>Thresholds</h2><p>A score that reaches the threshold is called defective. "
        + (f"Scores are {escape(unit)}. " if unit else "")
        + "The interval says "
        "where other calibrate images of the same kind would have put it; it is not part of the figures' intervals, "
        f"which take the threshold as it is.</p>{page.table(f'<tr>{head}</tr>', rows, 'told')}"
        f"{_shifts(judged)}</section>"
    )


def _shifts(judged: Assessment) -> str:
    """Whether each category's good evaluated images are like those that the threshold rests on."""
    several = len(judged.shifts) > 1
    items = (
        f"<li>{escape(f'{name}: ' if several else '')}{escape(each.in_words())}.</li>"
        for name, each in judged.shifts.items()
    )
    return f'<ul class="notes">{"".join(items)}</ul>' if judged.shifts else ""


def _threshold_row(name: str, threshold: Threshold) -> str:
    value = "none" if threshold.value is None else summary.number(threshold.value)
    limits = "-" if threshold.low is None else f"{summary.number(threshold.low)} to {summary.number(threshold.high)}"
    text = escape(threshold.reason[:1].upper() + threshold.reason[1:]) + "."
    if threshold.warning:
        text += f" <b>Warning:</b> {escape(threshold.warning)}."
    head = f'<th scope="row"><span class="name">{escape(name)}</span></th>'
    return f'<tr>{head}<td>{value}</td><td>{limits}</td><td class="words">{text}</td></tr>'


def _how_sure(judged: Assessment) -> str:
    bootstrap, costs = judged.bootstrap, judged.costs
    if bootstrap.resamples:
        text = (
            f"Intervals: {100 * intervals.LEVEL:g} %, from {bootstrap.resamples:,} resamples (seed {bootstrap.seed}) "
            f"of {judged.groups:,} groups of images, drawn whole within each category and label; images of one object "
            "are one group. They say how far other images would move a figure, not how far another training run would. "
            "Where all or none of the images are called alike, exact binomial limits stand instead."
        )
    else:
        text = "No intervals were asked for: small differences between figures mean nothing here."
    prices = (
        f"Cost of an image: a miss counts {costs.miss:g}, a false alarm {costs.false_alarm:g}, at the share of defects "
        "of these images, which is rarely that of a production line."
    )
    return f"<section><h2>How sure the figures are</h2><p>{text}</p><p>{prices}</p></section>"


def _seen_before(judged: Assessment) -> str:
    if not judged.leak:
        return "no image of theirs and no other image of the same object is in another split."
    more = judged.leak.images - len(judged.leak.names)
    rest = f" and {more:,} more" if more else ""
    return f"<b>these of them had been seen before:</b> {escape(', '.join(judged.leak.names))}{rest}."


def _origin(judged: Assessment, notes: Iterable[tuple[str, str]], provenance: Mapping[str, Any] | None) -> str:
    rows = [
        f'<tr><th scope="row">{split}</th><td>{images:,}</td><td>{images - defective:,}</td><td>{defective:,}</td></tr>'
        for split, (images, defective) in judged.splits.items()
    ]
    parts = [
        "<section><h2>Where the data came from</h2>",
        f"<p>Rows of the table of predictions. Only the evaluate rows are judged; {_seen_before(judged)}</p>",
        page.table(f"<tr>{page.heads(['Split', 'Images', 'Good', 'Defective'])}</tr>", rows),
    ]
    parts += [f"<h3>{escape(heading)}</h3><p>{escape(text)}</p>" for heading, text in notes]
    if provenance:
        # The architecture is drawn; and a report is of what came to its end, though the run is marked so only after it.
        told = {name: value for name, value in provenance.items() if name not in ("architecture", "status")}
        parts.append("<h3>Record of the run</h3>" + page.record(told))
    return "".join(parts) + "</section>"
