"""Trivial baselines: what mean brightness and a 16 x 16 thumbnail already tell, in NumPy and as a graph with a head.

A data set on which they do well is too easy to compare learning methods on, and a method that does
not beat them has learned nothing worth a network.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding.pixels import LUMA
from mvtec_tf.graphs import saved_model, signatures
from mvtec_tf.graphs.signatures import Answer
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.networks.backbone import EMBEDDING

# name -> side of the grey thumbnail that is all a baseline sees.
SIDES = {"grey_pixels": 16, "mean_brightness": 1}


def mean_brightness(images: np.ndarray) -> np.ndarray:
    """Mean grey value of each image.

    Args:
      images: uint8 [N, S, S, 3], RGB.

    Returns:
      float64 [N, 1], 0 to 255.

    Raises:
      ValueError: another shape or dtype.
    """
    return _grey(images).mean(axis=(1, 2))[:, None]


def grey_pixels(images: np.ndarray, size: int = 16) -> np.ndarray:
    """Each image as a grey thumbnail: area averages over size x size equal cells.

    A cell border inside a pixel splits that pixel by area, so that any `S` >= `size` will do.

    Args:
      images: uint8 [N, S, S, 3], RGB.
      size: side of the thumbnail.

    Returns:
      float64 [N, size * size], 0 to 255, row by row.

    Raises:
      ValueError: another shape or dtype, or images smaller than the thumbnail.
    """
    grey = _grey(images)
    side = grey.shape[1]
    if not 1 <= size <= side:
        raise ValueError(f"size must be 1 to the images' side {side}. Received: {size}.")
    shares = cell_shares(side, size)
    return np.einsum("cy,nyx,dx->ncd", shares, grey, shares, optimize=True).reshape(len(grey), size * size)


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 3] -> float64 [N, S, S]."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be uint8 [N, S, S, 3]. Received: {images.dtype} {list(images.shape)}.")
    return images @ np.array(LUMA)


def cell_shares(side: int, size: int) -> np.ndarray:
    """float64 [size, side]: which share of a cell each pixel of a row makes up; rows sum to 1."""
    borders = np.arange(size + 1) * (side / size)
    starts, pixels = borders[:-1, None], np.arange(side)[None, :]
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(starts, pixels)
    return np.clip(overlap, 0.0, None) * (size / side)


class Baseline(tf.Module):
    """Thumbnail and head as functions of pixels.

    Args:
      side: side of the grey thumbnail that the head was fitted on; 1 is the mean brightness.
      head: fitted.
      image_size: side in pixels of what `judge`, `embed` and `explain` take.
      max_pixels: encoded images that are larger are refused.
    """

    def __init__(self, side: int, head: PerCategoryHead, image_size: int, max_pixels: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.max_pixels = max_pixels
        self._side = side
        self._head = head
        self._shares = tf.constant(cell_shares(image_size, side), tf.float32)
        self._arrays = {name: tf.Variable(value, trainable=False) for name, value in head.arrays().items()}

    @property
    def categories(self) -> tuple[str, ...]:
        """The names behind the numbers of `category`."""
        return tuple(self._head.heads)

    def judge(self, images: tf.Tensor) -> Answer:
        """uint8 [B, S, S, 3] -> `anomaly_score` [B], `category` int64 [B], `embedding`, perhaps `probability` [B]."""
        cells = self._cells(images)
        return self._head.answer(FrozenFeatures(cells), self._arrays) | {EMBEDDING: cells}

    def embed(self, images: tf.Tensor) -> Answer:
        """uint8 [B, S, S, 3] -> `embedding` float32 [B, cells], 0 to 255, row by row."""
        return {EMBEDDING: self._cells(images)}

    def explain(self, images: tf.Tensor) -> tuple[Answer, tf.Tensor]:
        """uint8 [B, S, S, 3] -> what `judge` answers, and a heat map, float32 [B, side, side].

        It is what the difference of each cell from the mean of its category's images adds to the score, to first
        order; of a linear head that is exact. What speaks for a good image is 0.
        """
        cells = self._cells(images)
        with tf.GradientTape() as tape:
            tape.watch(cells)
            answer = self._head.answer(FrozenFeatures(cells), self._arrays)
        usual = tf.gather(self._arrays["means"], answer["category"])
        found = tape.gradient(answer["anomaly_score"], cells) * (cells - usual)
        found = tf.where(tf.math.is_finite(found), found, 0.0)  # a distance of 0 has no direction
        return answer | {EMBEDDING: cells}, tf.nn.relu(tf.reshape(found, [-1, self._side, self._side]))

    def _cells(self, images: tf.Tensor) -> tf.Tensor:
        grey = tf.tensordot(tf.cast(images, tf.float32), tf.constant(LUMA, tf.float32), 1)
        cells = tf.einsum("cy,nyx,dx->ncd", self._shares, grey, self._shares)
        return tf.reshape(cells, [-1, self._side * self._side])


def write_baseline(path: files.PathLike, baseline: Baseline, card: Mapping[str, Any]) -> None:
    """Writes a baseline with the signatures of `signatures.of_module`."""
    facts = {"kind": "baseline", "image_size": baseline.image_size, "max_pixels": baseline.max_pixels}
    facts["categories"] = list(baseline.categories)
    saved_model.write_module(path, baseline, signatures.of_module(baseline), dict(card) | facts)
