"""Whether a probability means what it says: of images called 80 % defective, four in five should be."""

import dataclasses

import numpy as np

# Guo et al., On Calibration of Modern Neural Networks, ICML 2017: fifteen bins of equal width.
BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Images gathered by their probability, in bins of equal width; empty bins are left out.

    Attributes:
      predicted: float [B], mean probability in the bin.
      observed: float [B], share of the bin's images that are defective.
      images: int [B].
    """

    predicted: np.ndarray
    observed: np.ndarray
    images: np.ndarray


def bin_of(probabilities: np.ndarray) -> np.ndarray:
    """Index of each probability's bin, int [N] in 0..BINS-1; a bin holds its upper end, the first one 0 too."""
    return np.clip(np.ceil(np.asarray(probabilities) * BINS).astype(int) - 1, 0, BINS - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """The bins of a reliability diagram.

    Args:
      labels: [N] of 0 and 1, N > 0.
      probabilities: float [N] in 0..1.
    """
    bins = bin_of(probabilities)
    images = np.bincount(bins, minlength=BINS)
    filled = images > 0
    images = images[filled]
    predicted = np.bincount(bins, probabilities, BINS)[filled] / images
    observed = np.bincount(bins, np.asarray(labels, float), BINS)[filled] / images
    return Reliability(predicted, observed, images)
