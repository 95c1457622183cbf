"""A small set of points that lies close to all of a large one."""

import numpy as np
from sklearn.random_projection import SparseRandomProjection

# Of the points in which the greedy choice is made; PatchCore's authors project to as many.
PROJECTED = 128


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
