"""Draws a set of a surface that no choice of the recipe has seen: one photograph, crops of it, and defects on some.

  python -m tools.surface_set --photograph=FILE --foreign=FILE --seed=0 --out=SETS/NAME

The photograph goes on at its edges (a seamless texture of 1,000 pixels or more a side), so that every crop of 320
pixels lies somewhere else; each has an exposure of its own and a camera's noise. The defects are scratches, stains,
worn places, where the surface is blurred, and what does not belong there, a patch of the other photograph. In the
layout of MVTec AD.
"""

import argparse
import os
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 320
_TRAIN, _GOOD, _EACH = 80, 30, 9
# Standard deviations of the exposure, as a share, and of the noise, in grey levels.
_EXPOSURE, _NOISE = 0.02, 1.5
# No defect is centred nearer to the border.
_MARGIN = 40


class Surface:
    """Crops of one photograph, good and defective.

    Args:
      photograph: uint8 [H, W, 3].
      foreign: of something else, uint8 [H, W, 3].
      seed: random seed.
    """

    def __init__(self, photograph: np.ndarray, foreign: Image.Image, seed: int) -> None:
        self._photograph = photograph
        self._foreign = np.asarray(foreign.resize((SIDE, SIDE)), float)
        self._rng = np.random.default_rng(seed)

    def good(self) -> np.ndarray:
        """uint8 [SIDE, SIDE, 3]."""
        right, down = self._rng.integers(0, self._photograph.shape[1::-1])
        crop = np.roll(self._photograph, (-down, -right), (0, 1))[:SIDE, :SIDE]
        exposure = 1 + self._rng.normal(0, _EXPOSURE)
        return np.clip(crop * exposure + self._rng.normal(0, _NOISE, crop.shape), 0, 255).astype(np.uint8)

    def defective(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [SIDE, SIDE, 3] with a defect of one of `KINDS`, and its mask, bool [SIDE, SIDE]."""
        good, mask = self.good(), Image.new("L", (SIDE, SIDE))
        centre = self._rng.integers(_MARGIN, SIDE - _MARGIN, 2)
        radius = int(self._rng.integers(6, 20))
        image = KINDS[kind](self, good.astype(float), mask, centre, radius)
        return np.clip(image, 0, 255).astype(np.uint8), np.asarray(mask) > 127

    def _scratch(self, image: np.ndarray, mask: Image.Image, centre: np.ndarray, radius: int) -> np.ndarray:
        del radius
        angle, length = self._rng.uniform(0, np.pi), int(self._rng.integers(30, 90))
        end = np.clip(centre + length * np.array([np.cos(angle), np.sin(angle)]), 5, SIDE - 5).astype(int)
        ImageDraw.Draw(mask).line([*centre, *end], fill=255, width=int(self._rng.integers(2, 4)))
        return image + self._rng.choice([-1, 1]) * 50 * _soft(mask, 0.7)

    def _stain(self, image: np.ndarray, mask: Image.Image, centre: np.ndarray, radius: int) -> np.ndarray:
        opaque = 0.35 * _soft(_blob(mask, centre, radius, 0.7 * radius), 3)
        return image * (1 - opaque) + opaque * [60, 50, 30]

    def _foreign_patch(self, image: np.ndarray, mask: Image.Image, centre: np.ndarray, radius: int) -> np.ndarray:
        opaque = _soft(_blob(mask, centre, radius, radius), 1)
        return image * (1 - opaque) + opaque * self._foreign

    def _worn(self, image: np.ndarray, mask: Image.Image, centre: np.ndarray, radius: int) -> np.ndarray:
        opaque = _soft(_blob(mask, centre, 1.5 * radius, 1.5 * radius), 2)
        blurred = Image.fromarray(image.astype(np.uint8)).filter(ImageFilter.GaussianBlur(4))
        return image * (1 - opaque) + opaque * np.asarray(blurred, float)


_Draw = Callable[[Surface, np.ndarray, Image.Image, np.ndarray, int], np.ndarray]
KINDS: dict[str, _Draw] = {
    "scratch": Surface._scratch,
    "stain": Surface._stain,
    "foreign": Surface._foreign_patch,
    "worn": Surface._worn,
}


def _blob(mask: Image.Image, centre: np.ndarray, across: float, down: float) -> Image.Image:
    x, y = centre.tolist()
    ImageDraw.Draw(mask).ellipse([x - across, y - down, x + across, y + down], fill=255)
    return mask


def _soft(mask: Image.Image, pixels: float) -> np.ndarray:
    """Opacity 0 to 1, float [SIDE, SIDE, 1]."""
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(pixels)), float)[..., None] / 255


def main() -> None:
    """Writes the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photograph", "foreign", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    photograph, foreign = (Image.open(file).convert("RGB") for file in (arguments.photograph, arguments.foreign))
    surface, out = Surface(np.asarray(photograph), foreign, arguments.seed), pathlib.Path(arguments.out)
    for part, count in (("train/good", _TRAIN), ("test/good", _GOOD)):
        os.makedirs(out / part)
        for number in range(count):
            Image.fromarray(surface.good()).save(out / part / f"{number:03}.png")
    for kind in KINDS:
        os.makedirs(out / "test" / kind)
        os.makedirs(out / "ground_truth" / kind)
        for number in range(_EACH):
            image, mask = surface.defective(kind)
            Image.fromarray(image).save(out / "test" / kind / f"{number:03}.png")
            Image.fromarray(mask).save(out / "ground_truth" / kind / f"{number:03}_mask.png")


if __name__ == "__main__":
    main()
