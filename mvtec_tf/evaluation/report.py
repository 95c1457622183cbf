"""The report: one HTML file that holds everything, opens from disk and reads on a phone.

Everything that comes from data or from the caller is escaped; there is no script, no clock and no
link to anywhere, so the same assessment gives the same bytes.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mvtec_tf.evaluation import figures, metrics, summary
from mvtec_tf.evaluation.assessment import Assessment, Scope
from mvtec_tf.evaluation.figures import KINDS, Picture
from mvtec_tf.evaluation.metrics import Metric

# What each figure is called and says, for a reader who runs a line and not a laboratory.
_METRIC_TEXTS: Mapping[str, tuple[str, str]] = {
    "roc_auc": ("ROC-AUC", "chance that a defective image scores higher than a good one"),
    "pr_auc": ("PR-AUC", "average precision over all thresholds"),
    "balanced_accuracy": ("Balanced accuracy", "mean of recall and specificity"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "recall": ("Recall", "defective images that were found"),
    "specificity": ("Specificity", "good images that passed"),
    "precision": ("Precision", "stopped images that were defective"),
    "npv": ("NPV", "passed images that were good"),
    "accuracy": ("Accuracy", "images called rightly"),
    "fpr": ("FPR", "good images falsely stopped"),
    "fnr": ("FNR", "defective images missed"),
}

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #ffffff; color: #1a1a1a; font: 16px/1.5 system-ui, "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 16px; }
h1, h2, h3, p, li, figcaption, pre { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 8px 0 16px; }
h2 { font-size: 1.25rem; margin: 36px 0 8px; border-bottom: 1px solid #d0d0d0; padding-bottom: 4px; }
h3 { font-size: 1.05rem; margin: 24px 0 4px; }
p { margin: 4px 0 8px; max-width: 75ch; }
.answer { border-left: 6px solid #0072B2; background: #f2f7fb; padding: 10px 16px; font-size: 1.08rem; }
.answer.no_better { border-left-color: #D55E00; background: #fdf3ec; }
.answer p:first-child { font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; margin: 8px 0; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
td { white-space: nowrap; }
thead th { border-bottom: 2px solid #9a9a9a; vertical-align: bottom; }
th[colspan] { text-align: center; }
.model, th[colspan] { border-left: 1px solid #d0d0d0; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #ffffff; }
tbody th { font-weight: 600; }
.name { display: block; width: max-content; max-width: 220px; overflow-wrap: break-word; }
.text td { text-align: left; white-space: normal; }
.says { display: block; font-weight: 400; color: #555555; font-size: 0.85em; }
.trivial { color: #555555; }
td .trivial { display: block; font-size: 0.88em; }
sup { line-height: 0; }
.notes { font-size: 0.88rem; color: #444444; padding-left: 0; list-style: none; margin: 4px 0; max-width: 90ch; }
.panels { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.panels.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); max-width: 1000px; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: 0.9rem; color: #333333; }
figcaption b { display: block; color: #1a1a1a; }
pre { font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
@media (max-width: 600px) {
  main { padding: 10px; }
  th, td { padding: 4px 5px; }
  table { font-size: 0.85rem; }
  .name { max-width: 110px; }
}
"""


