"""The answer in plain words, and the figures as a small text table."""

from collections.abc import Mapping
from typing import Any

from mvtec_tf.data import leaks
from mvtec_tf.evaluation import assessment, metrics, thresholds
from mvtec_tf.evaluation.assessment import Assessment, Scope
from mvtec_tf.evaluation.metrics import Metric

# So many categories are named in a sentence; beyond that, their number.
_NAMED = 5


def sentences(judged: Assessment) -> list[str]:
    """The report's first sentences, a whole thought each; together the `summary` of `metrics.json`.

    If the model is no better than calling everything defective, that comes first: no figure below
    it can then be read as a success.
    """
    if judged.threshold.value is None:
        answer = [_no_threshold(judged)]
    elif judged.overall.verdict == assessment.NO_BETTER:
        at = f"At threshold {number(judged.threshold.value)} this model"
        answer = [f"{at} {_no_better(judged.overall)}", f"It {_calls(judged.overall)}", _origin(judged)]
    else:
        at = f"At threshold {number(judged.threshold.value)} the model"
        answer = [f"{at} {_calls(judged.overall)}", _origin(judged), _better(judged.overall)]
    return [sentence for sentence in [*answer, _categories(judged), _ranking(judged)] if sentence]


def figure(metric: Metric) -> str:
    """A figure as it is printed, with three decimals; a dash if there is none."""
    return "-" if metric.value is None else f"{metric.value:.3f}"


def number(value: float) -> str:
    """A score or threshold as it is printed, four significant digits."""
    return f"{value:.4g}"


def part(count: int, whole: int, what: str) -> str:
    """A count as it is printed: `3 of 41 good images (7.3 %)`, without the share if there is no whole."""
    text = f"{count:,} of {whole:,} {what}"
    return f"{text} ({100 * count / whole:.1f} %)" if whole else text


def text_table(document: Mapping[str, Any]) -> str:
    """Each metric overall and as the mean over categories, with always-defective's beside it.

    Args:
      document: the content of a `metrics.json`.
    """
    trivial = document["trivial"]["always_defective"]
    columns = [("overall", document["overall"]), ("always defective", trivial["overall"])]
    if len(document["categories"]) > 1:
        columns.append(("mean over categories", document["mean_over_categories"]))
        columns.append(("always defective", trivial["mean_over_categories"]))
    lines = [f"{'':18}" + "".join(f"  {title:>20}" for title, _ in columns)]
    for name in metrics.NAMES:
        cells = (figure(Metric(found[name]["value"])) for _, found in columns)
        lines.append(f"{name:18}" + "".join(f"  {cell:>20}" for cell in cells))
    return "\n".join(lines)


def _calls(scope: Scope) -> str:
    """What was missed and what was falsely stopped."""
    counts = scope.counts
    missed = f"missed {part(counts.fn, scope.defective, 'defective images')}"
    stopped = f"falsely stopped {part(counts.fp, scope.good, 'good images')}"
    if not scope.good:
        return f"{missed}; no good image was evaluated, so how many it would falsely stop is unknown."
    if not scope.defective:
        return f"{stopped}; no defective image was evaluated, so how many it would miss is unknown."
    return f"{missed} and {stopped}."


def _origin(judged: Assessment) -> str:
    if judged.threshold.method == thresholds.GIVEN:
        return "That threshold was given, not chosen on calibrate rows."
    return f"That threshold was chosen on calibrate rows: {judged.threshold.reason}."


def _no_threshold(judged: Assessment) -> str:
    scope = judged.overall
    missing = (
        f"There is no threshold ({judged.threshold.reason}), so it is unknown how many of the {scope.defective} "
        f"defective images would be missed and how many of the {scope.good} good ones falsely stopped."
    )
    if judged.threshold.images:
        return f"{missing} Add good images to the {leaks.CALIBRATE!r} rows, or name a threshold."
    return f"{missing} Add rows with the split {leaks.CALIBRATE!r}, or name a threshold."


def _no_better(scope: Scope) -> str:
    return f"is no better than calling every image defective: {_how(scope)}{_against(scope)}."


def _better(scope: Scope) -> str:
    if scope.verdict == assessment.MIXED:
        return (
            "It tells good from defective better than calling every image defective does, but does not beat its F1, "
            f"because it misses more defects: {_against(scope)}."
        )
    return f"It beats calling every image defective: {_against(scope)}." if scope.verdict == assessment.BETTER else ""


def _against(scope: Scope) -> str:
    pairs = (
        f"{title} {figure(scope.metrics[name])} against {figure(scope.always_defective[name])}"
        for title, name in (("balanced accuracy", "balanced_accuracy"), ("F1", "f1"))
    )
    return ", ".join(pairs)


def _how(scope: Scope) -> str:
    """What such a model does instead of looking."""
    counts = scope.counts
    if counts.tn + counts.fn == 0:
        return "it calls every image defective, "
    if counts.tp + counts.fp == 0:
        return "it calls no image defective, "
    if scope.stops_nearly_everything:
        return f"it stops {part(counts.fp, scope.good, 'good images')}, "
    return ""


def _categories(judged: Assessment) -> str:
    """Which categories the overall figures hide."""
    if len(judged.categories) < 2 or judged.overall.verdict == assessment.NO_BETTER:
        return ""
    names = [name for name, scope in judged.categories.items() if scope.verdict == assessment.NO_BETTER]
    if not names:
        return ""
    listed = f" ({', '.join(names)})" if len(names) <= _NAMED else ""
    return f"In {len(names)} of {len(judged.categories)} categories{listed} it is no better than that."


def _ranking(judged: Assessment) -> str:
    found = judged.overall.metrics["roc_auc"]
    if found.value is None:
        return f"ROC-AUC does not exist, because {found.reason}."
    mean = judged.mean["roc_auc"]
    several = len(judged.categories) > 1 and mean.value is not None
    middle = f" over all images and {figure(mean)} as the mean over categories" if several else ""
    text = f"ROC-AUC is {figure(found)}{middle} (1 is perfect, 0.5 is what calling everything defective gets)."
    if found.value < 0.5:
        text += " Below 0.5 good images tend to score higher than defective ones: are labels or scores turned round?"
    return text
