"""The answers to the three questions and on the study's mark, in words with the figures behind them."""

import dataclasses
import json
from collections.abc import Sequence

from mvtec_tf.evaluation import metrics, scope
from mvtec_tf.evaluation.comparison import compare as comparison
from mvtec_tf.evaluation.comparison.compare import ALL, Comparison, Standing
from mvtec_tf.evaluation.comparison.contenders import Method
from mvtec_tf.evaluation.comparison.report import direction, labels, signed
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report import diagrams
from mvtec_tf.evaluation.report.summary import TITLES

# The study's own mark.
MARK_F1, MARK_SHARE = 0.75, 0.1
MET, MET_NOT_SURELY, MISSED, NOT_SURELY_MISSED, NO_EVIDENCE, NO_FIGURE = (
    "met",
    "met, but not surely",
    "missed",
    "missed, but not surely",
    "no evidence",
    "no figure",
)
SHOWN = ("f1", "balanced_accuracy", "recall", "specificity", "roc_auc")
_ROUNDING = 1e-9
# What kind of method a run is.
SUPERVISED, SELF_SUPERVISED, STARTING, BASELINE, UNKNOWN = (
    "supervised network",
    "self-supervised encoder with a head",
    "encoder as it came, with a head",
    "baseline without a network",
    "not recorded",
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One figure that an answer rests on.

    Attributes:
      method: whose.
      metric: its name.
      against: the method that `figure` is the difference from; "" if it is a figure of its own.
      figure: with its interval.
    """

    method: str
    metric: str
    against: str
    figure: Metric


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question and what the runs say to it.

    Attributes:
      question: in words.
      text: the answer, a sentence each.
      findings: the figures behind it.
    """

    question: str
    text: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True)
class Mark:
    """One method against the study's mark.

    Attributes:
      method: a self-supervised one with at most 10 % of the labels.
      share: of the test images whose labels it may use.
      f1: with its interval.
      verdict: whether the mark is met, and how surely.
    """

    method: str
    share: float
    f1: Metric
    verdict: str


def answers(compared: Comparison) -> tuple[Answer, Answer, Answer]:
    """To the three questions, in their order; the first method is the one that the others are measured against."""
    return _how_well(compared), _beside_supervised(compared), _which_labels(compared)


def few_labels(compared: Comparison) -> list[Standing]:
    """Self-supervised methods with at most 10 % of the labels."""
    return [
        each
        for each in compared.standings
        if role(each.method) == SELF_SUPERVISED
        and (share := label_share(each.method)) is not None
        and share <= MARK_SHARE + _ROUNDING
    ]


def role(method: Method) -> str:
    """What kind of method it is, by the record of its first run."""
    record = method.runs[0].record or {}
    binary = record.get("binary")
    if binary == diagrams.PROBE:
        return SELF_SUPERVISED if (record.get("encoder") or {}).get("pretrain_images") else STARTING
    return {diagrams.SUPERVISED: SUPERVISED, diagrams.BASELINE: BASELINE}.get(binary, UNKNOWN)


def label_share(method: Method) -> float | None:
    """The largest share of the test images whose labels one of its runs may use; None if a record says no number."""
    shares = []
    for run in method.runs:
        try:
            shares.append(float((run.record or {})["settings"]["label_budget"]))
        except (KeyError, ValueError):
            return None
    return max(shares)


def head(method: Method) -> tuple[object, ...]:
    """What was fitted on the encoder: two methods that differ in it do not show what the encoder is worth."""
    record = method.runs[0].record or {}
    return record.get("part"), record.get("settings", {}).get("head"), record.get("settings", {}).get("protocol")


def arrange(methods: Sequence[Method]) -> tuple[Method, ...]:
    """The supervised method with the most labels first, as the one that the others are measured against."""
    supervised = [method for method in methods if role(method) == SUPERVISED]
    if not supervised:
        return tuple(methods)
    first = max(supervised, key=lambda method: method.labels_used or 0)
    return (first, *(method for method in methods if method is not first))


def _how_well(compared: Comparison) -> Answer:
    question = "How well does self-supervised learning with at most 10 % of the labels find defects?"
    few = few_labels(compared)
    if not few:
        wanted = "runs of mvtec-tf fit with an `encoder` and a `label_budget` of at most 0.1"
        return Answer(question, (_missing("How well it does", wanted),))
    text, findings = [], []
    for each in few:
        found = each.figures[ALL]
        named = f"{each.method.name} ({labels(each)})"
        if found["f1"].value is None:
            text.append(f"{named} has no calls that could be judged: {found['f1'].reason}.")
        else:
            text.append(
                f"{named} finds {_percent(found['recall'])} of the defective images and lets "
                f"{_percent(found['specificity'])} of the good ones pass; its F1 is "
                f"{metrics.with_limits(found['f1'])}, its balanced accuracy "
                f"{metrics.with_limits(found['balanced_accuracy'])} (0.500 without looking). "
                f"{_against_always(each)}"
            )
        findings += [Finding(each.method.name, name, "", found[name]) for name in SHOWN]
    more, differences = _gain_of_pretraining(compared, few)
    return Answer(question, (*text, *more), (*findings, *differences))