def render(
    judged: Assessment,
    sentences: Sequence[str],
    pictures: Sequence[Picture],
    title: str,
    notes: Iterable[tuple[str, str]] = (),
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """The whole page as HTML.

    Args:
      judged: the figures.
      sentences: the answer in plain words, first on the page.
      pictures: see `figures.pictures`.
      title: which model or run this is.
      notes: (heading, text) each, shown with where the data came from.
      provenance: what the run recorded of itself, shown as a table; values JSON can hold.
    """
    body = [
        f"<h1>{escape(title)}</h1>",
        _answer(judged, sentences),
        _overall_table(judged),
        _category_table(judged) if len(judged.categories) > 1 else "",
        _picture_sections(judged, pictures),
        _origin(judged, notes, provenance),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


class _Footnotes:
    """Why a cell has no figure, or what must be known to read it; equal texts share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, metric: Metric) -> str:
        """The figure, with a reference to its footnote if it has one."""
        # "n/a", because a dash before the number of a footnote reads as minus one.
        figure = "n/a" if metric.value is None else summary.figure(metric)
        text = metric.reason or metric.note
        if not text:
            return figure
        number = self._numbers.setdefault(text, len(self._numbers) + 1)
        return f"{figure}<sup>{number}</sup>"

    def html(self) -> str:
        """The list of footnotes, "" if there are none."""
        items = (f"<li><sup>{number}</sup> {escape(text)}</li>" for text, number in self._numbers.items())
        return f'<ul class="notes">{"".join(items)}</ul>' if self._numbers else ""


def _answer(judged: Assessment, sentences: Sequence[str]) -> str:
    lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f'<section class="answer {judged.overall.verdict}">{lines}</section>'


def _overall_table(judged: Assessment) -> str:
    columns = [judged.overall.metrics, judged.overall.always_defective]
    heads = ["All images"]
    if len(judged.categories) > 1:
        columns += [judged.mean, judged.mean_always_defective]
        heads.append(f"Mean over {len(judged.categories)} categories")
    footnotes = _Footnotes()
    rows = []
    for name in metrics.NAMES:
        label, says = _METRIC_TEXTS.get(name, (name, ""))
        cells = [
            f'<td class="{"trivial" if i % 2 else "model"}">{footnotes.cell(column[name])}</td>'
            for i, column in enumerate(columns)
        ]
        rows.append(f'<tr><th scope="row">{label}<span class="says">{says}</span></th>{"".join(cells)}</tr>')
    groups = "".join(f'<th colspan="2" scope="colgroup">{escape(head)}</th>' for head in heads)
    pairs = '<th scope="col" class="model">model</th><th scope="col" class="trivial">always defective</th>' * len(heads)
    return (
        "<section><h2>Figures</h2><p>Beside each figure stands the one of calling every image defective, which takes "
        "neither a model nor a look. A figure that is not better than its neighbour is no achievement.</p>"
        f'<div class="scroll"><table><thead><tr><th></th>{groups}</tr><tr><th></th>{pairs}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{footnotes.html()}</section>"
    )


def _category_table(judged: Assessment) -> str:
    footnotes = _Footnotes()
    rows = "".join(_category_row(scope, footnotes) for scope in judged.categories.values())
    heads = "".join(f'<th scope="col">{_METRIC_TEXTS.get(name, (name, ""))[0]}</th>' for name in metrics.NAMES)
    return (
        "<section><h2>By category</h2><p>In grey below each figure: the one of calling every image of that category "
        "defective.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">Category</th>'
        f'<th scope="col">Missed</th><th scope="col">Falsely stopped</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{footnotes.html()}</section>"
    )


def _category_row(scope: Scope, footnotes: _Footnotes) -> str:
    counts = scope.counts
    missed = f"{counts.fn if counts else '-'} of {scope.defective}"
    stopped = f"{counts.fp if counts else '-'} of {scope.good}"
    cells = "".join(
        f"<td>{footnotes.cell(scope.metrics[name])}"
        f'<span class="trivial">{footnotes.cell(scope.always_defective[name])}</span></td>'
        for name in metrics.NAMES
    )
    name = f'<span class="name">{escape(scope.name)}</span>'
    return f'<tr><th scope="row">{name}</th><td>{missed}</td><td>{stopped}</td>{cells}</tr>'


def _picture_sections(judged: Assessment, pictures: Sequence[Picture]) -> str:
    overall = [picture for picture in pictures if not picture.scope]
    panels = "".join(_panel(picture, KINDS[picture.kind].title, KINDS[picture.kind].reading) for picture in overall)
    parts = [f'<section><h2>Pictures of all images</h2><div class="panels large">{panels}</div>']
    for name, kind in KINDS.items():
        panels = "".join(
            _panel(picture, picture.scope) for picture in pictures if picture.scope and picture.kind == name
        )
        if panels:
            parts.append(
                f"<h3>{escape(kind.title)}, by category</h3><p>{escape(kind.reading)}</p>"
                f'<div class="panels">{panels}</div>'
            )
    absent = "".join(f"<li>{escape(sentence)}</li>" for sentence in figures.missing(judged))
    parts.append(f'<ul class="notes">{absent}</ul>' if absent else "")
    return "".join(parts) + "</section>"


def _panel(picture: Picture, heading: str, reading: str = "") -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = " ".join(text for text in (picture.caption, reading) if text)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}">'
        f"<figcaption><b>{escape(heading)}</b>{escape(caption)}</figcaption></figure>"
    )


def _origin(judged: Assessment, notes: Iterable[tuple[str, str]], provenance: Mapping[str, Any] | None) -> str:
    rows = "".join(
        f'<tr><th scope="row">{split}</th><td>{images:,}</td><td>{images - defective:,}</td><td>{defective:,}</td></tr>'
        for split, (images, defective) in judged.splits.items()
    )
    parts = [
        "<section><h2>Where the data came from</h2>",
        "<p>Rows of the table of predictions. Only the evaluate rows are judged; no image of theirs and no other image "
        "of the same object is in another split.</p>",
        '<div class="scroll"><table><thead><tr><th scope="col">Split</th><th scope="col">Images</th>'
        f'<th scope="col">Good</th><th scope="col">Defective</th></tr></thead><tbody>{rows}</tbody></table></div>',
    ]
    parts += [f"<h3>{escape(heading)}</h3><p>{escape(text)}</p>" for heading, text in notes]
    if provenance:
        parts.append("<h3>Record of the run</h3>" + _record(provenance))
    return "".join(parts) + "</section>"


def _record(provenance: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td><pre>{escape(_value(value))}</pre></td></tr>'
        for name, value in provenance.items()
    )
    return f'<div class="scroll"><table class="text"><tbody>{rows}</tbody></table></div>'


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_value(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(inner) for inner in value)
    return json.dumps(value, default=str)
