"""What speaks for a defect without labels: of N images, distance and residuals by parts that never saw them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.heads import residual
from mvtec_tf.heads.base import Arrays, by_ops
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.gaussian import GoodGaussian
from mvtec_tf.heads.join import Join

# A distance of zero is a copy of a training image; its logarithm must be a number.
TINY = 1e-6


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in N images, before it is set against what is usual.

    Attributes:
      distance: float64 [N], logarithm of the Mahalanobis distance.
      residuals: float32 [N, h, w] a layer, logarithms of the patches' residuals.
      places: float64 [N, K], along the main directions of the good images.
      objects: int [N], equal for images of one object.
    """

    distance: np.ndarray
    residuals: Sequence[np.ndarray]
    places: np.ndarray
    objects: np.ndarray

    @classmethod
    def held_out(
        cls,
        features: FrozenFeatures,
        good: np.ndarray,
        folds: np.ndarray,
        gaussian: GoodGaussian,
        subspaces: Sequence[dict[str, np.ndarray]],
    ) -> "Found":
        """By what was fitted without the image's fold; places and objects are yet to be set.

        Args:
          features: of N images.
          good: bool [N], those that gaussian and subspaces were fitted on.
          folds: int [N].
          gaussian: of all good images.
          subspaces: of all good images, and without each fold that has one.
        """
        shapes = [tuple(value.shape[1:3]) for value in features.maps.values()]
        distance = np.empty(len(folds))
        flat = np.empty((len(folds), sum(rows * columns for rows, columns in shapes)), np.float32)
        for fold in np.unique(folds):
            held = folds == fold
            seen = bool((good & held).any())
            one = GoodGaussian(np.asarray(features.pooled)[good & ~held]) if seen else gaussian
            distance[held] = np.log(np.maximum(one.distances(features.pooled[held]), TINY))
            flat[held] = by_ops(_all_patches, features.select(held), subspaces[fold + 1 if seen else 0])
        parts = np.split(flat, np.cumsum([rows * columns for rows, columns in shapes])[:-1], axis=1)
        residuals = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        return cls(distance, residuals, np.empty((len(folds), 0)), np.arange(len(folds)))

    def select(self, rows: np.ndarray) -> "Found":
        """The images of a boolean mask."""
        residuals = [value[rows] for value in self.residuals]
        return Found(self.distance[rows], residuals, self.places[rows], self.objects[rows])

    def evidence(self, usual: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [N, 1 + layers]: the distance, and the worst patches of each layer."""
        worst = [
            residual.worst_patches(found - here).numpy() for found, here in zip(self.residuals, usual, strict=True)
        ]
        return np.stack([self.distance, *worst], axis=1).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Unlike:
    """What held-out good images say is usual: at each place [h, w] a layer, and of the evidences."""

    usual: Sequence[np.ndarray]
    join: Join

    @classmethod
    def fit(cls, good: Found) -> "Unlike":
        """From good images that were held out."""
        usual = [residual.usual_at_place(found) for found in good.residuals]
        return cls(usual, Join.fit(good.evidence(usual), good.places, good.objects))

    def scores(self, found: Found) -> np.ndarray:
        """float64 [N]."""
        return self.join.scores(found.evidence(self.usual), found.places)


def _all_patches(features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
    """float32 [B, P], the logarithms of all layers side by side."""
    found = residual.log_residuals(features, arrays)
    return tf.concat([tf.reshape(value, [len(value), -1]) for value in found], axis=1)
