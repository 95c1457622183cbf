"""The graph of a student: its network, batch norm folded, and its head, with the signatures of every scoring model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UserError
from mvtec_tf.features.feature_graph import FeatureSettings, MapFeatures
from mvtec_tf.graphs import saved_model, signatures
from mvtec_tf.graphs.signatures import Answer
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import student
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.networks.fold import fold_batch_norm

# How the network's ops are called in the graph, by which those that are quantised are told from all that is computed
# of its answers.
SCOPE = "student"
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Imitation:
    """The score that the network says: the mean of its own output and of a line over the peak of its heat map, since
    they err on different images.

    Attributes:
      slope, offset: of the line.
    """

    slope: float
    offset: float

    def of(self, found: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What the network answers to B images -> float32 [B]."""
        return (found[student.SCORE][:, 0] + self.slope * peak(found[student.HEAT_MAP]) + self.offset) / 2


@dataclasses.dataclass(frozen=True)
class Judge:
    """What makes a score of a student's maps and of its imitation.

    Attributes:
      head: fitted on the maps.
      settings: which maps, and how they are pooled.
      imitation: the teacher's score as the network says it.
      mean, factor: the head's score and `factor` times what the imitation exceeds `mean` by are added.
    """

    head: PerCategoryHead
    settings: FeatureSettings
    imitation: Imitation
    mean: float
    factor: float


class Student(tf.Module):
    """A trained student as functions of pixels.

    Args:
      network: of `networks.student.served`, float32.
      judge: what makes a score of its answers.
      max_pixels: encoded images that are larger are refused.
    """

    def __init__(self, network: keras.Model, judge: Judge, max_pixels: int) -> None:
        super().__init__()
        self._judge = judge
        self.image_size = network.input_shape[1]
        self.max_pixels = max_pixels
        self._network = network
        # It is asked for features of maps that are there: the network runs once.
        self._features = MapFeatures(network, judge.settings, tuple(network.input_shape[1:3]))
        # Keras' layers are no tf.Module's children: what is saved must be named.
        self.held = [variable.value for variable in network.variables]
        self._arrays = {name: tf.Variable(value, trainable=False) for name, value in judge.head.arrays().items()}

    def judge(self, images: tf.Tensor) -> Answer:
        """uint8 [B, S, S, 3] -> `anomaly_score` float32 [B] and `embedding` [B, E]."""
        return self.explain(images)[0]

    def embed(self, images: tf.Tensor) -> Answer:
        """uint8 [B, S, S, 3] -> `embedding` float32 [B, E]."""
        return {EMBEDDING: self._answers(images)[EMBEDDING]}

    def explain(self, images: tf.Tensor) -> tuple[Answer, tf.Tensor]:
        """uint8 [B, S, S, 3] -> what `judge` answers, and a heat map, float32 [B, h, w]: the teacher's, as learned."""
        found, judge = self._answers(images), self._judge
        features = self._features.features_of([found[name] for name in judge.settings.layers])
        score = judge.head.score_ops(features, self._arrays)
        score += judge.factor * (judge.imitation.of(found) - judge.mean)
        return {"anomaly_score": score, EMBEDDING: found[EMBEDDING]}, tf.nn.relu(found[student.HEAT_MAP][..., 0])

    def _answers(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._judge.settings.centre_brightness:
            images = pixels.centre_brightness(images)
        with tf.name_scope(SCOPE):
            return self._network(images, training=False)


def peak(heat_map: tf.Tensor) -> tf.Tensor:
    """The hottest place of float32 [B, h, w, 1], a mean of 3 x 3 of its values: [B]."""
    return tf.reduce_max(tf.nn.avg_pool2d(tf.nn.relu(heat_map), 3, 1, "SAME"), axis=[1, 2, 3])


def imitation_of(network: keras.Model, images: np.ndarray, score: np.ndarray) -> Imitation:
    """Lays the line over the peaks of heat maps.

    Args:
      network: of `networks.student.build_student`, float32.
      images: questions, uint8 [N, S, S, 3], as the network sees them.
      score: the teacher's, [N].

    Raises:
      UserError: the network's heat maps are not finite.
    """
    hottest = peak(_answers_of(network, images)[student.HEAT_MAP]).numpy().astype(np.float64)
    if not np.isfinite(hottest).all():
        raise UserError(
            "The student's heat maps hold NaN or infinite numbers. Of few steps its batch norm keeps no mean and "
            "variance yet, or the training diverged: train it for more `epochs`, begin with other `weights`, or lower "
            "`learning_rate`."
        )
    slope, offset = np.polyfit(hottest, score.astype(np.float64), 1)
    return Imitation(float(slope), float(offset))


def imitated(network: keras.Model, imitation: Imitation, images: np.ndarray) -> np.ndarray:
    """The score that the network says of images uint8 [N, S, S, 3], as it sees them: float32 [N]."""
    return imitation.of(_answers_of(network, images)).numpy()


def write_student(
    path: files.PathLike, network: keras.Model, judge: Judge, card: Mapping[str, Any], max_pixels: int
) -> None:
    """Writes a trained student.

    Args:
      path: a new directory.
      network: of `networks.student.build_student`, float32.
      judge: what makes a score of its answers.
      card: what a reader needs to know of it, JSON.
      max_pixels: images that are larger are refused.
    """
    served = fold_batch_norm(student.served(network, judge.settings.layers)).model
    module = Student(served, judge, max_pixels)
    facts = {"kind": "student", "image_size": module.image_size, "max_pixels": max_pixels}
    facts["early_layers"] = student.early(network, judge.settings.layers)
    saved_model.write_module(path, module, signatures.of_module(module), dict(card) | facts)


def _answers_of(network: keras.Model, images: np.ndarray) -> dict[str, tf.Tensor]:
    wanted = keras.Model(network.inputs, {name: network.output[name] for name in (student.SCORE, student.HEAT_MAP)})
    parts = [wanted(images[start : start + _BATCH], training=False) for start in range(0, len(images), _BATCH)]
    return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}
