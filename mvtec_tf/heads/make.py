"""Every head by its name and settings, also those that are made of others: tile by tile, or weighed together."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from mvtec_tf.heads.base import Arrays, Head, fits_without, part_of
from mvtec_tf.heads.distance import Mahalanobis, NearestNeighbours, RbfSvm
from mvtec_tf.heads.frozen import FrozenFeatures, inner_folds
from mvtec_tf.heads.fused import Fused
from mvtec_tf.heads.gaussian import TINY
from mvtec_tf.heads.linear import Lda, LinearSvm, Logistic
from mvtec_tf.heads.patch import Padim, PatchCore
from mvtec_tf.heads.settings import NEED_MAPS, HeadSettings

_MAKERS = {
    "logistic": lambda s: Logistic(s.head_c),
    "linear_svm": lambda s: LinearSvm(s.head_c, s.seed),
    "lda": lambda s: Lda(),
    "fused": lambda s: Fused(seed=s.seed),
    "rbf_svm": lambda s: RbfSvm(s.head_c),
    "mahalanobis": lambda s: Mahalanobis(),
    "nearest_neighbours": lambda s: NearestNeighbours(s.neighbours),
    "padim": lambda s: Padim(s.padim_channels, s.seed),
    "patchcore": lambda s: PatchCore(s.memory_bank, s.coreset_candidates, s.neighbours, s.seed),
}
# The choice of witnesses settles within a few rounds; a cycle of two choices would not.
_MAX_ROUNDS = 10


def make_head(settings: HeadSettings, tiled: bool = False) -> Head:
    """An unfitted head.

    Args:
      settings: which, and its numbers.
      tiled: whether a head on global features is to look at every tile; those on maps do without being told.
    """
    if settings.name == "hybrid":
        bases = {
            name: functools.partial(make_head, dataclasses.replace(settings, name=name), tiled)
            for name in settings.hybrid_of
        }
        return Hybrid(bases, seed=settings.seed)
    make = functools.partial(_MAKERS[settings.name], settings)
    return TiledHead(make) if tiled and settings.name not in NEED_MAPS else make()


class Hybrid(Head):
    """Stacking (Wolpert, "Stacked generalization", Neural Networks 5, 1992) of other heads.

    Heads that need no labels say how unlike the good images an image is; heads that do say how like the
    labelled defects. A logistic regression on the few labels weighs them: on logarithms of distances and on
    scores, each standardised by the good images. Every image's scores come from heads that were fitted without
    it; otherwise good images would look better than any new one will.

    Args:
      bases: name -> maker of an unfitted head.
      seed: of the inner folds.
    """

    needs_labels = True

    def __init__(self, bases: Mapping[str, Callable[[], Any]], seed: int = 0) -> None:
        self.bases = bases
        self.seed = seed
        # Unfitted, until `fit`: what the heads need is asked before.
        self.bases_ = {name: make() for name, make in bases.items()}
        self.needs_maps = any(base.needs_maps for base in self.bases_.values())
        self.gives_heat_maps = any(base.gives_heat_maps for base in self.bases_.values())

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Raises UserError when one class is missing, or what the heads raise.

        With a single defective object there is none to hold out: then a head that needs labels gets no weight.
        """
        folds = inner_folds(labels, features.groups, self.seed)
        columns = [self._out_of_fold(name, features, labels, folds) for name in self.bases]
        usable = np.array([np.isfinite(column).all() for column in columns])
        evidence = np.stack([np.where(ok, column, 0.0) for column, ok in zip(columns, usable, strict=True)], axis=1)
        good = evidence[labels == 0]
        self.mean_, spread = good.mean(axis=0), good.std(axis=0)
        self.scale_ = np.where(spread > 0, spread, 1.0)
        model = LogisticRegression(class_weight="balanced", max_iter=5000)
        model.fit((evidence - self.mean_) / self.scale_, labels)
        self.weights_ = np.where(usable, model.coef_[0], 0.0)
        self.bias_ = float(model.intercept_[0])
        self.bases_ = {name: make().fit(features, labels) for name, make in self.bases.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """mean, scale, weights [H], bias [], and each head's arrays under `NAME/`."""
        own = {"mean": self.mean_, "scale": self.scale_, "weights": self.weights_, "bias": self.bias_}
        state = {name: np.asarray(value, np.float32) for name, value in own.items()}
        for name, base in self.bases_.items():
            state |= {f"{name}/{key}": value for key, value in base.arrays().items()}
        return state

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N], log-odds at equal shares of good and defective images."""
        columns = []
        for name, base in self.bases_.items():
            score = base.score_ops(features, part_of(arrays, name))
            columns.append(score if base.needs_labels else tf.math.log(tf.maximum(score, TINY)))
        evidence = (tf.stack(columns, axis=1) - arrays["mean"]) / arrays["scale"]
        return tf.linalg.matvec(evidence, arrays["weights"]) + arrays["bias"]

    def heat_map_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, height, width], that of the first head that has one."""
        name, base = next((name, base) for name, base in self.bases_.items() if base.gives_heat_maps)
        return base.heat_map_ops(features, part_of(arrays, name))

    def _out_of_fold(self, name: str, features: FrozenFeatures, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """float64 [N]; NaN where the image could not be held out and the head is fitted on its label."""
        column = np.full(len(labels), np.nan)
        for held, base in fits_without(folds, self.bases[name], features, labels):
            # A head that is fitted on good images alone has not seen the one defective object either.
            judged = held if base.needs_labels else held | ((folds < 0) & (labels == 1) & np.isnan(column))
            column[judged] = _evidence(base, base.decision_function(features.select(judged)))
        return column


def _evidence(base: Any, scores: np.ndarray) -> np.ndarray:
    """Scores as they are, distances as logarithms: it is their ratio that counts."""
    return scores if base.needs_labels else np.log(np.maximum(scores, TINY))


class TiledHead(Head):
    """Scores every tile with one head and takes the maximum.

    A label says that an image is defective, not which tile shows it. A head that needs labels is therefore
    fitted on all tiles of good images and one witness of each defective image: first the tile farthest from
    the good ones (Mahalanobis), then the one that the fitted head finds worst, until that does not change
    (MI-SVM, Andrews et al., "Support vector machines for multiple-instance learning", NIPS 2002).

    Args:
      make_head: gives an unfitted head on global features.
    """

    def __init__(self, make_head: Callable[[], Any]) -> None:
        self.make_head = make_head
        self.head_ = make_head()
        self.needs_labels = self.head_.needs_labels

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Features must have tiles. Raises what the head raises."""
        if features.tiled is None:
            raise ValueError("This head looks at tiles, and the features have none.")
        good = features.tiled[labels == 0]
        if not self.needs_labels:
            self.head_ = self.make_head().fit(_tiles(good), np.zeros(good.shape[0] * good.shape[1], int))
            return
        defective = features.tiled[labels == 1]
        judge = Mahalanobis().fit(_tiles(good), np.zeros(good.shape[0] * good.shape[1], int))
        witnesses = None
        for _ in range(_MAX_ROUNDS):
            worst = judge.decision_function(_tiles(defective)).reshape(defective.shape[:2]).argmax(axis=1)
            if witnesses is not None and np.array_equal(worst, witnesses):
                break
            witnesses = worst
            rows = np.concatenate([_tiles(good), defective[np.arange(len(defective)), witnesses]])
            judge = self.make_head().fit(rows, np.repeat([0, 1], [len(rows) - len(defective), len(defective)]))
        self.head_ = judge

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the head."""
        return self.head_.arrays()

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N]."""
        _, tiles, width = features.tiled.shape
        scores = self.head_.score_ops(FrozenFeatures(tf.reshape(features.tiled, [-1, width])), arrays)
        return tf.reduce_max(tf.reshape(scores, [-1, tiles]), axis=1)


def _tiles(tiled: np.ndarray) -> np.ndarray:
    """[N, T, D] -> [N * T, D]."""
    return tiled.reshape(-1, tiled.shape[-1])
