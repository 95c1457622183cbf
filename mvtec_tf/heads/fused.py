"""The recommended head: how unlike the good images an image and its patches are, and how like the labelled defects.

What speaks for a defect without labels is the distance of the whole and the deviations of its patches, said of N images
by parts that never saw them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from mvtec_tf.errors import UserError
from mvtec_tf.heads import join, residual
from mvtec_tf.heads.base import Arrays, Head, by_ops, part_of
from mvtec_tf.heads.frozen import FrozenFeatures, inner_folds, objects_of
from mvtec_tf.heads.gaussian import TINY, GoodGaussian, distances_by_ops, held_out_distances
from mvtec_tf.heads.join import Join
from mvtec_tf.networks import patch_maps

# What the ridge's score counts beside that of the evidences, both in standard deviations of held-out good images: at
# most, and before any held-out defect says so, which is believed like so many defective objects. Compared by
# tools/recipe_search.py.
_MOST = 1.0
_BEFORE, _BELIEVED = 0.1, 10
PENALTY = 0.3
# Of the evidences' mean over labelled defects: less is as good as nothing, and nothing cannot be divided by.
_LEAST = 0.5
# With few folds, held-out images look worse than new ones will: more is left out of the fit.
FOLDS = 10
# One is held out, and two tell what varies.
_LEAST_OBJECTS = 3


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


class Fused(Head):
    """Distance of the whole image and deviations of its patches, joined; plus a ridge regression on the labels.

    The evidences are the Mahalanobis distance of the global features (`gaussian`) and, of each layer's map, the
    residuals and the distances of the patches that are farthest from what is usual at their place (`residual`). No
    single one is best everywhere: the distance of the whole finds what is wrong with all of it, the others what is
    wrong at one place. `join` puts them on the scale of good images that they were not fitted on. Without a labelled
    defect the score is that alone; with some, a ridge regression on the global features is added, at a weight that
    grows with what it says of held-out defects and with their number.

    Attributes:
      held_out_: float64 [N], scores of the images that it was fitted on, each without its own object: neither the
        evidences nor their scale saw it. NaN for the only object of its class.

    Args:
      seed: random seed of the folds and of the patches that are remembered.
    """

    needs_maps = True
    gives_heat_maps = True

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    # Many small products: BLAS's own threads would mostly wait for each other.
    @threadpool_limits.wrap(limits=1)
    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Reads the good images' maps twice. Raises UserError on good images of fewer than three objects."""
        objects = objects_of(features)
        folds = inner_folds(labels, features.groups, self.seed, FOLDS)
        good = (labels == 0) & (folds >= 0)
        known = len(np.unique(objects[labels == 0]))
        if len(np.unique(objects[good])) < _LEAST_OBJECTS:
            raise UserError(
                f"`head`=fused needs good images of at least {_LEAST_OBJECTS} objects, found {np.sum(labels == 0)} of "
                f"{known}: it holds some out to learn what is usual. Add good images, or use `head`=patchcore, which "
                "makes do with two, and ranks by one."
            )
        pooled = np.asarray(features.pooled, np.float64)
        self.gaussian_ = GoodGaussian(pooled[good])
        self.main_ = self.gaussian_.main_directions(join.directions(int(good.sum())))
        self.subspaces_, *without = residual.subspaces(features.select(good), folds[good], self.seed)
        found = Found.held_out(features, good, folds, self.gaussian_, [self.subspaces_, *without])
        found = dataclasses.replace(found, places=(pooled - self.gaussian_.mean) @ self.main_, objects=objects)
        self.unlike_ = Unlike.fit(found.select(good))
        self.like_ = Like.fit(pooled, labels, folds, self.gaussian_, objects) if labels.any() else None
        self.scale_ = None if self.like_ is None else self.like_.scale(self.unlike_.scores(found))
        self.held_out_ = self._held_out(found, good)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the Gaussian, of each layer's subspace and memory, and of the join; usual/NUMBER [h, w], what is
        usual at each place of each kind of deviation; main [D, K], the directions; direction [D] and offset [] of the
        ridge, weighed."""
        state = dict(self.subspaces_)
        state |= {f"usual/{number}": usual for number, usual in enumerate(self.unlike_.usual)}
        state |= {f"gaussian/{name}": value for name, value in self.gaussian_.arrays().items()}
        state |= {f"join/{name}": value for name, value in self.unlike_.join.arrays().items()}
        direction, offset = np.zeros(len(self.gaussian_.mean)), 0.0
        if self.scale_ is not None:
            mean, factor = self.scale_
            direction, offset = factor * self.like_.direction, factor * (self.like_.offset - mean)
        ridge = {"main": self.main_, "direction": direction, "offset": offset}
        return state | {name: np.asarray(value, np.float32) for name, value in ridge.items()}

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N], in standard deviations of held-out good images."""
        gaussian = part_of(arrays, "gaussian")
        distance = tf.math.log(tf.maximum(distances_by_ops(features.pooled, gaussian), TINY))
        worst = [residual.worst_patches(deviations) for deviations in _deviations(features, arrays)]
        # Centred first: a large mean times a large weight would cost the last digits.
        centred = features.pooled - gaussian["mean"]
        places = tf.matmul(centred, arrays["main"])
        unlike = join.score_ops(tf.stack([distance, *worst], axis=1), places, part_of(arrays, "join"))
        return unlike + tf.linalg.matvec(centred, arrays["direction"]) + arrays["offset"]

    def heat_map_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, height, width]: how many times as far as is usual at its place a patch deviates, the mean of the
        kinds of deviation; up to 1 is usual."""
        maps = [
            patch_maps.heat_map_ops(tf.exp(deviations), features.image_size)
            for deviations in _deviations(features, arrays)
        ]
        return tf.add_n(maps) / len(maps)

    def _held_out(self, found: Found, good: np.ndarray) -> np.ndarray:
        """float64 [N]; the evidences are held out already, so only their scale is set anew without each fold."""
        scores = np.full(len(good), np.nan)
        for fold in np.unique(found.folds):
            held = found.folds == fold
            unlike = Unlike.fit(found.select(good & ~held)).scores(found)
            scores[held] = unlike[held]
            if self.like_ is not None:
                mean, factor = self.like_.scale(unlike, ~held)
                scores[held] += factor * (self.like_.held_out[held] - mean)
        return scores


@dataclasses.dataclass(frozen=True)
class Like:
    """Ridge regression on good (-1) and defective (+1), both weighted alike, on standardised global features.

    With so few labels the penalty matters more than the loss.

    Attributes:
      direction, offset: score = (features - mean of the good images) @ direction + offset.
      held_out: float64 [N], each image's score by a fit without its fold, NaN for the only object of a class.
      labels, objects: int [N].
    """

    direction: np.ndarray
    offset: float
    held_out: np.ndarray
    labels: np.ndarray
    objects: np.ndarray

    @classmethod
    def fit(
        cls, pooled: np.ndarray, labels: np.ndarray, folds: np.ndarray, gaussian: GoodGaussian, objects: np.ndarray
    ) -> "Like":
        """From float64 [N, D], int [N] labels of both classes, and int [N] folds and objects."""
        standard = (pooled - gaussian.mean) / gaussian.scale
        held_out = held_out_ridge(standard, labels, folds)
        model = balanced_ridge(standard, labels)
        return cls(model.coef_ / gaussian.scale, float(model.intercept_), held_out, labels, objects)

    def scale(self, unlike: np.ndarray, rows: np.ndarray | bool = True) -> tuple[float, float]:
        """What the ridge is added to the evidences' scores float64 [N] by, see `added`; of a mask of images."""
        return added(np.where(rows, self.held_out, np.nan), unlike, self.labels, self.objects)


