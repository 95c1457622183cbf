"""What the products of the toy factory are drawn with, as vectorised NumPy.

Positions and lengths are in half image widths: x and y run from -1 to 1, whatever the size in
pixels, so one seed shows the same scene at every size. Colours are RGB reflectances, 0 to 1.
"""

from typing import ClassVar

import numpy as np

SUBTLE = "subtle"
GROSS = "gross"

# What a camera sees is a sum of shade [S, S] x colour [3], over all layers. Kept apart because one
# shade is three times cheaper to draw and to shrink than one RGB picture.
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]


class Piece:
    """One piece of a product as it lies under the camera, drawn from a generator and a side in pixels.

    A product is a subclass. Its constructor takes (rng, size), draws from `rng` all in which one piece differs from
    the next, and sets `clean`. Each of its defects is a method (rng, severity) -> `Layers`, the piece with that defect;
    severity is `SUBTLE` or `GROSS`.

    Attributes:
      clean: the piece as it should be.
      defects: name of a defect -> the name of its method.
    """

    clean: Layers
    defects: ClassVar[dict[str, str]]

    def damaged(self, rng: np.random.Generator, defect: str, severity: str) -> Layers:
        """The piece with a defect, one of `defects`."""
        return getattr(self, self.defects[defect])(rng, severity)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres of a square image: x [1, size] and y [size, 1], float64, -1 to 1, y downwards."""
    centres = (2.0 * np.arange(size) + 1.0) / size - 1.0
    return centres[None, :], centres[:, None]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number drawn evenly from [low, high)."""
    return low + (high - low) * rng.random()


def edge(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 where the signed distance is positive, 0 where negative, a ramp `softness` wide between."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, count: int, frequency: float) -> np.ndarray:
    """A smooth random field [S, S], about -1 to 1: `count` plane waves of at most `frequency` rad per unit."""
    direction, rate, phase = rng.random((3, count, 1, 1))
    wave_number = frequency * (0.3 + 0.7 * rate)
    along_x = wave_number * np.cos(2.0 * np.pi * direction) * x
    along_y = wave_number * np.sin(2.0 * np.pi * direction) * y + 2.0 * np.pi * phase
    # sin(a + b) of a row and a column needs no sine of the whole image.
    rows = np.concatenate([np.cos(along_y), np.sin(along_y)])[:, :, 0]
    columns = np.concatenate([np.sin(along_x), np.cos(along_x)])[:, 0, :]
    return np.einsum("ky,kx->yx", rows, columns) / np.sqrt(count)


def blob(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, radius: float, roughness: float) -> np.ndarray:
    """Signed distance, positive inside, to an irregular blot of mean `radius` around the origin."""
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for order, (size, phase) in enumerate(rng.random((4, 2)), start=2):
        outline += roughness * (0.4 + 0.6 * size) / order * np.cos(order * angle + 2.0 * np.pi * phase)
    return radius * outline - np.sqrt(x * x + y * y)
