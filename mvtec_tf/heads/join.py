"""Several evidences of a defect to one score: each on the scale of held-out good images, set against what is usual for
an image like this, and joined by Fisher's rule."""

import dataclasses
import math

import numpy as np
import tensorflow as tf
from scipy.stats import norm

# Standard deviations beyond which a main direction is not followed: what is usual there nobody knows.
_FARTHEST_PLACE = 2.0
# Good images for each main direction whose usual evidence is estimated.
_IMAGES_A_DIRECTION = 10
# Share of the evidence's variance that the main directions must explain in left-out images to be trusted wholly.
_TRUSTED = 0.1
_PARTS, _DRAWS = 10, 3
# Standard deviations below which it makes no difference how good an image looks.
_LOWEST = -4.0
# Where erfc in float32 hands over to its asymptotic series.
_FAR = 9.0


@dataclasses.dataclass(frozen=True)
class Join:
    """What held-out good images say of J evidences.

    Attributes:
      slopes: float64 [K, J], how an evidence grows along the K main directions of the good images, as far as it is
        trusted.
      mean, scale: float64 [J], of the evidences without that.
      joined_mean, joined_scale: of the logarithm of Fisher's sum.
    """

    slopes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    joined_mean: float
    joined_scale: float

    @classmethod
    def fit(cls, evidence: np.ndarray, places: np.ndarray, groups: np.ndarray) -> "Join":
        """From held-out good images.

        How far an image lies from the others depends on what it is: of one tile, the long exposure is farther than
        the short one. So each evidence is set against a regression on the main directions, as far as that explains
        images of objects that it was not fitted on: where new images lie in directions that were never seen, it
        explains nothing, and would take defects away.

        Args:
          evidence: float64 [N, J].
          places: float64 [N, K], standardised, see `clipped`.
          groups: int [N], the objects.
        """
        places = clipped(places)
        trust = float(np.clip(_explained(evidence, places, groups) / _TRUSTED, 0.0, 1.0)) if places.shape[1] else 0.0
        slopes = trust * _regression(evidence, places)[1:]
        left = evidence - places @ slopes
        join = cls(slopes, left.mean(axis=0), _spread(left), 0.0, 1.0)
        joined = join.scores(evidence, places)
        return dataclasses.replace(join, joined_mean=float(joined.mean()), joined_scale=float(_spread(joined)))

    def scores(self, evidence: np.ndarray, places: np.ndarray) -> np.ndarray:
        """float64 [N, J] and [N, K] -> [N], in standard deviations of held-out good images."""
        standard = (evidence - clipped(places) @ self.slopes - self.mean) / self.scale
        joined = np.log(-norm.logsf(np.maximum(standard, _LOWEST)).sum(axis=1))
        return (joined - self.joined_mean) / self.joined_scale

    def arrays(self) -> dict[str, np.ndarray]:
        """What `score_ops` needs, float32."""
        return {name: np.asarray(value, np.float32) for name, value in vars(self).items()}


def score_ops(evidence: tf.Tensor, places: tf.Tensor, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
    """`Join.scores` in TensorFlow ops on the state of `arrays`: float32 [N, J] and [N, K] -> [N]."""
    usual = tf.matmul(tf.clip_by_value(places, -_FARTHEST_PLACE, _FARTHEST_PLACE), arrays["slopes"])
    standard = (evidence - usual - arrays["mean"]) / arrays["scale"]
    # Fisher's method: Statistical Methods for Research Workers, 1932, section 21.1. Its logarithm, since it is squares.
    joined = tf.math.log(tf.reduce_sum(surprise(tf.maximum(standard, _LOWEST)), axis=1))
    return (joined - arrays["joined_mean"]) / arrays["joined_scale"]


def surprise(standard: tf.Tensor) -> tf.Tensor:
    """-log of the probability that a normal variable exceeds these values, float32, exact far beyond float32's own."""
    # Each side by the tail that is small there: its logarithm keeps its digits.
    small = tf.math.erfc(tf.minimum(tf.abs(standard), _FAR) / math.sqrt(2)) / 2
    near = tf.where(standard < 0, -tf.math.log1p(-small), -tf.math.log(small))
    far = tf.maximum(standard, _FAR)
    inverse = 1 / tf.square(far)
    # Abramowitz and Stegun, 26.2.12.
    series = tf.math.log1p(inverse * (-1 + inverse * (3 + inverse * (-15 + 105 * inverse))))
    beyond = tf.square(far) / 2 + tf.math.log(far) + 0.5 * math.log(2 * math.pi) - series
    return tf.where(standard < _FAR, near, beyond)


def clipped(places: np.ndarray) -> np.ndarray:
    """Places along the main directions, none farther than is known."""
    return np.clip(places, -_FARTHEST_PLACE, _FARTHEST_PLACE)


def directions(images: int) -> int:
    """How many main directions so many good images allow, two at most."""
    return min(2, images // _IMAGES_A_DIRECTION)


def _explained(evidence: np.ndarray, places: np.ndarray, groups: np.ndarray) -> float:
    """Share of the variance of left-out objects that a regression on the places explains; mean over evidences."""
    objects, index = np.unique(groups, return_inverse=True)
    found = []
    for draw in range(_DRAWS):
        # Whole objects: views of one are alike in place and in evidence.
        part = (np.random.default_rng(draw).permutation(len(objects)) % _PARTS)[index]
        left, whole = np.zeros(evidence.shape[1]), np.zeros(evidence.shape[1])
        for number in range(min(_PARTS, len(objects))):
            held, rest = part == number, part != number
            expected = _design(places[held]) @ _regression(evidence[rest], places[rest])
            left += np.square(evidence[held] - expected).sum(axis=0)
            whole += np.square(evidence[held] - evidence[rest].mean(axis=0)).sum(axis=0)
        found.append(1 - left / np.where(whole > 0, whole, 1.0))
    return float(np.mean(found))


def _regression(evidence: np.ndarray, places: np.ndarray) -> np.ndarray:
    """float64 [1 + K, J]: offsets and slopes of least squares."""
    return np.linalg.lstsq(_design(places), evidence, rcond=None)[0]


def _design(places: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(places)), places])


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation along the rows, 1 where there is none."""
    spread = np.asarray(values.std(axis=0))
    return np.where(spread > 1e-9 * (1 + np.abs(values).max(axis=0)), spread, 1.0)
