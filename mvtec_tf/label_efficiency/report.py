"""The page on a label-efficiency grid, and the one call that writes everything that is summed up."""

import pathlib
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.data import protocol
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation.report import judge, page
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Cell, Column, Pictures, Section, Table
from mvtec_tf.evaluation.report.summary import METRIC_TEXTS, TITLES
from mvtec_tf.label_efficiency import advice, enough
from mvtec_tf.label_efficiency import findings as efficiency_findings
from mvtec_tf.label_efficiency import pictures as efficiency_figures
from mvtec_tf.label_efficiency import words as efficiency_words
from mvtec_tf.label_efficiency.cell import CellResult
from mvtec_tf.label_efficiency.findings import COMPARED, GAIN, Findings, Pair, Place, Standing
from mvtec_tf.label_efficiency.grid import Cell as GridCell
from mvtec_tf.label_efficiency.grid import Grid, LeftOut
from mvtec_tf.label_efficiency.words import long_budget, short_budget

JSON_FILE, CSV_FILE = "summary.json", "summary.csv"
_COLUMNS = ("category", "budget", "encoder", "head", "metric", "mean", "deviation", "low", "high", "draws")
_SHOWN = ("roc_auc", "balanced_accuracy", "f1", GAIN, "recall", "specificity", "pr_auc")
_NAMES = {name: title for name, (title, _) in METRIC_TEXTS.items()} | {GAIN: "F1 above always defective"}


def write(
    folder: pathlib.Path,
    grid: Grid,
    results: Mapping[GridCell, CellResult],
    left_out: Sequence[LeftOut],
    provenance: Mapping[str, Any],
) -> str:
    """Writes `summary.json`, `summary.csv`, `figures/` and, last, `report.html`.

    Args:
      folder: the run's directory.
      grid: what was asked for.
      results: what there is of it; only draws that are complete are summed up.
      left_out: what cannot be.
      provenance: the run's record of itself.

    Returns:
      The answer, a sentence a line.
    """
    found = efficiency_findings.find(grid, results, left_out)
    curves = enough.find(grid, results, found)
    sentences = [*answers(found), *enough.sentences(curves, found)]
    pictures, more = list(efficiency_figures.pictures(found)), list(enough.pictures(curves, found)) if curves else []
    judge.write_pictures(folder / judge.FIGURES_DIR, [*pictures, *more], [*efficiency_figures.CURVES, enough.KIND])
    document = {"summary": " ".join(sentences)} | found.as_json() | {"good_objects": enough.as_json(curves)}
    files.write_json(folder / JSON_FILE, document)
    files.write_csv(folder / CSV_FILE, _COLUMNS, _rows(found))
    extra = enough.section(curves, found, more)
    files.write_text(folder / judge.REPORT_FILE, render(found, sentences, pictures, provenance, extra))
    return "\n".join(sentences)


def render(
    found: Findings,
    sentences: Sequence[str],
    pictures: Sequence[Picture],
    provenance: Mapping[str, Any],
    good_images: Section | None = None,
) -> str:
    """The whole page as HTML.

    Args:
      found: the figures.
      sentences: the answer in plain words, first on the page.
      pictures: see `efficiency_figures.pictures`.
      provenance: the run's record of itself.
      good_images: see `enough.section`.
    """
    leading = [place for place in found.places if place.budget == found.leading_budget]
    proven = all(efficiency_words.clear(place.standings[0].estimates[GAIN]) for place in leading)
    sections = [
        _best(found),
        _curves(found, pictures),
        good_images,
        _ranking(found, leading),
        *(_all_figures(found, category) for category in found.categories),
        _costs(found),
        _left_out(found),
        _how_sure(found),
        Section("The run", [page.record(provenance)]),
    ]
    title = "What labels are worth, and which recipe uses them best"
    return page.html(title, sentences, sections, "" if proven else "unproven")


