"""The recommended head: how unlike the good images an image and its patches are, and how like the labelled defects."""

import dataclasses

import numpy as np
import tensorflow as tf
from sklearn.linear_model import Ridge

from mvtec_tf.errors import UserError
from mvtec_tf.heads import join, residual
from mvtec_tf.heads.base import Arrays, Head
from mvtec_tf.heads.evidence import TINY, Found, Unlike
from mvtec_tf.heads.folds import inner_folds, objects_of
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.gaussian import GoodGaussian, distances_by_ops
from mvtec_tf.networks import patch_maps

# Of the ridge's score beside that of the evidences, both in standard deviations of held-out good images. Chosen with
# tools/recipe_search.py, on other sets than those it is reported of.
WEIGHT = 0.25
PENALTY = 0.3
# With few folds, held-out images look worse than new ones will: more is left out of the fit.
_FOLDS = 5
# One is held out, and two tell what varies.
_LEAST_OBJECTS = 3


class Fused(Head):
    """Distance of the whole image and residuals of its patches, joined; plus a ridge regression on the labels.

    The evidences are the Mahalanobis distance of the global features (`gaussian`) and, of each layer's map, the
    residuals of the patches that are farthest from what is usual at their place (`residual`). No single one is best
    everywhere: the distance finds what is wrong with the whole, the residuals what is wrong at one place. `join` puts
    them on the scale of good images that they were not fitted on. Without a labelled defect the score is that alone;
    with some, a ridge regression on the global features is added, at a weight that few labels cannot spoil.

    Attributes:
      held_out_: float64 [N], scores of the images that it was fitted on, each without its own object: neither the
        evidences nor their scale saw it. NaN for the only object of its class.

    Args:
      weight: of the ridge's score.
      seed: random seed of the folds.
    """

    needs_maps = True
    gives_heat_maps = True

    def __init__(self, weight: float = WEIGHT, seed: int = 0) -> None:
        self.weight = weight
        self.seed = seed

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Reads the good images' maps twice. Raises UserError on good images of fewer than three objects."""
        objects = objects_of(features)
        folds = inner_folds(labels, features.groups, self.seed, _FOLDS)
        good = (labels == 0) & (folds >= 0)
        known = len(np.unique(objects[labels == 0]))
        if len(np.unique(objects[good])) < _LEAST_OBJECTS:
            raise UserError(
                f"`head`=fused needs good images of at least {_LEAST_OBJECTS} objects, found {np.sum(labels == 0)} of "
                f"{known}: it holds some out to learn what is usual. Add good images, or use `head`=patchcore, which "
                "makes do with two."
            )
        pooled = np.asarray(features.pooled, np.float64)
        self.gaussian_ = GoodGaussian(pooled[good])
        self.main_ = self.gaussian_.main_directions(join.directions(int(good.sum())))
        self.subspaces_, *without = residual.subspaces(features.select(good), folds[good])
        found = Found.held_out(features, good, folds, self.gaussian_, [self.subspaces_, *without])
        found = dataclasses.replace(found, places=(pooled - self.gaussian_.mean) @ self.main_, objects=objects)
        self.unlike_ = Unlike.fit(found.select(good))
        self.like_ = Like.fit(pooled, labels, folds, self.gaussian_) if labels.any() else None
        self.held_out_ = self._held_out(found, good, folds)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the Gaussian, of each layer's subspace with what is usual at each place [h, w], and of the join;
        main [D, K], the directions; direction [D] and offset [] of the ridge, weighed."""
        state = dict(self.subspaces_)
        state |= {f"{number}/usual": usual for number, usual in enumerate(self.unlike_.usual)}
        state |= {f"gaussian/{name}": value for name, value in self.gaussian_.arrays().items()}
        state |= {f"join/{name}": value for name, value in self.unlike_.join.arrays().items()}
        direction, offset = np.zeros(len(self.gaussian_.mean)), 0.0
        if self.like_ is not None:
            mean, spread = self.like_.scale()
            direction = self.weight / spread * self.like_.direction
            offset = self.weight / spread * (self.like_.offset - mean)
        ridge = {"main": self.main_, "direction": direction, "offset": offset}
        return state | {name: np.asarray(value, np.float32) for name, value in ridge.items()}

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N], in standard deviations of held-out good images."""
        gaussian = _part(arrays, "gaussian")
        distance = tf.math.log(tf.maximum(distances_by_ops(features.pooled, gaussian), TINY))
        worst = [residual.worst_patches(deviations) for deviations in _deviations(features, arrays)]
        # Centred first: a large mean times a large weight would cost the last digits.
        centred = features.pooled - gaussian["mean"]
        places = tf.matmul(centred, arrays["main"])
        unlike = join.score_ops(tf.stack([distance, *worst], axis=1), places, _part(arrays, "join"))
        return unlike + tf.linalg.matvec(centred, arrays["direction"]) + arrays["offset"]

    def heat_map_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, height, width]: how many times the usual residual at its place a patch has, the mean of the
        layers; 1 is usual."""
        maps = [
            patch_maps.heat_map_ops(tf.exp(deviations), features.image_size)
            for deviations in _deviations(features, arrays)
        ]
        return tf.add_n(maps) / len(maps)

    def _held_out(self, found: "Found", good: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """float64 [N]; the evidences are held out already, so only their scale is set anew without each fold."""
        scores = np.full(len(folds), np.nan)
        for fold in np.unique(folds):
            held = folds == fold
            unlike = Unlike.fit(found.select(good & ~held))
            scores[held] = unlike.scores(found.select(held))
            if self.like_ is not None:
                mean, spread = self.like_.scale(~held)
                scores[held] += self.weight / spread * (self.like_.held_out[held] - mean)
        return scores


@dataclasses.dataclass(frozen=True)
class Like:
    """Ridge regression on good (-1) and defective (+1), both weighted alike, on standardised global features.

    With so few labels the penalty matters more than the loss.

    Attributes:
      direction, offset: score = (features - mean of the good images) @ direction + offset.
      held_out: float64 [N], each image's score by a fit without its fold, NaN for the only object of a class.
      good: bool [N], the good images that were held out.
    """

    direction: np.ndarray
    offset: float
    held_out: np.ndarray
    good: np.ndarray

    @classmethod
    def fit(cls, pooled: np.ndarray, labels: np.ndarray, folds: np.ndarray, gaussian: GoodGaussian) -> "Like":
        """From float64 [N, D], int [N] labels of both classes, and int [N] folds."""
        standard = (pooled - gaussian.mean) / gaussian.scale
        held_out = np.full(len(labels), np.nan)
        for fold in np.unique(folds[folds >= 0]):
            held = folds == fold
            held_out[held] = balanced_ridge(standard[~held], labels[~held]).predict(standard[held])
        model = balanced_ridge(standard, labels)
        return cls(model.coef_ / gaussian.scale, float(model.intercept_), held_out, (labels == 0) & (folds >= 0))

    def scale(self, rows: np.ndarray | bool = True) -> tuple[float, float]:
        """Mean and deviation of held-out good images, of those of `rows`, a boolean mask."""
        known = self.held_out[self.good & rows]
        return float(known.mean()), float(known.std()) or 1.0


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


def _deviations(features: FrozenFeatures, arrays: Arrays) -> list[tf.Tensor]:
    """Logarithms of how many times the usual residual at its place each patch has, float32 [B, h, w] a layer."""
    logarithms = residual.log_residuals(features, arrays)
    return [value - arrays[f"{number}/usual"] for number, value in enumerate(logarithms)]


def _part(arrays: Arrays, name: str) -> dict[str, tf.Tensor]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
