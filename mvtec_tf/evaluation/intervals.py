"""Intervals by the bootstrap: how far a figure would move if other images had been photographed.

Whole groups are drawn with replacement, each inside its stratum, so that several photographs of
one object count as one piece of evidence and every resample has the table's own mix of categories
and labels (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). An interval
holds the middle 95 % of the resampled figures. It says nothing of how far another training run,
another threshold or another factory would move them.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.metrics import Confusion, Costs, Metric, share

LEVEL = 0.95
# So many weights are held at a time: 8 MB. Less and the loop costs more than the sums; more gains nothing.
_WEIGHTS_AT_ONCE = 1 << 20
# A figure that exists in fewer resamples than this has an interval of a chosen few, which is said.
_MOSTLY = 0.95
# Resampling a proportion wants so many objects on both sides, as its normal approximation does; and any other figure so
# many of each class: among draws of three, one in nine is of one object alone.
FEW = 5

# How both begin.
WITHOUT = "no interval, because "
NO_INTERVAL = f"{WITHOUT}no resample has the figure, or all are of the same objects"
TOO_FEW = f"{WITHOUT}resampling fewer than {FEW} objects of a class would make it too narrow"
NO_SPREAD = "every resample gives this very figure, so its interval says nothing: too few or too alike images"


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed.

    Attributes:
      resamples: how many; 0: no intervals.
      seed: the same seed and table give the same intervals.

    Raises:
      ValueError: one of them is negative.
    """

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what the attributes may not be."""
        if self.resamples < 0 or self.seed < 0:
            raise ValueError(f"expected resamples and seed of 0 or more. Received: {self.resamples} and {self.seed}")


class Resampling:
    """Draws of whole groups with replacement, stratified by category and label.

    A group with good and defective images is a stratum's of its own kind: it is drawn whole too.
    The draws do not depend on the order of the images.

    Args:
      paths, categories, groups: [N] of str each; group "" is the image itself.
      labels: [N] of 0 and 1.
      bootstrap: how many resamples, and the seed.

    Attributes:
      units: int [N], which group each image belongs to, counted from 0.
    """

    def __init__(
        self,
        paths: Sequence[str],
        categories: Sequence[str],
        groups: Sequence[str],
        labels: Sequence[int],
        bootstrap: Bootstrap,
    ) -> None:
        self._bootstrap = bootstrap
        self.units = _codes(
            (category, leaks.same_file_key(group or path))
            for path, category, group in zip(paths, categories, groups, strict=True)
        )
        labels = np.asarray(labels).astype(bool)
        count = int(self.units.max(initial=-1)) + 1
        has_good = np.bincount(self.units[~labels], minlength=count) > 0
        has_defective = np.bincount(self.units[labels], minlength=count) > 0
        category_of = np.empty(count, int)
        category_of[self.units] = _codes(categories)
        stratum = category_of * 4 + has_good * 2 + has_defective
        self._strata = [np.flatnonzero(stratum == code) for code in np.unique(stratum)]
        self._count = count

    def __len__(self) -> int:
        """Number of resamples."""
        return self._bootstrap.resamples

    def chunks(self) -> Iterator[np.ndarray]:
        """How often each image is in each resample: float64 [C, N], all chunks together `len(self)` rows."""
        rng = np.random.default_rng(self._bootstrap.seed)
        size = max(1, _WEIGHTS_AT_ONCE // max(1, len(self.units)))
        for start in range(0, len(self), size):
            rows = min(size, len(self) - start)
            drawn = np.empty((rows, self._count))
            for members in self._strata:
                drawn[:, members] = _draw(rng, rows, len(members))
            yield drawn[:, self.units]

    def varied(self, figures: np.ndarray) -> np.ndarray:
        """Figures in resamples, any shape; NaN where every resample is the table itself, so that they say nothing.

        So it is where each category has but one group of its good and one of its defective images.
        """
        return figures if any(len(members) > 1 for members in self._strata) else np.full_like(figures, np.nan)

    def distinct(self, which: np.ndarray) -> int:
        """Number of groups among the images `which` (bool [N])."""
        return len(np.unique(self.units[which]))


def with_interval(
    metric: Metric, resampled: np.ndarray, units: int | None = None, smaller: int | None = None
) -> Metric:
    """The metric with the interval of its resampled values.

    Args:
      metric: of the whole table; one without a value has no interval.
      resampled: float [R], NaN where the figure does not exist in a resample.
      units: for a proportion, the number of groups it is a proportion of. All or none of a few
        images stay all or none in every resample, and an interval of no width would claim
        certainty; of one miss among twelve it would be narrower than of none. There (`few`) the
        exact binomial limits (Clopper and Pearson, Biometrika 1934) are used.
      smaller: for another figure, the number of groups of the smaller class that it rests on; of fewer than `FEW` there
        is no interval.
    """
    if metric.value is None or not len(resampled):
        return metric
    found = resampled[~np.isnan(resampled)]
    if few(metric, units) and (found.size or metric.value in (0, 1)):
        return dataclasses.replace(metric, **exact(metric.value, units))
    if not found.size:
        return _noted(metric, NO_INTERVAL)
    if smaller is not None and smaller < FEW:
        return _noted(metric, TOO_FEW)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    # Resampling pushes some figures to one side (a calibration error upwards); an interval that
    # does not hold its own figure would only confuse.
    low, high = min(low, metric.value), max(high, metric.value)
    # A sum over other ranks rounds otherwise.
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        low = high = metric.value
    metric = dataclasses.replace(metric, low=low, high=high)
    if len(found) < _MOSTLY * len(resampled):
        percent = 100 * len(found) / len(resampled)
        metric = _noted(metric, f"the interval is of the {percent:.0f} % of resamples that have the figure")
    return _noted(metric, NO_SPREAD) if metric.low == metric.high else metric


def band(resampled: np.ndarray) -> np.ndarray:
    """Lower and upper limits of each column of float [R, G], float [2, G]; NaN where no resample has a value."""
    there = ~np.isnan(resampled).all(0)
    limits = np.full((2, resampled.shape[1]), np.nan)
    limits[:, there] = np.nanquantile(resampled[:, there], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return limits


def mean_of(resampled: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over categories in each resample, of those that have the figure in it: float [R]."""
    stacked = np.stack(resampled)
    there = ~np.isnan(stacked)
    return share(np.where(there, stacked, 0).sum(0), there.sum(0))


