"""The page on a label-efficiency grid, and the one call that writes everything that is summed up."""

import csv
import io
import pathlib
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mvtec_tf import files
from mvtec_tf.evaluation.report import judge, page
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Footnotes
from mvtec_tf.label_efficiency import advice
from mvtec_tf.label_efficiency import findings as efficiency_findings
from mvtec_tf.label_efficiency import pictures as efficiency_figures
from mvtec_tf.label_efficiency import words as efficiency_words
from mvtec_tf.label_efficiency.cell import CellResult
from mvtec_tf.label_efficiency.findings import COMPARED, GAIN, Findings, Pair, Place, Standing
from mvtec_tf.label_efficiency.grid import Cell, Grid, LeftOut
from mvtec_tf.label_efficiency.words import TITLES, long_budget, short_budget

JSON_FILE, CSV_FILE = "summary.json", "summary.csv"
_SHOWN = ("roc_auc", "balanced_accuracy", "f1", GAIN, "recall", "specificity", "pr_auc")
_NAMES = {
    "roc_auc": "ROC-AUC",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    GAIN: "F1 above always defective",
    "recall": "Recall",
    "specificity": "Specificity",
    "pr_auc": "PR-AUC",
}


def write(
    folder: pathlib.Path,
    grid: Grid,
    results: Mapping[Cell, CellResult],
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
    sentences = answers(found)
    pictures = list(efficiency_figures.pictures(found))
    judge.write_pictures(folder / judge.FIGURES_DIR, pictures, efficiency_figures.CURVES)
    files.write_json(folder / JSON_FILE, {"summary": " ".join(sentences)} | found.as_json())
    files.write_text(folder / CSV_FILE, _csv(found))
    files.write_text(folder / judge.REPORT_FILE, render(found, sentences, pictures, provenance))
    return "\n".join(sentences)


def render(
    found: Findings, sentences: Sequence[str], pictures: Sequence[Picture], provenance: Mapping[str, Any]
) -> str:
    """The whole page as HTML.

    Args:
      found: the figures.
      sentences: the answer in plain words, first on the page.
      pictures: see `efficiency_figures.pictures`.
      provenance: the run's record of itself.
    """
    leading = [place for place in found.places if place.budget == found.leading_budget]
    proven = all(efficiency_words.clear(place.standings[0].estimates[GAIN]) for place in leading)
    body = [
        "<h1>What labels are worth, and which recipe uses them best</h1>",
        page.answer(sentences, "" if proven else "unproven"),
        _best_table(found),
        _curves(found, pictures),
        _ranking(found, leading),
        *(_all_figures(found, category) for category in found.categories),
        _costs(found),
        _left_out(found),
        _how_sure(found),
        f"<section><h2>The run</h2>{page.record(provenance)}</section>",
    ]
    return page.html("Label efficiency", body)


def answers(found: Findings) -> list[str]:
    """What the grid says, a sentence each, and after its first three sentences what to do next."""
    texts = efficiency_words.sentences(found)
    leading = [place for place in found.places if place.budget == found.leading_budget]
    return [text for text in [*texts[:3], *(advice.next_step(found, place) for place in leading), *texts[3:]] if text]


def _csv(found: Findings) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("category", "budget", "encoder", "head", "metric", "mean", "deviation", "low", "high", "draws")
    writer.writerow(names)
    for place in found.places:
        for standing in place.standings:
            for name, each in standing.estimates.items():
                metric = each.metric
                figures = (metric.value, each.deviation, metric.low, metric.high, each.draws)
                writer.writerow((place.category, place.budget, *standing.method, name, *figures))
    return buffer.getvalue()


def _best_table(found: Findings) -> str:
    footnotes = Footnotes()
    rows = []
    for place in found.places:
        best = place.standings[0]
        cells = "".join(f"<td>{footnotes.cell(best.estimates[name].metric)}</td>" for name in COMPARED)
        cells += f"<td>{footnotes.cell(best.estimates[GAIN].metric, '+')}</td>"
        rows.append(
            f"<tr>{_place_head(place)}<td>{escape(found.name(best.method))}</td>{cells}"
            f'<td class="words">{escape(_also(found, place))}</td></tr>'
        )
    titles = ["Category and labels", "Highest mean ROC-AUC", *(_NAMES[name] for name in (*COMPARED, GAIN))]
    head = page.heads([*titles, "Not shown to have another ROC-AUC"])
    return (
        "<section><h2>The best at each budget</h2><p>Means over the draws; below each its 95 % interval. A recipe in "
        "the last column may be as good as the first.</p>"
        f"{page.table(f'<tr>{head}</tr>', rows)}{footnotes.html()}</section>"
    )


def _place_head(place: Place) -> str:
    name = f'<span class="name">{escape(place.category)}</span><span class="says">{short_budget(place.budget)}</span>'
    return f'<th scope="row">{name}</th>'


def _also(found: Findings, place: Place) -> str:
    pairs = place.against_best(COMPARED[0])
    names = [found.name(method) for method, pair in pairs.items() if not pair.shown]
    return ", ".join(names) if names else ("none" if pairs else "nothing to compare with")


def _curves(found: Findings, pictures: Sequence[Picture]) -> str:
    panels = "".join(
        page.panel(picture, f"{picture.scope}: {efficiency_figures.CURVES[picture.kind]}") for picture in pictures
    )
    most, count = efficiency_figures.MOST_CATEGORIES, len(found.categories)
    cut = f" The first {most} of {count} categories are drawn; the tables have all." if count > most else ""
    return (
        "<section><h2>Figures over the label budget</h2><p>Points are means over the draws. Left, shares of all test "
        "images; right, numbers of labelled defective objects without any labelled good test image. Points of "
        f"one budget stand side by side so that their intervals can be seen.{cut}</p>"
        f'<div class="panels">{panels}</div></section>'
    )


def _ranking(found: Findings, places: Sequence[Place]) -> str:
    parts = []
    for place in places:
        if len(place.standings) < 2:
            continue
        rows = [_pair_row(found, pair) for pair in place.pairs]
        head = page.heads(["Pair", "Figure", "Difference", "p, corrected", "Verdict"])
        parts.append(f"<h3>{escape(place.category)}</h3>{page.table(f'<tr>{head}</tr>', rows)}")
    if not parts:
        return ""
    return (
        f"<section><h2>Which differences are real, {escape(long_budget(found.leading_budget))}</h2><p>Each pair on the "
        "same cuts, draw by draw: the first of each pair has the higher mean ROC-AUC. The p-value is of the corrected "
        "resampled t-test, after Holm's correction over all pairs of the category and figure; below 0.05 the "
        "difference is called shown. Beside each difference its own 95 % interval, which is not corrected for many "
        f"pairs. All budgets are in {JSON_FILE}.</p>{''.join(parts)}</section>"
    )


def _pair_row(found: Findings, pair: Pair) -> str:
    p_value = "n/a" if pair.adjusted is None else f"{pair.adjusted:.3f}"
    verdict = "<b>shown</b>" if pair.shown else "not shown"
    return (
        f'<tr><th scope="row"><span class="name">{escape(found.name(pair.first))} &minus; '
        f"{escape(found.name(pair.second))}</span></th><td>{_NAMES[pair.metric]}</td>"
        f"<td>{efficiency_words.signed(pair.difference)}</td><td>{p_value}</td><td>{verdict}</td></tr>"
    )


def _all_figures(found: Findings, category: str) -> str:
    footnotes = Footnotes()
    rows = []
    for place in found.of_category(category):
        rows += [_figures_row(found, place, standing, footnotes) for standing in place.standings]
        level = place.standings[0].always_defective_f1
        empty = "<td></td>" * (len(_SHOWN) - 3)
        rows.append(
            f'<tr class="trivial"><th scope="row"><span class="trivial">always defective</span></th>'
            f"<td>{short_budget(place.budget)}</td><td>0</td><td>0.500</td><td>0.500</td><td>{level:.3f}</td>{empty}</tr>"
        )
    head = page.heads(["Head", "Budget", "Labels", *(_NAMES[name] for name in _SHOWN)])
    return (
        f"<section><h2>All figures: {escape(category)}</h2><p>Mean &plusmn; standard deviation over the draws; below, "
        "its 95 % interval. Labels: images (of them defective), means over the draws.</p>"
        f"{page.table(f'<tr>{head}</tr>', rows)}{footnotes.html()}</section>"
    )


def _figures_row(found: Findings, place: Place, standing: Standing, footnotes: Footnotes) -> str:
    labels = "{} ({})".format(*map(efficiency_words.count, standing.labelled))
    cells = ""
    for name in _SHOWN:
        each = standing.estimates[name]
        spread = "" if each.deviation is None else f'<span class="limits">&plusmn; {each.deviation:.3f}</span>'
        cells += f"<td>{footnotes.cell(each.metric, '+' if name == GAIN else '')}{spread}</td>"
    return (
        f'<tr><th scope="row"><span class="name">{escape(found.name(standing.method))}</span></th>'
        f"<td>{short_budget(place.budget)}</td><td>{labels}</td>{cells}</tr>"
    )


def _costs(found: Findings) -> str:
    own: dict[tuple, list[CellResult]] = defaultdict(list)
    for place in found.places:
        for standing in place.standings:
            own[place.category, standing.method] += standing.results
    rows = []
    for (category, method), results in own.items():
        seconds = [result.fit_seconds for result in results]
        rows.append(
            f'<tr><th scope="row"><span class="name">{escape(found.name(method))}</span></th>'
            f"<td>{escape(category)}</td><td>{len(results)}</td><td>{statistics.median(seconds):.2f}</td><td>{max(seconds):.2f}</td>"
            f"<td>{max(result.peak_mb for result in results):,.0f}</td></tr>"
        )
    head = page.heads(["Head", "Category", "Cells", "Median fit, s", "Longest fit, s", "Peak memory, MB"])
    return (
        "<section><h2>Time and memory</h2><p>A fit includes the five out-of-fold fits and the calibration, on features "
        "that are computed already (their time is in the run's record below). Memory is that of the whole process, the "
        f"libraries and all features included.</p>{page.table(f'<tr>{head}</tr>', rows)}</section>"
    )


def _left_out(found: Findings) -> str:
    if not found.left_out:
        return "<section><h2>Left out</h2><p>Nothing: every cell that was asked for is in the tables.</p></section>"
    reasons: dict[str, list[Cell]] = defaultdict(list)
    for item in found.left_out:
        reasons[item.reason].append(item.cell)
    rows = []
    for reason, cells in reasons.items():
        columns = (
            _distinct(cell.category for cell in cells),
            _distinct(short_budget(cell.budget) for cell in cells),
            _distinct(found.name((cell.encoder, cell.head)) for cell in cells),
            _distinct(str(cell.seed) for cell in cells),
        )
        words = "".join(f'<td class="words">{escape(text)}</td>' for text in (reason, "; ".join(columns)))
        rows.append(f"<tr><td>{len(cells)}</td>{words}</tr>")
    head = page.heads(["Cells", "Why", "Categories; budgets; heads; draws"])
    return f"<section><h2>Left out</h2>{page.table(f'<tr>{head}</tr>', rows, 'told')}</section>"


def _distinct(names: Any) -> str:
    return ", ".join(dict.fromkeys(names))


def _how_sure(found: Findings) -> str:
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
    return f"<section><h2>How sure the figures are</h2><p>{text}</p><p>{rule}</p></section>"
