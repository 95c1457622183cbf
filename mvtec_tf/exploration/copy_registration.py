"""Registration of one photograph within another, and what is left of their difference afterwards.

A copy shows a window of its original: resized, shifted, otherwise equal. A window is the array
(left, width, top, height) in shares of the original's width and height, so that resizing needs no
word; (0, 1, 0, 1) is the whole.
"""

import dataclasses
import io

import numpy as np
from PIL import Image
from scipy import ndimage

WHOLE = (0.0, 1.0, 0.0, 1.0)
# A crop takes up to a tenth of width and height; the rest is the error of a first guess.
_SMALLEST_SIDE = 0.88
_OUTSIDE = 0.02
# Noise is compared at the size of the smaller photograph, up to this: larger ones cost more and say no more.
_COMMON_SIDE = 448
_MARGIN = 6
_BLOCK = 16
# On smaller photographs than this hardly any block of that size is without an outline.
_SMALL_SIDE = 256
_STEPS = 3

# What re-encoding and resizing may change, in grey levels of 255. A JPEG of quality 75 rounds the mean of each block of
# 8 x 8 pixels to a whole level, an error of 0.29; resizing by some programs rounds up twice, 0.6 on the mean.
_LARGEST_OFFSET = 1.0
# The sum of the squares of (shading, detail, spot) by these is at most 1. Over twelve kinds of copies of seven sets of
# photographs it reached 0.93. Two photographs of one motionless part under one light reach 1.03 to 2.2 (magnetic tiles)
# and 1.7 (ball screws hours apart); two pairs of tiles stay below, and are told by their noise, see `_MORE_POWER`.
_SCALES = (0.3, 1.6, 4.0)
# Correlation of the finest detail that three quarters of the blocks exceed: parts without texture that lie at one
# place reach 0.28, since only their outlines agree; copies 0.39 and more.
_SMALLEST_NOISE = 0.34
# Blocks whose detail is weaker than this were flattened by re-encoding and say nothing.
_FLAT = 0.1
# Of the blocks that are not one grey value, so many must show detail: else it is that of outlines.
_CONSTANT, _LEAST_SHOWN = 1e-3, 0.3
# Noise decides where so large a part of the quieter blocks shows detail in both: drawn parts show it along outlines
# only, in up to 0.71 of these, and so do noisy ones once re-encoding flattened them.
_QUIETER, _LEAST_QUIET_SHOWN = 0.75, 0.8
# On smaller photographs the shading of a part is as fine as noise.
_SMALLEST_OF_NOISE = 128
# Of a drawn picture more blocks than this are one grey value that is neither black nor white; of a photograph none.
_MOST_CONSTANT = 0.05
# Where it does not decide, the other parts must differ by so many grey levels: parts of one drawing differ by less.
_LEAST_APART = 4.0
# So many blocks must show noise: the outlines of a part before a black background are no evidence.
_FEWEST_BLOCKS = 6
# At one scale the difference is at most what the files' own quantisation makes, and by this more: copies reach 0.78 of
# it, two photographs of one tile, the noise of both added, 1.8 and 2.9.
_MORE_POWER = 1.3
_ROUNDING_POWER = 0.3
# Sides this much alike are at one scale: registration is no more exact on flat photographs.
_SAME_SCALE = 0.01


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One decoded file.

    Attributes:
      grey: float32 [H, W], 0 to 255.
      quantisation: the 64 steps of a JPEG file for brightness; empty for other files, whose history is unknown.
    """

    grey: np.ndarray
    quantisation: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Difference:
    """What remains between two photographs after registration, in grey levels unless said.

    Attributes:
      offset: mean difference.
      shading: root mean square of the slow differences, the mean removed.
      detail: root mean square of differing detail in the block where it is largest.
      spot: the largest difference of a spot some pixels wide.
      noise: correlation of the finest detail, -1 to 1, that three quarters of the blocks exceed; 0 if hardly
        any block shows detail.
      quiet: likewise, of the quieter blocks alone; 0 if too few of them show detail in both photographs.
      unexplained: power of the difference by that of the quantisation; 0 if the scales differ.
    """

    offset: float
    shading: float
    detail: float
    spot: float
    noise: float
    quiet: float = 0.0
    unexplained: float = 0.0

    @property
    def size(self) -> float:
        """The difference by the most that re-encoding and resizing make."""
        values = (self.shading, self.detail, self.spot)
        return float(sum((value / scale) ** 2 for value, scale in zip(values, _SCALES, strict=True)))

    def of_a_copy(self, apart: float = 0.0) -> bool:
        """Whether re-encoding, resizing and cropping explain it all, and nothing else would.

        Args:
          apart: how much other photographs differ from the copy, grey levels; see `Candidate`.
        """
        explained = abs(self.offset) <= _LARGEST_OFFSET and self.size <= 1.0 and self.unexplained <= 1.0
        unlike = apart >= _LEAST_APART and self.noise >= _SMALLEST_NOISE
        return explained and (self.quiet >= _SMALLEST_NOISE or unlike)


def plausible(windows: np.ndarray) -> np.ndarray:
    """Which windows, float [..., 4], a crop of at most a tenth can have: bool [...]."""
    start, side = windows[..., 0::2], windows[..., 1::2]
    inside = (side > _SMALLEST_SIDE) & (start > -_OUTSIDE) & (start + side < 1.0 + _OUTSIDE)
    return inside.all(-1)


def register(copies: np.ndarray, originals: np.ndarray, windows: np.ndarray, steps: int = 5) -> np.ndarray:
    """Refines the windows in which `originals` look like `copies`, many pairs at once.

    Gauss-Newton on the squared difference after the best gain and offset (Lucas and Kanade, "An iterative image
    registration technique", 1981; Baker and Matthews, "Lucas-Kanade 20 years on", 2004).

    Args:
      copies: float32 [B, S, S], whole photographs shrunk to a square.
      originals: float32 [B, S, S], likewise.
      windows: float [B, 4], first guesses, right to some hundredths.
      steps: of Gauss-Newton.

    Returns:
      The windows, float64 [B, 4].
    """
    side = copies.shape[-1]
    # By the derivatives of the copy, so that they are the same in every step.
    across, down = (np.gradient(copies, axis=axis).astype(np.float32) * side for axis in (2, 1))
    terms, inverse = _normal(copies, across, down)
    windows = np.array(windows, np.float64)
    for _ in range(steps):
        warped = _interpolation(windows[:, 2:], side) @ originals @ _interpolation(windows[:, :2], side).swapaxes(1, 2)
        windows = _moved(windows, _step(terms, inverse, copies - warped))
        windows = np.clip(windows, (-0.1, 0.8, -0.1, 0.8), (0.2, 1.1, 0.2, 1.1))
    return windows


def difference(copy: Photograph, original: Photograph, window: np.ndarray) -> Difference:
    """Registers two photographs at the size of the smaller one and measures what differs.

    Args:
      copy: the one that shows a window of the other.
      original: the other.
      window: float [4], right to some thousandths.
    """
    window = np.array(window, np.float64)
    shown = np.array(original.grey.shape) * window[[3, 1]]
    same_scale = np.abs(shown / copy.grey.shape - 1.0).max() <= _SAME_SCALE and max(copy.grey.shape) <= _COMMON_SIDE
    sides = np.array(copy.grey.shape) if same_scale else np.minimum(copy.grey.shape, shown)
    height, width = np.maximum(np.rint(sides * min(1.0, _COMMON_SIDE / sides.max())), 2 * _MARGIN + _BLOCK).astype(int)
    second = _resized(copy.grey, width, height)
    terms = _normal(second[None], np.gradient(second, axis=1)[None] * width, np.gradient(second, axis=0)[None] * height)
    for _ in range(_STEPS):
        left = second - _cut(original.grey, window, width, height)
        window = _moved(window[None], _step(*terms, left[None]))[0]
    first = _cut(original.grey, window, width, height)
    inner = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    found = _measured(first[inner], second[inner])
    if not same_scale:
        return found
    power = sum(_quantised(*pair) for pair in ((first, copy.quantisation), (second, original.quantisation)))
    return dataclasses.replace(
        found, unexplained=float((second - first)[inner].var() / (_MORE_POWER * power + _ROUNDING_POWER))
    )


def _quantised(grey: np.ndarray, quantisation: tuple[int, ...]) -> float:
    """Mean square of what a JPEG with these steps changes; of quality 75 if none are known."""
    image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    content = io.BytesIO()
    image.save(content, "JPEG", **({"qtables": [list(quantisation)]} if quantisation else {"quality": 75}))
    return float(((np.asarray(Image.open(content), np.float32) - np.asarray(image, np.float32)) ** 2).mean())


def _interpolation(line: np.ndarray, side: int) -> np.ndarray:
    """(start, length) [B, 2] -> the matrices [B, S, S] that read S values between there, linearly."""
    places = line[:, :1] + line[:, 1:] * (np.arange(side) + 0.5) / side
    places = np.clip(places * side - 0.5, 0.0, side - 1.0)
    return np.clip(1.0 - np.abs(places[:, :, None] - np.arange(side)), 0.0, None).astype(np.float32)


def _normal(grey: np.ndarray, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The terms [B, 6, H * W] and the inverse normal matrices [B, 6, 6] of Gauss-Newton.

    Args:
      grey: float32 [B, H, W].
      across: likewise, its derivatives by shares of the width.
      down: by shares of the height.
    """
    count, height, width = grey.shape
    x, y = ((np.arange(side, dtype=np.float32) + 0.5) / side for side in (width, height))
    terms = np.stack([across, across * x, down, down * y[:, None], grey, np.ones_like(grey)], 1)
    terms = terms.reshape(count, 6, -1)
    normal = (terms @ terms.swapaxes(1, 2)).astype(np.float64)
    # Damped, so that a flat picture is left where it is.
    diagonal = np.einsum("bii->bi", normal)
    diagonal += 1e-4 * diagonal + 1.0
    return terms, np.linalg.inv(normal)


def _step(terms: np.ndarray, inverse: np.ndarray, left: np.ndarray) -> np.ndarray:
    """How a window changes, [B, 4], in shares of itself, from the difference [B, H, W]."""
    products = terms @ left.reshape(len(left), -1, 1)
    return np.clip((inverse @ products.astype(np.float64))[:, :4, 0], -0.05, 0.05)


def _moved(windows: np.ndarray, step: np.ndarray) -> np.ndarray:
    start, length = windows[:, 0::2], windows[:, 1::2]
    moved = np.stack([start + length * step[:, 0::2], length * (1.0 + step[:, 1::2])], -1)
    return moved.reshape(windows.shape)


def _cut(original: np.ndarray, window: np.ndarray, width: int, height: int) -> np.ndarray:
    high, wide = original.shape
    x, w, y, h = window
    box = (max(x * wide, 0.0), max(y * high, 0.0), min((x + w) * wide, wide), min((y + h) * high, high))
    return _resized(original, width, height, box)


def _resized(grey: np.ndarray, width: int, height: int, box: tuple[float, ...] | None = None) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(grey, np.float32))
    return np.asarray(image.resize((int(width), int(height)), Image.Resampling.BICUBIC, box=box), np.float32)


