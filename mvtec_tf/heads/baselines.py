"""Trivial baselines: what mean brightness and a 16 x 16 thumbnail already tell.

A data set on which they do well is too easy to compare learning methods on, and a method that does
not beat them has learned nothing worth a network.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

# ITU-R BT.601, the weights of every common grey conversion.
LUMA = np.array([0.299, 0.587, 0.114])
_MAX_STEPS = 10_000
# name -> side of the grey thumbnail that is all a baseline sees.
SIDES = {"grey_pixels": 16, "mean_brightness": 1}


def mean_brightness(images: np.ndarray) -> np.ndarray:
    """Mean grey value of each image.

    Args:
      images: uint8 [N, S, S, 3], RGB.

    Returns:
      float64 [N, 1], 0 to 255.

    Raises:
      ValueError: another shape or dtype.
    """
    return _grey(images).mean(axis=(1, 2))[:, None]


def grey_pixels(images: np.ndarray, size: int = 16) -> np.ndarray:
    """Each image as a grey thumbnail: area averages over size x size equal cells.

    A cell border inside a pixel splits that pixel by area, so that any `S` >= `size` will do.

    Args:
      images: uint8 [N, S, S, 3], RGB.
      size: side of the thumbnail.

    Returns:
      float64 [N, size * size], 0 to 255, row by row.

    Raises:
      ValueError: another shape or dtype, or images smaller than the thumbnail.
    """
    grey = _grey(images)
    side = grey.shape[1]
    if not 1 <= size <= side:
        raise ValueError(f"size must be 1 to the images' side {side}. Received: {size}.")
    shares = cell_shares(side, size)
    return np.einsum("cy,nyx,dx->ncd", shares, grey, shares, optimize=True).reshape(len(grey), size * size)


def baseline_logistic(features: np.ndarray, labels: np.ndarray, evaluate_features: np.ndarray) -> np.ndarray:
    """Fits a logistic regression on standardised features and scores other images with it.

    L2 penalty of strength 1 on standardised features, classes weighted inversely to their
    frequency, run until it has converged.

    Args:
      features: float [N, D], of the images it is fitted on.
      labels: int [N], 0 good, 1 defective; both must occur.
      evaluate_features: float [M, D].

    Returns:
      float64 [M], log-odds: above 0 means more likely defective, given balanced classes.

    Raises:
      ValueError: one class only, shapes that do not fit, or numbers that are not finite.
      RuntimeError: not converged.
    """
    # Only constant columns are left unscaled by StandardScaler; they carry nothing either way.
    scaler = StandardScaler().fit(np.asarray(features, np.float64))
    model = LogisticRegression(class_weight="balanced", max_iter=_MAX_STEPS, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(scaler.transform(features), np.asarray(labels))
        except ConvergenceWarning as warning:
            raise RuntimeError(f"Logistic regression has not converged in {_MAX_STEPS} steps: {warning}") from warning
    return model.decision_function(scaler.transform(np.asarray(evaluate_features, np.float64)))


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 3] -> float64 [N, S, S]."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be uint8 [N, S, S, 3]. Received: {images.dtype} {list(images.shape)}.")
    return images @ LUMA


def cell_shares(side: int, size: int) -> np.ndarray:
    """float64 [size, side]: which share of a cell each pixel of a row makes up; rows sum to 1."""
    borders = np.arange(size + 1) * (side / size)
    starts, pixels = borders[:-1, None], np.arange(side)[None, :]
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(starts, pixels)
    return np.clip(overlap, 0.0, None) * (size / side)
