"""Seamless cloning: the gradients of one image continued from the colours of another (Pérez et al., "Poisson image
editing", SIGGRAPH 2003, equations 7 and 11)."""

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def clone(image: np.ndarray, source: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The image with the source's gradients in a region, and every bit of its own elsewhere.

    What is added to the source there is a membrane: harmonic, and at the region's rim the difference of both. At the
    image's edge, where nothing is to be met, its slope is zero.

    Args:
      image: uint8 [H, W, 3].
      source: uint8 [H, W, 3], read in the region and one pixel around it.
      region: bool [H, W].

    Returns:
      uint8 [H, W, 3].
    """
    rows, columns = np.nonzero(region)
    if len(rows) in (0, region.size):
        return np.where(region[..., None], source, image)
    number = np.full(region.shape, -1)
    number[region] = np.arange(len(rows))
    difference = image.astype(np.float64) - source
    degree, rim, pairs = np.zeros(len(rows)), np.zeros((len(rows), 3)), []
    for down, right in _NEIGHBOURS:
        at, along = rows + down, columns + right
        there = np.flatnonzero((at >= 0) & (at < region.shape[0]) & (along >= 0) & (along < region.shape[1]))
        degree[there] += 1
        at, along = at[there], along[there]
        other = number[at, along]
        rim[there] += np.where(other < 0, 1.0, 0.0)[:, None] * difference[at, along]
        pairs.append(np.stack([there, other])[:, other >= 0])
    one, other = np.concatenate(pairs, axis=1)
    laplacian = sparse.diags(degree) - sparse.csr_array((np.ones(len(one)), (one, other)), (len(rows),) * 2)
    membrane = linalg.splu(laplacian.tocsc(), permc_spec="MMD_AT_PLUS_A").solve(rim)
    found = image.copy()
    found[region] = np.clip(np.rint(source[region] + membrane), 0, 255).astype(np.uint8)
    return found