def _measured(first: np.ndarray, second: np.ndarray) -> Difference:
    left = second - first
    offset = left.mean()
    left = left - offset
    shading = ndimage.gaussian_filter(left, 8.0)
    spot = np.quantile(np.abs(ndimage.gaussian_filter(left, 4.0)), 0.999)
    middle = _blocks(ndimage.gaussian_filter(left, 1.5) - ndimage.gaussian_filter(left, 4.0))
    pair = (first, second)
    side = _BLOCK if min(first.shape) >= _SMALL_SIDE else _BLOCK // 2
    fine = [_blocks(ndimage.gaussian_filter(grey, 0.7) - ndimage.gaussian_filter(grey, 2.0), side) for grey in pair]
    energies = [(blocks**2).mean(1) for blocks in fine]
    shown = np.minimum(*energies) > _FLAT
    varying = energies[0] > _CONSTANT
    noisy = (energies[0] > _FLAT).sum() >= _LEAST_SHOWN * varying.sum()
    telling = noisy and shown.sum() >= _FEWEST_BLOCKS
    correlation = (fine[0] * fine[1]).mean(1) / np.sqrt(energies[0] * energies[1] + 1e-12)
    quiet = 0.0
    if telling and min(first.shape) + 2 * _MARGIN >= _SMALLEST_OF_NOISE:
        quieter = varying & (energies[0] <= np.quantile(energies[0][varying], _QUIETER))
        levels = _levels(first, side)
        drawn = (~varying & (levels > 2.0) & (levels < 253.0)).mean() > _MOST_CONSTANT
        both = quieter & shown
        if not drawn and both.sum() >= max(_LEAST_QUIET_SHOWN * quieter.sum(), _FEWEST_BLOCKS):
            quiet = float(np.quantile(correlation[both], 0.25))
    return Difference(
        offset=float(offset),
        shading=float(shading.std()),
        detail=float(np.sqrt((middle**2).mean(1).max())),
        spot=float(spot),
        noise=float(np.quantile(correlation[shown], 0.25)) if telling else 0.0,
        quiet=quiet,
    )


def _levels(grey: np.ndarray, block: int) -> np.ndarray:
    """The mean of each block of `_blocks`."""
    down, across = (side // block for side in grey.shape)
    return grey[: down * block, : across * block].reshape(down, block, across, block).mean((1, 3)).ravel()


def _blocks(values: np.ndarray, block: int = _BLOCK) -> np.ndarray:
    """[H, W] -> [blocks, block * block], the mean of each block removed; what fills no block is left out."""
    down, across = (side // block for side in values.shape)
    cut = values[: down * block, : across * block].reshape(down, block, across, block)
    cut = cut.swapaxes(1, 2).reshape(down * across, block**2)
    return cut - cut.mean(1, keepdims=True)
