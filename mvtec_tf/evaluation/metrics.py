"""Metrics of labels and scores: pure functions, each with a defined answer where it is undefined.

Labels are 1 for defective and 0 for good; a higher score is more defective; a score that reaches
the threshold is called defective. "Positive" means defective. Where a figure does not exist (no
good image, so no specificity) its value is None with the reason in words, never 0 or 1.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mvtec_tf.evaluation import calibration

NO_PROBABILITY = "not every image has a probability"
_NO_IMAGES = "there are no images"
_NO_GOOD = "there are no good images"
_NO_DEFECTIVE = "there are no defective images"


@dataclasses.dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
      value: the figure, None where it does not exist.
      reason: why there is no value.
      low, high: ends of its interval, None where none was computed.
      note: what must be known to read the value, "" if nothing.
    """

    value: float | None
    reason: str = ""
    low: float | None = None
    high: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`: value, low, high, and reason and note where there are any."""
        form: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        form |= {"reason": self.reason} if self.value is None else {}
        return form | ({"note": self.note} if self.note else {})


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a wrong call costs, in any one unit.

    Attributes:
      miss: of a defective image called good.
      false_alarm: of a good image called defective.

    Raises:
      ValueError: one of them is negative or not finite, or both are 0.
    """

    miss: float = 1.0
    false_alarm: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what the attributes may not be."""
        both = (self.miss, self.false_alarm)
        if not all(math.isfinite(cost) and cost >= 0 for cost in both) or not any(both):
            raise ValueError(f"expected costs of 0 or more, not both 0. Received: {both}")


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many images were called what.

    Attributes:
      tn: good, called good.
      fp: good, called defective: a false alarm.
      fn: defective, called good: a miss.
      tp: defective, called defective.
    """

    tn: int
    fp: int
    fn: int
    tp: int

    @property
    def good(self) -> int:
        """Number of good images."""
        return self.tn + self.fp

    @property
    def defective(self) -> int:
        """Number of defective images."""
        return self.fn + self.tp


@dataclasses.dataclass(frozen=True)
class Curve:
    """What each possible threshold gives, from the highest downwards.

    Attributes:
      thresholds: float64 [T], the distinct scores, descending.
      fp, tp: int64 [T], false alarms and found defects if that score is the threshold.
    """

    thresholds: np.ndarray
    fp: np.ndarray
    tp: np.ndarray


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float | np.ndarray) -> Confusion:
    """Counts at a threshold; `score >= threshold` is called defective.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite.
      threshold: finite; one, or [N] where categories have their own.

    Raises:
      ValueError: labels or scores are not as described.
    """
    labels, scores = _checked(labels, scores)
    called = scores >= threshold
    tp, fp = int((called & labels).sum()), int((called & ~labels).sum())
    return Confusion(tn=int((~labels).sum()) - fp, fp=fp, fn=int(labels.sum()) - tp, tp=tp)


def curve(labels: np.ndarray, scores: np.ndarray) -> Curve:
    """Counts at every threshold; images with one score are called the same together.

    Args and errors as in `confusion`; at least one image.
    """
    labels, scores = _checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    last = np.append(np.flatnonzero(np.diff(descending)), len(scores) - 1)
    tp = np.cumsum(labels[order])[last]
    return Curve(thresholds=descending[last], fp=last + 1 - tp, tp=tp)


def accuracy(counts: Confusion) -> Metric:
    """Share of images called rightly."""
    return _ratio(counts.tp + counts.tn, counts.good + counts.defective, _NO_IMAGES)


def balanced_accuracy(counts: Confusion) -> Metric:
    """Mean of recall and specificity; 0.5 for every classifier that does not look."""
    if reason := _one_class(counts.good, counts.defective):
        return Metric(None, reason)
    return Metric((counts.tp / counts.defective + counts.tn / counts.good) / 2)


def precision(counts: Confusion) -> Metric:
    """Share of defective images among those called defective."""
    return _ratio(counts.tp, counts.tp + counts.fp, "nothing was called defective")


def recall(counts: Confusion) -> Metric:
    """Share of the defective images that were called defective (sensitivity)."""
    return _ratio(counts.tp, counts.defective, _NO_DEFECTIVE)


def f1(counts: Confusion) -> Metric:
    """Harmonic mean of precision and recall; 0 if no defect was found, none if there is no defect."""
    if not counts.defective:
        return Metric(None, _NO_DEFECTIVE)
    return Metric(2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn))


def specificity(counts: Confusion) -> Metric:
    """Share of the good images that were called good."""
    return _ratio(counts.tn, counts.good, _NO_GOOD)


def npv(counts: Confusion) -> Metric:
    """Negative predictive value: share of good images among those called good."""
    return _ratio(counts.tn, counts.tn + counts.fn, "nothing was called good")


def fpr(counts: Confusion) -> Metric:
    """Share of the good images that were falsely stopped."""
    return _ratio(counts.fp, counts.good, _NO_GOOD)


def fnr(counts: Confusion) -> Metric:
    """Share of the defective images that were missed."""
    return _ratio(counts.fn, counts.defective, _NO_DEFECTIVE)


def mcc(counts: Confusion) -> Metric:
    """Matthews correlation of calls and labels (Matthews, BBA 1975); 0 where all images are called alike."""
    if reason := _one_class(counts.good, counts.defective):
        return Metric(None, reason)
    called, passed = counts.tp + counts.fp, counts.tn + counts.fn
    if not called or not passed:
        return Metric(0.0)
    covariance = counts.tp * counts.tn - counts.fp * counts.fn
    return Metric(covariance / (math.sqrt(counts.good * counts.defective) * math.sqrt(called * passed)))


def cost(counts: Confusion, costs: Costs) -> Metric:
    """Mean cost of an image, in the unit of `costs`, at the share of defects of these images."""
    return _ratio(costs.miss * counts.fn + costs.false_alarm * counts.fp, counts.good + counts.defective, _NO_IMAGES)


def recall_at_specificity(labels: np.ndarray, scores: np.ndarray, percent: int) -> Metric:
    """Best recall of all thresholds that let at least `percent` % of the good images pass.

    The threshold is the best one for these very images, so it describes the ranking and is not
    what a threshold chosen beforehand would reach. Calling nothing defective is one of the
    thresholds, so the figure exists (perhaps as 0) where both classes do.
    """
    labels, scores = _checked(labels, scores)
    if reason := _one_class(int((~labels).sum()), int(labels.sum())):
        return Metric(None, reason)
    points = curve(labels, scores)
    # In whole numbers: a specificity of exactly 95 % must not be lost to rounding.
    enough = 100 * points.fp <= (100 - percent) * points.fp[-1]
    return Metric(int(points.tp[enough].max(initial=0)) / int(points.tp[-1]))


def specificity_at_recall(labels: np.ndarray, scores: np.ndarray, percent: int) -> Metric:
    """Best specificity of all thresholds that find at least `percent` % of the defective images.

    As with `recall_at_specificity`, the threshold is the best one for these very images.
    """
    labels, scores = _checked(labels, scores)
    if reason := _one_class(int((~labels).sum()), int(labels.sum())):
        return Metric(None, reason)
    points = curve(labels, scores)
    enough = 100 * points.tp >= percent * points.tp[-1]
    return Metric(1 - int(points.fp[enough].min()) / int(points.fp[-1]))


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> Metric:
    """Chance that a defective image scores higher than a good one, ties counted half.

    The area under the ROC curve by trapezoids, which is the Mann-Whitney statistic (Hanley and
    McNeil, Radiology 1982). Args and errors as in `confusion`. None if one class is missing.
    """
    labels, scores = _checked(labels, scores)
    if reason := _one_class(int((~labels).sum()), int(labels.sum())):
        return Metric(None, reason)
    points = curve(labels, scores)
    area = np.trapezoid(np.append(0, points.tp), np.append(0, points.fp))
    return Metric(float(area / (points.tp[-1] * points.fp[-1])))


def pr_auc(labels: np.ndarray, scores: np.ndarray) -> Metric:
    """Average precision: the sum over thresholds of (R_n - R_{n-1}) P_n, without interpolation.

    A constant score gives the share of defective images. None if one class is missing: without
    good images every ranking would score 1.
    """
    labels, scores = _checked(labels, scores)
    if reason := _one_class(int((~labels).sum()), int(labels.sum())):
        return Metric(None, reason)
    points = curve(labels, scores)
    steps = np.diff(points.tp, prepend=0) / points.tp[-1]
    return Metric(float(np.sum(steps * points.tp / (points.tp + points.fp))))


# In the order of the report. A metric that is added here, and in `resampled`, is measured, averaged,
# printed and shown; nothing else has to know it.
RANKING: Mapping[str, Callable[[np.ndarray, np.ndarray], Metric]] = {
    "roc_auc": roc_auc,
    "pr_auc": pr_auc,
    "recall_at_95_specificity": functools.partial(recall_at_specificity, percent=95),
    "recall_at_99_specificity": functools.partial(recall_at_specificity, percent=99),
    "specificity_at_95_recall": functools.partial(specificity_at_recall, percent=95),
    "specificity_at_99_recall": functools.partial(specificity_at_recall, percent=99),
}
AT_THRESHOLD: Mapping[str, Callable[[Confusion], Metric]] = {
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "recall": recall,
    "specificity": specificity,
    "precision": precision,
    "npv": npv,
    "accuracy": accuracy,
    "fpr": fpr,
    "fnr": fnr,
    "mcc": mcc,
}
COST = "cost"
OF_PROBABILITY: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "brier": calibration.brier,
    "expected_calibration_error": calibration.expected_calibration_error,
}
_AREAS, _OPERATING_POINTS = list(RANKING)[:2], list(RANKING)[2:]
# Shares of the good images, which exist without a defective one.
OF_GOOD = ("specificity", "fpr")
NAMES = (*_AREAS, *AT_THRESHOLD, COST, *_OPERATING_POINTS, *OF_PROBABILITY)


def measure(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float | np.ndarray | None,
    no_threshold: str = "there is no threshold",
    probabilities: np.ndarray | None = None,
    costs: Costs | None = None,
) -> dict[str, Metric]:
    """All metrics of one set of images, by name.

    Args:
      labels, scores: as in `confusion`.
      threshold: one, or [N]; None if there is none; then the metrics that need one have no value.
      no_threshold: why there is none.
      probabilities: float [N] in 0..1, of being defective; None if not every image has one.
      costs: of wrong calls; None: 1 each.
    """
    measured = {name: metric(labels, scores) for name, metric in RANKING.items()}
    if threshold is None:
        measured |= {name: Metric(None, no_threshold) for name in (*AT_THRESHOLD, COST)}
    else:
        measured |= at_threshold(confusion(labels, scores, threshold), costs or Costs())
    return measured | of_probability(labels, probabilities)


def at_threshold(counts: Confusion, costs: Costs) -> dict[str, Metric]:
    """The metrics of calls, by name."""
    return {name: metric(counts) for name, metric in AT_THRESHOLD.items()} | {COST: cost(counts, costs)}


def of_probability(labels: np.ndarray, probabilities: np.ndarray | None) -> dict[str, Metric]:
    """The metrics of probabilities, by name; without a value where not every image has one."""
    if probabilities is None:
        return {name: Metric(None, NO_PROBABILITY) for name in OF_PROBABILITY}
    if not len(labels):
        return {name: Metric(None, _NO_IMAGES) for name in OF_PROBABILITY}
    return {name: Metric(figure(labels, probabilities)) for name, figure in OF_PROBABILITY.items()}


def mean_over(categories: Mapping[str, Mapping[str, Metric]], names: Iterable[str] = NAMES) -> dict[str, Metric]:
    """Unweighted mean of each metric over the categories that have it, the field's convention.

    A note says which categories are missing from a mean, and why.
    """
    return {name: _mean({category: found[name] for category, found in categories.items()}) for name in names}


def _mean(found: Mapping[str, Metric]) -> Metric:
    values = [metric.value for metric in found.values() if metric.value is not None]
    without = {category: metric.reason for category, metric in found.items() if metric.value is None}
    if not values:
        reasons = sorted(set(without.values()))
        return Metric(None, "no category has it: " + "; ".join(reasons) if reasons else _NO_IMAGES)
    listed = "; ".join(f"{category}: {reason}" for category, reason in without.items())
    note = f"mean over {len(values)} of {len(found)} categories ({listed})" if without else ""
    # fsum: the mean must not depend on the order in which the categories come.
    return Metric(math.fsum(values) / len(values), note=note)


def _ratio(part: float, whole: int, reason: str) -> Metric:
    return Metric(part / whole) if whole else Metric(None, reason)


def _one_class(good: int, defective: int) -> str:
    """Why a figure that compares both classes does not exist, "" if both are there."""
    if good and defective:
        return ""
    if good or defective:
        return _NO_DEFECTIVE if good else _NO_GOOD
    return _NO_IMAGES


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool [N] (true = defective) and scores as float64 [N]."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"expected labels [N] and scores [N]. Received: {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"expected labels of 0 and 1. Received: {np.unique(labels)}")
    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores. Received: {int((~np.isfinite(scores)).sum())} that are not")
    return labels.astype(bool), scores
