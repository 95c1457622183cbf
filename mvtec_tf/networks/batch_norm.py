"""Batch norm by TensorFlow's fused op, which passes over a map once each way.

Keras' layer is written in some ten ops, each of which reads and writes the whole map, in float32 whatever the number
format. On a CPU they were seen to take a third of a training step of ResNet-50 (tools/benchmark.py).
"""

import tensorflow as tf

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch norm of maps [B, h, w, C] by the fused op, and Keras' own of all else; by plain ops where several replicas
    share a batch, whose statistics are those of the whole batch.

    Equation and weights are Keras' own, so each takes the other's weights; sums are added in another order.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """[B, ..., C] -> the same shape, in the layer's number format."""
        last = self.axis in (-1, len(inputs.shape) - 1)
        plain = mask is None and not self.renorm and last and self.compute_dtype != "float64"
        learns = bool(training and self.trainable)
        if plain and learns and replicas.context() is not None:
            return self._by_all_replicas(inputs)
        if not plain or len(inputs.shape) != 4 or inputs.shape[-1] is None:
            return super().call(inputs, training=training, mask=mask)
        scale, offset = self._scale_and_offset()
        given = () if learns else (self.moving_mean, self.moving_variance)
        mean, variance = given or 2 * [tf.zeros([0])]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=self.epsilon, is_training=learns
        )
        if learns:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            # The op gives the unbiased variance, of which Keras averages the biased one.
            variance *= tf.maximum(count - 1, 1) / count
            self._remember(mean, variance)
        return outputs

    def _by_all_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        maps = tf.cast(inputs, tf.float32)
        local = tf.stack(tf.nn.moments(maps, list(range(len(maps.shape) - 1))))
        # Of parts of equal size: the mean of their means; their mean variance and the variance of their means.
        means, variances = tf.unstack(replicas.gathered(local[None]), axis=1)
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
        self._remember(mean, variance)
        scale, offset = self._scale_and_offset()
        factor = scale * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast((maps - mean) * factor + offset, inputs.dtype)

    def _scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        scale = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        return scale, self.beta if self.center else tf.zeros_like(self.moving_mean)

    def _remember(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        for average, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + new * (1 - self.momentum))
