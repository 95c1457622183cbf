"""Several copies of a network that train as one: what they share within a step, with gradients that know of it.

A training step under a strategy of `tf.distribute` runs once on each replica, on its part of the batch. What looks at a
whole batch - a loss that compares images, a weighted mean, batch norm, dropout's draw - asks here for all of it. Where
there is one replica, or outside a step, everything is as it was given.
"""

from collections.abc import Sequence

import tensorflow as tf


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
