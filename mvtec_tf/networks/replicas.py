"""Several copies of a network that train as one: what they share within a step, and the layers that know of it.

A training step under a strategy of `tf.distribute` runs once on each replica, on its part of the batch. What looks at a
whole batch - a loss that compares images, a weighted mean, batch norm, dropout's draw - asks here for all of it. Where
there is one replica, or outside a step, everything is as it was given.
"""

from collections.abc import Sequence

import tensorflow as tf

from mvtec_tf.keras_settings import keras


def count() -> int:
    """How many replicas train as one here."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def context() -> tf.distribute.ReplicaContext | None:
    """The context of a replica that is one of several; None: it is alone, or this is no step."""
    found = tf.distribute.get_replica_context()
    return found if found is not None and count() > 1 else None


def gathered(local: tf.Tensor, parts: int = 1) -> tf.Tensor:
    """The rows of all replicas, in the replicas' order, on each of them.

    Each replica writes its rows into zeros and all are summed. The gradient of that sum is the sum of all replicas'
    gradients: of what each of them computes from the whole batch it is the sum over replicas, so each one's loss must
    be divided by their number. A gather that gave each replica its own rows' gradient alone would lose what the others'
    losses say of them, without any error.

    Args:
      local: numbers [parts * B, ...] of this replica; floats come back as float32.
      parts: of equal size, one behind another, that each are gathered by themselves, such as first and second views.

    Returns:
      [parts * B * replicas, ...].
    """
    replica = context()
    if replica is None:
        return local
    if local.dtype.is_floating:
        local = tf.cast(local, tf.float32)
    inner = local.shape[1:]
    mine = tf.one_hot(replica.replica_id_in_sync_group, count(), dtype=local.dtype)
    rows = tf.reshape(local, [parts, 1, -1, *inner])
    placed = rows * tf.reshape(mine, [1, -1, *[1] * (len(inner) + 1)])
    return tf.reshape(replica.all_reduce(tf.distribute.ReduceOp.SUM, placed), [-1, *inner])


def summed(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The sums over all replicas, on each of them."""
    replica = context()
    return list(tensors) if replica is None else list(replica.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))


class Dropout(keras.layers.Dropout):
    """Keras' dropout, of whose draw for the batch of all replicas each takes its rows.

    Replicas have the same generator: drawn for a part of the batch each, all would drop the same.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, ...] -> the same shape."""
        replica = context()
        if replica is None or not training or not self.rate:
            return super().call(inputs, training=training)
        rows = tf.shape(inputs)[0]
        everywhere = tf.ones([rows * count(), *inputs.shape[1:]], inputs.dtype)
        kept = super().call(everywhere, training=True)
        first = rows * tf.cast(replica.replica_id_in_sync_group, rows.dtype)
        return inputs * kept[first : first + rows]


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch norm of maps [B, h, w, C] by the fused op, and Keras' own of all else; by plain ops where several replicas
    share a batch, whose statistics are those of the whole batch.

    Equation and weights are Keras' own, so each takes the other's weights; sums are added in another order. The fused
    op passes over a map once each way. Keras' layer is written in some ten ops, each of which reads and writes the
    whole map, in float32 whatever the number format: on a CPU they were seen to take a third of a training step of
    ResNet-50 (tools/benchmark.py).
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """[B, ..., C] -> the same shape, in the layer's number format."""
        last = self.axis in (-1, len(inputs.shape) - 1)
        plain = mask is None and not self.renorm and last and self.compute_dtype != "float64"
        learns = bool(training and self.trainable)
        if plain and learns and context() is not None:
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
        means, variances = tf.unstack(gathered(local[None]), axis=1)
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
