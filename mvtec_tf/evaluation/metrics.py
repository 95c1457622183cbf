"""Metrics of labels and scores, each defined once, for one set of images and for many resamples of it alike.

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

NO_PROBABILITY = "not every image has a probability"
NO_IMAGES = "there are no images"
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

    @property
    def numbers(self) -> tuple[float | None, float | None, float | None]:
        """Value, low and high, the cells of a table."""
        return self.value, self.low, self.high

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
      review: of an image that a person looks at, who calls it rightly; None: nobody is asked.

    Raises:
      ValueError: one of them is negative or not finite, or the first two are 0.
    """

    miss: float = 1.0
    false_alarm: float = 1.0
    review: float | None = None

    def __post_init__(self) -> None:
        """Refuses what the attributes may not be."""
        both = (self.miss, self.false_alarm)
        if not all(math.isfinite(cost) and cost >= 0 for cost in (*both, self.review or 0)) or not any(both):
            raise ValueError(f"expected costs of 0 or more, the first two not both 0. Received: {self}")

    def as_json(self) -> dict[str, float]:
        """The form in `metrics.json`, which the constructor takes."""
        return {name: cost for name, cost in dataclasses.asdict(self).items() if cost is not None}


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many images were called what.

    Attributes:
      tn: good, called good.
      fp: good, called defective: a false alarm.
      fn: defective, called good: a miss.
      tp: defective, called defective.

    Each is a number, or float [C] with one for each resample; so are the sums.
    """

    tn: Any
    fp: Any
    fn: Any
    tp: Any

    @property
    def good(self) -> Any:
        """Number of good images."""
        return self.tn + self.fp

    @property
    def defective(self) -> Any:
        """Number of defective images."""
        return self.fn + self.tp

    @property
    def called(self) -> Any:
        """Number of images called defective."""
        return self.tp + self.fp

    @property
    def passed(self) -> Any:
        """Number of images called good."""
        return self.tn + self.fn

    @property
    def images(self) -> Any:
        """Number of images."""
        return self.good + self.defective


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

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """FPR and recall, float64 [T + 1] each, from above all scores downwards; of both classes."""
        return np.append(0, self.fp) / self.fp[-1], np.append(0, self.tp) / self.tp[-1]

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision, float64 [T + 1] each; the first precision stands for a recall of 0 too."""
        precision = self.tp / (self.tp + self.fp)
        return np.append(0, self.tp / self.tp[-1]), np.append(precision[0], precision)


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float | np.ndarray) -> Confusion:
    """Counts at a threshold; `score >= threshold` is called defective.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite.
      threshold: finite; one, or [N] where categories have their own.

    Raises:
      ValueError: labels or scores are not as described.
    """
    labels, scores = checked(labels, scores)
    called = scores >= threshold
    tp, fp = int((called & labels).sum()), int((called & ~labels).sum())
    return Confusion(tn=int((~labels).sum()) - fp, fp=fp, fn=int(labels.sum()) - tp, tp=tp)


def curve(labels: np.ndarray, scores: np.ndarray) -> Curve:
    """Counts at every threshold; images with one score are called the same together.

    Args and errors as in `confusion`; at least one image.
    """
    labels, scores = checked(labels, scores)
    order, last = ranked(scores)
    tp = np.cumsum(labels[order])[last]
    return Curve(thresholds=scores[order][last], fp=last + 1 - tp, tp=tp)


def ranked(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks images: order from the highest score downwards, int [N], and each distinct score's last place, int [T]."""
    order = np.argsort(-scores, kind="stable")
    return order, np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)[: len(scores)]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part by whole, NaN where there is no whole."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, np.divide(part, whole), np.nan)


# Figures of a ranking, of many resamples at once. `tp` and `fp`, float [C, T + 1], count found defects and false
# alarms at every threshold, from above all scores downwards; the last column holds all images. Each gives float [C],
# NaN where a class is missing.


