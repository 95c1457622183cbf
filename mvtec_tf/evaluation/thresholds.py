"""The threshold above which an image is called defective: chosen on calibrate rows, never assumed.

A score has no natural middle: half of its range, or 0.5, says nothing about defects. So without
calibrate rows there is no threshold, and the figures that need one do not exist.
"""

import dataclasses
from typing import Any

import numpy as np

from mvtec_tf.evaluation import metrics

YOUDEN = "youden"
GOOD_QUANTILE = "good_quantile"
GIVEN = "given"
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold and where it comes from.

    Attributes:
      value: a score that reaches it is called defective; None if there is no threshold.
      method: "youden", "good_quantile", "given" or "none".
      reason: in words, how it was chosen, or why there is none.
      images: how many calibrate rows it was chosen on.
      defects: how many of them are defective.
    """

    value: float | None
    method: str
    reason: str
    images: int = 0
    defects: int = 0

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return dataclasses.asdict(self)


def given(value: float) -> Threshold:
    """A threshold that was named by the user.

    Raises:
      ValueError: it is not finite.
    """
    if not np.isfinite(value):
        raise ValueError(f"expected a finite threshold. Received: {value}")
    return Threshold(float(value), GIVEN, "it was given")


def choose_threshold(labels: np.ndarray, scores: np.ndarray, quantile: float = 0.95) -> Threshold:
    """The threshold that these calibrate rows speak for.

    With both classes: the one of the largest Youden's J = recall + specificity - 1 (Youden, Cancer
    1950), which is the best balanced accuracy. Not the best F1: where most images are defective,
    as in the test images of MVTec AD, F1 is nearly at its best when everything is called
    defective, and would choose just that. Of equally good cuts the lowest wins, because a missed
    defect leaves the factory and a false alarm is only looked at again. The threshold lies midway
    between the two neighbouring scores; if no cut beats calling everything defective, it is the
    lowest score.

    With good images only (no labels were bought): the `quantile` of their scores; an image must
    score higher than that to be called defective, so of tied good images none is stopped.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite; of images that the model was not fitted on, or out-of-fold.
      quantile: between 0 and 1, the share of good images to let pass where there are only good ones.

    Returns:
      Value None with the reason if there are no rows, or defective ones only.

    Raises:
      ValueError: labels, scores or quantile are not as described.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"expected a quantile between 0 and 1. Received: {quantile}")
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    images, defects = len(labels), int(np.sum(labels))
    if not images:
        return Threshold(None, NONE, "there are no calibrate rows to choose a threshold on")
    if defects == images:
        return Threshold(None, NONE, "all calibrate rows are defective, so no threshold can be chosen", images, defects)
    if not defects:
        value = _above_quantile(scores, quantile)
        reason = f"it is the {100 * quantile:g} % quantile of the scores of {images} good calibrate images"
        return Threshold(value, GOOD_QUANTILE, reason, images, defects)
    value = _youden(labels, scores)
    reason = f"it has the best balanced accuracy (Youden's J) on {images} calibrate images, {defects} of them defective"
    return Threshold(value, YOUDEN, reason, images, defects)


def _youden(labels: np.ndarray, scores: np.ndarray) -> float:
    points = metrics.curve(labels, scores)
    # J times both class sizes, in whole numbers: ties between cuts are then exact.
    gain = points.tp * points.fp[-1] - points.fp * points.tp[-1]
    best = int(np.flatnonzero(gain == gain.max())[-1])
    if best == len(gain) - 1:
        return float(points.thresholds[best])
    return _between(points.thresholds[best + 1], points.thresholds[best])


def _above_quantile(scores: np.ndarray, quantile: float) -> float:
    """A value above the quantile and above all scores that are tied with it."""
    value = min(float(np.quantile(scores, quantile)), float(scores.max()))  # rounding may lift it by a last digit
    below = scores[scores <= value].max()
    above = scores[scores > value]
    if below < value:
        return _between(below, above.min(), value)
    if above.size:
        return _between(below, above.min())
    step = float(np.nextafter(np.float32(below), np.float32(np.inf)))
    return step if below < step < np.inf else float(np.nextafter(below, np.inf))


def _between(lower: float, upper: float, wanted: float | None = None) -> float:
    """A threshold that parts two scores, also after an exported graph has rounded it to float32.

    Midway, or at `wanted`; where float32 has no number above `lower` and up to `upper` near that,
    `upper` itself, which is called defective too.
    """
    middle = lower / 2 + upper / 2 if wanted is None else wanted
    value = float(np.float32(middle))
    return value if lower < value <= upper else float(upper)
