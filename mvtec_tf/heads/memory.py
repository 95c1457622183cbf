"""A small memory of good patches, chosen greedily, and how far a patch lies from the nearest of some."""

import numpy as np
import tensorflow as tf
from sklearn.random_projection import SparseRandomProjection

# Of the points in which the greedy choice is made; PatchCore's authors project to as many.
_PROJECTED = 128


def nearest_ops(patches: tf.Tensor, bank: tf.Tensor, neighbours: int = 1) -> tf.Tensor:
    """Mean distances to the nearest patches of a bank [M, k], all of it where it is smaller than `neighbours`: float32
    [B, P, k] -> [B, P]."""
    # A patch x is nearest where 2 x.b - |b|^2 is largest: one product, with a 1 behind each patch.
    wanted = tf.concat([2 * bank, -tf.reduce_sum(tf.square(bank), axis=1, keepdims=True)], axis=1)
    ones = tf.ones([patches.shape[1], 1])
    count = min(neighbours, bank.shape[0])

    def nearest(one: tf.Tensor) -> tf.Tensor:
        ranks = tf.matmul(tf.concat([one, ones], axis=1), wanted, transpose_b=True)
        found = tf.argmax(ranks, axis=1)[:, None] if count == 1 else tf.math.top_k(ranks, count).indices
        # Subtracted as a vector: a difference of squares would round away what is left.
        parts = [tf.norm(one - tf.gather(bank, found[:, k]), axis=1) for k in range(count)]
        return tf.add_n(parts) / count

    # Image by image: the distances of a whole batch to the whole bank would not fit.
    spec = tf.TensorSpec(patches.shape[1:2], tf.float32)
    return tf.map_fn(nearest, patches, fn_output_signature=spec, parallel_iterations=1)


def greedy_coreset(points: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Greedy k-centre: again and again the point farthest from those chosen (Roth et al., CVPR 2022, algorithm 1).

    The distances are taken between sparse random projections (Li, Hastie and Church, "Very sparse random
    projections", KDD 2006), which keep them up to a small factor. The largest distance from any point
    to its nearest chosen one is at most twice the best possible (Gonzalez 1985), in the projection.

    Args:
      points: float [N, D].
      size: how many to choose; all points if there are no more.
      seed: of the projection and the first point.

    Returns:
      int64 [min(size, N)], in the order of the choice, no point twice.
    """
    rng = np.random.default_rng(seed)
    if len(points) <= size:
        return np.arange(len(points))
    points = np.asarray(points, np.float32)
    if points.shape[1] > _PROJECTED:
        points = SparseRandomProjection(_PROJECTED, random_state=seed).fit_transform(points).astype(np.float32)
    return farthest_points(points, size, int(rng.integers(len(points))))


def farthest_points(points: np.ndarray, size: int, first: int) -> np.ndarray:
    """The greedy choice itself.

    Args:
      points: float32 [N, D].
      size: at most N.
      first: index of the first one.

    Returns:
      int64 [size]. Chosen points are never chosen again, also where copies of them are left.
    """
    # Distances from far away would drown in the lengths of the vectors.
    points = np.ascontiguousarray(points - points.mean(axis=0), np.float32)
    nearest, lengths = np.square(points - points[first]).sum(axis=1), np.einsum("nd,nd->n", points, points)
    nearest[first] = -np.inf
    chosen, product = np.full(size, first), np.empty(len(points), np.float32)
    for number in range(1, size):
        chosen[number] = last = np.argmax(nearest)
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, in place: this loop reads all points once a choice.
        np.dot(points, points[last], out=product)
        product *= -2
        product += lengths
        product += lengths[last]
        np.minimum(nearest, product, out=nearest)
        nearest[last] = -np.inf
    return chosen
