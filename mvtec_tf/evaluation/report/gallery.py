"""The most confident mistakes: what was missed or stopped although the score was far on the other side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation.heatmaps import GivenMaps, HeatMaps
from mvtec_tf.evaluation.report import photographs, summary
from mvtec_tf.evaluation.report.page import Column, Pictures, Section, Table
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
    levels: np.ndarray | None = None,
) -> Section:
    """The section, with photographs where there are images.

    A mistake's confidence is how far its score lies from the threshold that it was called by.

    Args:
      judged: all figures of the table.
      evaluate: its evaluate rows.
      files: of every row, by path; empty where the images are not known.
      maps: heat maps; the first is shown beside the photograph.
      explain: makes the heat maps of those images that are shown, where there are no `maps`.
      levels: see `photographs.levels`.
    """
    title = "The most confident mistakes"
    limits = judged.threshold.each(evaluate.category)
    if limits is None:
        return Section(title, notes=[f"None can be named, because {judged.threshold.whole.reason}."], key=KEY)
    limits = np.broadcast_to(limits, len(evaluate))
    found = {name: _worst(evaluate, limits, label) for name, _, label in _KINDS}
    document = {name: _document(evaluate, limits, rows) for name, rows in found.items()}
    if not any(len(rows) for rows in found.values()):
        return Section(title, [], ["There are none: every evaluated image was called rightly."], KEY, document)
    blocks: list[str | Section] = [
        "Farthest on the wrong side of the threshold, in the unit of the score: a slightly other threshold would not "
        "have mended these."
    ]
    known, notes = any(one.image for one in files.values()), []
    if explain is not None and not maps and known:
        maps = (explain([evaluate.path[row] for rows in found.values() for row in rows[:MOST]]),)
    masked = any(one.mask for one in files.values())
    masks = " The true mask, where there is one, is outlined in pink." if masked else ""
    for name, heading, label in _KINDS:
        rows, count = found[name][:MOST], len(found[name])
        if not count:
            notes.append(f"{heading}: none.")
        elif known:
            reading = (
                f"{min(count, MOST)} of {count:,}, the most confident first.{masks}"
            )
            if maps:
                colours = photographs.colours_in_words(levels is not None, missed=bool(label))
                reading += f" Beside it {maps[0].name}, {colours}."
            shown = [
                photographs.picture(
                    evaluate,
                    row,
                    files,
                    maps[:1],
                    f"{KIND}_{name}",
                    i,
                    f"threshold {summary.number(limits[row])}",
                    levels,
                )
                for i, row in enumerate(rows, 1)
            ]
            blocks.append(Section(heading, [reading, Pictures(shown)]))
        else:
            blocks.append(Section(f"{heading}: {min(count, MOST)} of {count:,}", [_table(evaluate, limits, rows)]))
    return Section(title, blocks, notes, KEY, document, spare=True)


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


def _table(evaluate: Predictions, limits: np.ndarray, rows: np.ndarray) -> Table:
    cells = [
        (
            *(column[row] for column in (evaluate.path, evaluate.category, evaluate.defect)),
            *(summary.number(column[row]) for column in (evaluate.score, limits)),
        )
        for row in rows
    ]
    return Table(("Image", Column("Category", "left"), Column("Defect", "left"), "Score", "Threshold"), cells)
