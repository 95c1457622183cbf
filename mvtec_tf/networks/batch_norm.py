"""Batch norm by TensorFlow's fused op, which passes over a map once each way.

Keras' layer is written in some ten ops, each of which reads and writes the whole map, in float32 whatever the number
format. On a CPU they were seen to take a third of a training step of ResNet-50 (tools/benchmark.py).
"""

import tensorflow as tf

from mvtec_tf.keras_settings import keras


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch norm of maps [B, h, w, C] by the fused op, and Keras' own of all else.

    Equation and weights are Keras' own, so each takes the other's weights; sums are added in another order.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """[B, h, w, C] -> the same shape, in the layer's number format."""
        plain = mask is None and not self.renorm and self.axis in (-1, 3) and self.compute_dtype != "float64"
        if not plain or len(inputs.shape) != 4 or inputs.shape[-1] is None:
            return super().call(inputs, training=training, mask=mask)
        scale = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        offset = self.beta if self.center else tf.zeros_like(self.moving_mean)
        learns = bool(training and self.trainable)
        given = () if learns else (self.moving_mean, self.moving_variance)
        mean, variance = given or 2 * [tf.zeros([0])]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=self.epsilon, is_training=learns
        )
        if learns:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            # The op gives the unbiased variance, of which Keras averages the biased one.
            variance *= tf.maximum(count - 1, 1) / count
            for average, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + new * (1 - self.momentum))
        return outputs
