"""Features by a network that is in memory, such as one that is being trained: those that its export will give."""

import numpy as np
import tensorflow as tf

from mvtec_tf.features.feature_graph import FeatureSettings, MapFeatures
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.keras_settings import keras

_BATCH = 32


class InMemory(MapFeatures):
    """A network whose weights may change between two calls.

    Args:
      model: uint8 [B, H, W, 3] -> maps, with the layers of the settings in it.
      settings: which features; of whole images, not of tiles.
    """

    def __init__(self, model: keras.Model, settings: FeatureSettings) -> None:
        part = saved_model.part_of(model, settings.layers)

        def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
            found = [tf.cast(value, tf.float32) for value in tf.nest.flatten(part(images, training=False))]
            return dict(zip(settings.layers, found, strict=True))

        super().__init__(embed, settings, tuple(model.input_shape[1:3]))

        @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)], autograph=False)
        def compute(images: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            features = self.features(images)
            return features.pooled, dict(features.maps)

        self._compute = compute

    def of(self, images: np.ndarray) -> FrozenFeatures:
        """uint8 [N, H, W, 3] -> features of N images."""
        parts = [self._compute(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        maps = {name: np.concatenate([found[name] for _, found in parts]) for name in parts[0][1]}
        return FrozenFeatures(np.concatenate([pooled for pooled, _ in parts]), maps, image_size=self.image_size)
