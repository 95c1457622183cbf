"""The part of a report about heat maps: how well they find the defect, and what they look like."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.data.words import listing
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation import pixel_metrics
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.localisation.pixel_metrics import PixelFigures
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report import photographs
from mvtec_tf.evaluation.report.page import Cell, Column, Pictures, Section, Table
from mvtec_tf.evaluation.table import Predictions

KEY = "pixels"
KIND = "explanation"
# Of each outcome; more of them say nothing that these do not.
_MOST_OF_AN_OUTCOME = 8
_NAMED = 5

_TEXTS: Mapping[str, tuple[str, str]] = {
    pixel_metrics.AUROC: ("Pixel AUROC", "chance that a defective pixel is hotter than a free one"),
    pixel_metrics.PRO: ("PRO", "mean share of a defect's region that is found, up to 30 % falsely marked pixels"),
    pixel_metrics.POINTING: ("Pointing game", "defective images whose hottest pixel lies in the true mask"),
    pixel_metrics.GAIN: ("Pointing game above chance", "hit rate less that of a point drawn at random"),
}
# Outcome: (called defective, label) -> title, what it means.
_OUTCOMES: Mapping[tuple[bool, int], tuple[str, str]] = {
    (False, 1): ("Missed defects", "called good"),
    (True, 0): ("False alarms", "called defective"),
    (True, 1): ("Found defects", "called defective"),
    (False, 0): ("Rightly passed", "called good"),
}


def section(
    judged: Assessment,
    evaluate: Predictions,
    figures: Sequence[PixelFigures],
    files: Mapping[str, ImageFiles],
    maps: Sequence[HeatMaps],
    about: Sequence[str] = (),
    levels: np.ndarray | None = None,
) -> Section:
    """The section, with photographs where there are images.

    Args:
      judged: all figures of the table.
      evaluate: its evaluate rows.
      figures: of each folder of heat maps, in the order of `maps`; empty where there are no masks to look for.
      files: of every row, by path.
      maps: the heat maps.
      about: what must be known to read them, a sentence each.
      levels: see `photographs.levels`.
    """
    blocks: list[Any] = list(map(sentence_of, figures))
    # Without any mask the first sentence says all.
    if any(one.overall.masks for one in figures):
        blocks.append(_overall_table(figures))
        blocks += [_category_table(one) for one in figures if len(one.categories) > 1]
        blocks.append(_how(figures[0]))
    blocks.append(" ".join(about))
    groups = list(_groups(judged, evaluate, files, maps, levels)) if any(one.image for one in files.values()) else []
    notes = [] if groups else ["There are no photographs under heat maps, because the images are not known."]
    for one in figures:
        notes += _notes(one)
    document = {one.name: {"summary": sentence_of(one)} | one.as_json() for one in figures}
    title, notes = "Where the heat maps point", list(dict.fromkeys(notes))
    return Section(title, [*blocks, *groups], notes, KEY, document, spare=True)


def sentence_of(figures: PixelFigures) -> str:
    """How often the hottest pixel is on the defect, beside chance."""
    found = figures.overall.metrics
    hits, at_random = found[pixel_metrics.POINTING], found[pixel_metrics.RANDOM]
    if hits.value is None:
        return f"How well {figures.name} finds the defects is not known, because {hits.reason}."
    text = (
        f"The hottest pixel of {figures.name} lies in the true mask in {_percent(hits)} of {figures.overall.masks:,} "
        f"defective images; a point drawn at random would in {_percent(at_random)}"
    )
    gain = found[pixel_metrics.GAIN]
    if gain.low is None:
        return f"{text}."
    if gain.low > 0:
        return f"{text}, so it points to the defects oftener than chance."
    if gain.high < 0:
        return f"{text}, so it points elsewhere, and oftener than chance would."
    return f"{text}, so it is not shown to point to the defects any better than chance."


def _percent(metric: Metric) -> str:
    limits = "" if metric.low is None else f" [{100 * metric.low:.1f} to {100 * metric.high:.1f} %]"
    return f"{100 * metric.value:.1f} %{limits}"


def _overall_table(figures: Sequence[PixelFigures]) -> Table:
    several = [one for one in figures if any(len(each.categories) > 1 for each in figures)]
    rows = [
        [
            Cell(*_TEXTS[name]),
            *(one.overall.metrics[name] for one in figures),
            *(one.mean[name] for one in several),
            _of_no_map(name, figures),
        ]
        for name in _TEXTS
    ]
    titles = [*(one.name for one in figures), *(f"{one.name}, mean over categories" for one in several)]
    columns = [Column(), *(Column(title, "model") for title in titles), Column("a map that says nothing", "trivial")]
    return Table(columns, rows)


def _of_no_map(name: str, figures: Sequence[PixelFigures]) -> Metric:
    if name == pixel_metrics.POINTING:
        return figures[0].overall.metrics[pixel_metrics.RANDOM]
    return Metric(pixel_metrics.OF_NO_MAP.get(name, 0.0))


def _category_table(one: PixelFigures) -> Section:
    names = (*_TEXTS, pixel_metrics.RANDOM)
    rows = [
        (category, f"{scope.masks:,}", f"{scope.regions:,}", *(scope.metrics[name] for name in names))
        for category, scope in one.categories.items()
    ]
    titles = ["Category", "Masks", "Regions", *(label for label, _ in _TEXTS.values()), "Random point"]
    return Section(f"{one.name}, by category", [Table(titles, rows)])


def _how(one: PixelFigures) -> str:
    text = (
        f"Measured at the size of the masks on {one.overall.masks:,} defective and {one.overall.good:,} good images "
        f"with {one.overall.regions:,} regions of defect; pixels that touch at a corner are one region. A map "
        "of another size is resized to its mask, bilinearly. Pixels of good images and those outside the masks are "
        "free. Of several hottest pixels an image counts with the share of them in its mask; no distance from the mask "
        "is forgiven."
    )
    if len(one.categories) > 1:
        text += (
            " Over all images the maps of different categories must have one scale to be good; the mean over "
            "categories asks nothing of the kind."
        )
    return text


def _notes(figures: PixelFigures) -> list[str]:
    notes = []
    if figures.without_masks:
        notes.append(f"Without masks, so without these figures: {', '.join(figures.without_masks)}.")
    if figures.left_out:
        each = (f"{path}: {reason}" for path, reason in figures.left_out)
        named = listing(each, _NAMED, "; ", ", listed in metrics.json")
        notes.append(f"Defective images left out of these figures: {len(figures.left_out)} ({named}).")
    return notes


def _groups(
    judged: Assessment,
    evaluate: Predictions,
    files: Mapping[str, ImageFiles],
    maps: Sequence[HeatMaps],
    levels: np.ndarray | None,
) -> Iterable[Section]:
    limits = judged.threshold.each(evaluate.category)
    if limits is None:
        # Nothing was called: shown by label alone.
        called = evaluate.label == 1
        outcomes = {(True, 1): ("Defective images", ""), (False, 0): ("Good images", "")}
    else:
        called, outcomes = evaluate.score >= limits, _OUTCOMES
    number = 0
    for (defective, label), (title, meaning) in outcomes.items():
        rows = np.flatnonzero((called == defective) & (evaluate.label == label))
        found = []
        for row in spread(evaluate, rows, _MOST_OF_AN_OUTCOME):
            number += 1
            found.append(photographs.picture(evaluate, row, files, maps, KIND, number, meaning, levels))
        if found:
            shown = f" {len(found)} of {len(rows):,} are shown." if len(found) < len(rows) else ""
            missed = limits is not None and bool(label) and not defective
            colours = photographs.colours_in_words(levels is not None, missed)
            masked = any(one.mask for one in files.values())
            yield Section(title, [_reading(maps, colours, masked) + shown, Pictures(found, large=True)])


def spread(evaluate: Predictions, rows: np.ndarray, most: int) -> list[int]:
    """At most `most` of these rows, spread over categories and defect types and, within each, over the scores.

    Not the best looking ones: the same rows for the same table, whatever the maps show.
    """
    kinds: dict[tuple[str, str], list[int]] = {}
    for row in rows[np.lexsort((evaluate.path[rows].astype(str), evaluate.score[rows]))].tolist():
        kinds.setdefault((evaluate.category[row], evaluate.defect[row]), []).append(row)
    each = max(1, -(-most // max(1, len(kinds))))
    chosen = [
        [found[place] for place in np.unique(np.linspace(0, len(found) - 1, min(each, len(found))).round().astype(int))]
        for _, found in sorted(kinds.items())
    ]
    in_turns = [found[turn] for turn in range(each) for found in chosen if turn < len(found)]
    return in_turns[:most]


def _reading(maps: Sequence[HeatMaps], colours: str, masked: bool) -> str:
    names = [one.name for one in maps]
    places = "the second" if len(names) == 1 else "the others"
    outline = ", with its true mask outlined in pink where it has one" if masked else ""
    return f"First the photograph{outline}; on {places} {' and '.join(names)}, {colours}."