def roc_auc(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Chance that a defective image scores higher than a good one, ties counted half.

    The area under the ROC curve by trapezoids, which is the Mann-Whitney statistic (Hanley and
    McNeil, Radiology 1982).
    """
    pairs = (np.diff(fp, axis=1) * (tp[:, 1:] + tp[:, :-1])).sum(1) / 2
    return share(pairs, tp[:, -1] * fp[:, -1])


def pr_auc(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Average precision: the sum over thresholds of (R_n - R_{n-1}) P_n, without interpolation.

    A constant score gives the share of defective images. None if one class is missing: without
    good images every ranking would score 1.
    """
    called = np.maximum(tp + fp, 1)[:, 1:]  # where nothing is called yet there is no step either
    steps = share(np.diff(tp, axis=1), tp[:, -1:])
    return np.where(fp[:, -1] > 0, (steps * tp[:, 1:] / called).sum(1), np.nan)


def recall_at_specificity(tp: np.ndarray, fp: np.ndarray, percent: int) -> np.ndarray:
    """Best recall of all thresholds that let at least `percent` % of the good images pass.

    The threshold is the best one for these very images, so it describes the ranking and is not
    what a threshold chosen beforehand would reach. Calling nothing defective is one of the
    thresholds, so the figure exists (perhaps as 0) where both classes do.
    """
    # In whole numbers: a specificity of exactly 95 % must not be lost to rounding.
    allowed = (100 * fp <= (100 - percent) * fp[:, -1:]).sum(1) - 1
    return np.where(fp[:, -1] > 0, share(_at(tp, allowed), tp[:, -1]), np.nan)


def specificity_at_recall(tp: np.ndarray, fp: np.ndarray, percent: int) -> np.ndarray:
    """Best specificity of all thresholds that find at least `percent` % of the defective images.

    As with `recall_at_specificity`, the threshold is the best one for these very images.
    """
    needed = (100 * tp < percent * tp[:, -1:]).sum(1)
    return np.where(tp[:, -1] > 0, 1 - share(_at(fp, needed), fp[:, -1]), np.nan)


def _at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """One value of each row; a place past the end is the last one."""
    return values[np.arange(len(values)), np.minimum(places, values.shape[1] - 1)]


# Figures of calls: of counts that are numbers or arrays, one for each resample; NaN where one does not exist.


def accuracy(counts: Confusion) -> np.ndarray:
    """Share of images called rightly."""
    return share(counts.tp + counts.tn, counts.images)


def balanced_accuracy(counts: Confusion) -> np.ndarray:
    """Mean of recall and specificity; 0.5 for every classifier that does not look."""
    return (recall(counts) + specificity(counts)) / 2


def precision(counts: Confusion) -> np.ndarray:
    """Share of defective images among those called defective."""
    return share(counts.tp, counts.called)


def recall(counts: Confusion) -> np.ndarray:
    """Share of the defective images that were called defective (sensitivity)."""
    return share(counts.tp, counts.defective)


def f1(counts: Confusion) -> np.ndarray:
    """Harmonic mean of precision and recall; 0 if no defect was found, none if there is no defect."""
    return np.where(counts.defective > 0, share(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn), np.nan)


def specificity(counts: Confusion) -> np.ndarray:
    """Share of the good images that were called good."""
    return share(counts.tn, counts.good)


def npv(counts: Confusion) -> np.ndarray:
    """Negative predictive value: share of good images among those called good."""
    return share(counts.tn, counts.passed)


def fpr(counts: Confusion) -> np.ndarray:
    """Share of the good images that were falsely stopped."""
    return share(counts.fp, counts.good)


def fnr(counts: Confusion) -> np.ndarray:
    """Share of the defective images that were missed."""
    return share(counts.fn, counts.defective)


def mcc(counts: Confusion) -> np.ndarray:
    """Matthews correlation of calls and labels (Matthews, BBA 1975); 0 where all images are called alike."""
    scale = np.sqrt(counts.good * counts.defective) * np.sqrt(counts.called * counts.passed)
    correlation = np.where(scale > 0, share(counts.tp * counts.tn - counts.fp * counts.fn, scale), 0.0)
    return np.where((counts.good > 0) & (counts.defective > 0), correlation, np.nan)


def cost(counts: Confusion, costs: Costs) -> np.ndarray:
    """Mean cost of an image, in the unit of `costs`, at the share of defects of these images."""
    return share(costs.miss * counts.fn + costs.false_alarm * counts.fp, counts.images)


# In the order of the report. A metric that is added here is measured, resampled, averaged, printed and shown; nothing
# else has to know it but `_NEEDED`.
RANKING: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "roc_auc": roc_auc,
    "pr_auc": pr_auc,
    "recall_at_95_specificity": functools.partial(recall_at_specificity, percent=95),
    "recall_at_99_specificity": functools.partial(recall_at_specificity, percent=99),
    "specificity_at_95_recall": functools.partial(specificity_at_recall, percent=95),
    "specificity_at_99_recall": functools.partial(specificity_at_recall, percent=99),
}
AT_THRESHOLD: Mapping[str, Callable[[Confusion], np.ndarray]] = {
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
OF_PROBABILITY = ("brier", "expected_calibration_error")
_AREAS, _OPERATING_POINTS = list(RANKING)[:2], list(RANKING)[2:]
# Shares of the good images, which exist without a defective one.
OF_GOOD = ("specificity", "fpr")
NAMES = (*_AREAS, *AT_THRESHOLD, COST, *_OPERATING_POINTS, *OF_PROBABILITY)
# What a figure is a share of, and why it does not exist where there is none of it. All others need both classes.
_NEEDED: Mapping[str, tuple[str, str]] = {
    "accuracy": ("images", NO_IMAGES),
    COST: ("images", NO_IMAGES),
    "precision": ("called", "nothing was called defective"),
    "npv": ("passed", "nothing was called good"),
    **dict.fromkeys(("recall", "f1", "fnr"), ("defective", _NO_DEFECTIVE)),
    **dict.fromkeys(("specificity", "fpr"), ("good", _NO_GOOD)),
}


def smaller_class(name: str, good: int, defective: int) -> int:
    """Of how many the smaller class is that the metric `name` rests on, among those that there are."""
    needed = {**dict.fromkeys(OF_GOOD, (good,)), "recall": (defective,), "fnr": (defective,)}
    return min(filter(None, needed.get(name, (good, defective))), default=0)


def at_threshold(counts: Confusion, costs: Costs) -> dict[str, np.ndarray]:
    """The figures of calls by name, each of the shape of the counts; NaN where one does not exist."""
    return {name: figure(counts) for name, figure in AT_THRESHOLD.items()} | {COST: cost(counts, costs)}


def of_counts(counts: Confusion, costs: Costs) -> dict[str, Metric]:
    """The metrics of one set of calls by name, with the reason where one does not exist."""
    return {name: named(name, figure, counts) for name, figure in at_threshold(counts, costs).items()}


def named(name: str, figure: np.ndarray | float, counts: Confusion) -> Metric:
    """The metric `name` of images with these counts: its figure, or where that is NaN the reason."""
    if not np.isnan(figure):
        return Metric(float(figure))
    if name in _NEEDED:
        return Metric(None, _NEEDED[name][1])
    if not counts.images:
        return Metric(None, NO_IMAGES)
    return Metric(None, _NO_DEFECTIVE if counts.good else _NO_GOOD)


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
        return Metric(None, "no category has it: " + "; ".join(reasons) if reasons else NO_IMAGES)
    listed = "; ".join(f"{category}: {reason}" for category, reason in without.items())
    note = f"mean over {len(values)} of {len(found)} categories ({listed})" if without else ""
    # fsum: the mean must not depend on the order in which the categories come.
    return Metric(math.fsum(values) / len(values), note=note)


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool [N] (true = defective) and scores as float64 [N].

    Raises:
      ValueError: they are not 0 and 1, or finite, of one length.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"expected labels [N] and scores [N]. Received: {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"expected labels of 0 and 1. Received: {np.unique(labels)}")
    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores. Received: {int((~np.isfinite(scores)).sum())} that are not")
    return labels.astype(bool), scores


def figure(metric: Metric, digits: int = 3, sign: str = "") -> str:
    """A figure as it is printed, with so many decimals; a dash if there is none. `sign` is "+" for differences."""
    return "-" if metric.value is None else f"{metric.value:{sign}.{digits}f}"


def with_limits(metric: Metric, digits: int = 3, sign: str = "") -> str:
    """A figure with its interval as it is printed: `0.913 [0.850 to 0.960]`, or `-0.047 [-0.097 to +0.004]`.

    Where all resamples give one figure, that is said: an interval of no width would claim certainty.
    """
    if metric.value is None or metric.low is None or metric.high is None:
        return figure(metric, digits, sign)
    limits = f"{metric.low:{sign}.{digits}f} to {metric.high:{sign}.{digits}f}"
    return f"{figure(metric, digits, sign)} [{'all resamples alike' if metric.low == metric.high else limits}]"
