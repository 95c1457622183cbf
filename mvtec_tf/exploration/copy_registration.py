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
# Photographs are compared at the scale of the copy, up to so many pixels: more cost more and say no more.
_MOST_PIXELS = 640 * 640
_MARGIN = 6
_BLOCK = 16
# On smaller photographs than this hardly any block of that size is without an outline.
_SMALL_SIDE = 256
_STEPS = 3

# What re-encoding and resizing may change, in grey levels of 255. A JPEG of quality 75 rounds the mean of each block of
# 8 x 8 pixels to a whole level, an error of 0.29; resizing by some programs rounds up twice, 0.6 on the mean.
_LARGEST_OFFSET = 1.0
# The sum of the squares of (shading, detail, spot) by these is at most 1.
_SCALES = (0.3, 1.6, 4.0)
# Standard deviation of the grey values round an outline above which the errors of resampling grow with it.
_STRONG = 10.0
# Mean square of the detail of a block: below the first it was flattened; weaker in one photograph than by this share of
# the other, it was blurred or re-encoded. Neither says anything.
_FLAT, _COMPARABLE = 0.02, 0.25
_FEWEST_BLOCKS = 6
# The noise is one from the first correlation on, of a pair that stands out from the second one on, and from more by the
# third where so much differs as `size` says. Two photographs of one tile, with the grain of its surface, reach 0.45 at
# a size of 0.75, and 0.29 at 0.37.
_ONE_NOISE, _ONE_NOISE_IF_DISTINCT, _AND_BY_SIZE = 0.33, 0.2, 0.75
# Noise of two photographs correlates less than this in three quarters of the blocks, by chance at most.
_NO_NOISE = 0.05
# So large a share of the blocks must show it; where as many as the second do, it alone decides.
_LEAST_SHOWN, _WELL_SHOWN = 0.3, 0.5
# Where it does not show, detail of some pixels must agree so well.
_ONE_DETAIL = 0.34
# From so many standard deviations on a pair stands out; see `Candidate`.
_DISTINCT = 8.0


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One decoded file.

    Attributes:
      grey: float32 [H, W], 0 to 255.
      quantisation: the 64 steps of a JPEG file for brightness; empty for other files, whose history is unknown.
    """

    grey: np.ndarray
    quantisation: tuple[int, ...] = ()

    @property
    def lost(self) -> tuple[int, int]:
        """Larger for a photograph of fewer pixels, and of those of one size for the one stored more coarsely."""
        return -self.grey.size, sum(self.quantisation)


@dataclasses.dataclass(frozen=True)
class Difference:
    """What remains between two photographs after registration and re-encoding, in grey levels unless said.

    Attributes:
      offset: mean difference.
      shading: root mean square of the slow differences, the mean removed.
      middle: root mean square of differing detail in the block where it is largest.
      spot: the largest difference of a spot some pixels wide.
      detail: correlation of detail some pixels wide, -1 to 1, that three quarters of the blocks exceed.
      noise: likewise, of the finest detail, which outlines do not show, in the blocks where both show it.
      shown: share of these blocks in those with finest detail in either.
    """

    offset: float
    shading: float
    middle: float
    spot: float
    detail: float
    noise: float
    shown: float

    @property
    def size(self) -> float:
        """The difference by the most that re-encoding and resizing make."""
        values = (self.shading, self.middle, self.spot)
        return float(sum((value / scale) ** 2 for value, scale in zip(values, _SCALES, strict=True)))

    @property
    def agreement(self) -> float:
        """The correlation of the noise where it shows, else of detail some pixels wide."""
        return self.noise if self.shown >= _LEAST_SHOWN else self.detail

    def of_a_copy(self, distinct: float) -> bool:
        """Whether re-encoding, resizing and cropping explain it all, and nothing else would.

        Args:
          distinct: how far the pair stands out from others with the copy, standard deviations.
        """
        if abs(self.offset) > _LARGEST_OFFSET or self.size > 1.0:
            return False
        least = _ONE_NOISE_IF_DISTINCT if distinct >= _DISTINCT else _ONE_NOISE
        one_noise = self.noise >= least + _AND_BY_SIZE * self.size
        if self.shown >= (_LEAST_SHOWN if one_noise else _WELL_SHOWN):
            return one_noise
        return self.detail >= _ONE_DETAIL and distinct >= _DISTINCT


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


def inverse(window: np.ndarray) -> np.ndarray:
    """The window of the copy that the original shows."""
    window = np.asarray(window, np.float64)
    start, length = window[0::2], window[1::2]
    return np.stack([-start / length, 1.0 / length], -1).ravel()


def difference(copy: Photograph, original: Photograph, window: np.ndarray) -> Difference | None:
    """Makes the copy again, by registration, resizing and encoding of the original, and measures what differs.

    Nothing is measured, None, where noise shows well and is not one.

    Args:
      copy: the one that shows a window of the other.
      original: the other.
      window: float [4], right to some thousandths.
    """
    window = np.array(window, np.float64)
    sides = np.array(copy.grey.shape)
    sides = np.rint(sides * min(1.0, np.sqrt(_MOST_PIXELS / sides.prod())))
    height, width = np.maximum(sides, 2 * _MARGIN + _BLOCK).astype(int)
    second = _resized(copy.grey, width, height)
    quantisation = copy.quantisation if second.shape == copy.grey.shape else ()
    if min(height, width) >= _SMALL_SIDE:
        window = _registered(_resized(second, width // 2, height // 2), original.grey, window, _STEPS - 1)
        if _of_other_noise(second, original.grey, window, quantisation):
            return None
        window = _registered(second, original.grey, window, 1)
    else:
        window = _registered(second, original.grey, window, _STEPS)
    first = _unmoved(_cut(original.grey, window, width, height), second, original.grey, window)
    if quantisation:
        first = _encoded(first, quantisation)
    inner = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    return _measured(first[inner], second[inner])


def _registered(second: np.ndarray, original: np.ndarray, window: np.ndarray, steps: int) -> np.ndarray:
    """The window after so many steps of Gauss-Newton at the scale of `second`, see `register`."""
    height, width = second.shape
    terms = _normal(second[None], np.gradient(second, axis=1)[None] * width, np.gradient(second, axis=0)[None] * height)
    for _ in range(steps):
        left = second - _cut(original, window, width, height)
        window = _moved(window[None], _step(*terms, left[None]))[0]
    return window


def _of_other_noise(
    second: np.ndarray, original: np.ndarray, window: np.ndarray, quantisation: tuple[int, ...]
) -> bool:
    """Whether the middle alone, a quarter of the area, shows noise well that has nothing in common: most pairs do."""
    # Of whole blocks of JPEG.
    top, left = (side // 32 * 8 for side in second.shape)
    middle = second[top : 3 * top, left : 3 * left]
    high, wide = second.shape
    seen = window * 1.0
    seen[0::2] += window[1::2] * (left / wide, top / high)
    seen[1::2] *= (2 * left / wide, 2 * top / high)
    seen = _registered(middle, original, seen, 1)
    first = _cut(original, seen, 2 * left, 2 * top)
    if quantisation:
        first = _encoded(first, quantisation)
    noise, shown = _agreement(_finest(first), _finest(middle), _BLOCK // 2)
    return shown >= _WELL_SHOWN and noise < _NO_NOISE


def _unmoved(first: np.ndarray, second: np.ndarray, original: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`first`, or the pixels of the original that lie there as they are, whichever is more like `second`."""
    height, width = second.shape
    top, left = (round(float(share) * side) for share, side in zip(window[[2, 0]], original.shape, strict=True))
    exact = original[max(top, 0) : top + height, max(left, 0) : left + width]
    if exact.shape != second.shape or (second - exact).var() > (second - first).var():
        return first
    return exact