def added(scores: np.ndarray, beside: np.ndarray, labels: np.ndarray, objects: np.ndarray) -> tuple[float, float]:
    """Mean score of held-out good images, and the factor at which what lies above it is added to other scores.

    Independent scores of unit variance are best added in proportion to how far each lifts defects (Fisher's
    discriminant). So these weigh what they lift held-out defects by, beside what the others lift them by, and less the
    fewer defective objects say so.

    Args:
      scores: float64 [N], of images that they were not fitted on; NaN of the others.
      beside: float64 [N], in standard deviations of held-out good images; NaN where there is none.
      labels, objects: int [N].
    """
    known = np.isfinite(scores) & np.isfinite(beside)
    good = scores[known & (labels == 0)]
    # The deviation of equal numbers need not be exactly 0.
    mean, spread = float(good.mean()), float(good.std()) if np.ptp(good) else 1.0
    defective = known & (labels == 1)
    count = len(np.unique(objects[defective]))
    by_others = max(float(beside[defective].mean()), _LEAST) if count else 1.0
    lift = (float(scores[defective].mean()) - mean) / spread / by_others if count else 0.0
    weight = (count * lift + _BELIEVED * _BEFORE) / (count + _BELIEVED)
    return mean, float(np.clip(weight, 0.0, _MOST)) / spread


def balanced_ridge(features: np.ndarray, labels: np.ndarray) -> Ridge:
    """Fits scikit-learn's ridge regression to +1 (defective) and -1 (good).

    Args:
      features: float64 [N, D], standardised.
      labels: int [N]; both classes.
    """
    shares = np.where(labels == 1, 0.5 / (labels == 1).sum(), 0.5 / (labels == 0).sum())
    # In units of the mean squared length of an image's features, so that it does not depend on their number.
    lengths = np.square(features - shares @ features).sum(axis=1)
    model = Ridge(alpha=PENALTY * float(shares @ lengths) / len(labels) or 1.0)
    return model.fit(features, 2.0 * labels - 1, sample_weight=shares)


def held_out_ridge(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Scores by the images of the other folds, float64 [N]; NaN where the fold is negative.

    Args:
      features: float64 [N, D], standardised.
      labels: int [N]; both classes outside each fold.
      folds: int [N].
    """
    found = np.full(len(labels), np.nan)
    for fold in np.unique(folds[folds >= 0]):
        held = folds == fold
        found[held] = balanced_ridge(features[~held], labels[~held]).predict(features[held])
    return found


def _deviations(features: FrozenFeatures, arrays: Arrays) -> list[tf.Tensor]:
    """Logarithms of how many times as far as is usual at its place each patch deviates, float32 [B, h, w] each."""
    logarithms = residual.log_deviations(features, arrays)
    return [value - arrays[f"usual/{number}"] for number, value in enumerate(logarithms)]


def _all_patches(features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
    """float32 [B, P], the logarithms of all kinds side by side."""
    found = residual.log_deviations(features, arrays)
    return tf.concat([tf.reshape(value, [-1, value.shape[1] * value.shape[2]]) for value in found], axis=1)
