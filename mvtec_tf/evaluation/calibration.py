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


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance of probability and label (Brier, Monthly Weather Review 1950); 0 is perfect.

    Args:
      labels: [N] of 0 and 1, N > 0.
      probabilities: float [N] in 0..1.
    """
    return float(np.mean((np.asarray(probabilities) - labels) ** 2))


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over images of the gap between a bin's mean probability and its share of defects (Guo et al. 2017, eq. 3).

    Of the probability of being defective, not of the likelier class. It cannot fall below 0, so
    few images in a bin push it upwards.

    Args:
      labels, probabilities: as in `brier`.
    """
    found = reliability(labels, probabilities)
    return float(np.sum(found.images * np.abs(found.predicted - found.observed)) / len(labels))


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """The bins of a reliability diagram. Args as in `brier`."""
    bins = bin_of(probabilities)
    images = np.bincount(bins, minlength=BINS)
    filled = images > 0
    images = images[filled]
    predicted = np.bincount(bins, probabilities, BINS)[filled] / images
    observed = np.bincount(bins, np.asarray(labels, float), BINS)[filled] / images
    return Reliability(predicted, observed, images)
