"""The most confident mistakes: what was missed or stopped although the score was far on the other side."""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation.heatmaps import GivenMaps, HeatMaps
from mvtec_tf.evaluation.report import page, photographs, summary
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.section import Group, Panel, Section
from mvtec_tf.evaluation.table import Predictions

KEY = "mistakes"
KIND = "mistake"
MOST = 12
# In the order of the page: a miss leaves the factory.
_KINDS = (("misses", "Missed defects", 1), ("false_alarms", "False alarms", 0))


def section(
    judged: Assessment,
    evaluate: Predictions,
    files: Mapping[str, ImageFiles],
    maps: Sequence[HeatMaps | GivenMaps],
    explain: Callable[[Sequence[str]], GivenMaps] | None = None,
) -> Section:
    """The section, with photographs where there are images.

    A mistake's confidence is how far its score lies from the threshold that it was called by.

    Args:
      judged: all figures of the table.
      evaluate: its evaluate rows.
      files: of every row, by path; empty where the images are not known.
      maps: heat maps; the first is shown beside the photograph.
      explain: makes the heat maps of those images that are shown, where there are no `maps`.
    """
    title = "The most confident mistakes"
    limits = judged.threshold.each(evaluate.category)
    if limits is None:
        return Section(KEY, title, notes=(f"None can be named, because {judged.threshold.whole.reason}.",))
    limits = np.broadcast_to(limits, len(evaluate))
    found = {name: _worst(evaluate, limits, label) for name, _, label in _KINDS}
    document = {name: _document(evaluate, limits, rows) for name, rows in found.items()}
    if not any(len(rows) for rows in found.values()):
        return Section(KEY, title, document, notes=("There are none: every evaluated image was called rightly.",))
    lead = (
        "<p>Farthest on the wrong side of the threshold, in the unit of the score: a slightly other threshold would "
        "not have mended these.</p>"
    )
    if explain is not None and not maps and any(one.image for one in files.values()):
        maps = (explain([evaluate.path[row] for rows in found.values() for row in rows[:MOST]]),)
    groups, notes = [], []
    for name, heading, _ in _KINDS:
        rows, count = found[name][:MOST], len(found[name])
        if not count:
            notes.append(f"{heading}: none.")
        elif any(one.image for one in files.values()):
            reading = f"{min(count, MOST)} of {count:,}, the most confident first. {_reading(maps[:1])}"
            panels = tuple(_panel(evaluate, limits, row, i, name, files, maps[:1]) for i, row in enumerate(rows, 1))
            groups.append(Group(heading, reading, panels))
        else:
            lead += f"<h3>{heading}: {min(count, MOST)} of {count:,}</h3>{_table(evaluate, limits, rows)}"
    return Section(KEY, title, document, lead, tuple(groups), tuple(notes))


def _worst(evaluate: Predictions, limits: np.ndarray, label: int) -> np.ndarray:
    """Rows called wrongly, the most confident first; of equal ones in the order of their paths."""
    wrong = np.flatnonzero((evaluate.label == label) & ((evaluate.score >= limits) != label))
    distance = np.abs(evaluate.score - limits)[wrong]
    return wrong[np.lexsort((evaluate.path[wrong].astype(str), -distance))]


def _document(evaluate: Predictions, limits: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    listed = [
        {
            "path": evaluate.path[row],
            "category": evaluate.category[row],
            "defect": evaluate.defect[row],
            "score": float(evaluate.score[row]),
            "threshold": float(limits[row]),
        }
        for row in rows[:MOST]
    ]
    return {"count": len(rows), "most_confident": listed}


def _table(evaluate: Predictions, limits: np.ndarray, rows: np.ndarray) -> str:
    lines = [
        f'<tr><th scope="row"><span class="name">{escape(evaluate.path[row])}</span></th>'
        f"<td>{escape(evaluate.category[row])}</td><td>{escape(evaluate.defect[row])}</td>"
        f"<td>{summary.number(evaluate.score[row])}</td><td>{summary.number(limits[row])}</td></tr>"
        for row in rows
    ]
    return page.table(f"<tr>{page.heads(['Image', 'Category', 'Defect', 'Score', 'Threshold'])}</tr>", lines)


def _reading(maps: Sequence[HeatMaps | GivenMaps]) -> str:
    text = "The true mask, where there is one, is outlined in pink."
    if not maps:
        return text
    return (
        f"{text} Beside it {maps[0].name}, from uncoloured (the lowest value of this image) through blue and green to "
        "yellow (its highest)."
    )


def _panel(
    evaluate: Predictions,
    limits: np.ndarray,
    row: int,
    number: int,
    name: str,
    files: Mapping[str, ImageFiles],
    maps: Sequence[HeatMaps | GivenMaps],
) -> Panel:
    path, category, defect = evaluate.path[row], evaluate.category[row], evaluate.defect[row]
    score, limit = summary.number(evaluate.score[row]), summary.number(limits[row])
    text = f"{path}: score {score}, threshold {limit}."
    kind = f"{KIND}_{name}"
    file_name = f"{kind}_{number:02d}_{re.sub('[^A-Za-z0-9-]+', '_', path)}.jpg"
    alt = f"Photograph of a mistake, {text}"
    content = photographs.panes(path, files[path], maps)
    return Panel(Picture(kind, category, file_name, content, alt, text), f"{category}, {defect}")