def _against_always(each: Standing) -> str:
    return {
        scope.BETTER: "It beats calling every image defective.",
        scope.MIXED: "It tells good from defective, but its F1 is not shown to beat calling every image defective.",
        scope.UNPROVEN: "It is not shown to be better than calling every image defective.",
        scope.NO_BETTER: "It is no better than calling every image defective.",
        scope.UNKNOWN: "Whether it beats calling every image defective cannot be told.",
        scope.LEAK: "None of this is evidence, because images it was judged on had been used to make it.",
    }[each.verdict]


def _gain_of_pretraining(compared: Comparison, few: Sequence[Standing]) -> tuple[list[str], list[Finding]]:
    """What pretraining on one's own images added, where the same head was fitted on the encoder as it came."""
    starting = [
        each
        for each in compared.standings
        if role(each.method) == STARTING and label_share(each.method) in {label_share(one.method) for one in few}
    ]
    text, findings = [], []
    for one in few:
        for other in starting:
            if label_share(one.method) != label_share(other.method) or head(one.method) != head(other.method):
                continue
            finding = _difference(one, other, compared, "roc_auc")
            words = _said(
                finding.figure,
                "roc_auc",
                "pretraining helped",
                "pretraining did harm",
                "pretraining is not shown to have helped or harmed",
            )
            text.append(
                f"Beside {other.method.name}, whose encoder was not pretrained on these images, the ROC-AUC of "
                f"{one.method.name} differs by {signed(finding.figure)}: {words}."
            )
            findings.append(finding)
    return text, findings


def _beside_supervised(compared: Comparison) -> Answer:
    question = "How does it compare with a supervised network that has all labels?"
    first, few = compared.standings[0], few_labels(compared)
    if role(first.method) != SUPERVISED:
        return Answer(question, (_missing("How it compares", "runs of mvtec-tf train-cnn"),))
    if not few:
        return Answer(question, (_missing("How it compares", "self-supervised runs with at most 10 % of the labels"),))
    text, findings = [], []
    for each in few:
        own = [Finding(each.method.name, name, first.method.name, each.differences[ALL][name]) for name in SHOWN]
        by_name = {finding.metric: finding.figure for finding in own}
        name = "balanced_accuracy" if by_name["balanced_accuracy"].value is not None else "roc_auc"
        if each.method.leak or first.method.leak:
            said = "which is no evidence, because one of them had seen images it was judged on"
        else:
            neither = "neither is shown to be better, which does not make them equal"
            ours, theirs = f"{each.method.name} is better", f"{first.method.name} is better"
            said = _said(by_name[name], name, ours, theirs, neither)
        others = " and ".join(f"{TITLES[metric]} {signed(by_name[metric])}" for metric in ("f1", "roc_auc"))
        text.append(
            f"On the same images {each.method.name} ({labels(each)}) has a {TITLES[name]} of "
            f"{metrics.figure(each.figures[ALL][name])}, {first.method.name} ({labels(first)}) of "
            f"{metrics.figure(first.figures[ALL][name])}: a difference of {signed(by_name[name])}: {said}. The "
            f"differences in {others}."
        )
        findings += own
    return Answer(question, tuple(text), tuple(findings))


def _which_labels(compared: Comparison) -> Answer:
    question = "How much does it matter how many labels there are, and which?"
    text, findings = [], []
    for series in _series(compared):
        least, most = series[0], series[-1]
        name = "balanced_accuracy" if least.figures[ALL]["balanced_accuracy"].value is not None else "roc_auc"
        finding = _difference(most, least, compared, name)
        way = ", ".join(f"{each.method.labels_used:g}: {metrics.figure(each.figures[ALL][name])}" for each in series)
        neither = "more labels are not shown to help or to harm"
        words = _said(finding.figure, name, "more labels help", "more labels do harm", neither)
        text.append(
            f"From {least.method.labels_used:g} labels ({least.method.name}) to {most.method.labels_used:g} "
            f"({most.method.name}) {TITLES[name]} changes by {signed(finding.figure)}: {words} ({way})."
        )
        findings.append(finding)
    if not text:
        text.append(_missing("How much their number matters", "runs of one method with different `label_budget`"))
    several = [each for each in compared.standings if len(each.method.runs) > 1]
    for each in several:
        spread = each.deviations[ALL]["balanced_accuracy"]
        name = "balanced_accuracy" if spread is not None else "roc_auc"
        spread = each.deviations[ALL][name]
        if spread is None:
            continue
        text.append(
            f"Over {len(each.method.runs)} seeds, each with its own draw of labels, cut of the images and start of the "
            f"training, the {TITLES[name]} of {each.method.name} has a standard deviation of {spread:.3f}."
        )
        findings.append(Finding(each.method.name, f"{name}_deviation_over_seeds", "", Metric(spread)))
    if not several:
        wanted = "several seeds of a method, as NAME=RUN+RUN,"
        text.append(_missing("How much it matters which images are labelled", wanted))
    return Answer(question, tuple(text), tuple(findings))