def _encoded(grey: np.ndarray, quantisation: tuple[int, ...]) -> np.ndarray:
    """Grey values after storing them as JPEG with these steps."""
    content = io.BytesIO()
    image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    image.save(content, "JPEG", qtables=[list(quantisation)])
    return np.asarray(Image.open(content), np.float32)


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


def _measured(first: np.ndarray, second: np.ndarray) -> Difference | None:
    side = _BLOCK if min(first.shape) >= _SMALL_SIDE else _BLOCK // 2
    noise, shown = _agreement(_finest(first), _finest(second), side)
    if shown >= _WELL_SHOWN and noise < _ONE_NOISE_IF_DISTINCT:
        return None
    left = second - first
    offset = left.mean()
    left = (left - offset) * _tolerance(first)
    # What is slower than a few pixels is seen as well in means of 4 x 4.
    slow = _means(left, 4)
    spot = np.quantile(np.abs(ndimage.gaussian_filter(slow, 1.0)), 0.999)
    middle = ndimage.gaussian_filter(left, 1.5, truncate=2.0)
    middle -= ndimage.uniform_filter(ndimage.uniform_filter(left, 9), 9)
    return Difference(
        offset=float(offset),
        shading=float(ndimage.gaussian_filter(slow, 2.0).std()),
        middle=float(np.sqrt((_blocks(middle, _BLOCK) ** 2).mean(1).max())),
        spot=float(spot),
        detail=_agreement(_fine(first), _fine(second), side)[0],
        noise=noise,
        shown=shown,
    )


