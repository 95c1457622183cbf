"""The report on a comparison, what it says in plain words, and the one call that makes it."""

import pathlib
from collections.abc import Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import metrics, scope, thresholds, trivial
from mvtec_tf.evaluation.comparison import compare as comparison
from mvtec_tf.evaluation.comparison import pictures as comparison_figures
from mvtec_tf.evaluation.comparison.compare import ALL, CATEGORY, LOWER_IS_BETTER, Comparison, Standing
from mvtec_tf.evaluation.comparison.contenders import Contender, Method
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.report import judge, page, summary
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Cell, Column, Pictures, Section, Table
from mvtec_tf.evaluation.report.summary import METRIC_TEXTS, TITLES

JSON_FILE, CSV_FILE = "comparison.json", "comparison.csv"
_VERDICTS = {
    scope.BETTER: "beats it",
    scope.MIXED: "tells good from defective better, but is not shown to beat its F1",
    scope.UNPROVEN: "is not shown to be better",
    scope.NO_BETTER: "is no better",
    scope.UNKNOWN: "cannot be told",
    scope.LEAK: "cannot be told, because it had seen images it was judged on",
}


def write(
    methods: Sequence[Method],
    out_dir: files.PathLike,
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
    said = sentences(compared)
    pictures = list(comparison_figures.pictures(compared))
    out_dir = pathlib.Path(out_dir)
    judge.write_pictures(out_dir / judge.FIGURES_DIR, pictures, comparison_figures.KINDS)
    document: dict[str, Any] = compared.as_json() | {"summary": " ".join(said)}
    files.write_json(out_dir / JSON_FILE, document)
    files.write_csv(out_dir / CSV_FILE, comparison.CSV_COLUMNS, compared.rows())
    files.write_text(out_dir / judge.REPORT_FILE, render(compared, said, pictures, title))
    return compared


def render(compared: Comparison, sentences: Sequence[str], pictures: Sequence[Picture], title: str) -> str:
    """The whole page as HTML.

    Args:
      compared: the figures.
      sentences: the answer in plain words, first on the page.
      pictures: see `comparison_figures.pictures`.
      title: of the page.
    """
    most, count = comparison_figures.MOST_METHODS, len(compared.standings)
    cut = f"The first {most} of {count} methods are drawn." if count > most else ""
    sections = [
        _figures(compared),
        _differences(compared),
        _by_category(compared) if len(compared.categories) > 1 else None,
        Section("Pictures", [cut, Pictures(pictures, large=True)]),
        _contenders(compared),
        page.how_sure(
            compared.bootstrap,
            compared.groups,
            ", the same draws for all methods. They take each model and its threshold as they are: how far another "
            "training run would move a figure, only several seeds show.",
            compared.costs,
        ),
    ]
    leak = any(each.method.leak for each in compared.standings)
    return page.html(title, sentences, sections, scope.LEAK if leak else "")


def _names(compared: Comparison) -> list[str]:
    return summary.names_with_values(*(each.figures[ALL] for each in compared.standings))


def _figures(compared: Comparison) -> Section:
    idle = compared.standings[0].scopes[0].trivial[trivial.ALWAYS_DEFECTIVE]
    rows = [
        [Cell(*METRIC_TEXTS[name]), *(_with_deviation(each, name) for each in compared.standings), idle[name]]
        for name in _names(compared)
    ]
    several = any(len(each.scopes) > 1 for each in compared.standings)
    seeds = " ±: standard deviation over the seeds of a method." if several else ""
    text = (
        "All images; below each figure its interval. Always-defective needs neither a model nor a label: what does not "
        f"beat it is no achievement.{seeds}"
    )
    columns = [Column(), *map(_column, compared.standings), Column("always defective", "trivial")]
    return Section("Side by side", [text, Table(columns, rows)])


def _column(each: Standing) -> Column:
    runs = len(each.method.runs)
    seeds = f", {runs} seeds" if runs > 1 else ""
    return Column(each.method.name, "model", f"{labels(each)}{seeds}")


def _with_deviation(each: Standing, name: str) -> Cell:
    found = each.deviations[ALL][name]
    return Cell(each.figures[ALL][name], below="" if found is None else f"± {found:.3f}")


def _differences(compared: Comparison) -> Section:
    first, *others = compared.standings
    rows = [
        [METRIC_TEXTS[name][0], *(_difference(first, each, name) for each in others)] for name in _names(compared)
    ]
    text = (
        "Computed on the same images in every resample, which tells more than two intervals side by side. “better” or "
        "“worse” stands where the whole interval is on one side of 0."
    )
    table = Table([Column(), *(Column(each.method.name, "model") for each in others)], rows)
    return Section(f"Differences from {first.method.name}", [text, table, _mcnemar(compared)])


def _difference(first: Standing, each: Standing, name: str) -> Cell:
    difference = each.differences[ALL][name]
    proves = not (each.method.leak or first.method.leak)
    return Cell(difference, mark=direction(difference, name) if proves else "", sign="+")


def _mcnemar(compared: Comparison) -> str | Section:
    first, *others = compared.standings
    rows = [
        (
            each.method.name,
            each.method.runs[index].source,
            f"{result.only_first:,}",
            f"{result.only_second:,}",
            f"{result.p_value:.3g}",
            "exact" if result.exact else "chi-squared",
        )
        for each in others
        for index, result in enumerate(each.calls)
    ]
    if not rows:
        return (
            "McNemar's test needs calls of both, and as many runs of one as of the other; no two methods here have "
            "them."
        )
    text = (
        "Images that only one of the two called rightly. A small p says that so uneven a split would be rare between "
        "equally good models. Each image counts as independent: with several images of one object the intervals above "
        "are to be trusted instead."
    )
    only = ("Only it is right", f"Only {first.method.name} is right")
    columns = ("Method", Column("Run", "left"), *only, "p", Column("Test", "left"))
    return Section("McNemar's test of the calls", [text, Table(columns, rows)])


def _by_category(compared: Comparison) -> Section:
    first, *others = compared.standings
    columns = [Column("Category"), Column(first.method.name, "model")]
    for each in others:
        columns += [Column(each.method.name, "model"), Column("difference")]
    parts = []
    for name in dict.fromkeys(("roc_auc", compared.leading)):
        rows = []
        for category in compared.categories:
            place = (CATEGORY, category)
            rows.append([category, first.figures[place][name]])
            for each in others:
                rows[-1] += [each.figures[place][name], Cell(each.differences[place][name], sign="+")]
        parts.append(Section(METRIC_TEXTS[name][0], [Table(columns, rows)]))
    return Section("By category", parts)


def _contenders(compared: Comparison) -> Section:
    rows = [
        (
            each.method.name,
            run.source,
            "not recorded" if run.labels_used is None else str(run.labels_used),
            _threshold(run),
        )
        for each in compared.standings
        for run in each.method.runs
    ]
    text = "Labels: labelled test images that the run learned or chose anything from, as it recorded."
    columns = ("Method", Column("Run or table", "words"), "Labels used", Column("Threshold", "words"))
    return Section("What was compared", [text, Table(columns, rows)])


def _threshold(run: Contender) -> str:
    if run.threshold.per == thresholds.PER_CATEGORY:
        return "one of each category"
    whole = run.threshold.whole
    return f"none: {whole.reason}" if whole.value is None else f"{summary.number(whole.value)}: {whole.reason}"


def sentences(compared: Comparison) -> list[str]:
    """The answer: who is better, by how much, with how many labels, and whether anyone beats the trivial classifier.

    Before all that: whose figures are no evidence, because evaluated images had been seen.
    """
    first, *others = compared.standings
    name = compared.leading
    methods = [each.method for each in compared.standings]
    found = [method.leak.sentence(f"The figures of {method.name}") for method in methods if method.leak]
    found += [_against(each, first, name) for each in others]
    found += [_trivial(compared), _images_in_words(compared)]
    if len(others) > 2:
        found.append(
            f"These are {len(others)} comparisons at 95 % each: of twenty between equal methods, one seems to differ."
        )
    return found


def direction(difference: Metric, name: str) -> str:
    """"better", "worse", or "" where the interval of the difference holds 0 or there is none."""
    if difference.value is None or difference.low is None or difference.low <= 0 <= difference.high:
        return ""
    higher = difference.low > 0
    return "better" if higher != (name in LOWER_IS_BETTER) else "worse"


def signed(difference: Metric) -> str:
    """A difference with its interval as it is printed: `-0.047 [-0.097 to +0.004]`."""
    return metrics.with_limits(difference, sign="+")


def labels(each: Standing) -> str:
    """How many labels a method used, as it is printed."""
    used = each.method.labels_used
    text = "labels not recorded" if used is None else f"{used:g} label{'' if used == 1 else 's'}"
    return f"{text}, no evidence" if each.method.leak else text


def text_table(compared: Comparison) -> str:
    """The main figures of each method, and their differences from the first."""
    names = ("roc_auc", "balanced_accuracy", "f1", "recall", "specificity")
    width = max(20, *(len(each.method.name) for each in compared.standings))
    lines = []
    for name in names:
        lines.append(f"{name}  (difference from {compared.standings[0].method.name})")
        for each in compared.standings:
            difference = signed(each.differences[ALL][name]) if each.differences else ""
            deviation = each.deviations[ALL][name]
            spread = "" if deviation is None else f" seeds +-{deviation:.3f}"
            figure = metrics.with_limits(each.figures[ALL][name])
            lines.append(f"  {each.method.name:{width}}  {labels(each):20}  {figure}{spread}  {difference}".rstrip())
    missing = summary.why_missing(each.figures[ALL][name].reason for name in names for each in compared.standings)
    return "\n".join([*lines, *missing])


def _images_in_words(compared: Comparison) -> str:
    whole = compared.standings[0].scopes[0]
    runs = max(len(each.scopes) for each in compared.standings)
    categories = len(compared.categories)
    where = f" of {categories} categories" if categories > 1 else ""
    seeds = f" for each of up to {runs} seeds" if runs > 1 else ""
    return (
        f"All methods were judged on the same {whole.images:,} evaluation images{where}{seeds}, "
        f"{whole.defective:,} of them defective."
    )


def _against(each: Standing, first: Standing, name: str) -> str:
    title = TITLES[name]
    one, other = each.figures[ALL][name], first.figures[ALL][name]
    difference = each.differences[ALL][name]
    if difference.value is None:
        return f"{each.method.name} and {first.method.name} cannot be compared: {difference.reason}."
    text = (
        f"{each.method.name} ({labels(each)}) has a {title} of {metrics.with_limits(one)}, {first.method.name} "
        f"({labels(first)}) of {metrics.with_limits(other)}: a difference of {signed(difference)}"
    )
    shown = direction(difference, name)
    if each.method.leak or first.method.leak:
        text += ", which proves nothing"
    elif shown:
        text += f", so {each.method.name} is {shown}"
    elif difference.low is None:
        text += f" ({difference.note}), so neither is shown to be better" if difference.note else ""
    else:
        text += ", an interval that holds 0, so neither is shown to be better; that does not make them equal"
    if name != "roc_auc":
        text += f". In ROC-AUC the difference is {signed(each.differences[ALL]['roc_auc'])}"
    return f"{text}.{_mcnemar_in_words(each, first)}"


def _mcnemar_in_words(each: Standing, first: Standing) -> str:
    if len(each.calls) != 1:
        return ""
    (result,) = each.calls
    return (
        f" {counted(result.only_first, 'image was', 'images were')} called rightly by {each.method.name} alone, "
        f"{result.only_second:,} by {first.method.name} alone (McNemar's test: p = {result.p_value:.2g})."
    )


def _trivial(compared: Comparison) -> str:
    parts = [f"{each.method.name} {_VERDICTS[each.verdict]}" for each in compared.standings]
    return f"Against calling every image defective: {'; '.join(parts)}."