def _series(compared: Comparison) -> list[list[Standing]]:
    """Methods that differ in their label budget only, from the fewest labels to the most; two or more each."""
    found: dict[str, list[Standing]] = {}
    for each in compared.standings:
        if each.method.labels_used is not None:
            found.setdefault(_recipe(each.method), []).append(each)
    series = [sorted(each, key=lambda one: one.method.labels_used) for each in found.values()]
    return [each for each in series if each[0].method.labels_used < each[-1].method.labels_used]


def _recipe(method: Method) -> str:
    """Equal for methods that are one but for their labels."""
    if "@" in method.name:
        return method.series
    record = method.runs[0].record or {}
    settings = dict(record.get("settings", {}))
    for name in ("label_budget", "seed"):
        settings.pop(name, None)
    return json.dumps([record.get("binary", method.name), record.get("part"), settings], sort_keys=True)


def _difference(one: Standing, other: Standing, compared: Comparison, name: str) -> Finding:
    """One method above another, neither of them perhaps the one that all are measured against."""
    pair = comparison.compare((other.method, one.method), compared.costs, compared.bootstrap)
    return Finding(one.method.name, name, other.method.name, pair.standings[1].differences[ALL][name])


def _said(difference: Metric, name: str, better: str, worse: str, neither: str) -> str:
    """What the interval of a difference allows to say."""
    if difference.value is None:
        return difference.reason
    if difference.low is None:
        return f"{difference.note or 'no interval was asked for'}, so nothing is shown"
    shown = direction(difference, name)
    if shown:
        return better if shown == "better" else worse
    return f"the interval holds 0, so {neither}"


def mark_of(each: Standing) -> Mark:
    """Whether a method meets the mark."""
    found = each.figures[ALL]["f1"]
    verdict = NO_EVIDENCE if each.method.leak else _verdict(found)
    return Mark(each.method.name, label_share(each.method), found, verdict)


def _verdict(found: Metric) -> str:
    if found.value is None:
        return NO_FIGURE
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    if found.value >= MARK_F1:
        return MET if low >= MARK_F1 else MET_NOT_SURELY
    return MISSED if high < MARK_F1 else NOT_SURELY_MISSED


def always_meets(f1: float | None) -> bool | None:
    """Whether calling every image defective meets the mark; None if it has no F1."""
    return None if f1 is None else f1 >= MARK_F1


def on_the_mark(marks: Sequence[Mark], always: float | None) -> tuple[str, ...]:
    """What is to be said on the mark, a sentence each; `always` is the F1 of calling everything defective."""
    mark = f"the study's own mark, an F1 of {100 * MARK_F1:g} % with at most {100 * MARK_SHARE:g} % of the labels,"
    if not marks:
        text = [f"Whether {mark} is met cannot be told: no run here is about it."]
    else:
        each = "; ".join(f"{one.method}: {one.verdict} (F1 {metrics.with_limits(one.f1)})" for one in marks)
        text = [f"Whether {mark} is met: {each}."]
    if always is None:
        return (*text, "No defective image was evaluated, so the mark says nothing here.")
    if always_meets(always):
        text.append(
            f"Calling every image defective meets it too: its F1 is {always:.3f} on the same images, without a model "
            "and without a label, as wherever 60 % or more of the images are defective. So the mark tells nothing "
            "about a model; balanced accuracy and specificity do."
        )
    else:
        text.append(
            f"Calling every image defective does not meet it here: its F1 is {always:.3f}, because fewer than 60 % of "
            "these images are defective. On the study's own images, with 73 % defective, it did."
        )
    return tuple(text)


def _missing(asked: str, what: str) -> str:
    return f"{asked}, these runs cannot say: {what} are missing."


def _percent(found: Metric) -> str:
    limits = "" if found.low is None else f" ({100 * found.low:.1f} to {100 * found.high:.1f} %)"
    return f"{100 * found.value:.1f} %{limits}" if found.value is not None else f"an unknown share ({found.reason})"
