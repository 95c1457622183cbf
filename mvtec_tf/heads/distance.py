"""Heads on global features that are no single matrix product: Gaussian, nearest neighbours, kernel SVM."""

from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mvtec_tf.errors import UserError
from mvtec_tf.heads import frozen
from mvtec_tf.heads.frozen import pooled_of
from mvtec_tf.heads.gaussian import GoodGaussian, distances_by_ops


class MahalanobisHead:
    """Distance to the good images' Gaussian with Ledoit-Wolf covariance; needs no defect at all.

    As Rippel et al., "Modeling the distribution of normal data in pre-trained deep features for
    anomaly detection", ICPR 2020. The score is the distance, not its square.
    """

    needs_labels = False
    needs_maps = False
    gives_heat_maps = False

    def fit(self, features: Any, labels: np.ndarray) -> "MahalanobisHead":
        """Uses the rows labelled good only. Raises UserError on fewer than two."""
        self.gaussian_ = GoodGaussian(good_rows(features, labels, "mahalanobis", 2))
        return self

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N]."""
        return self.gaussian_.distances(pooled_of(features)).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the Gaussian, see `GoodGaussian.arrays`."""
        return self.gaussian_.arrays()

    def score(self, features: Any, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        return distances_by_ops(pooled_of(features), arrays)


class NearestNeighboursHead:
    """Mean Euclidean distance to the k nearest good images, on standardised features.

    As DN2 of Bergman et al., "Deep nearest neighbor anomaly detection", 2020, with standardised
    features, because stages of a network differ in scale by orders of magnitude.

    Args:
      neighbours: k.
    """

    needs_labels = False
    needs_maps = False
    gives_heat_maps = False

    def __init__(self, neighbours: int = 1) -> None:
        self.neighbours = neighbours

    def fit(self, features: Any, labels: np.ndarray) -> "NearestNeighboursHead":
        """Keeps the good rows. Raises UserError on fewer than k."""
        good = good_rows(features, labels, "nearest_neighbours", max(2, self.neighbours))
        scaler = StandardScaler().fit(good.astype(np.float64))
        self.mean_ = scaler.mean_.astype(np.float32)
        self.scale_ = scaler.scale_.astype(np.float32)
        self.bank_ = (good - self.mean_) / self.scale_
        return self

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N]."""
        scaled = (np.asarray(pooled_of(features), np.float32) - self.mean_) / self.scale_
        return np.concatenate([self._distances(scaled[start : start + 64]) for start in range(0, len(scaled), 64)])

    def _distances(self, scaled: np.ndarray) -> np.ndarray:
        nearest = np.argsort(_squared_distances(scaled, self.bank_), axis=1, kind="stable")[:, : self.neighbours]
        # The matrix product above is good enough to rank; the distance itself is taken from the difference.
        return np.linalg.norm(scaled[:, None] - self.bank_[nearest], axis=2).mean(axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """mean and scale [D], bank [M, D]."""
        return {"mean": self.mean_, "scale": self.scale_, "bank": self.bank_}

    def score(self, features: Any, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        scaled = (pooled_of(features) - arrays["mean"]) / arrays["scale"]
        bank = arrays["bank"]
        squared = tf.reduce_sum(tf.square(bank), axis=1) - 2 * tf.matmul(scaled, bank, transpose_b=True)
        nearest = tf.math.top_k(-squared, k=self.neighbours).indices
        return tf.reduce_mean(tf.norm(scaled[:, None] - tf.gather(bank, nearest), axis=2), axis=1)


class RbfSvmHead:
    """Support vector machine with a Gaussian kernel on standardised features, both classes weighted alike.

    Args:
      c: as in scikit-learn; the kernel's width is 1 / D, scikit-learn's "scale" on standardised features.
    """

    needs_labels = True
    needs_maps = False
    gives_heat_maps = False

    def __init__(self, c: float = 1.0) -> None:
        self.c = c

    def fit(self, features: Any, labels: np.ndarray) -> "RbfSvmHead":
        """Raises UserError when one class is missing."""
        frozen.check(frozen.frozen(features), labels, both_classes=True)
        scaler = StandardScaler().fit(np.asarray(pooled_of(features), np.float64))
        model = SVC(C=self.c, kernel="rbf", gamma="scale", class_weight="balanced")
        model.fit(scaler.transform(pooled_of(features)), labels)
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        self.vectors_ = model.support_vectors_
        self.coefficients_ = model.dual_coef_[0]
        self.bias_ = float(model.intercept_[0])
        self.gamma_ = float(model._gamma)
        return self

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N]."""
        scaled = (np.asarray(pooled_of(features), np.float64) - self.mean_) / self.scale_
        kernel = np.exp(-self.gamma_ * _squared_distances(scaled, self.vectors_))
        return (kernel @ self.coefficients_ + self.bias_).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """mean, scale [D]; vectors [M, D]; coefficients [M]; gamma, bias []."""
        state = {
            "mean": self.mean_,
            "scale": self.scale_,
            "vectors": self.vectors_,
            "coefficients": self.coefficients_,
            "gamma": self.gamma_,
            "bias": self.bias_,
        }
        return {name: np.asarray(value, np.float32) for name, value in state.items()}

    def score(self, features: Any, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        scaled = (pooled_of(features) - arrays["mean"]) / arrays["scale"]
        vectors = arrays["vectors"]
        squared = (
            tf.reduce_sum(tf.square(scaled), axis=1, keepdims=True)
            + tf.reduce_sum(tf.square(vectors), axis=1)
            - 2 * tf.matmul(scaled, vectors, transpose_b=True)
        )
        kernel = tf.exp(-arrays["gamma"] * tf.maximum(squared, 0.0))
        return tf.linalg.matvec(kernel, arrays["coefficients"]) + arrays["bias"]


def good_rows(features: Any, labels: np.ndarray, name: str, least: int) -> np.ndarray:
    """Global features of the rows labelled good, float32 [M, D].

    Raises:
      UserError: fewer than `least`.
    """
    frozen.check(frozen.frozen(features), labels)
    good = np.asarray(pooled_of(features), np.float32)[np.asarray(labels) == 0]
    if len(good) < least:
        words = {2: "two"}.get(least, str(least))
        raise UserError(f"--head={name} needs at least {words} good images, found {len(good)}.")
    return good


def _squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, D] and [M, D] -> [N, M], never negative."""
    squared = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * rows @ others.T
    return np.maximum(squared, 0.0)
