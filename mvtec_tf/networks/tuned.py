"""A network whose last stage is fine-tuned in several copies at once, each of which is shown other images.

What lies before that stage is frozen and computed once for all copies. A copy that never saw an image says of it what a
network says of a new one: so all copies but the last score what was held out of them, and the last, which is shown all
images, is the encoder.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras import layers as keras_layers

from mvtec_tf.errors import UsageError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import copies, patch_maps
from mvtec_tf.networks.backbone import Backbone


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The network, and the parts of it that are looked at.

    Attributes:
      network: uint8 [B, S, S, 3] -> logits float32 [B, K], one a copy.
      encoders: of each copy, uint8 [B, S, S, 3] -> its maps, the outputs of the layers that `names` calls.
      names: of each copy, the names of its layers, finest first.
      heads: of each copy, what makes a logit of its maps.
      stage: of each copy, the layers that are trained.
    """

    network: keras.Model
    encoders: tuple[keras.Model, ...]
    names: tuple[tuple[str, ...], ...]
    heads: tuple["LinearHead", ...]
    stage: tuple[keras.Model, ...]


def build_tuned(backbone: Backbone, pooling: Sequence[str], count: int) -> Tuned:
    """Copies of the last of the backbone's middle stages, the last copy in the backbone's own layers.

    The middle stages are those that features are made of, so what lies behind them is left as it is. Batch norm is
    frozen: its statistics are those of many photographs.

    Args:
      backbone: its graph is continued; its weights become those of every copy.
      pooling: how maps become the features of the head, names of `patch_maps.POOLINGS`.
      count: K, copies.

    Raises:
      UsageError: the backbone has one stage only.
    """
    model, names = backbone.model, backbone.middle_stages
    if len(names) < 2:
        raise UsageError(f"`backbone`={model.name}: has one stage, of which none could be left as it is.")
    fine, coarse = (model.get_layer(name).output for name in names)
    own = keras.Model(fine, coarse, name="last")
    for layer in model.layers:
        layer.trainable = False
    for layer in own.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    stages, encoders, called, heads, logits = [], [], [], [], []
    for number in range(count):
        last = number == count - 1
        stage = own if last else copies.renamed(own, f"copy{number}")
        maps, name = (coarse, names[1]) if last else (None, f"copy{number}")
        if not last:
            for ours, theirs in zip(own.layers, stage.layers, strict=True):
                theirs.trainable = ours.trainable
            maps = keras_layers.Identity(name=name)(stage(fine))
        head = LinearHead(pooling, name=f"head{number}")
        logits.append(head([fine, maps]))
        stages.append(stage)
        heads.append(head)
        called.append((names[0], name))
        encoders.append(keras.Model(model.inputs, [fine, maps]))
    network = keras.Model(model.inputs, keras.ops.stack(logits, axis=1), name=f"{model.name}_tuned")
    return Tuned(network, tuple(encoders), tuple(called), tuple(heads), tuple(stages))


class LinearHead(keras.layers.Layer):
    """Pools maps, standardises what comes out and weighs it: a list of float [B, h, w, C] -> logit float32 [B]."""

    def __init__(self, pooling: Sequence[str], **kwargs: object) -> None:
        super().__init__(dtype="float32", **kwargs)
        self._pooling = tuple(pooling)

    def build(self, shapes: Sequence[tuple]) -> None:
        """Keras' hook."""
        width = len(self._pooling) * sum(shape[-1] for shape in shapes)
        self.kernel = self.add_weight(shape=(width,), name="kernel", initializer="zeros")
        self.bias = self.add_weight(shape=(), name="bias", initializer="zeros")
        self.mean = self.add_weight(shape=(width,), name="mean", initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(width,), name="scale", initializer="ones", trainable=False)

    def begin(self, good: np.ndarray, weights: np.ndarray, bias: float) -> None:
        """Starts as a linear head.

        Args:
          good: float [N, D], features of good images, by whose mean and deviation they are standardised.
          weights: float [D], of the features as they are.
          bias: likewise.
        """
        mean, scale = good.mean(axis=0), good.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        for variable, value in zip(self.weights, self._ordered(mean, scale, weights, bias), strict=True):
            variable.assign(value)

    def _ordered(self, mean: np.ndarray, scale: np.ndarray, weights: np.ndarray, bias: float) -> list:
        values = {"kernel": weights * scale, "bias": bias + mean @ weights, "mean": mean, "scale": scale}
        return [values[variable.name] for variable in self.weights]

    def compute_output_shape(self, shapes: Sequence[tuple]) -> tuple:
        """[B]."""
        return shapes[0][:1]

    def call(self, maps: Sequence[tf.Tensor]) -> tf.Tensor:
        """See the class."""
        found = patch_maps.pool({str(place): tf.cast(one, tf.float32) for place, one in enumerate(maps)}, self._pooling)
        return tf.linalg.matvec((found - self.mean) / self.scale, self.kernel) + self.bias
