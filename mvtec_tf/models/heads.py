"""Light heads on frozen features, with one contract: `fit(features, labels)`, `decision_function`.

Each fitted head is a handful of arrays (`arrays()`), and `score` computes the same from them in
TensorFlow ops, so that a head is exported as plain graph and nothing is ever pickled.
"""

from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mvtec_tf.errors import UserError


class Head(Protocol):
    """What every head can do. Features are float [N, D], labels int [N] with 1 = defective."""

    needs_labels: bool
    gives_probability: bool

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "Head":
        """Learns; returns itself."""

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """float32 [N], higher = more defective."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The learned state, float32."""

    def score(self, features: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """`decision_function` in TensorFlow ops on the state of `arrays`: float32 [N, D] -> [N]."""


def _check(features: np.ndarray, labels: np.ndarray, both_classes: bool) -> None:
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"features must be [N, D] with N labels. Received: {features.shape} and {len(labels)} labels.")
    if not np.all(np.isfinite(features)):
        raise UserError("The features hold NaN or infinite numbers. Was the encoder's training stable?")
    if both_classes and len(set(labels)) < 2:
        kind = "defective" if labels[0] else "good"
        raise UserError(
            f"The head needs good and defective labelled images; all {len(labels)} given are {kind}. "
            "Raise --label_budget, or use a head that needs no labels (--head=mahalanobis)."
        )


