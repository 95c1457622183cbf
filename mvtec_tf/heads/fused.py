"""The recommended head: how unlike the good images, plus how like the labelled defects, at a weight that few labels
cannot spoil."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.heads.base import Arrays, Head
from mvtec_tf.heads.distance import good_rows
from mvtec_tf.heads.folds import INNER_FOLDS, inner_folds
from mvtec_tf.heads.frozen import FrozenFeatures, pooled_of
from mvtec_tf.heads.gaussian import GoodGaussian, distances_by_ops
from mvtec_tf.heads.ridge import balanced_ridge

# Of the ridge's score beside the distance's. Measured on label draws that no figure is reported of.
DEFAULT_WEIGHT = 0.5
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
PENALTY = 0.3
# Main directions of the good images that say how large a distance is usual: exposure, contrast, size of the part.
_MAIN_DIRECTIONS = 2
# Good images for each number that is fitted to them.
_IMAGES_A_NUMBER = 10
# A distance of zero is a copy of a training image; its logarithm must be a number.
_TINY = 1e-6


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Distance and ridge, fitted on one set of images."""

    gaussian: GoodGaussian
    direction: np.ndarray
    offset: float

    @classmethod
    def fit(cls, pooled: np.ndarray, labels: np.ndarray) -> "_Parts":
        gaussian = GoodGaussian(pooled[labels == 0])
        if not labels.any():
            return cls(gaussian, np.zeros(pooled.shape[1]), 0.0)
        weights, offset = balanced_ridge((pooled - gaussian.mean) / gaussian.scale, labels, PENALTY)
        direction = weights / gaussian.scale
        return cls(gaussian, direction, offset - float(gaussian.mean @ direction))

    def evidence(self, pooled: np.ndarray) -> np.ndarray:
        """float64 [N, 2]: logarithm of the distance, and the ridge's score."""
        distances = np.log(np.maximum(self.gaussian.distances(pooled), _TINY))
        return np.stack([distances, pooled @ self.direction + self.offset], axis=1)


