"""One row per image, whatever told us of it: the form that every reader of a data set hands on."""

import dataclasses
import pathlib
from collections.abc import Callable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
# Width x height of the largest image that is decoded unless a flag says otherwise: 300 MB of RGB.
MAX_PIXELS = 100_000_000
GOOD = "good"
DEFECTIVE = "defective"
MASKS = "ground_truth"
TRAIN, TEST = "train", "test"
# What lists of images say of each.
FACTS = ("path", "category", "defect", "label", "split", "group")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
      path: its name in every table, `CATEGORY/test/DEFECT/000.png`, the same on every machine.
      file: where it lies on this machine.
      category: the product.
      defect: the defect type, or "good".
      label: 1 if defective, else 0.
      split: "train" or "test", as the source says, or as `division.divide` decided.
      group: the physical object it shows; the path itself unless the source says otherwise.
      mask: file of the pixel mask of the defect, "" if there is none.
    """

    path: str
    file: str
    category: str
    defect: str
    label: int
    split: str
    group: str
    mask: str = ""

    @property
    def facts(self) -> tuple[str | int, ...]:
        """Its FACTS, in their order."""
        return tuple(getattr(self, name) for name in FACTS)


@dataclasses.dataclass(frozen=True)
class Category:
    """One product as a source has it.

    Attributes:
      name: of the product.
      source: folder or file that it comes from.
      read: gives its records, and says in sentences what the reader decided or left out.
    """

    name: str
    source: pathlib.Path
    read: Callable[[], tuple[list[Record], list[str]]]
