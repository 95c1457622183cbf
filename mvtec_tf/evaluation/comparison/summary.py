"""What a comparison says, in plain words."""

from mvtec_tf.evaluation import scope
from mvtec_tf.evaluation.comparison.compare import ALL, LOWER_IS_BETTER, Comparison, Standing
from mvtec_tf.evaluation.comparison.pictures import leading
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report import summary

_TITLES = {"balanced_accuracy": "balanced accuracy", "roc_auc": "ROC-AUC"}
_VERDICTS = {
    scope.BETTER: "beats it",
    scope.MIXED: "tells good from defective better, but is not shown to beat its F1",
    scope.UNPROVEN: "is not shown to be better",
    scope.NO_BETTER: "is no better",
    scope.UNKNOWN: "cannot be told",
    scope.LEAK: "cannot be told, because it had seen images it was judged on",
}


def sentences(compared: Comparison) -> list[str]:
    """The answer: who is better, by how much, with how many labels, and whether anyone beats the trivial classifier.

    Before all that: whose figures are no evidence, because evaluated images had been seen.
    """
    first, *others = compared.standings
    name = leading(compared)
    methods = [each.method for each in compared.standings]
    found = [method.leak.sentence(f"The figures of {method.name}") for method in methods if method.leak]
    found += [_against(each, first, name) for each in others]
    found += [_trivial(compared), _images(compared)]
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
    if difference.value is None:
        return "-"
    text = f"{difference.value:+.3f}"
    return text if difference.low is None else f"{text} [{difference.low:+.3f} to {difference.high:+.3f}]"


def labels(each: Standing) -> str:
    """How many labels a method used, as it is printed."""
    used = each.method.labels_used
    text = "labels not recorded" if used is None else f"{used:g} labels"
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
            figure = summary.with_limits(each.figures[ALL][name])
            lines.append(f"  {each.method.name:{width}}  {labels(each):20}  {figure}{spread}  {difference}".rstrip())
    missing = summary.why_missing(each.figures[ALL][name].reason for name in names for each in compared.standings)
    return "\n".join([*lines, *missing])


def _images(compared: Comparison) -> str:
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
    title = _TITLES[name]
    one, other = each.figures[ALL][name], first.figures[ALL][name]
    difference = each.differences[ALL][name]
    if difference.value is None:
        return f"{each.method.name} and {first.method.name} cannot be compared: {difference.reason}."
    text = (
        f"{each.method.name} ({labels(each)}) has a {title} of {summary.with_limits(one)}, {first.method.name} "
        f"({labels(first)}) of {summary.with_limits(other)}: a difference of {signed(difference)}"
    )
    shown = direction(difference, name)
    if each.method.leak or first.method.leak:
        text += ", which proves nothing"
    elif shown:
        text += f", so {each.method.name} is {shown}"
    elif difference.low is not None:
        text += ", an interval that holds 0, so neither is shown to be better; that does not make them equal"
    if name != "roc_auc":
        text += f". In ROC-AUC the difference is {signed(each.differences[ALL]['roc_auc'])}"
    return f"{text}.{_mcnemar(each, first)}"


def _mcnemar(each: Standing, first: Standing) -> str:
    if len(each.calls) != 1:
        return ""
    (result,) = each.calls
    return (
        f" {result.only_first:,} images were called rightly by {each.method.name} alone, {result.only_second:,} by "
        f"{first.method.name} alone (McNemar's test: p = {result.p_value:.2g})."
    )


def _trivial(compared: Comparison) -> str:
    parts = [f"{each.method.name} {_VERDICTS[each.verdict]}" for each in compared.standings]
    return f"Against calling every image defective: {'; '.join(parts)}."
