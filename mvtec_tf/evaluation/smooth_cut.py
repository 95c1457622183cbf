"""Youden's cut of smoothed distributions: the best balanced accuracy that a few labels speak for.

The cut of the raw scores hangs on the one or two images that happen to lie nearest to it. Here every score stands for
a normal distribution around it, so that all images have their say.
"""

import numpy as np

# Points at which the cut is looked for, over the range of the scores.
_POINTS = 1024


def smooth_cut(scores: np.ndarray, defective: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    """The score of the largest J = recall + specificity - 1, both of `smoothed`, as Fluss, Faraggi and Reiser do it,
    "Estimation of the Youden index and its associated cutoff point", Biometrical Journal 47, 2005, section 2.3.

    Args:
      scores, defective, weights: see `smoothed`.

    Returns:
      The lowest of equally good cuts, or None if no class has any spread.
    """
    found = smoothed(scores, defective, weights)
    if found is None:
        return None
    grid, good, bad = found
    # Differences of rounding must not choose among equally good cuts.
    return float(grid[np.argmax(np.round(bad - good, 9))])


def smoothed(
    scores: np.ndarray, defective: np.ndarray, weights: np.ndarray | None = None, margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The shares of good and of defective images that lie above a score, by kernel estimates.

    Normal kernels, of the width 1.06 s n^(-1/5) for each class (Silverman 1986, equation 3.28). A class without spread,
    such as a single defect, has the other's. Scores are counted on a grid before they are smoothed (Silverman, "Kernel
    density estimation using the fast Fourier transform", 1982).

    Args:
      scores: float [N], finite.
      defective: bool [N]; both kinds must occur.
      weights: float [N], how often each image counts; None: once.
      margin: how far the grid reaches beyond the scores, in standard deviations of the class that has more.

    Returns:
      A grid of scores, and the shares of good and of defective images above each, float [G]; None if no class has any
      spread.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    low, high = float(scores.min()), float(scores.max())
    spreads = {kind: _spread(scores[defective == kind], weights[defective == kind]) for kind in (False, True)}
    widest = max(spreads.values())
    if widest == 0 or high <= low:
        return None
    grid = np.linspace(low - margin * widest, high + margin * widest, _POINTS)
    shares = {}
    for kind, spread in spreads.items():
        own, counts = scores[defective == kind], weights[defective == kind]
        width = 1.06 * (spread or spreads[not kind]) * counts.sum() ** -0.2
        shares[kind] = _above(own, counts, grid, width)
    return grid, shares[False], shares[True]


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
