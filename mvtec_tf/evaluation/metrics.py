"""Metrics of labels and scores: pure functions, each with a defined answer where it is undefined.

Labels are 1 for defective and 0 for good; a higher score is more defective; a score that reaches
the threshold is called defective. "Positive" means defective. Where a figure does not exist (no
good image, so no specificity) its value is None with the reason in words, never 0 or 1.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Confusion:
    """Counts at a threshold; `score >= threshold` is called defective.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite.
      threshold: finite.

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


# In the order of the report. A metric that is added here is measured, averaged, printed and
# shown; nothing else has to know it.
RANKING: Mapping[str, Callable[[np.ndarray, np.ndarray], Metric]] = {"roc_auc": roc_auc, "pr_auc": pr_auc}
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
}
NAMES = (*RANKING, *AT_THRESHOLD)


def measure(
    labels: np.ndarray, scores: np.ndarray, threshold: float | None, no_threshold: str = "there is no threshold"
) -> dict[str, Metric]:
    """All metrics of one set of images, by name.

    Args:
      labels, scores: as in `confusion`.
      threshold: None if there is none; then the metrics that need one have no value.
      no_threshold: why there is none.
    """
    measured = {name: metric(labels, scores) for name, metric in RANKING.items()}
    if threshold is None:
        return measured | {name: Metric(None, no_threshold) for name in AT_THRESHOLD}
    counts = confusion(labels, scores, threshold)
    return measured | {name: metric(counts) for name, metric in AT_THRESHOLD.items()}


def measure_always_defective(labels: np.ndarray) -> dict[str, Metric]:
    """The metrics of calling every image defective, which needs neither a model nor a look."""
    return measure(labels, np.zeros(len(labels)), threshold=0.0)


def mean_over(categories: Mapping[str, Mapping[str, Metric]]) -> dict[str, Metric]:
    """Unweighted mean of each metric over the categories that have it, the field's convention.

    A note says which categories are missing from a mean, and why.
    """
    return {name: _mean({category: found[name] for category, found in categories.items()}) for name in NAMES}


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


def _ratio(part: int, whole: int, reason: str) -> Metric:
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
