"""SimCLR (Chen et al., ICML 2020): two views of one image attract, views of others repel."""

import tensorflow as tf
from keras import layers

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import BATCH_NORM_MOMENTUM, EMBEDDING, Backbone
from mvtec_tf.networks.nt_xent import contrastive_accuracy, nt_xent


def build_projection_network(backbone: Backbone, hidden: int = 1024, dimensions: int = 256) -> keras.Model:
    """Backbone, global average, and the projection head C-`hidden`-`dimensions` with batch norm and ReLU.

    Returns:
      uint8 [B, S, S, 3] -> float32 [B, dimensions]. The layer `embedding` holds the [B, C] that is kept
      after training; the head is thrown away (section 4.2 of the paper says why).
    """
    x = layers.GlobalAveragePooling2D(name=EMBEDDING)(backbone.model.output)
    x = layers.Dense(hidden, name="projection_dense_1")(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="projection_bn")(x)
    x = layers.ReLU(name="projection_relu")(x)
    x = layers.Dense(dimensions, dtype="float32", name="projection_dense_2")(x)
    return keras.Model(backbone.model.inputs, x, name=f"{backbone.model.name}_simclr")


class SimCLR(keras.Model):
    """Trains a projection network with NT-Xent on pairs of views.

    `fit` takes a dataset of (view_a, view_b), each uint8 [B, S, S, 3]. Logs `loss` and
    `contrastive_accuracy`, the share of views whose nearest other view is their partner.
    """

    def __init__(self, network: keras.Model, temperature: float = 0.07, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.temperature = temperature
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._accuracy_mean = keras.metrics.Mean(name="contrastive_accuracy")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Reset by Keras at the start of each epoch."""
        return [self._loss_mean, self._accuracy_mean]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """uint8 [B, S, S, 3] -> float32 projections [B, D]."""
        return self.network(images, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on B pairs; both views go through the network as one batch of 2B, so that batch
        norm cannot tell which view an image belongs to by its statistics."""
        # `train_on_batch` adds an empty sample weight to the pair.
        view_a, view_b = data[:2]
        with tf.GradientTape() as tape:
            projections = self.network(tf.concat([view_a, view_b], axis=0), training=True)
            z_a, z_b = tf.split(projections, 2, axis=0)
            loss = nt_xent(z_a, z_b, self.temperature)
        gradients = tape.gradient(loss, self.network.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_variables, strict=True))
        self._loss_mean.update_state(loss)
        self._accuracy_mean.update_state(contrastive_accuracy(z_a, z_b))
        return {metric.name: metric.result() for metric in self.metrics}
