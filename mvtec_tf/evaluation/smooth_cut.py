"""Youden's cut of smoothed distributions: the best balanced accuracy that a few labels speak for.

The cut of the raw scores hangs on the one or two images that happen to lie nearest to it. Here every score stands for
a normal distribution around it, so that all images have their say.
"""

import numpy as np

# Points at which the cut is looked for, over the range of the scores.
_POINTS = 1024


def smooth_cut(scores: np.ndarray, defective: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    """The score of the largest J = recall + specificity - 1, both of kernel estimates.

    Fluss, Faraggi and Reiser, "Estimation of the Youden index and its associated cutoff point", Biometrical
    Journal 47, 2005, section 2.3: normal kernels, of the width 1.06 s n^(-1/5) for each class (Silverman 1986,
    equation 3.28). A class without spread, such as a single defect, has the other's. Scores are counted on a grid
    before they are smoothed (Silverman, "Kernel density estimation using the fast Fourier transform", 1982).

    Args:
      scores: float [N], finite.
      defective: bool [N]; both kinds must occur.
      weights: float [N], how often each image counts; None: once.

    Returns:
      The lowest of equally good cuts, or None if no class has any spread.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    low, high = float(scores.min()), float(scores.max())
    spreads = {kind: _spread(scores[defective == kind], weights[defective == kind]) for kind in (False, True)}
    widest = max(spreads.values())
    if widest == 0 or high <= low:
        return None
    grid = np.linspace(low, high, _POINTS)
    shares = {}
    for kind, spread in spreads.items():
        own, counts = scores[defective == kind], weights[defective == kind]
        width = 1.06 * (spread or spreads[not kind]) * counts.sum() ** -0.2
        shares[kind] = _above(own, counts, grid, width)
    # Differences of rounding must not choose among equally good cuts.
    gain = np.round(shares[True] - shares[False], 9)
    return float(grid[np.argmax(gain)])


def _spread(scores: np.ndarray, weights: np.ndarray) -> float:
    """Standard deviation, 0 where it is rounding."""
    mean = np.average(scores, weights=weights)
    spread = float(np.sqrt(np.average((scores - mean) ** 2, weights=weights)))
    return spread if spread > 1e-9 * (1 + abs(mean)) else 0.0


def _above(scores: np.ndarray, weights: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """Smoothed share of the scores above each point of the grid."""
    # Imported here: most thresholds are another method's, and SciPy takes longer to load than a table to judge.
    from scipy.special import ndtr

    step = grid[1] - grid[0]
    # Each score is shared by the two points beside it, so that its place is kept.
    place = np.clip((scores - grid[0]) / step, 0, len(grid) - 1)
    left = np.minimum(place.astype(int), len(grid) - 2)
    right = place - left
    counts = np.bincount(left, weights * (1 - right), len(grid)) + np.bincount(left + 1, weights * right, len(grid))
    lags = np.arange(-(len(grid) - 1), len(grid)) * step
    size = 3 * len(grid)
    # The share above point i is the sum over points k of counts[k] * ndtr((grid[k] - grid[i]) / width).
    product = np.fft.irfft(np.fft.rfft(counts, size) * np.fft.rfft(ndtr(-lags / width), size), size)
    return product[len(grid) - 1 : 2 * len(grid) - 1] / weights.sum()
