"""From a map of patches to a few numbers an image: what of a small defect survives the average.

The mean says what an image looks like as a whole; a defect of a few patches hardly moves it. The
generalised mean of a high power lies near the maximum, and so does what a single patch says, but unlike the
maximum it does not hang on one noisy number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

MEAN = "mean"
GENERALISED_MEAN = "gem8"
# Radenović, Tolias and Chum learn powers of about 3 for retrieval; for defects 8 was measured to be better than 3.
_POWER = 8.0


def pool(maps: Mapping[str, Any], names: Sequence[str]) -> tf.Tensor:
    """Global features of joined layers.

    Args:
      maps: layer -> float [B, h, w, C].
      names: of POOLINGS.

    Returns:
      float [B, sum of C x number of names]: the first pooling of all layers, then the second of all.
    """
    return tf.concat([POOLINGS[name](value) for name in names for value in maps.values()], axis=1)


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(values, axis=[1, 2])


def _generalised_mean(values: tf.Tensor) -> tf.Tensor:
    """(mean of max(x, 0)^p)^(1/p): Radenović et al., "Fine-tuning CNN image retrieval with no human annotation",
    TPAMI 2019, equation 3."""
    positive = tf.maximum(values, 0)
    # Divided by the maximum first: eighth powers leave the range of float16 at 4.
    largest = tf.reduce_max(positive, axis=[1, 2], keepdims=True)
    shares = tf.math.divide_no_nan(positive, largest)
    power = tf.reduce_mean(tf.square(tf.square(tf.square(shares))), axis=[1, 2])
    return largest[:, 0, 0] * tf.pow(power, 1 / _POWER)


POOLINGS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {MEAN: _mean, GENERALISED_MEAN: _generalised_mean}
