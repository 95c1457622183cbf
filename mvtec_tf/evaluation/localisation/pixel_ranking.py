"""Where defective pixels rank among the free ones: exactly for the figures, in bins for their resamples.

An area under a curve of all thresholds needs no list of thresholds: each defective pixel adds the
width of the curve that lies to the right of it. So only the defective pixels are held in memory,
a few in a hundred; the free ones pass by image by image and are counted.
"""

from collections.abc import Sequence

import numpy as np

from mvtec_tf.evaluation.intervals import share

# Bergmann et al., IJCV 2021, section 6: beyond 30 % false positive pixels a segmentation is of no use.
FPR_LIMIT = 0.3
# Half of them at the quantiles of defective pixels, half at those of free ones; the area within a
# bin is taken as that under a straight line, which moves an interval's end by less than its last digit.
_BINS = 1024
_SAMPLES_PER_IMAGE = 256


class ExactRanking:
    """The exact pixel AUROC and PRO of one set of images.

    Args:
      values: float32 [P], heat of all defective pixels.
      overlaps: float64 [P], what finding each of them adds to the sum of the regions' overlaps: one
        by the pixels of its region.
      regions: how many regions there are.
    """

    def __init__(self, values: np.ndarray, overlaps: np.ndarray, regions: int) -> None:
        self._distinct, inverse = np.unique(values, return_inverse=True)
        self._pixels = np.bincount(inverse, minlength=len(self._distinct))
        self._overlaps = np.bincount(inverse, overlaps, len(self._distinct))
        self._regions = regions
        self._free = 0
        self._up_to = np.zeros(len(self._distinct) + 1, np.int64)
        self._below = np.zeros(len(self._distinct) + 1, np.int64)

    def count(self, free: np.ndarray) -> None:
        """Adds the free pixels of an image: float32 [N], ascending."""
        self._free += len(free)
        if not len(self._distinct):
            return
        # One search for both sides: a free pixel as hot as a defective one is the only difference.
        places = np.searchsorted(self._distinct, free, "left")
        _add_counts(self._up_to, places)
        tied = self._distinct[np.minimum(places, len(self._distinct) - 1)] == free
        _add_counts(self._below, places + tied)

    def auroc(self) -> float:
        """Chance that a defective pixel is hotter than a free one, ties counting half."""
        below, up_to = np.cumsum(self._below[:-1]), np.cumsum(self._up_to[:-1])
        hotter = np.dot(self._pixels.astype(np.float64), (below + up_to) / 2)
        return float(hotter / self._pixels.sum() / self._free)

    def pro(self) -> float:
        """Area under the per-region overlap over the false positive rate up to `FPR_LIMIT`, by that limit."""
        below, up_to = np.cumsum(self._below[:-1]), np.cumsum(self._up_to[:-1])
        left, right = 1 - up_to / self._free, 1 - below / self._free
        area = np.dot(self._overlaps, _width_up_to_limit(left, right))
        # The overlaps of a region add up to 1 but for rounding.
        return min(1.0, float(area / self._regions / FPR_LIMIT))


class BinnedRanking:
    """The same figures in resamples of the images, from a histogram of each image.

    Args:
      images: how many, in the order in which they are added.
      edges: float32 [B], ascending, see `edges_of`.
    """

    def __init__(self, images: int, edges: np.ndarray) -> None:
        self._edges = edges
        self._free, self._pixels, self._overlaps = (np.zeros((images, len(edges) + 1), np.float32) for _ in range(3))
        self._regions = np.zeros(images, np.float32)

    def count(self, image: int, free: np.ndarray) -> None:
        """The free pixels of an image: float32 [N], ascending."""
        places = np.searchsorted(free, self._edges, "left")
        self._free[image] = np.diff(places, prepend=0, append=len(free))

    def found(self, image: int, values: np.ndarray, overlaps: np.ndarray, regions: int) -> None:
        """The defective pixels of an image; see `ExactRanking`."""
        bins = np.searchsorted(self._edges, values, "right")
        self._pixels[image] = np.bincount(bins, minlength=len(self._edges) + 1)
        self._overlaps[image] = np.bincount(bins, overlaps, len(self._edges) + 1)
        self._regions[image] = regions

    def figures(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel AUROC and PRO, float64 [C] each, NaN where they do not exist.

        Args:
          weights: float [C, images], how often each image is in each resample.
        """
        weights = weights.astype(np.float32)
        free, pixels, overlaps = (weights @ rows for rows in (self._free, self._pixels, self._overlaps))
        below = np.cumsum(free, axis=1, dtype=np.float64)
        total, defective = below[:, -1], pixels.sum(1, dtype=np.float64)
        hotter = (pixels * (below - free / 2)).sum(1)
        auroc = share(hotter, defective * total)
        right = 1 - share(below - free, total[:, None])
        left = 1 - share(below, total[:, None])
        area = (overlaps * _width_up_to_limit(left, right)).sum(1)
        return auroc, share(area, (weights @ self._regions) * FPR_LIMIT * (total > 0))


def edges_of(defective: np.ndarray, free: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of bins that follow the values, float32 ascending and distinct.

    Args:
      defective: float32 [P], heat of the defective pixels.
      free: some values of each image, see `sample`.
    """
    levels = (np.arange(_BINS // 2) + 0.5) / (_BINS // 2)
    pooled = np.concatenate([np.zeros(0, np.float32), *free])
    parts = [np.quantile(part, levels, method="nearest") for part in (defective, pooled) if part.size]
    return np.unique(np.concatenate([np.zeros(0, np.float32), *parts])).astype(np.float32)


def sample(heat: np.ndarray) -> np.ndarray:
    """Values of an image's heat at even distances: float32 [256 to 511], or all of fewer."""
    values = heat.ravel()
    # A copy: a view would keep the whole image.
    return values[:: max(1, len(values) // _SAMPLES_PER_IMAGE)].copy()


def _width_up_to_limit(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What one unit of overlap adds to the area up to the limit, if it rises evenly from `left` to `right`.

    Pixels of one value are found together with the free pixels of that value, so the curve runs
    straight from the rate before them to the rate with them.
    """
    limit = FPR_LIMIT
    whole = limit - (left + right) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = (limit - left) ** 2 / (2 * (right - left))
    return np.where(right <= limit, whole, np.where(left < limit, cut, 0.0))


def _add_counts(counts: np.ndarray, ascending: np.ndarray) -> None:
    """Counts ascending indices into `counts`, touching only those that occur."""
    starts = np.flatnonzero(np.diff(ascending, prepend=-1))
    counts[ascending[starts]] += np.diff(starts, append=len(ascending))
