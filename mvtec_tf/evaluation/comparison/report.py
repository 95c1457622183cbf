"""The report on a comparison, and the one call that makes it."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from html import escape
from typing import Any

from mvtec_tf import files
from mvtec_tf.evaluation import intervals, scope, thresholds, trivial
from mvtec_tf.evaluation.comparison import compare as comparison
from mvtec_tf.evaluation.comparison import pictures as comparison_figures
from mvtec_tf.evaluation.comparison import summary as comparison_summary
from mvtec_tf.evaluation.comparison.compare import ALL, CATEGORY, Comparison, Standing
from mvtec_tf.evaluation.comparison.contenders import Contender, Method
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import judge, page, summary
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import METRIC_TEXTS, Footnotes

JSON_FILE, CSV_FILE = "comparison.json", "comparison.csv"


def write(
    methods: Sequence[Method],
    out_dir: str | os.PathLike[str],
    title: str = "Comparison",
    costs: Costs | None = None,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Compares and writes `comparison.json`, `comparison.csv`, `figures/*.png` and, last, `report.html`.

    Args:
      methods: see `contenders.read_methods`.
      out_dir: made if missing.
      title: of the page.
      costs, bootstrap: see `comparison.compare`.
    """
    compared = comparison.compare(methods, costs, bootstrap)
    sentences = comparison_summary.sentences(compared)
    pictures = list(comparison_figures.pictures(compared))
    out_dir = pathlib.Path(out_dir)
    judge.write_pictures(out_dir / judge.FIGURES_DIR, pictures, comparison_figures.KINDS)
    document: dict[str, Any] = compared.as_json() | {"summary": " ".join(sentences)}
    files.write_json(out_dir / JSON_FILE, document)
    files.write_text(out_dir / CSV_FILE, _csv(compared))
    files.write_text(out_dir / judge.REPORT_FILE, render(compared, sentences, pictures, title))
    return compared


def render(compared: Comparison, sentences: Sequence[str], pictures: Sequence[Picture], title: str) -> str:
    """The whole page as HTML.

    Args:
      compared: the figures.
      sentences: the answer in plain words, first on the page.
      pictures: see `comparison_figures.pictures`.
      title: of the page, not escaped yet.
    """
    body = [
        f"<h1>{escape(title)}</h1>",
        page.answer(sentences, scope.LEAK if any(each.method.leak for each in compared.standings) else ""),
        _figures_table(compared),
        _differences_table(compared),
        _category_table(compared),
        _pictures(compared, pictures),
        _contenders(compared),
        _how_sure(compared),
    ]
    return page.html(title, body)


def _csv(compared: Comparison) -> str:
    rows = compared.rows()
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _figures_table(compared: Comparison) -> str:
    whole = compared.standings[0].scopes[0]
    footnotes = Footnotes()
    names = summary.names_with_values(*(each.figures[ALL] for each in compared.standings))
    rows = []
    for name in names:
        label, says = METRIC_TEXTS[name]
        cells = "".join(
            f'<td class="model">{footnotes.cell(each.figures[ALL][name])}{_deviation(each, name)}</td>'
            for each in compared.standings
        )
        idle = f'<td class="trivial">{footnotes.cell(whole.trivial[trivial.ALWAYS_DEFECTIVE][name])}</td>'
        rows.append(f'<tr><th scope="row">{label}<span class="says">{says}</span></th>{cells}{idle}</tr>')
    head = "<th></th>" + "".join(map(_head, compared.standings)) + page.heads(["always defective"])
    several = any(len(each.scopes) > 1 for each in compared.standings)
    seeds = " &plusmn;: standard deviation over the seeds of a method." if several else ""
    return (
        "<section><h2>Side by side</h2><p>All images; below each figure its interval. Always-defective needs neither "
        f"a model nor a label: what does not beat it is no achievement.{seeds}</p>"
        + page.table(f"<tr>{head}</tr>", rows)
        + f"{footnotes.html()}</section>"
    )


def _deviation(each: Standing, name: str) -> str:
    found = each.deviations[ALL][name]
    return "" if found is None else f'<span class="limits">&plusmn; {found:.3f}</span>'


def _differences_table(compared: Comparison) -> str:
    first, *others = compared.standings
    footnotes = Footnotes()
    names = summary.names_with_values(*(each.figures[ALL] for each in compared.standings))
    rows = []
    for name in names:
        cells = []
        for each in others:
            difference = each.differences[ALL][name]
            proves = not (each.method.leak or first.method.leak)
            shown = comparison_summary.direction(difference, name) if proves else ""
            mark = f"<b>{shown}</b>" if shown else ""
            cells.append(f'<td class="model">{footnotes.cell(difference, "+")}{mark}</td>')
        rows.append(f'<tr><th scope="row">{METRIC_TEXTS[name][0]}</th>{"".join(cells)}</tr>')
    head = page.heads(["", *(each.method.name for each in others)])
    return (
        f"<section><h2>Differences from {escape(first.method.name)}</h2><p>Computed on the same images in every "
        "resample, which tells more than two intervals side by side. &ldquo;better&rdquo; or &ldquo;worse&rdquo; "
        "stands where the whole interval is on one side of 0.</p>"
        + page.table(f"<tr>{head}</tr>", rows)
        + footnotes.html()
        + _mcnemar_table(compared)
        + "</section>"
    )