class _LinearHead:
    """score = features @ weights + bias, the common end of all linear heads."""

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """float32 [N]."""
        return (np.asarray(features, np.float64) @ self.weights_ + self.bias_).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """weights [D], bias []."""
        return {"weights": self.weights_.astype(np.float32), "bias": np.float32(self.bias_)}

    def score(self, features: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        return tf.linalg.matvec(features, arrays["weights"]) + arrays["bias"]


class LogisticHead(_LinearHead):
    """Converged logistic regression on standardised features, both classes weighted alike.

    Args:
      c: inverse strength of the L2 penalty, as in scikit-learn.
    """

    needs_labels = True
    gives_probability = True

    def __init__(self, c: float = 1.0) -> None:
        self.c = c

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "LogisticHead":
        """Raises UserError when one class is missing or the solver did not converge."""
        _check(features, labels, both_classes=True)
        scaler = StandardScaler().fit(features)
        model = LogisticRegression(C=self.c, class_weight="balanced", max_iter=5000)
        model.fit(scaler.transform(features), labels)
        if model.n_iter_[0] >= model.max_iter:
            raise UserError(f"The logistic regression did not converge in {model.max_iter} steps. Lower --head_c.")
        # The scaling is folded into the weights: what is exported is one matrix product.
        self.weights_ = model.coef_[0] / scaler.scale_
        self.bias_ = model.intercept_[0] - scaler.mean_ @ self.weights_
        return self


class StudyHead(_LinearHead):
    """The head of the study that this project began as: D-2 softmax, Adam 1e-4 with a cosine by
    epoch, 30 epochs, batches of 32, fitted on the labelled images only.

    On a handful of labels that makes some 30 steps at a rate of 1e-4: it hardly leaves its random
    start. It is kept to be reported as it is.
    """

    needs_labels = True
    gives_probability = True

    def __init__(self, seed: int = 0, epochs: int = 30, batch_size: int = 32, learning_rate: float = 1e-4) -> None:
        self.seed = seed
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "StudyHead":
        """Runs exactly `epochs` epochs; converged or not is part of what it is."""
        _check(features, labels, both_classes=False)
        initializer = keras.initializers.GlorotUniform(seed=self.seed)
        head = keras.Sequential(
            [keras.Input((features.shape[1],)), keras.layers.Dense(2, kernel_initializer=initializer)]
        )
        steps = -(-len(features) // self.batch_size)
        head.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(self.learning_rate, steps * self.epochs)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rng = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            order = rng.permutation(len(features))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                head.train_on_batch(np.asarray(features[batch], np.float32), labels[batch])
        kernel, bias = head.get_weights()
        self.weights_ = (kernel[:, 1] - kernel[:, 0]).astype(np.float64)
        self.bias_ = float(bias[1] - bias[0])
        return self


class MahalanobisHead:
    """Distance to the good images' Gaussian with Ledoit-Wolf covariance; needs no defect at all.

    As Rippel et al., "Modeling the distribution of normal data in pre-trained deep features for
    anomaly detection", ICPR 2020. The score is the distance, not its square.
    """

    needs_labels = False
    gives_probability = False

    def fit(self, features: np.ndarray, labels: np.ndarray) -> "MahalanobisHead":
        """Uses the rows labelled good only. Raises UserError on fewer than two."""
        _check(features, labels, both_classes=False)
        good = np.asarray(features, np.float64)[np.asarray(labels) == 0]
        if len(good) < 2:
            raise UserError(f"--head=mahalanobis needs at least two good images, found {len(good)}.")
        scaler = StandardScaler().fit(good)
        precision = LedoitWolf().fit(scaler.transform(good)).precision_
        factor = np.linalg.cholesky(precision)
        self.mean_ = scaler.mean_
        # |whitening.T (x - mean)| is the distance: one matrix product at serving time.
        self.whitening_ = factor / scaler.scale_[:, None]
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """float32 [N]."""
        centred = np.asarray(features, np.float64) - self.mean_
        return np.linalg.norm(centred @ self.whitening_, axis=1).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """mean [D], whitening [D, D]."""
        return {"mean": self.mean_.astype(np.float32), "whitening": self.whitening_.astype(np.float32)}

    def score(self, features: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        return tf.norm((features - arrays["mean"]) @ arrays["whitening"], axis=1)


class PerCategoryHead:
    """One head for each category, chosen from the image itself by the nearest category mean.

    A screw's features tell nothing about what is wrong with a bottle: one linear head over both was
    measured at ROC-AUC 0.947 on MVTec bottle where a head of its own reached 0.994 (10 % labels,
    five label seeds). The category is read from the features, so a served model needs only the image.

    Args:
      heads: category -> unfitted head, all of one kind.
    """

    def __init__(self, heads: dict[str, Head]) -> None:
        self.heads = dict(sorted(heads.items()))
        first = next(iter(self.heads.values()))
        self.needs_labels = first.needs_labels
        self.gives_probability = first.gives_probability

    def fit(self, features: np.ndarray, labels: np.ndarray, categories: np.ndarray) -> "PerCategoryHead":
        """Fits each category's head on its own rows. `categories` is str [N]."""
        means = []
        for category, head in self.heads.items():
            rows = categories == category
            try:
                head.fit(features[rows], labels[rows])
            except UserError as error:
                raise UserError(f"category {category!r}: {error}") from error
            means.append(features[rows].mean(axis=0, dtype=np.float64))
        # Features of large variance would drown the others in the distance to the means.
        self.scale_ = features.std(axis=0, dtype=np.float64) + 1e-6
        self.means_ = np.stack(means)
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """means [K, D] and scale [D] of the choice, and each head's arrays under `CATEGORY_NUMBER/`."""
        state = {"means": self.means_.astype(np.float32), "scale": self.scale_.astype(np.float32)}
        for number, head in enumerate(self.heads.values()):
            state |= {f"{number}/{name}": value for name, value in head.arrays().items()}
        return state

    def choose(self, features: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> int64 [N], the number of the nearest category in sorted order."""
        scaled = features / arrays["scale"]
        means = arrays["means"] / arrays["scale"]
        distances = tf.reduce_sum(tf.square(scaled[:, None] - means[None]), axis=-1)
        return tf.argmin(distances, axis=-1)

    def score(self, features: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N], each row by the head of its nearest category."""
        columns = []
        for number, head in enumerate(self.heads.values()):
            prefix = f"{number}/"
            own = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
            columns.append(head.score(features, own))
        return tf.gather(tf.stack(columns, axis=1), self.choose(features, arrays), axis=1, batch_dims=1)

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """float32 [N], by the very ops that are exported."""
        arrays = {name: tf.constant(value) for name, value in self.arrays().items()}
        return self.score(tf.constant(features, tf.float32), arrays).numpy()

    def decision_function_of(self, features: np.ndarray, categories: np.ndarray) -> np.ndarray:
        """float32 [N], each row by the head of the category (str [N]) that it is said to be of."""
        scores = np.empty(len(features), np.float32)
        for category, head in self.heads.items():
            scores[categories == category] = head.decision_function(features[categories == category])
        return scores