def _agreement(first: np.ndarray, second: np.ndarray, side: int) -> tuple[float, float]:
    """The correlation that three quarters of the blocks exceed that show both, and the share of these blocks."""
    blocks = [_blocks(values, side) for values in (first, second)]
    energies = [(one**2).mean(1) for one in blocks]
    weaker, stronger = np.minimum(*energies), np.maximum(*energies)
    shown = (weaker > _FLAT) & (weaker > _COMPARABLE * stronger)
    if shown.sum() < _FEWEST_BLOCKS:
        return 0.0, 0.0
    correlation = (blocks[0] * blocks[1]).mean(1)[shown] / np.sqrt(weaker * stronger)[shown]
    return float(np.quantile(correlation, 0.25)), float(shown.sum() / (stronger > _FLAT).sum())


def _fine(grey: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(grey, 0.7, truncate=3.0) - ndimage.uniform_filter(grey, 7)


def _finest(grey: np.ndarray) -> np.ndarray:
    """Second differences both across and down, noise of deviation 1 left at 1: neither edges nor slopes show in them.

    Immerkaer, "Fast noise variance estimation", 1996.
    """
    across = grey[:, :-2] - 2.0 * grey[:, 1:-1] + grey[:, 2:]
    return (across[:-2] - 2.0 * across[1:-1] + across[2:]) / 6.0


def _tolerance(grey: np.ndarray) -> np.ndarray:
    """By how much a difference counts less, [H, W]: each way of resampling draws strong outlines in its own way."""
    mean = ndimage.uniform_filter(grey, 7)
    contrast = np.sqrt(np.maximum(ndimage.uniform_filter(grey**2, 7) - mean**2, 0.0))
    return np.minimum(1.0, _STRONG / np.maximum(contrast, _STRONG))


def _means(values: np.ndarray, side: int) -> np.ndarray:
    """Means of side x side values; what fills none is left out."""
    down, across = (length // side for length in values.shape)
    return values[: down * side, : across * side].reshape(down, side, across, side).mean((1, 3))


def _blocks(values: np.ndarray, block: int) -> np.ndarray:
    """[H, W] -> [blocks, block * block], the mean of each block removed; what fills no block is left out."""
    down, across = (side // block for side in values.shape)
    cut = values[: down * block, : across * block].reshape(down, block, across, block)
    cut = cut.swapaxes(1, 2).reshape(down * across, block**2)
    return cut - cut.mean(1, keepdims=True)