def answers(found: Findings) -> list[str]:
    """What the grid says, a sentence each, and after its first three sentences what to do next."""
    texts = efficiency_words.sentences(found)
    leading = [place for place in found.places if place.budget == found.leading_budget]
    return [text for text in [*texts[:3], *(advice.next_step(found, place) for place in leading), *texts[3:]] if text]


def _rows(found: Findings) -> Iterator[tuple[Any, ...]]:
    """The rows of `summary.csv`."""
    for place in found.places:
        for standing in place.standings:
            for name, each in standing.estimates.items():
                value, *limits = each.metric.numbers
                yield place.category, place.budget, *standing.method, name, value, each.deviation, *limits, each.draws


def _best(found: Findings) -> Section:
    rows = []
    for place in found.places:
        best = place.standings[0]
        figures = (best.estimates[name].metric for name in COMPARED)
        gain = Cell(best.estimates[GAIN].metric, sign="+")
        where = Cell(place.category, short_budget(place.budget))
        pairs = place.against_best(COMPARED[0])
        also = ", ".join(found.name(method) for method, pair in pairs.items() if not pair.shown)
        also = also or ("none" if pairs else "nothing to compare with")
        rows.append([where, found.name(best.method), *figures, gain, also])
    text = (
        "Means over the draws; below each its 95 % interval. A recipe in the last column may be as good as the first."
    )
    names = ["Category and labels", Column("Highest mean ROC-AUC", "left")]
    figures = [_NAMES[name] for name in (*COMPARED, GAIN)]
    columns = [*names, *figures, Column("Not shown to have another ROC-AUC", "words")]
    return Section("The best at each budget", [text, Table(columns, rows)])


def _curves(found: Findings, pictures: Sequence[Picture]) -> Section:
    most, count = efficiency_figures.MOST_CATEGORIES, len(found.categories)
    cut = f" The first {most} of {count} categories are drawn; the tables have all." if count > most else ""
    text = (
        "Points are means over the draws. Left, shares of all test images; right, numbers of labelled defective "
        "objects without any labelled good test image. Points of one budget stand side by side so that their intervals "
        f"can be seen.{cut}"
    )
    return Section("Figures over the label budget", [text, Pictures(pictures)])


def _ranking(found: Findings, places: Sequence[Place]) -> Section | None:
    columns = ("Pair", Column("Figure", "left"), "Difference", "p, corrected", "Verdict")
    parts = [
        Section(place.category, [Table(columns, [_pair_row(found, pair) for pair in place.pairs])])
        for place in places
        if len(place.standings) > 1
    ]
    if not parts:
        return None
    text = (
        "Each pair on the same cuts, draw by draw: the first of each pair has the higher mean ROC-AUC. The p-value is "
        "of the corrected resampled t-test, after Holm's correction over all pairs of the category and figure; below "
        "0.05 the difference is called shown. Beside each difference its own 95 % interval, which is not corrected for "
        f"many pairs. All budgets are in {JSON_FILE}."
    )
    return Section(f"Which differences are real, {long_budget(found.leading_budget)}", [text, *parts])


def _pair_row(found: Findings, pair: Pair) -> list[str | Cell]:
    p_value = "n/a" if pair.adjusted is None else f"{pair.adjusted:.3f}"
    return [
        f"{found.name(pair.first)} \N{MINUS SIGN} {found.name(pair.second)}",
        _NAMES[pair.metric],
        efficiency_words.signed(pair.difference),
        p_value,
        Cell(mark="shown") if pair.shown else "not shown",
    ]


