"""The Gaussian of good images where there are more dimensions than images.

Ledoit and Wolf's estimate ("A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88, 2004) is a multiple of the identity plus what n images span. So all there is to know of
it lies in n directions: it is computed from the n x n matrix of inner products and kept as n vectors, exactly,
instead of a D x D matrix that nobody needs. With D = 3072 and n = 300 that is a hundredth of the work.
"""

import numpy as np
import tensorflow as tf

# A distance of zero is a copy of a training image; its logarithm must be a number.
TINY = 1e-6
# Directions whose variance is rounding are no directions.
_RANK = 1e-10


class GoodGaussian:
    """Mean and shrunken covariance of standardised features.

    Args:
      good: float [N, D], features of at least two good images.

    Attributes:
      mean, scale: float64 [D], of the standardisation; a feature without spread has scale 1.
      axes: float64 [D, K], orthonormal, the directions in which good images differ.
      variances: float64 [K], along them, shrunken.
      rest: the variance in every other direction.
    """

    def __init__(self, good: np.ndarray) -> None:
        good = np.asarray(good, np.float64)
        count, width = good.shape
        self.mean, spread = good.mean(axis=0), good.std(axis=0)
        self.scale = np.where(spread > 10 * np.finfo(np.float64).eps * np.abs(self.mean), spread, 1.0)
        centred = (good - self.mean) / self.scale
        small = centred @ centred.T if count < width else centred.T @ centred
        squared_lengths = np.einsum("ij,ij->i", centred, centred)
        sizes, vectors = np.linalg.eigh(small)
        kept = sizes > max(sizes[-1], 0.0) * _RANK
        sizes, vectors = sizes[kept], vectors[:, kept]
        self.axes = centred.T @ vectors / np.sqrt(sizes) if count < width else vectors
        shrinkage, average = _ledoit_wolf(sizes, squared_lengths, count, width)
        self.variances = (1 - shrinkage) * sizes / count + shrinkage * average
        # Without any shrinkage there is no distance in directions that no good image took.
        self.rest = max(shrinkage * average, _RANK)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distances: float [M, D] -> float64 [M]."""
        centred = (np.asarray(features, np.float64) - self.mean) / self.scale
        along = centred @ self.axes
        inside = np.einsum("ij,ij->i", along, along)
        outside = np.maximum(np.einsum("ij,ij->i", centred, centred) - inside, 0.0)
        return np.sqrt((along**2 / self.variances).sum(axis=1) + outside / self.rest)

    def solve(self, shift: np.ndarray) -> np.ndarray:
        """Inverse covariance times a vector of standardised features, float64 [D]."""
        along = self.axes.T @ shift
        return shift / self.rest + self.axes @ (along * (1 / self.variances - 1 / self.rest))

    def main_directions(self, count: int) -> np.ndarray:
        """float64 [D, at most `count`]: the directions in which good images vary most, the largest last; good images
        have unit variance along them."""
        first = max(0, self.axes.shape[1] - count)
        return self.axes[:, first:] / np.sqrt(self.variances[first:]) / self.scale[:, None]

    def arrays(self) -> dict[str, np.ndarray]:
        """The state that `distances_by_ops` needs, float32: mean and inverse scale [D], axes [D, K], certainty
        (inverse variance) along them [K] and in the rest []."""
        return {
            "mean": self.mean.astype(np.float32),
            "inverse": (1 / self.scale).astype(np.float32),
            "axes": self.axes.astype(np.float32),
            "certainty": (1 / self.variances).astype(np.float32),
            "rest": np.float32(1 / self.rest),
        }


def held_out_distances(pooled: np.ndarray, good: np.ndarray, folds: np.ndarray, whole: GoodGaussian) -> np.ndarray:
    """Logarithms of Mahalanobis distances, each by the good images of the other folds: float64 [N].

    Args:
      pooled: float [N, D].
      good: bool [N], those that make a Gaussian.
      folds: int [N]; a fold without a good image is measured by `whole`.
      whole: the Gaussian of all good images.
    """
    found = np.empty(len(folds))
    for fold in np.unique(folds):
        held = folds == fold
        one = GoodGaussian(pooled[good & ~held]) if (good & held).any() else whole
        found[held] = np.log(np.maximum(one.distances(pooled[held]), TINY))
    return found


def distances_by_ops(features: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
    """`GoodGaussian.distances` in TensorFlow ops on the state of `arrays`: float32 [M, D] -> [M]."""
    centred = (features - arrays["mean"]) * arrays["inverse"]
    along = tf.matmul(centred, arrays["axes"])
    # What is left after the projection is subtracted as a vector: a difference of squares would round it away.
    outside = centred - tf.matmul(along, arrays["axes"], transpose_b=True)
    squared = tf.reduce_sum(tf.square(along) * arrays["certainty"], axis=1)
    return tf.sqrt(squared + arrays["rest"] * tf.reduce_sum(tf.square(outside), axis=1))


def _ledoit_wolf(sizes: np.ndarray, squared_lengths: np.ndarray, count: int, width: int) -> tuple[float, float]:
    """Shrinkage and mean variance, from the eigenvalues of the inner products (lemmas 3.2 to 3.4 of the paper)."""
    average = sizes.sum() / count / width
    of_squares = (sizes**2).sum() / count**2 / width
    distance = of_squares - average**2
    noise = ((squared_lengths**2).sum() / count / width - of_squares) / count
    shrinkage = 1.0 if distance <= 0 else float(np.clip(noise / distance, 0.0, 1.0))
    return shrinkage, float(average)