def few(metric: Metric, units: int | None) -> bool:
    """Whether a proportion is of so few groups, or of all but so few, that resampling says too little."""
    return bool(units) and metric.value is not None and min(metric.value, 1 - metric.value) * units < FEW


def from_ends(
    found: Mapping[str, Metric], units: Mapping[str, int], images: tuple[int, int], costs: Costs
) -> dict[str, Metric]:
    """Figures of both recall and specificity with the limits of these, where resampling says too little: a class has
    fewer than `FEW` groups, or of balanced accuracy alone, few mistakes are made in either.

    All rise, or fall, with both. Each limit is missed with 2.5 % at most, so both together hold with 90 % at least.

    Args:
      found: figures with their intervals.
      units: groups of defective and of good images, as "recall" and "specificity".
      images: numbers of defective and of good images.
      costs: of wrong calls.
    """
    ends = {name: found[name] for name in ("recall", "specificity")}
    if any(one.low is None for one in ends.values()):
        return {}
    names = ["balanced_accuracy"] if all(few(ends[name], units[name]) for name in ends) else []
    if min(units[name] for name in ends) < FEW:
        names = ["balanced_accuracy", "f1", "mcc", metrics.COST]
    tp, tn = (np.array([one.low, one.high]) * count for one, count in zip(ends.values(), images, strict=True))
    limits = metrics.at_threshold(Confusion(tn, images[1] - tn, images[0] - tp, tp), costs)
    return {
        name: dataclasses.replace(found[name], low=float(min(limits[name])), high=float(max(limits[name])), note="")
        for name in names
    }


def exact(value: float, units: int) -> dict[str, float]:
    """Clopper-Pearson limits, low and high, of this share of `units`."""
    from scipy.special import betaincinv

    count, tail = value * units, (1 - LEVEL) / 2
    low = float(betaincinv(count, units - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, units - count, 1 - tail)) if count < units else 1.0
    return {"low": low, "high": high}


def _noted(metric: Metric, text: str) -> Metric:
    return dataclasses.replace(metric, note=f"{metric.note}; {text}" if metric.note else text)


def _draw(rng: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """How often each of `count` members is drawn in `count` draws with replacement, int [rows, count]."""
    drawn = rng.integers(0, count, (rows, count))
    drawn += np.arange(rows)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def _codes(values: Iterable) -> np.ndarray:
    """int [N]: equal values have equal numbers, counted from 0 in sorted order, wherever they stand in the table."""
    values = list(values)
    known = {value: index for index, value in enumerate(sorted(set(values)))}
    return np.array([known[value] for value in values], int)