def _mcnemar_table(compared: Comparison) -> str:
    first, *others = compared.standings
    rows = [
        f'<tr><th scope="row"><span class="name">{escape(each.method.name)}</span></th>'
        f"<td>{escape(each.method.runs[index].source)}</td><td>{result.only_first:,}</td><td>{result.only_second:,}</td>"
        f"<td>{result.p_value:.3g}</td><td>{'exact' if result.exact else 'chi-squared'}</td></tr>"
        for each in others
        for index, result in enumerate(each.calls)
    ]
    if not rows:
        return (
            "<p>McNemar's test needs calls of both, and as many runs of one as of the other; no two methods here have "
            "them.</p>"
        )
    head = page.heads(["Method", "Run", "Only it is right", f"Only {first.method.name} is right", "p", "Test"])
    return (
        "<h3>McNemar's test of the calls</h3><p>Images that only one of the two called rightly. A small p says that so "
        "uneven a split would be rare between equally good models. Each image counts as independent: with several "
        "images of one object the intervals above are to be trusted instead.</p>"
        + page.table(f"<tr>{head}</tr>", rows)
    )


def _category_table(compared: Comparison) -> str:
    if len(compared.categories) < 2:
        return ""
    footnotes = Footnotes()
    first, *others = compared.standings
    names = ("roc_auc", comparison_figures.leading(compared))
    parts = []
    for name in dict.fromkeys(names):
        rows = []
        for category in compared.categories:
            place = (CATEGORY, category)
            cells = f'<td class="model">{footnotes.cell(first.figures[place][name])}</td>'
            for each in others:
                cells += f'<td class="model">{footnotes.cell(each.figures[place][name])}</td>'
                cells += f"<td>{footnotes.cell(each.differences[place][name], '+')}</td>"
            rows.append(f'<tr><th scope="row"><span class="name">{escape(category)}</span></th>{cells}</tr>')
        titles = [first.method.name]
        for each in others:
            titles += [each.method.name, "difference"]
        table = page.table(f"<tr>{page.heads(['Category', *titles])}</tr>", rows)
        parts.append(f"<h3>{METRIC_TEXTS[name][0]}</h3>{table}")
    return f"<section><h2>By category</h2>{''.join(parts)}{footnotes.html()}</section>"


def _pictures(compared: Comparison, pictures: Sequence[Picture]) -> str:
    panels = "".join(page.panel(picture, comparison_figures.KINDS[picture.kind][0]) for picture in pictures)
    most, count = comparison_figures.MOST_METHODS, len(compared.standings)
    cut = f"<p>The first {most} of {count} methods are drawn.</p>" if count > most else ""
    return f'<section><h2>Pictures</h2>{cut}<div class="panels large">{panels}</div></section>'


def _contenders(compared: Comparison) -> str:
    rows = "".join(
        f'<tr><th scope="row"><span class="name">{escape(each.method.name)}</span></th>'
        f'<td class="words">{escape(run.source)}</td>'
        f"<td>{'not recorded' if run.labels_used is None else run.labels_used}</td>"
        f'<td class="words">{escape(_threshold(run))}</td></tr>'
        for each in compared.standings
        for run in each.method.runs
    )
    head = page.heads(["Method", "Run or table", "Labels used", "Threshold"])
    return (
        "<section><h2>What was compared</h2><p>Labels: labelled test images that the run learned or chose anything "
        "from, as it recorded.</p>" + page.table(f"<tr>{head}</tr>", [rows], "told") + "</section>"
    )


def _threshold(run: Contender) -> str:
    if run.threshold.per == thresholds.PER_CATEGORY:
        return "one of each category"
    whole = run.threshold.whole
    return f"none: {whole.reason}" if whole.value is None else f"{summary.number(whole.value)}: {whole.reason}"


def _how_sure(compared: Comparison) -> str:
    bootstrap, costs = compared.bootstrap, compared.costs
    text = (
        f"Intervals: {100 * intervals.LEVEL:g} %, from {bootstrap.resamples:,} resamples (seed {bootstrap.seed}) of "
        f"{compared.groups:,} groups of images, the same draws for all methods, whole groups within each category and "
        "label. They take each model and its threshold as they are: how far another training run would move a figure, "
        "only several seeds show."
        if bootstrap.resamples
        else "No intervals were asked for: small differences mean nothing here."
    )
    prices = f"Cost of an image: a miss counts {costs.miss:g}, a false alarm {costs.false_alarm:g}."
    return f"<section><h2>How sure the figures are</h2><p>{text}</p><p>{prices}</p></section>"


def _head(each: Standing) -> str:
    runs = len(each.method.runs)
    seeds = f", {runs} seeds" if runs > 1 else ""
    says = f'<span class="says">{comparison_summary.labels(each)}{seeds}</span>'
    return f'<th scope="col">{escape(each.method.name)}{says}</th>'
