"""A head that uses what the others waste: the many good images and the few labels together."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from mvtec_tf.heads.base import Arrays, Head, fits_without, part_of
from mvtec_tf.heads.folds import inner_folds
from mvtec_tf.heads.frozen import FrozenFeatures

# A distance of zero is a copy of a training image; its logarithm must be a number.
_TINY = 1e-6


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
            columns.append(score if base.needs_labels else tf.math.log(tf.maximum(score, _TINY)))
        evidence = (tf.stack(columns, axis=1) - arrays["mean"]) / arrays["scale"]
        return tf.linalg.matvec(evidence, arrays["weights"]) + arrays["bias"]

    def heat_map_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, height, width], that of the first head that has one."""
        name, base = self._patch_base()
        return base.heat_map_ops(features, part_of(arrays, name))

    def _patch_base(self) -> tuple[str, Any]:
        return next((name, base) for name, base in self.bases_.items() if base.gives_heat_maps)

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
    return scores if base.needs_labels else np.log(np.maximum(scores, _TINY))
