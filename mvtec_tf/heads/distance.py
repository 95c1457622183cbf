"""Heads on global features that are no single matrix product: Gaussian, nearest neighbours, kernel SVM."""

import numpy as np
import tensorflow as tf
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mvtec_tf.heads.base import Arrays, Head
from mvtec_tf.heads.frozen import FrozenFeatures, good_images
from mvtec_tf.heads.gaussian import GoodGaussian, distances_by_ops


class Mahalanobis(Head):
    """Distance to the good images' Gaussian with Ledoit-Wolf covariance; needs no defect at all.

    As Rippel et al., "Modeling the distribution of normal data in pre-trained deep features for
    anomaly detection", ICPR 2020. The score is the distance, not its square.
    """

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Uses the rows labelled good only. Raises UserError on fewer than two."""
        self.gaussian_ = GoodGaussian(good_images(features, labels, "mahalanobis").pooled)

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the Gaussian, see `GoodGaussian.arrays`."""
        return self.gaussian_.arrays()

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        return distances_by_ops(features.pooled, arrays)


class NearestNeighbours(Head):
    """Mean Euclidean distance to the k nearest good images, on standardised features.

    As DN2 of Bergman et al., "Deep nearest neighbor anomaly detection", 2020, with standardised
    features, because stages of a network differ in scale by orders of magnitude.

    Args:
      neighbours: k.
    """

    def __init__(self, neighbours: int = 1) -> None:
        self.neighbours = neighbours

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Keeps the good rows. Raises UserError on fewer than k."""
        good = good_images(features, labels, "nearest_neighbours", max(2, self.neighbours))
        pooled = np.asarray(good.pooled, np.float32)
        scaler = StandardScaler().fit(pooled.astype(np.float64))
        self.mean_ = scaler.mean_.astype(np.float32)
        self.scale_ = scaler.scale_.astype(np.float32)
        self.bank_ = (pooled - self.mean_) / self.scale_

    def arrays(self) -> dict[str, np.ndarray]:
        """mean and scale [D], bank [M, D]."""
        return {"mean": self.mean_, "scale": self.scale_, "bank": self.bank_}

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        scaled = (features.pooled - arrays["mean"]) / arrays["scale"]
        bank = arrays["bank"]
        squared = tf.reduce_sum(tf.square(bank), axis=1) - 2 * tf.matmul(scaled, bank, transpose_b=True)
        nearest = tf.math.top_k(-squared, k=self.neighbours).indices
        return tf.reduce_mean(tf.norm(scaled[:, None] - tf.gather(bank, nearest), axis=2), axis=1)


class RbfSvm(Head):
    """Support vector machine with a Gaussian kernel on standardised features, both classes weighted alike.

    Args:
      c: as in scikit-learn; the kernel's width is 1 / D, scikit-learn's "scale" on standardised features.
    """

    needs_labels = True

    def __init__(self, c: float = 1.0) -> None:
        self.c = c

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Raises UserError when one class is missing."""
        scaler = StandardScaler().fit(np.asarray(features.pooled, np.float64))
        model = SVC(C=self.c, kernel="rbf", gamma="scale", class_weight="balanced")
        model.fit(scaler.transform(features.pooled), labels)
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        self.vectors_ = model.support_vectors_
        self.coefficients_ = model.dual_coef_[0]
        self.bias_ = float(model.intercept_[0])
        self.gamma_ = float(model._gamma)

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

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, D] -> [N]."""
        scaled = (features.pooled - arrays["mean"]) / arrays["scale"]
        vectors = arrays["vectors"]
        squared = (
            tf.reduce_sum(tf.square(scaled), axis=1, keepdims=True)
            + tf.reduce_sum(tf.square(vectors), axis=1)
            - 2 * tf.matmul(scaled, vectors, transpose_b=True)
        )
        kernel = tf.exp(-arrays["gamma"] * tf.maximum(squared, 0.0))
        return tf.linalg.matvec(kernel, arrays["coefficients"]) + arrays["bias"]
