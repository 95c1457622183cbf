"""The answer in plain words, and the figures as a small text table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mvtec_tf.data import leaks
from mvtec_tf.data.words import counted, listing
from mvtec_tf.evaluation import doubt, metrics, scope, shift, thresholds
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.metrics import Metric, figure, with_limits
from mvtec_tf.evaluation.scope import Scope
from mvtec_tf.evaluation.shift import Shift
from mvtec_tf.evaluation.thresholds import Chosen

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
# What those that answers are about are called within a sentence.
TITLES = {"roc_auc": "ROC-AUC", "balanced_accuracy": "balanced accuracy", "f1": "F1"}

# Of the table of all figures: published figures have four digits, and are to be found again in it.
TABLE_DIGITS = 4
_HELD_OUT = "the held-out good ones that the threshold rests on"
_TOO_MANY = ("More good evaluated images are stopped", " than the held-out good ones let expect")
# What is missing for figures of detection, where no defective image was evaluated.
_NEEDED = (
    "So there are no figures of detection. For them, photograph defective parts and judge again: what share of "
    f"them is found is known to within 18 percentage points with {thresholds.FEW} of them, and from two objects "
    "on their labels can be learned from."
)
# So many categories are named in a sentence; beyond that, their number.
_NAMED = 5


def sentences(judged: Assessment, name: str = "", basis: str = "") -> list[str]:
    """The report's first sentences, a whole thought each; together the `summary` of `metrics.json`.

    The first three are the answer: which model, by which threshold, misses and falsely stops how
    many, and whether it beats the classifier that does not look. Where good evaluated images score unlike the held-out
    good ones, or more of them are stopped than those let expect, that stands among them.

    If the model is not shown to be better than calling everything defective, that comes first: no
    figure below it can then be read as a success. Before that comes only that evaluated images had
    been seen.

    Args:
      judged: the figures.
      name: of the model.
      basis: what is to be said of the rows that the threshold was chosen on, in whole sentences.
    """
    overall = judged.overall
    model = f"model ({name})" if name else "model"
    if overall.counts is None:
        answer = [_no_threshold(judged), _shift(judged)]
    elif overall.verdict in (scope.NO_BETTER, scope.UNPROVEN):
        first = f"{_at(judged)} this {model} {_no_better(overall)}"
        answer = [first, f"It {_calls(overall)}", basis, _shift(judged), _origin(judged.threshold)]
    else:
        better = _unproven_by_leak(overall) if judged.leak else _better(overall)
        calls = f"{_at(judged)} the {model} {_calls(overall)}"
        answer = [calls, basis, _shift(judged), better, _origin(judged.threshold)]
    if judged.doubt:
        # What the table itself says stands before what is not of it.
        place = 1 if judged.doubt.told else len(answer)
        answer[place:place] = doubt.in_words(judged.doubt)
    if judged.leak:
        answer.insert(0, judged.leak.sentence())
    answer += [_uneven(judged), _categories(judged), _ranking(judged), _not_judged(judged)]
    return [sentence for sentence in answer if sentence]


def number(value: float) -> str:
    """A score or threshold as it is printed, four significant digits."""
    return f"{value:.4g}"


def part(count: int, whole: int, what: str, share: Metric | None = None) -> str:
    """A count as it is printed: `3 of 41 good images (7.3 %, 95 % interval 1.5 to 17.0 %)`.

    Without the share if there is no whole, and without the interval if `share` has none.
    """
    text = f"{count:,} of {whole:,} {what}"
    if not whole:
        return text
    limits = ""
    if share is not None and share.low is not None and share.high is not None:
        limits = f", 95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %"
    return f"{text} ({100 * count / whole:.1f} %{limits})"


def names_with_values(*columns: Mapping[str, Metric]) -> list[str]:
    """Metrics that one of the columns has a value of; probabilities are rare, and empty rows say nothing."""
    return [
        name
        for name in metrics.NAMES
        if name not in metrics.OF_PROBABILITY or any(column[name].value is not None for column in columns)
    ]


def text_table(document: Mapping[str, Any]) -> str:
    """Each metric overall and as the mean over categories, with its interval and always-defective's beside it.

    Args:
      document: the content of a `metrics.json`.
    """
    idle = document["trivial"]["always_defective"]
    columns = [("overall", document["overall"]), ("always defective", idle["overall"])]
    if len(document["categories"]) > 1:
        columns.append(("mean over categories", document["mean_over_categories"]))
        columns.append(("always defective", idle["mean_over_categories"]))
    found = [{name: Metric(**form) for name, form in forms.items()} for _, forms in columns]
    lines = [f"{'':26}" + "".join(f"  {title:>28}" for title, _ in columns)]
    for name in names_with_values(found[0]):
        cells = (with_limits(each[name], TABLE_DIGITS) for each in found)
        lines.append(f"{name:26}" + "".join(f"  {cell:>28}" for cell in cells))
    # What calls everything defective has no figures for reasons of its own.
    missing = why_missing(each[name].reason for name in names_with_values(found[0]) for each in found[::2])
    if missing and document["threshold"]["method"] == thresholds.NONE:
        missing[0] += _way_to_a_threshold(document["threshold"]["images"])
    return "\n".join([*lines, *missing])


def why_missing(reasons: Iterable[str]) -> list[str]:
    """A line on the dashes of a table, none where there are none: `reasons` of its figures, "" of one that is there."""
    told = dict.fromkeys(filter(None, reasons))
    return [f"-: there is no such figure: {'; '.join(told)}."] if told else []


def _at(judged: Assessment) -> str:
    if judged.threshold.per == thresholds.PER_CATEGORY:
        return "At each category's own threshold"
    return f"At threshold {number(judged.threshold.whole.value)}"


def _calls(judged: Scope) -> str:
    """What was missed and what was falsely stopped."""
    counts = judged.counts
    missed = f"missed {part(counts.fn, judged.defective, 'defective images', judged.metrics['fnr'])}"
    stopped = f"falsely stopped {part(counts.fp, judged.good, 'good images', judged.metrics['fpr'])}"
    if not judged.good:
        return f"{missed}; no good image was evaluated, so how many it would falsely stop is unknown."
    if not judged.defective:
        return f"{stopped}; no defective image was evaluated, so how many it would miss is unknown."
    return f"{missed} and {stopped}."


def _shift(judged: Assessment) -> str:
    """Where good evaluated images are not like those that the threshold rests on; "" where nothing shows it."""
    said = {name: each for name, each in judged.shifts.items() if each.said}
    broken = [name for name in judged.shifts if name not in said and _stops_too_many(judged, name)]
    if len(judged.shifts) == 1:
        (each,) = judged.shifts.values()
        if said:
            return f"{each.in_words(those=_HELD_OUT)}{_of_the_threshold(each)}."
        if not broken:
            return ""
        promised = judged.threshold.of(*broken).promised
        expected = "" if promised is None else f", at most {100 * promised:.3g} % were promised"
        shares = f"{100 * each.stopped:.1f} % against {100 * each.stopped_held_out:.1f} %{expected}"
        return f"{''.join(_TOO_MANY)}: {shares}; {each.in_words()}."
    sentences = []
    if said:
        sizes = listing((f"{name} {each.by()}, p = {each.p:.2g}" for name, each in said.items()), _NAMED, "; ")
        perhaps = "" if any(each.shown for each in said.values()) else "perhaps "
        sentences.append(
            f"In {len(said)} of {len(judged.shifts)} categories good evaluated images score unlike {_HELD_OUT} "
            f"({sizes}), so the threshold {perhaps}was chosen for others."
        )
    if broken:
        where = counted(len(broken), "category", "categories")
        sentences.append(f"{_TOO_MANY[0]} in {where}{_listed(broken)}{_TOO_MANY[1]}.")
    return " ".join(sentences)


def _of_the_threshold(found: Shift) -> str:
    """What a shift does to the threshold."""
    if found.stopped is None:
        return ""
    what = "was chosen for others" if found.is_upward else "is higher than they need, and defects may pass for it"
    if not found.shown:
        what = f"perhaps {what}"
    shares = f"{100 * found.stopped:.1f} % of them and {100 * found.stopped_held_out:.1f} % of the held-out ones"
    if not found.stopped and not found.stopped_held_out:
        shares = "none of either"
    return f", so the threshold {what}: it stops {shares}"


def _stops_too_many(judged: Assessment, name: str) -> bool:
    """Whether surely more good images of a category are stopped than its held-out ones, or the promise, let expect."""
    low = judged.categories[name].metrics["fpr"].low
    found = judged.shifts[name]
    if low is None or found.stopped_held_out is None:
        return False
    return low > max(judged.threshold.of(name).promised or 0.0, found.stopped_held_out)


def _origin(chosen: Chosen) -> str:
    whole = chosen.whole
    if whole.method == thresholds.GIVEN:
        return "That threshold was given, not chosen on calibrate rows."
    if chosen.per == thresholds.PER_CATEGORY:
        warned = [name for name, own in chosen.categories.items() if own.warning]
        text = "The thresholds were chosen on calibrate rows of each category."
        if warned:
            text += f" Warning for {len(warned)} of {len(chosen.categories)}{_listed(warned)}: on too few images."
        return text
    text = f"That threshold was chosen on calibrate rows: {whole.reason}"
    if whole.low is not None:
        text += f"; other such images would have put it between {number(whole.low)} and {number(whole.high)}"
    return f"{text}. Warning: {whole.warning}." if whole.warning else f"{text}."


def _no_threshold(judged: Assessment) -> str:
    overall = judged.overall
    missing = (
        f"There is no threshold ({judged.threshold.whole.reason}), so it is unknown how many of the "
        f"{counted(overall.defective, 'defective image')} would be missed and how many of the {overall.good} good "
        "ones falsely stopped."
    )
    return missing + _way_to_a_threshold(judged.threshold.whole.images)


def _way_to_a_threshold(images: int) -> str:
    """What to do where the calibrate rows, so many, speak for none."""
    rows = f"good images to the {leaks.CALIBRATE!r} rows" if images else f"rows with the split {leaks.CALIBRATE!r}"
    return f" Add {rows}, or name a threshold."


def _no_better(judged: Scope) -> str:
    if judged.verdict == scope.UNPROVEN:
        return (
            f"is not shown to be better than calling every image defective: {_against(judged)}; of so few images the "
            "interval reaches down to what a classifier gets that does not look."
        )
    return f"is no better than calling every image defective: {_how(judged)}{_against(judged)}."


def _better(judged: Scope) -> str:
    if judged.verdict == scope.MIXED:
        if judged.gains["f1"].value > 0:
            but = "is not shown to beat its F1"
        else:
            but = "does not beat its F1, because it misses more defects"
        return (
            "It tells good from defective better than calling every image defective does, but "
            f"{but}: {_against(judged)}."
        )
    if judged.verdict != scope.BETTER:
        return ""
    if min(judged.good, judged.defective) < thresholds.FEW:
        so_few = f"a single draw of {judged.good} good and {judged.defective} defective ones"
        return (
            f"On {'this one image' if judged.images == 1 else f'these {judged.images} images'} it beats calling "
            f"every image defective: {_against(judged)}; {so_few} "
            "does not show it for others (mvtec-tf label-efficiency repeats the draw)."
        )
    return f"It beats calling every image defective: {_against(judged)}."


def _unproven_by_leak(judged: Scope) -> str:
    if judged.verdict == scope.UNKNOWN:
        return ""
    return f"Beside calling every image defective: {_against(judged)}; on images it has not seen that is unknown."


def _against(judged: Scope) -> str:
    pairs = (
        f"{TITLES[name]} {with_limits(judged.metrics[name])} against {figure(judged.always_defective[name])}"
        for name in ("balanced_accuracy", "f1")
    )
    return ", ".join(pairs)


def _how(judged: Scope) -> str:
    """What such a model does instead of looking."""
    counts = judged.counts
    if counts.tn + counts.fn == 0:
        return "it calls every image defective, "
    if counts.tp + counts.fp == 0:
        return "it calls no image defective, "
    if judged.stops_nearly_everything:
        return f"it stops {part(counts.fp, judged.good, 'good images')}, "
    return ""


def _categories(judged: Assessment) -> str:
    """Which categories the overall figures hide."""
    if len(judged.categories) < 2 or judged.overall.verdict == scope.NO_BETTER:
        return ""
    names = [name for name, each in judged.categories.items() if each.verdict == scope.NO_BETTER]
    if not names:
        return ""
    return f"In {len(names)} of {len(judged.categories)} categories{_listed(names)} it is no better than that."


def _uneven(judged: Assessment) -> str:
    """Where one threshold for all categories lies among the good images of one, and so beyond the defects of others."""
    name = "" if judged.threshold.per == thresholds.PER_CATEGORY else shift.stopped_most(judged.shifts)
    if not name:
        return ""
    others = [each for other, each in judged.shifts.items() if other != name]
    stops = [
        part(sum(each.stopped_objects for each in group), sum(each.held_out for each in group), whose)
        for group, whose in (([judged.shifts[name]], f"of {name}"), (others, "of the others"))
    ]
    return (
        f"Good images of the {len(judged.shifts)} categories score differently, and one threshold serves all: of "
        f"held-out good objects it stops {stops[0]} and {stops[1]}, so that defects of the others may pass. With "
        "`threshold_per`=category each has its own."
    )


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if len(names) <= _NAMED else ""


def _ranking(judged: Assessment) -> str:
    found = judged.overall.metrics["roc_auc"]
    if not judged.overall.defective:
        interval = " The interval above narrows with more good test images." if judged.overall.counts else ""
        return _NEEDED + interval
    if found.value is None:
        return f"ROC-AUC does not exist, because {found.reason}."
    mean = judged.mean["roc_auc"]
    several = len(judged.categories) > 1 and mean.value is not None
    middle = f" over all images and {with_limits(mean)} as the mean over categories" if several else ""
    text = f"ROC-AUC is {with_limits(found)}{middle} (1 is perfect, 0.5 is what calling everything defective gets)"
    text += "".join(f"; {note}" for note in scope.FEW_SCORES.values() if note in found.note) + "."
    if found.value < 0.5:
        text += " Below 0.5 good images tend to score higher than defective ones: are labels or scores turned round?"
    return text


def _not_judged(judged: Assessment) -> str:
    names = judged.not_judged
    if not names:
        return ""
    return f"Not judged, for want of evaluate rows: {len(names)} of the categories{_listed(names)}."
