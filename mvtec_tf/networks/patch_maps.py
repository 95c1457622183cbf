"""Maps of several layers to one grid of patches, distances on that grid to a heat map in pixels, and maps to a few
numbers an image.

Of those numbers, the mean says what an image looks like as a whole; a defect of a few patches hardly moves it. The
generalised mean of a high power lies near the maximum, and so does what a single patch says, but unlike the
maximum it does not hang on one noisy number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.ndimage import gaussian_filter1d

# Pixels; both PaDiM and PatchCore smooth their maps with this deviation (Roth et al., CVPR 2022, section 3.3).
HEAT_MAP_SIGMA = 4.0
MEAN = "mean"
GENERALISED_MEAN = "gem8"
# Radenović, Tolias and Chum learn powers of about 3 for retrieval; for defects 8 was measured to be better than 3.
_POWER, _LEAST_POWER = 8.0, 1e-9


def grid(maps: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """(rows, columns) of patches: the finest map's."""
    return max(tuple(source.shape[1:3]) for source in maps.values())


def channels(maps: Mapping[str, np.ndarray]) -> int:
    """Numbers that describe one patch."""
    return sum(source.shape[-1] for source in maps.values())


def join_ops(maps: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Interpolates coarse maps to the finest grid and sets them beside it (Roth et al., CVPR 2022, section 3.1).

    Args:
      maps: layer -> float32 [B, h, w, C]; h and w must be known when the graph is built.

    Returns:
      float32 [B, rows * columns, sum of C], row by row.
    """
    rows, columns = grid(maps)
    parts = [
        value if tuple(value.shape[1:3]) == (rows, columns) else tf.image.resize(value, (rows, columns), "bilinear")
        for value in maps.values()
    ]
    joined = tf.concat(parts, axis=-1)
    # How many channels there are may be known only when the graph runs.
    return tf.reshape(joined, [-1, rows * columns, joined.shape[-1] or tf.shape(joined)[-1]])


def average_neighbours(maps: tf.Tensor, size: int) -> tf.Tensor:
    """Mean over the size x size neighbours of every position, over fewer of them at the border.

    PatchCore's "locally aware" patch features (Roth et al., CVPR 2022, equation 2), size 3.

    Args:
      maps: float32 [B, h, w, C].
      size: odd; 1 changes nothing.
    """
    return maps if size == 1 else tf.nn.avg_pool2d(maps, size, 1, "SAME")


def bilinear_matrix(size_out: int, size_in: int) -> np.ndarray:
    """float32 [size_out, size_in]: bilinear interpolation of a line; pixel centres at halves, constant beyond."""
    places = np.clip((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0, size_in - 1)
    left = np.floor(places).astype(int)
    right = np.minimum(left + 1, size_in - 1)
    matrix = np.zeros((size_out, size_in))
    np.add.at(matrix, (np.arange(size_out), left), 1 - (places - left))
    np.add.at(matrix, (np.arange(size_out), right), places - left)
    return matrix.astype(np.float32)


def heat_map_ops(distances: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Interpolates distances of patches to pixels and smooths them with a Gaussian.

    Both steps are linear along each axis, so that one matrix an axis does them.

    Args:
      distances: float32 [B, rows, columns]; rows and columns must be known when the graph is built.
      image_size: (height, width) in pixels.

    Returns:
      float32 [B, height, width]. The peak of an isolated patch is lowered by the smoothing.
    """
    down, across = (_smooth_matrix(*sizes) for sizes in zip(image_size, distances.shape[1:], strict=True))
    columns_done = tf.matmul(
        distances, tf.broadcast_to(across, [tf.shape(distances)[0], *across.shape]), transpose_b=True
    )
    return tf.matmul(tf.broadcast_to(down, [tf.shape(distances)[0], *down.shape]), columns_done)


def _smooth_matrix(size_out: int, size_in: int) -> np.ndarray:
    matrix = bilinear_matrix(size_out, size_in)
    return gaussian_filter1d(matrix, HEAT_MAP_SIGMA, axis=0, mode="nearest").astype(np.float32)

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
    # A map of zeros has a power of 0, of which the root has no gradient; any other is 1 over its positions or more.
    return largest[:, 0, 0] * tf.pow(tf.maximum(power, _LEAST_POWER), 1 / _POWER)


POOLINGS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {MEAN: _mean, GENERALISED_MEAN: _generalised_mean}
