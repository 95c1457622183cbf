"""The graph of a student: its network, batch norm folded, with the signatures of every scoring model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.graphs import saved_model, signatures
from mvtec_tf.graphs.signatures import Answer
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import student
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.networks.fold import fold_batch_norm

# How the network's ops are called in the graph, by which those that are quantised are told from all that is computed
# of its answers.
SCOPE = "student"
_BATCH = 32


class Student(tf.Module):
    """A trained student as functions of pixels.

    Args:
      network: of `networks.student.served`, float32.
      of_peak: slope and offset of the teacher's score as a line over the peak of the heat map. The answer is the mean
        of this and of the score that the network says: they err on different images.
      max_pixels: encoded images that are larger are refused.
    """

    def __init__(self, network: keras.Model, of_peak: tuple[float, float], max_pixels: int) -> None:
        super().__init__()
        self._slope, self._offset = of_peak
        self.image_size = network.input_shape[1]
        self.max_pixels = max_pixels
        self._network = network
        # Keras' layers are no tf.Module's children: what is saved must be named.
        self.held = [variable.value for variable in network.variables]

    def judge(self, images: tf.Tensor) -> Answer:
        """uint8 [B, S, S, 3] -> `anomaly_score` float32 [B] and `embedding` [B, E]."""
        return self.explain(images)[0]

    def embed(self, images: tf.Tensor) -> Answer:
        """uint8 [B, S, S, 3] -> `embedding` float32 [B, E]."""
        return {EMBEDDING: self._answers(images)[EMBEDDING]}

    def explain(self, images: tf.Tensor) -> tuple[Answer, tf.Tensor]:
        """uint8 [B, S, S, 3] -> what `judge` answers, and a heat map, float32 [B, h, w]: the teacher's, as learned."""
        found = self._answers(images)
        heat_map = found[student.HEAT_MAP]
        by_peak = self._slope * peak(heat_map) + self._offset
        answer = {"anomaly_score": (found[student.SCORE][:, 0] + by_peak) / 2, EMBEDDING: found[EMBEDDING]}
        return answer, tf.nn.relu(heat_map[..., 0])

    def _answers(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.name_scope(SCOPE):
            return self._network(images, training=False)


def peak(heat_map: tf.Tensor) -> tf.Tensor:
    """The hottest place of float32 [B, h, w, 1], a mean of 3 x 3 of its values: [B]."""
    return tf.reduce_max(tf.nn.avg_pool2d(tf.nn.relu(heat_map), 3, 1, "SAME"), axis=[1, 2, 3])


def write_student(
    path: files.PathLike,
    network: keras.Model,
    questions: tuple[np.ndarray, np.ndarray],
    card: Mapping[str, Any],
    max_pixels: int,
) -> None:
    """Writes a trained student.

    Args:
      path: a new directory.
      network: of `networks.student.build_student`, float32.
      questions: images uint8 [N, S, S, 3] and the teacher's scores [N], over which the line through peaks is laid.
      card: what a reader needs to know of it, JSON.
      max_pixels: images that are larger are refused.

    Raises:
      UserError: the network's heat maps are not finite.
    """
    images, score = questions
    served = fold_batch_norm(student.served(network)).model
    peaks = [peak(served(images[start : start + _BATCH])[student.HEAT_MAP]) for start in range(0, len(images), _BATCH)]
    hottest = np.concatenate(peaks).astype(np.float64)
    if not np.isfinite(hottest).all():
        raise UserError(
            "The student's heat maps hold NaN or infinite numbers. Of few steps its batch norm keeps no mean and "
            "variance yet, or the training diverged: train it for more `epochs`, begin with other `weights`, or lower "
            "`learning_rate`."
        )
    slope, offset = np.polyfit(hottest, score.astype(np.float64), 1)
    module = Student(served, (float(slope), float(offset)), max_pixels)
    facts = {"kind": "student", "image_size": module.image_size, "max_pixels": max_pixels}
    facts["early_layers"] = student.early(network)
    saved_model.write_module(path, module, signatures.of_module(module), dict(card) | facts)
