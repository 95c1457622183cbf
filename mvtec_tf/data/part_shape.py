"""Height and width for a network that looks at parts in their own shape instead of squeezing them into a square."""

import math
from collections.abc import Sequence

import numpy as np

from mvtec_tf.data import pillow_images
from mvtec_tf.data.decoding.pixels import Size
from mvtec_tf.data.record import Record

# Networks halve the sides five times.
_MULTIPLE = 32
# Headers that are read of a category: its camera is the same.
_LOOKED_AT = 200
# Categories whose shapes differ by more than this factor have no shape in common.
_ALIKE = 1.25


def size_of_parts(records: Sequence[Record], side: int) -> Size:
    """Chooses a height and a width of about the area of a square, as the training images are shaped.

    The shape of a category is the median of its training images' width / height, seen upright; or square, if the
    images of other shapes would be squeezed more by that than by a square.

    Args:
      records: of one category or several; good training images tell, or all where there are none.
      side: of the square in pixels.

    Returns:
      `side` where the parts are about as wide as high, or where the categories have no shape in common; else
      (height, width), multiples of 32.
    """
    told = [record for record in records if record.split == "train" and not record.label] or list(records)
    shapes = [_shape([record for record in told if record.category == name]) for name in {one.category for one in told}]
    known = [shape for shape in shapes if shape is not None]
    if not known or max(known) > _ALIKE * min(known):
        return side
    height, width = _sides(math.exp(np.mean(np.log(known))), side)
    return side if height == width else (height, width)


def _shape(records: Sequence[Record]) -> float | None:
    """Width / height of a category, None where no file can be read; those are refused or skipped elsewhere, by name."""
    found = []
    for record in records[:: -(-len(records) // _LOOKED_AT)]:
        try:
            height, width = pillow_images.upright_size(record.file)
        except pillow_images.UnreadableImageError:
            continue
        found.append(width / height)
    if not found:
        return None
    middle = float(np.median(found))
    squeezed, squeezed_by_a_square = (np.quantile(np.abs(np.log(found) - of), 0.9) for of in (math.log(middle), 0.0))
    return middle if squeezed < squeezed_by_a_square else 1.0


def _sides(shape: float, side: int) -> tuple[int, int]:
    """The multiples of 32 nearest to a width / height and an area, both by their logarithms."""
    heights = range(_MULTIPLE, max(side * 8, _MULTIPLE) + 1, _MULTIPLE)

    def miss(sides: tuple[int, int]) -> float:
        height, width = sides
        return math.log(width / height / shape) ** 2 + math.log(height * width / side**2) ** 2

    rounded = ((height, max(1, round(height * shape / _MULTIPLE)) * _MULTIPLE) for height in heights)
    return min(rounded, key=miss)
