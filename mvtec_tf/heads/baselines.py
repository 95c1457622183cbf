"""Trivial baselines: what mean brightness and a 16 x 16 thumbnail already tell.

A data set on which they do well is too easy to compare learning methods on, and a method that does
not beat them has learned nothing worth a network.
"""

import numpy as np

from mvtec_tf.data.decoding.pixels import LUMA

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


def _grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 3] -> float64 [N, S, S]."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must be uint8 [N, S, S, 3]. Received: {images.dtype} {list(images.shape)}.")
    return images @ np.array(LUMA)


def cell_shares(side: int, size: int) -> np.ndarray:
    """float64 [size, side]: which share of a cell each pixel of a row makes up; rows sum to 1."""
    borders = np.arange(size + 1) * (side / size)
    starts, pixels = borders[:-1, None], np.arange(side)[None, :]
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(starts, pixels)
    return np.clip(overlap, 0.0, None) * (size / side)
