"""Heads that are one matrix product in the end: logistic regression, linear SVM, and the study's own."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from mvtec_tf.errors import UserError
from mvtec_tf.heads.base import Arrays, Head
from mvtec_tf.heads.frozen import FrozenFeatures, good_images
from mvtec_tf.heads.gaussian import GoodGaussian
from mvtec_tf.keras_settings import keras

MAX_STEPS = 5000
# liblinear's coordinate steps are cheap; separable data at a weak penalty take tens of thousands.
MAX_SVM_STEPS = 200_000


class _LinearHead(Head):
    """score = features @ weights + bias."""

    needs_labels = True

    def arrays(self) -> dict[str, np.ndarray]:
        """weights [D], bias []."""
        return {"weights": self.weights_.astype(np.float32), "bias": np.float32(self.bias_)}

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        return tf.linalg.matvec(features.pooled, arrays["weights"]) + arrays["bias"]

    def _fit_standardised(self, model: Any, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Fits a linear scikit-learn model; the scaling is folded into the weights, so that what is
        exported is one matrix product."""
        scaler = StandardScaler().fit(features.pooled)
        model.fit(scaler.transform(features.pooled), labels)
        self.weights_ = model.coef_[0] / scaler.scale_
        self.bias_ = float(model.intercept_[0] - scaler.mean_ @ self.weights_)


class Logistic(_LinearHead):
    """Converged logistic regression on standardised features, both classes weighted alike.

    Args:
      c: inverse strength of the L2 penalty, as in scikit-learn.
    """

    def __init__(self, c: float = 1.0) -> None:
        self.c = c

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Raises UserError when one class is missing or the solver did not converge."""
        model = LogisticRegression(C=self.c, class_weight="balanced", max_iter=MAX_STEPS)
        converged(lambda: self._fit_standardised(model, features, labels), "logistic regression", MAX_STEPS)


class LinearSvm(_LinearHead):
    """Linear support vector machine (squared hinge) on standardised features, both classes weighted alike.

    Args:
      c: inverse strength of the L2 penalty, as in scikit-learn.
    """

    def __init__(self, c: float = 1.0, seed: int = 0) -> None:
        self.c = c
        self.seed = seed

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Raises UserError when one class is missing or the solver did not converge."""
        # The dual has a variable an image, the primal one a feature: few images, many features.
        model = LinearSVC(C=self.c, class_weight="balanced", dual=True, max_iter=MAX_SVM_STEPS, random_state=self.seed)
        converged(lambda: self._fit_standardised(model, features, labels), "linear SVM", MAX_SVM_STEPS)


class Lda(_LinearHead):
    """Fisher's linear discriminant with the good images' Ledoit-Wolf covariance.

    The many good images say which directions vary anyway; the few defective ones only which way to look. The
    score is the log-odds of two Gaussians of that one covariance and equal shares.
    """

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Raises UserError when one class is missing or there are fewer than two good images."""
        pooled = np.asarray(features.pooled, np.float64)
        gaussian = GoodGaussian(good_images(features, labels, "lda").pooled)
        # The good images' mean is the origin here.
        shift = (pooled[labels == 1].mean(axis=0) - gaussian.mean) / gaussian.scale
        direction = gaussian.solve(shift)
        self.weights_ = direction / gaussian.scale
        self.bias_ = float(-gaussian.mean @ self.weights_ - shift @ direction / 2)


class StudyHead(_LinearHead):
    """The head of the study that this project began as: D-2 softmax, Adam 1e-4 with a cosine by
    epoch, 30 epochs, batches of 32, fitted on the labelled images only.

    On a handful of labels that makes some 30 steps at a rate of 1e-4: it hardly leaves its random
    start. It is kept to be reported as it is, its softmax probability included.
    """

    gives_probability = True
    _needs_both_classes = False
    epochs, batch_size = 30, 32

    def __init__(self, seed: int = 0, learning_rate: float = 1e-4) -> None:
        self.seed = seed
        self.learning_rate = learning_rate

    def probability(self, scores: tf.Tensor, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N]: the softmax of its two logits, calibrated or not; the score is their difference."""
        return tf.sigmoid(scores)

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Runs exactly 30 epochs; converged or not is part of what it is."""
        pooled = features.pooled
        initializer = keras.initializers.GlorotUniform(seed=self.seed)
        head = keras.Sequential(
            [keras.Input((pooled.shape[1],)), keras.layers.Dense(2, kernel_initializer=initializer)]
        )
        steps = -(-len(pooled) // self.batch_size)
        head.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(self.learning_rate, steps * self.epochs)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rng = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            order = rng.permutation(len(pooled))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                head.train_on_batch(np.asarray(pooled[batch], np.float32), labels[batch])
        kernel, bias = head.get_weights()
        self.weights_ = (kernel[:, 1] - kernel[:, 0]).astype(np.float64)
        self.bias_ = float(bias[1] - bias[0])


def converged(fit: Callable[[], Any], name: str, steps: int) -> Any:
    """What `fit` returns.

    Raises:
      UserError: scikit-learn warned that it did not converge.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return fit()
        except ConvergenceWarning as warning:
            raise UserError(f"The {name} did not converge in {steps} steps. Lower `head_c`.") from warning