def _all_figures(found: Findings, category: str) -> Section:
    rows: list[list[str | Cell]] = []
    for place in found.of_category(category):
        budget = short_budget(place.budget)
        for standing in place.standings:
            labels = "{} ({})".format(*map(efficiency_words.count, standing.labelled))
            cells = (_with_deviation(standing, name) for name in _SHOWN)
            rows.append([found.name(standing.method), budget, labels, *cells])
        level = f"{place.standings[0].always_defective_f1:.3f}"
        rows.append(["always defective", budget, "0", "0.500", "0.500", level, *[""] * (len(_SHOWN) - 3)])
    text = (
        "Mean ± standard deviation over the draws; below, its 95 % interval. Labels: images (of them defective), means "
        "over the draws."
    )
    columns = ["Head", "Budget", "Labels", *(_NAMES[name] for name in _SHOWN)]
    return Section(f"All figures: {category}", [text, Table(columns, rows)])


def _with_deviation(standing: Standing, name: str) -> Cell:
    each = standing.estimates[name]
    spread = "" if each.deviation is None else f"± {each.deviation:.3f}"
    return Cell(each.metric, below=spread, sign="+" if name == GAIN else "")


def _costs(found: Findings) -> Section:
    own: dict[tuple, list[CellResult]] = defaultdict(list)
    for place in found.places:
        for standing in place.standings:
            own[place.category, standing.method] += standing.results
    rows = []
    for (category, method), results in own.items():
        seconds = [result.fit_seconds for result in results]
        times = (f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}")
        memory = f"{max(result.peak_mb for result in results):,.0f}"
        rows.append((found.name(method), category, str(len(results)), *times, memory))
    text = (
        "A fit includes the five out-of-fold fits and the calibration, on features that are computed already (their "
        "time is in the run's record below). Memory is that of the whole process, the libraries and all features "
        "included."
    )
    columns = ("Head", Column("Category", "left"), "Cells", "Median fit, s", "Longest fit, s", "Peak memory, MB")
    return Section("Time and memory", [text, Table(columns, rows)])


def _left_out(found: Findings) -> Section:
    if not found.left_out:
        return Section("Left out", ["Nothing: every cell that was asked for is in the tables."])
    reasons: dict[str, list[GridCell]] = defaultdict(list)
    for item in found.left_out:
        reasons[item.reason].append(item.cell)
    rows = []
    for reason, cells in reasons.items():
        what = (
            _distinct(cell.category for cell in cells),
            _distinct(_budget(cell) for cell in cells),
            _distinct(found.name((cell.encoder, cell.head)) for cell in cells),
            _distinct(str(cell.seed) for cell in cells),
        )
        rows.append((str(len(cells)), reason, "; ".join(what)))
    columns = ("Cells", Column("Why", "words"), Column("Categories; budgets; heads; draws", "words"))
    return Section("Left out", [Table(columns, rows)])


def _budget(cell: GridCell) -> str:
    good = "" if cell.good == protocol.ALL else f" with {counted(int(cell.good), 'good object')}"
    return short_budget(cell.budget) + good


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _how_sure(found: Findings) -> Section:
    draws = len(found.seeds)
    if draws < 2:
        text = "A single draw was made. It has no interval: repeat with `seeds`=10."
    else:
        text = (
            f"Each of the {draws} draws cuts the test images of a category anew into a pool and an evaluation part, "
            "and draws the labels from the pool. An interval says how far the mean would move with other cuts and "
            "other labels of these same photographs. It does not say what happens on parts that were never "
            "photographed, in other light, or next year. Two draws judge about half of their images in common, so "
            "they are no independent experiments: the variance of a mean is taken as (1/draws + evaluated/pool) times "
            "that of the draws (corrected resampled t-test, Nadeau and Bengio, Machine Learning 52, 2003), about that "
            "of a single draw, however many there are. Wide intervals here are honest: more draws do not narrow them, "
            "more photographs do."
        )
    rule = (
        "Thresholds were chosen on out-of-fold scores of the labelled images and of the good training images, never "
        f"on evaluated ones. Heads stand in the order of their mean {TITLES['roc_auc']}, then of their mean "
        f"{TITLES['balanced_accuracy']}."
    )
    return Section("How sure the figures are", [text, rule])
