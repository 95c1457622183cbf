"""A small memory of good patches, and how far a patch lies from the nearest of them.

PatchCore's idea (Roth et al., CVPR 2022) within the principal subspace of good patches: what lies outside of it is
the residual's, and distances in half the dimensions cost half as much. The memory is chosen fold by fold, so that
good images can be held out from a part of it.
"""

import numpy as np
import tensorflow as tf
from sklearn.random_projection import SparseRandomProjection

# Patches that are kept, of all folds together, and random ones among which they are chosen.
_KEPT = 2000
_CANDIDATES = 20_000
# Dimensions in which the greedy choice measures distances.
_PROJECTED = 64
# Of the points in which the greedy choice is made; PatchCore's authors project to as many.
PROJECTED = 128


def candidates(values: np.ndarray, images: int, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Random patches of a few images, float32 [P, D].

    Args:
      values: float32 [B, h, w, D].
      images: how many the whole fold has.
      folds: how many there are.
      rng: what is drawn with; no patch is drawn twice.
    """
    patches = values.reshape(len(values), -1, values.shape[-1])
    wanted = min(-(-_CANDIDATES // (folds * images)), patches.shape[1])
    return np.concatenate([one[rng.choice(len(one), wanted, replace=False)] for one in patches])


def kept(patches: np.ndarray, folds: np.ndarray, seed: int) -> dict[int, np.ndarray]:
    """Which candidates are remembered of all folds, and of all but each.

    Of all folds, those that each chooses by itself. What is left of these without a fold has a hole wherever it was the
    one to remember what all good images have, so its images would look worse than any new one: the others fill the
    holes, until there are as many again. (Bottle, 80 good images, ten folds: the worst patches of held-out images
    scattered seven times as far as those of new ones.)

    Args:
      patches: float32 [P, k], coordinates of all candidates.
      folds: int [P].
      seed: random seed of the choice.

    Returns:
      -1 -> int64, of all; and fold -> int64, of all but this one.
    """
    points = projection(patches, seed, _PROJECTED)
    points = np.ascontiguousarray(points - points.mean(axis=0), np.float32)
    present = np.unique(folds)
    size = max(1, _KEPT // len(present))
    own, nearest = {}, {}
    for fold in present:
        rows = np.flatnonzero(folds == fold)
        own[fold] = rows[greedy_coreset(points[rows], size, seed, _PROJECTED)]
        nearest[fold] = _squared_distances(points, points[own[fold]])
    chosen = {-1: np.concatenate(list(own.values()))}
    for fold in present if len(present) > 1 else ():
        rest = np.flatnonzero(folds != fold)
        others = np.concatenate([rows for other, rows in own.items() if other != fold])
        left = np.min([values[rest] for other, values in nearest.items() if other != fold], axis=0)
        left[np.searchsorted(rest, others)] = -np.inf
        wanted = min(len(own[fold]), len(rest) - len(others))
        chosen[fold] = np.concatenate([others, rest[farther_points(points[rest], left, wanted)]])
    return chosen


def nearest_ops(patches: tf.Tensor, bank: tf.Tensor, neighbours: int = 1) -> tf.Tensor:
    """Mean distances to the nearest patches of a bank [M, k], all of it where it is smaller than `neighbours`: float32
    [B, P, k] -> [B, P]."""
    lengths = tf.reduce_sum(tf.square(bank), axis=1)
    count = min(neighbours, bank.shape[0])

    def nearest(one: tf.Tensor) -> tf.Tensor:
        ranks = 2 * tf.matmul(one, bank, transpose_b=True) - lengths
        found = tf.argmax(ranks, axis=1)[:, None] if count == 1 else tf.math.top_k(ranks, count).indices
        # Subtracted as a vector: a difference of squares would round away what is left.
        parts = [tf.norm(one - tf.gather(bank, found[:, k]), axis=1) for k in range(count)]
        return tf.add_n(parts) / count

    # Image by image: the distances of a whole batch to the whole bank would not fit.
    spec = tf.TensorSpec(patches.shape[1:2], tf.float32)
    return tf.map_fn(nearest, patches, fn_output_signature=spec, parallel_iterations=1)


def _squared_distances(points: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """float32 [N, D] and [M, D] -> [N], to the nearest of the chosen ones."""
    products = points @ chosen.T
    nearest = (np.square(chosen).sum(axis=1) - 2 * products).min(axis=1)
    return nearest + np.square(points).sum(axis=1)


def greedy_coreset(points: np.ndarray, size: int, seed: int, projected: int = PROJECTED) -> np.ndarray:
    """Greedy k-centre: again and again the point farthest from those chosen (Roth et al., CVPR 2022, algorithm 1).

    The distances are taken between sparse random projections (Li, Hastie and Church, "Very sparse random
    projections", KDD 2006), which keep them up to a small factor. The largest distance from any point
    to its nearest chosen one is at most twice the best possible (Gonzalez 1985), in the projection.

    Args:
      points: float [N, D].
      size: how many to choose; all points if there are no more.
      seed: of the projection and the first point.
      projected: dimensions of the projection; no projection if the points have no more.

    Returns:
      int64 [min(size, N)], in the order of the choice, no point twice.
    """
    rng = np.random.default_rng(seed)
    if len(points) <= size:
        return np.arange(len(points))
    points = np.asarray(points, np.float32)
    return farthest_points(projection(points, seed, projected), size, int(rng.integers(len(points))))


def projection(points: np.ndarray, seed: int, projected: int = PROJECTED) -> np.ndarray:
    """float32 [N, D] -> [N, at most `projected`], see `greedy_coreset`."""
    if points.shape[1] <= projected:
        return points
    return SparseRandomProjection(projected, random_state=seed).fit_transform(points).astype(np.float32)


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
    nearest = np.square(points - points[first]).sum(axis=1)
    nearest[first] = -np.inf
    return np.append(first, farther_points(points, nearest, size - 1))


def farther_points(points: np.ndarray, nearest: np.ndarray, size: int) -> np.ndarray:
    """The points that the greedy choice adds to those chosen before.

    Args:
      points: float32 [N, D], around the origin.
      nearest: float32 [N], squared distances to the nearest point that was chosen, -infinity of these themselves.
      size: at most as many as are left.

    Returns:
      int64 [size].
    """
    lengths = np.einsum("nd,nd->n", points, points)
    chosen, nearest, product = np.empty(size, np.int64), nearest.copy(), np.empty(len(points), np.float32)
    for number in range(size):
        chosen[number] = last = np.argmax(nearest)
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, in place: this loop reads all points once a choice.
        np.dot(points, points[last], out=product)
        product *= -2
        product += lengths
        product += lengths[last]
        np.minimum(nearest, product, out=nearest)
        nearest[last] = -np.inf
    return chosen
