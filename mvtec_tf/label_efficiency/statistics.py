"""What repeated draws prove: means with intervals, differences with a test, and many tests at a time.

Each draw cuts the same photographs into a pool and an evaluation part. Any two draws therefore judge many
of the same images, their figures lie closer together than those of independent experiments, and the usual t-test
finds differences that are none. Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52,
2003 (corrected resampled t-test): the variance of the mean of J draws is taken as (1/J + n2/n1) s^2 instead of s^2/J,
where n2 images are judged and n1 are not. Here n1 is the whole pool, not only what was labelled of it: two draws
judge images in common because of the halves they cut, however few labels they buy.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from mvtec_tf.evaluation.intervals import LEVEL
from mvtec_tf.evaluation.metrics import Metric

# Figures are ratios of numbers of images: what differs by less differs by rounding.
_ROUNDING = 1e-12
NO_INTERVAL = "a single draw has no interval"
NO_SPREAD = "every draw gives this very figure, so there is no spread to take an interval from"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over draws.

    Attributes:
      metric: the mean, with its interval.
      deviation: standard deviation over the draws; None of fewer than two.
      draws: how many have the figure.
      p_value: of the test that the mean is 0, two-sided; None of fewer than two draws. Where all draws give one
        figure it is 1: no spread is a coarse figure and no certainty.
    """

    metric: Metric
    deviation: float | None
    draws: int
    p_value: float | None


def estimate(
    values: Sequence[float | None], ratio: float, limits: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """The mean over draws with its corrected interval.

    Args:
      values: one a draw; None where the figure does not exist.
      ratio: n2/n1, images judged by images not judged in each draw; 0 gives the usual t-test.
      limits: that the figure cannot leave.
    """
    found = np.array([value for value in values if value is not None], np.float64)
    if not len(found):
        return Estimate(Metric(None, "no draw has the figure"), None, 0, None)
    mean = math.fsum(found) / len(found)
    note = "" if len(found) == len(values) else f"mean over {len(found)} of {len(values)} draws, which have the figure"
    if len(found) < 2:
        return Estimate(Metric(mean, note=_joined(note, NO_INTERVAL)), None, len(found), None)
    if np.ptp(found) < _ROUNDING:
        return Estimate(Metric(mean, note=_joined(note, NO_SPREAD)), 0.0, len(found), 1.0)
    deviation = float(np.std(found, ddof=1))
    error = deviation * math.sqrt(1 / len(found) + ratio)
    freedom = len(found) - 1
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    low, high = max(mean - reach, limits[0]), min(mean + reach, limits[1])
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(Metric(mean, low=low, high=high, note=note), deviation, len(found), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for so many tests: those below alpha hold together with an error rate of alpha.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
