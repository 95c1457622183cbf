"""What all reports have in common: one HTML file that holds everything, opens from disk and reads on a phone.

Everything that comes from data or from the caller is escaped; there is no script, no clock and no
link to anywhere, so the same figures give the same bytes.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report.canvas import Picture

# What each figure is called and says, for a reader who runs a line and not a laboratory.
METRIC_TEXTS: Mapping[str, tuple[str, str]] = {
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
    "mcc": ("MCC", "correlation of calls and labels; 0 is chance"),
    "cost": ("Cost of an image", "mean, at the costs given below"),
    "recall_at_95_specificity": ("Recall at 95 % specificity", "at the best threshold for these very images"),
    "recall_at_99_specificity": ("Recall at 99 % specificity", "likewise"),
    "specificity_at_95_recall": ("Specificity at 95 % recall", "likewise"),
    "specificity_at_99_recall": ("Specificity at 99 % recall", "likewise"),
    "brier": ("Brier score", "squared error of the probability; 0 is perfect"),
    "expected_calibration_error": ("Calibration error", "expected gap of probability and share of defects"),
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
.answer.no_better, .answer.unproven, .answer.leak { border-left-color: #D55E00; background: #fdf3ec; }
.answer + p { margin-top: 14px; }
.answer p:first-child { font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; margin: 8px 0; /* a shadow where there is more to the right */
  background: linear-gradient(to left, #ffffff 40%, #ffffff00) right / 40px 100% no-repeat local,
    linear-gradient(to left, #00000040, #00000000) right / 14px 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
td { white-space: nowrap; }
thead th { border-bottom: 2px solid #9a9a9a; vertical-align: bottom; }
th[colspan] { text-align: center; }
.model, th[colspan] { border-left: 1px solid #d0d0d0; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #ffffff; }
tbody th { font-weight: 600; }
.told thead th { text-align: left; }
.name { display: block; width: max-content; max-width: 220px; overflow-wrap: break-word; }
.text td, td.words { text-align: left; white-space: normal; min-width: 260px; max-width: 75ch; }
.says { display: block; min-width: 120px; font-weight: 400; color: #555555; font-size: 0.85em; }
.trivial { color: #555555; }
td .trivial, .limits { display: block; font-size: 0.85em; }
.limits { color: #555555; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; }
sup { line-height: 0; }
.plain { padding-left: 1.2em; max-width: 75ch; }
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


def html(title: str, body: Iterable[str]) -> str:
    """The whole page.

    Args:
      title: of the page, not escaped yet.
      body: pieces of HTML; empty ones are left out.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def answer(sentences: Iterable[str], kind: str = "") -> str:
    """The sentences that a page begins with: the first three are set off as the answer, the rest follows.

    Of kind "no_better", "unproven" or "leak" the answer looks like a warning.
    """
    lines = [f"<p>{escape(sentence)}</p>" for sentence in sentences]
    return f'<section class="answer {kind}">{"".join(lines[:3])}</section>{"".join(lines[3:])}'


def heads(titles: Iterable[str]) -> str:
    """Cells of a table's head."""
    return "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)


def table(head: str, rows: Iterable[str], kind: str = "") -> str:
    """A table that scrolls within itself on a narrow screen.

    Args:
      head: the rows of its head, as HTML.
      rows: of its body, as HTML.
      kind: its class.
    """
    return (
        f'<div class="scroll"><table class="{kind}"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


class Footnotes:
    """Why a cell has no figure, or what must be known to read it; equal texts share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, metric: Metric, sign: str = "", digits: int = 3) -> str:
        """The figure above its interval, with a reference to its footnote; `sign` "+" for differences."""
        # "n/a", because a dash before the number of a footnote reads as minus one.
        figure = "n/a" if metric.value is None else f"{metric.value:{sign}.{digits}f}"
        limits = ""
        if metric.low is not None and metric.high is not None:
            limits = f'<span class="limits">{metric.low:{sign}.{digits}f} to {metric.high:{sign}.{digits}f}</span>'
        text = metric.reason or metric.note
        if not text:
            return figure + limits
        number = self._numbers.setdefault(text, len(self._numbers) + 1)
        return f"{figure}<sup>{number}</sup>{limits}"

    def html(self) -> str:
        """The list of footnotes, "" if there are none."""
        items = (f"<li><sup>{number}</sup> {escape(text)}</li>" for text, number in self._numbers.items())
        return f'<ul class="notes">{"".join(items)}</ul>' if self._numbers else ""


def panel(picture: Picture, heading: str, reading: str = "") -> str:
    """A picture with its caption."""
    data = base64.b64encode(picture.png).decode("ascii")
    caption = " ".join(text for text in (picture.caption, reading) if text)
    return (
        f'<figure><img src="data:{picture.media_type};base64,{data}" alt="{escape(picture.alt)}">'
        f"<figcaption><b>{escape(heading)}</b>{escape(caption)}</figcaption></figure>"
    )


def diagrams(pictures: Sequence[Picture], heading: str = "How it was made") -> str:
    """A section of pictures that say what a run did, "" if there are none."""
    if not pictures:
        return ""
    panels = "".join(panel(picture, picture.alt.partition(":")[0]) for picture in pictures)
    return f'<section><h2>{escape(heading)}</h2><div class="panels">{panels}</div></section>'


def record(provenance: Mapping[str, Any]) -> str:
    """A run's record of itself as a table."""
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
