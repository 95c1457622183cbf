"""Pixels to `tf.data`: draw, batch and augment from what an `ImageStore` decoded once.

Every number that is drawn is a function of (seed, position in the run) alone, so two processes
with one seed see the same batches, and a resumed run goes on with those it would have seen.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.errors import UserError


def training_batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    transform: Callable[..., tuple],
    *,
    first_epoch: int = 0,
    first_step: int = 0,
    epochs: int,
    passes_per_epoch: int = 1,
    balanced: bool = False,
    replicas: int = 1,
    mine: Sequence[int] = (0,),
) -> tf.data.Dataset:
    """Batches from a step of epoch `first_epoch` to the end of epoch `epochs` - 1, reshuffled every pass, remainder
    dropped. Nothing is computed of what lies before.

    Args:
      images: uint8 [N, S, S, 3].
      labels: int [N], or [N, M], of which the first column is the class.
      batch_size: at most N.
      seed: of order and augmentation.
      transform: (images uint8 [B, S, S, 3], labels int64 [B] or [B, M], seeds int64 [B, 2]) -> what `fit` takes.
      first_epoch: where a resumed run goes on.
      first_step: the same within that epoch.
      epochs: number of epochs of the whole run.
      passes_per_epoch: times that each image is drawn within one epoch.
      balanced: draw good and defective images equally often, with repetition.
      replicas: how many share a batch, each an equal part of it; then a batch of the dataset is the part of one.
      mine: whose parts are drawn, out of 0 to `replicas` - 1, by turns.

    Raises:
      UserError: `balanced` without both classes.
    """
    steps = steps_per_epoch(len(images), batch_size, passes_per_epoch)
    passes = range(first_epoch * passes_per_epoch, epochs * passes_per_epoch)
    classes = labels.reshape(len(labels), -1)[:, 0]
    order = _balanced_order(classes, passes, seed) if balanced else _shuffled_order(len(images), passes, seed, stream=0)
    order = order.reshape(epochs - first_epoch, len(images) * passes_per_epoch)[:, : steps * batch_size]
    # The number of each draw since the start of the run, which seeds its augmentation.
    first_draw = first_epoch * steps * batch_size
    skipped = first_step * batch_size
    order, draws = order.ravel()[skipped:], first_draw + np.arange(order.size)[skipped:]
    parts = np.arange(order.size).reshape(-1, replicas, batch_size // replicas)[:, list(mine)].ravel()
    fetch = _fetcher(images)
    all_labels = tf.constant(labels, tf.int64)

    # No graph here chooses its way by a tensor, and to look for that takes a second before the first step.
    @tf.autograph.experimental.do_not_convert
    def batch(indices: tf.Tensor, draws: tf.Tensor) -> tuple:
        seeds = tf.stack([tf.fill(tf.shape(draws), tf.constant(seed, tf.int64)), draws], axis=1)
        return transform(fetch(indices), tf.gather(all_labels, indices), seeds)

    # The way of one batch: which images, their pixels, augmented; two ahead of the network.
    return (
        tf.data.Dataset.from_tensor_slices((order[parts], draws[parts]))
        .batch(batch_size // replicas, drop_remainder=True)
        .map(batch, num_parallel_calls=os.cpu_count(), deterministic=True)
        .prefetch(2 * len(mine))
    )


def fitting_batch_size(images: int, batch_size: int, passes_per_epoch: int = 1, replicas: int = 1) -> int:
    """`batch_size`, or what there is where an epoch has fewer images than that; then a line says so.

    Args:
      images: to train on.
      batch_size: images a step.
      passes_per_epoch: times that each image is drawn within one epoch.
      replicas: how many share a batch, each an equal part of it.

    Raises:
      UserError: there are fewer than two images to train on, or than replicas.
    """
    if images < 2:
        raise UserError(
            f"{images} training image: a batch needs at least two, for its statistics and its comparisons. "
            "Add good images."
        )
    if images < replicas:
        raise UserError(f"{images} training images for {replicas} replicas: each needs one. Add images, or use fewer.")
    drawn = images * passes_per_epoch // replicas * replicas
    if batch_size <= drawn:
        return batch_size
    print(f"Only {images} training images: `batch_size`={drawn} is used instead of {batch_size}.", flush=True)
    return drawn


def steps_per_epoch(images: int, batch_size: int, passes_per_epoch: int = 1) -> int:
    """Full batches in one epoch, see `fitting_batch_size`."""
    return images * passes_per_epoch // batch_size


def _fetcher(images: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    if isinstance(images, np.memmap):
        spec = tf.TensorSpec((None, *images.shape[1:]), tf.uint8)

        def fetch(indices: tf.Tensor) -> tf.Tensor:
            batch = tf.numpy_function(lambda rows: images[rows], [indices], tf.uint8)
            return tf.ensure_shape(batch, spec.shape)

        return fetch
    held = tf.constant(images)
    return lambda indices: tf.gather(held, indices)


def _shuffled_order(count: int, passes: range, seed: int, stream: int) -> np.ndarray:
    """0 to count-1 shuffled anew for every pass, int64 [len(passes) * count].

    Not tf.random.experimental.index_shuffle: for a few dozen images it was seen to leave whole
    passes unshuffled.
    """
    orders = [np.random.default_rng([seed, stream, number]).permutation(count) for number in passes]
    return np.concatenate(orders) if orders else np.empty(0, np.int64)


def _balanced_order(labels: np.ndarray, passes: range, seed: int) -> np.ndarray:
    """Like `_shuffled_order`, but good and defective alternate; within a class nothing is drawn
    again before all of it was."""
    members = [np.flatnonzero(labels == label) for label in (0, 1)]
    if not all(map(len, members)):
        raise UserError("`balanced_sampling` needs good and defective training images; one kind is missing.")
    positions = np.arange(passes.start * len(labels), passes.stop * len(labels))
    order = np.empty(len(positions), np.int64)
    for label, images in enumerate(members):
        turns = positions[positions % 2 == label] // 2
        if len(turns):
            whole = range(int(turns[0]) // len(images), int(turns[-1]) // len(images) + 1)
            shuffled = _shuffled_order(len(images), whole, seed, stream=1 + label)
            order[positions % 2 == label] = images[shuffled[turns - whole.start * len(images)]]
    return order