class Fused(Head):
    """Mahalanobis distance to the good images, and a ridge regression on the labels, added.

    How far a good image lies from the others depends on what it is: of one tile, the long exposure is farther from
    all others than the short one. So the logarithm of the distance is set against what is usual for good images
    at that place along the two directions in which good images vary most, by a linear regression on held-out good
    images. (Magnetic tiles, 224 px, no labels: ROC-AUC 0.838 before, 0.890 after, on development draws.)

    Both are standardised by what they say of good images that they were not fitted on; the sum weighs the ridge by
    one number. Without a labelled defect the score is the standardised distance alone. A weight that is learned
    (stacking) was measured to be worse where the labels are of a dozen objects.

    Args:
      weight: of the ridge; None: chosen out of WEIGHTS by cross-validation on the images that it is fitted on,
        DEFAULT_WEIGHT unless another is better by more than the standard error of the difference.
      seed: of the inner folds.
    """

    def __init__(self, weight: float | None = DEFAULT_WEIGHT, seed: int = 0) -> None:
        self.weight = weight
        self.seed = seed

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Raises UserError on fewer than two good objects."""
        good_rows(features, labels, "fused", 2)
        pooled = np.asarray(features.pooled, np.float64)
        folds = inner_folds(labels, features.groups, self.seed)
        held_out = self._held_out(pooled, labels, folds)
        self.parts_ = _Parts.fit(pooled, labels)
        good = (labels == 0) & (folds >= 0)
        if not good.any():
            raise UserError("`head`=fused and auto need good images of at least two objects, found one object.")
        self.usual_, self.usual_offset_ = _usual(self.parts_.gaussian, pooled[good], held_out[good, 0])
        held_out[:, 0] -= pooled @ self.usual_ + self.usual_offset_
        good = held_out[good]
        spread = good.std(axis=0)
        self.mean_, self.scale_ = good.mean(axis=0), np.where(spread > 0, spread, 1.0)
        self.weight_ = 0.0
        if labels.any():
            evidence = (held_out - self.mean_) / self.scale_
            self.weight_ = self.weight
            if self.weight is None:
                self.weight_ = self._chosen(evidence, labels, folds, features.groups)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the Gaussian; slope [] of the distance's logarithm; direction [D] and offset [] of all that is
        linear in the features: the ridge, the usual distance and the standardisation."""
        slope, share = 1 / self.scale_[0], self.weight_ / self.scale_[1]
        linear = {
            "slope": slope,
            "direction": self.parts_.direction * share - self.usual_ * slope,
            "offset": (self.parts_.offset - self.mean_[1]) * share - (self.usual_offset_ + self.mean_[0]) * slope,
        }
        linear["offset"] += self.parts_.gaussian.mean @ linear["direction"]
        return self.parts_.gaussian.arrays() | {name: np.asarray(value, np.float32) for name, value in linear.items()}

    def score_ops(self, features: Any, arrays: Arrays) -> tf.Tensor:
        """float32 [N, D] -> [N], in standard deviations of held-out good images' distances."""
        pooled = pooled_of(features)
        logarithm = tf.math.log(tf.maximum(distances_by_ops(pooled, arrays), _TINY))
        # Centred first: a large mean times a large weight would cost the last digits.
        linear = tf.linalg.matvec(pooled - arrays["mean"], arrays["direction"])
        return arrays["slope"] * logarithm + linear + arrays["offset"]

    def _held_out(self, pooled: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """float64 [N, 2], each image's evidence by parts that were fitted without it; NaN where the fold is -1."""
        evidence = np.full((len(labels), 2), np.nan)
        for fold in range(INNER_FOLDS):
            held, rest = folds == fold, folds != fold
            if held.any() and (labels[rest] == 0).sum() >= 2:
                evidence[held] = _Parts.fit(pooled[rest], labels[rest]).evidence(pooled[held])
        return evidence

    def _chosen(self, evidence: np.ndarray, labels: np.ndarray, folds: np.ndarray, groups: Any) -> float:
        """The weight, by how many held-out good images each held-out defect outscores."""
        defective, good = (labels == 1) & (folds >= 0), (labels == 0) & (folds >= 0)
        if not defective.any():
            return DEFAULT_WEIGHT
        objects = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
        placements = {
            weight: _placements(evidence @ np.array([1.0, weight]), defective, good, objects) for weight in WEIGHTS
        }
        best = max(WEIGHTS, key=lambda weight: placements[weight].mean())
        gain = placements[best] - placements[DEFAULT_WEIGHT]
        # Views of one object are one piece of evidence; of a single object nothing can be chosen.
        if len(gain) < 2 or gain.mean() <= gain.std(ddof=1) / np.sqrt(len(gain)):
            return DEFAULT_WEIGHT
        return best


def _usual(gaussian: GoodGaussian, pooled: np.ndarray, logarithms: np.ndarray) -> tuple[np.ndarray, float]:
    """What distance is usual for a good image, as (direction float64 [D], offset): a regression of held-out
    logarithms [N] on the main directions of the good images [N, D]."""
    count = min(_MAIN_DIRECTIONS, len(pooled) // _IMAGES_A_NUMBER, gaussian.axes.shape[1])
    # Of unit variance, and the largest variance last.
    first = gaussian.axes.shape[1] - count
    main = gaussian.axes[:, first:] / np.sqrt(gaussian.variances[first:]) / gaussian.scale[:, None]
    places = (pooled - gaussian.mean) @ main
    design = np.column_stack([np.ones(len(places)), places])
    offset, *slopes = np.linalg.lstsq(design, logarithms, rcond=None)[0]
    direction = main @ np.array(slopes)
    return direction, float(offset - gaussian.mean @ direction)


def _placements(scores: np.ndarray, defective: np.ndarray, good: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Share of good images that score below each defective object, mean over its images, float64 [objects]."""
    ranked = np.sort(scores[good])
    share = (
        np.searchsorted(ranked, scores[defective], "left") + np.searchsorted(ranked, scores[defective], "right")
    ) / (2 * len(ranked))
    _, index = np.unique(objects[defective], return_inverse=True)
    return np.bincount(index, share) / np.bincount(index)
