"""Dropout that drops the same of an image however many replicas share the batch."""

import tensorflow as tf

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas


class Dropout(keras.layers.Dropout):
    """Keras' dropout, of whose draw for the batch of all replicas each takes its rows.

    Replicas have the same generator: drawn for a part of the batch each, all would drop the same.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, ...] -> the same shape."""
        replica = replicas.context()
        if replica is None or not training or not self.rate:
            return super().call(inputs, training=training)
        rows = tf.shape(inputs)[0]
        everywhere = tf.ones([rows * replicas.count(), *inputs.shape[1:]], inputs.dtype)
        kept = super().call(everywhere, training=True)
        first = rows * tf.cast(replica.replica_id_in_sync_group, rows.dtype)
        return inputs * kept[first : first + rows]
