"""The graph of a trivial baseline: pixels reduced to a few grey values, with a fitted head."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding.pixels import LUMA
from mvtec_tf.graphs import saved_model, signatures
from mvtec_tf.graphs.signatures import Answer
from mvtec_tf.heads import baselines
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.networks.backbone import EMBEDDING


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
        self._shares = tf.constant(baselines.cell_shares(image_size, side), tf.float32)
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
