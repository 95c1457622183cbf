"""The recommended head: how unlike the good images, plus how like the labelled defects, at a weight that few labels
cannot spoil."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.models import frozen
from mvtec_tf.models.frozen import pooled_of
from mvtec_tf.models.gaussian import GoodGaussian, distances_by_ops
from mvtec_tf.models.global_heads import good_rows
from mvtec_tf.models.hybrid_head import INNER_FOLDS, inner_folds
from mvtec_tf.models.ridge import balanced_ridge

# Of the ridge's score beside the distance's. Measured on label draws that no figure is reported of.
DEFAULT_WEIGHT = 0.5
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
PENALTY = 1.0
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


class FusedHead:
    """Mahalanobis distance to the good images, and a ridge regression on the labels, added.

    Both are standardised by what they say of good images that they were not fitted on; the sum weighs the ridge by
    one number. Without a labelled defect the score is the standardised distance alone. A weight that is learned
    (stacking) was measured to be worse where the labels are of a dozen objects.

    Args:
      weight: of the ridge; None: chosen out of WEIGHTS by cross-validation on the images that it is fitted on,
        DEFAULT_WEIGHT unless another is better by more than the standard error of the difference.
      seed: of the inner folds.
    """

    needs_labels = False
    needs_maps = False
    gives_heat_maps = False

    def __init__(self, weight: float | None = DEFAULT_WEIGHT, seed: int = 0) -> None:
        self.weight = weight
        self.seed = seed

    def fit(self, features: Any, labels: np.ndarray) -> "FusedHead":
        """Raises UserError on fewer than two good objects."""
        features, labels = frozen.frozen(features), np.asarray(labels)
        good_rows(features, labels, "fused", 2)
        pooled = np.asarray(features.pooled, np.float64)
        folds = inner_folds(labels, features.groups, self.seed)
        held_out = self._held_out(pooled, labels, folds)
        good = held_out[(labels == 0) & (folds >= 0)]
        if not len(good):
            raise UserError("--head=fused and auto need good images of at least two objects, found one object.")
        spread = good.std(axis=0)
        self.mean_, self.scale_ = good.mean(axis=0), np.where(spread > 0, spread, 1.0)
        self.weight_ = 0.0
        if labels.any():
            evidence = (held_out - self.mean_) / self.scale_
            self.weight_ = self.weight
            if self.weight is None:
                self.weight_ = self._chosen(evidence, labels, folds, features.groups)
        self.parts_ = _Parts.fit(pooled, labels)
        return self

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N], in standard deviations of held-out good images' distances."""
        evidence = self.parts_.evidence(np.asarray(pooled_of(features), np.float64))
        scaled = (evidence - self.mean_) / self.scale_
        return (scaled[:, 0] + self.weight_ * scaled[:, 1]).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the Gaussian, direction [D] and offset [] of the ridge with its weight and standardisation, distance
        [2], slope and offset of the logarithm."""
        share = self.weight_ / self.scale_[1]
        ridge = {
            "direction": self.parts_.direction * share,
            "offset": (self.parts_.offset - self.mean_[1]) * share,
            "distance": np.array([1 / self.scale_[0], -self.mean_[0] / self.scale_[0]]),
        }
        return self.parts_.gaussian.arrays() | {name: np.asarray(value, np.float32) for name, value in ridge.items()}

    def score(self, features: Any, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        pooled = pooled_of(features)
        logarithm = tf.math.log(tf.maximum(distances_by_ops(pooled, arrays), _TINY))
        slope, offset = arrays["distance"][0], arrays["distance"][1]
        return slope * logarithm + offset + tf.linalg.matvec(pooled, arrays["direction"]) + arrays["offset"]

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


def _placements(scores: np.ndarray, defective: np.ndarray, good: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Share of good images that score below each defective object, mean over its images, float64 [objects]."""
    ranked = np.sort(scores[good])
    share = (
        np.searchsorted(ranked, scores[defective], "left") + np.searchsorted(ranked, scores[defective], "right")
    ) / (2 * len(ranked))
    _, index = np.unique(objects[defective], return_inverse=True)
    return np.bincount(index, share) / np.bincount(index)
