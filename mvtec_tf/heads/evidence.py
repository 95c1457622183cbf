"""What speaks for a defect without labels: of N images, the distance of the whole and the deviations of its patches, by
parts that never saw them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.heads import residual
from mvtec_tf.heads.base import Arrays, by_ops
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.gaussian import GoodGaussian, held_out_distances
from mvtec_tf.heads.join import Join


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in N images, before it is set against what is usual.

    Attributes:
      distance: float64 [N], logarithm of the Mahalanobis distance.
      patches: float32 [N, h, w] each, see `residual.log_deviations`.
      places: float64 [N, K], along the main directions of the good images.
      objects: int [N], equal for images of one object.
      folds: int [N], in which images were held out together.
    """

    distance: np.ndarray
    patches: Sequence[np.ndarray]
    places: np.ndarray
    objects: np.ndarray
    folds: np.ndarray

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
        shapes = 2 * [tuple(value.shape[1:3]) for value in features.maps.values()]
        flat = np.empty((len(folds), sum(rows * columns for rows, columns in shapes)), np.float32)
        for fold in np.unique(folds):
            held = folds == fold
            seen = bool((good & held).any())
            flat[held] = by_ops(_all_patches, features.select(held), subspaces[fold + 1 if seen else 0])
        parts = np.split(flat, np.cumsum([rows * columns for rows, columns in shapes])[:-1], axis=1)
        patches = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
        distance = held_out_distances(np.asarray(features.pooled), good, folds, gaussian)
        return cls(distance, patches, np.empty((len(folds), 0)), np.arange(len(folds)), folds)

    def select(self, rows: np.ndarray) -> "Found":
        """The images of a boolean mask."""
        patches = [value[rows] for value in self.patches]
        return Found(self.distance[rows], patches, self.places[rows], self.objects[rows], self.folds[rows])

    def usual(self, power: float = residual.POWER) -> list[np.ndarray]:
        """What is usual at each place, float32 [h, w] each, if all these images are good."""
        return [residual.usual_at_place(value, power) for value in self.patches]

    def evidence(self, usual: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [N, J]: the distance, and the worst patches of each kind of deviation, less what is usual,
        float32 [h, w] or [N, h, w]."""
        worst = [residual.worst_patches(found - here).numpy() for found, here in zip(self.patches, usual, strict=True)]
        return np.stack([self.distance, *worst], axis=1).astype(np.float64)

    def held_out_evidence(self, power: float = residual.POWER) -> np.ndarray:
        """float64 [N, J] of good images, each set against what is usual in those of other folds."""
        return self.evidence([residual.usual_without(value, self.folds, power) for value in self.patches])


@dataclasses.dataclass(frozen=True)
class Unlike:
    """What held-out good images say is usual: at each place [h, w] of each kind of deviation, and of the evidences."""

    usual: Sequence[np.ndarray]
    join: Join

    @classmethod
    def fit(cls, good: Found) -> "Unlike":
        """From good images that were held out."""
        return cls(good.usual(), Join.fit(good.held_out_evidence(), good.places, good.objects))

    def scores(self, found: Found) -> np.ndarray:
        """float64 [N]."""
        return self.join.scores(found.evidence(self.usual), found.places)


def _all_patches(features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
    """float32 [B, P], the logarithms of all kinds side by side."""
    found = residual.log_deviations(features, arrays)
    return tf.concat([tf.reshape(value, [-1, value.shape[1] * value.shape[2]]) for value in found], axis=1)
