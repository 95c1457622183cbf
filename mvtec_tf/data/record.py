"""One row per image, whatever told us of it: the form that every reader of a data set hands on."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from mvtec_tf.errors import UserError

# Windows writes .jfif for what browsers save.
FORMAT_OF_SUFFIX = {".png": "PNG", **dict.fromkeys((".jpg", ".jpeg", ".jfif", ".jpe"), "JPEG"), ".bmp": "BMP"}
IMAGE_SUFFIXES = tuple(FORMAT_OF_SUFFIX)
# Width x height of the largest image that is decoded unless a flag says otherwise: 300 MB of RGB.
MAX_PIXELS = 100_000_000
GOOD = "good"
DEFECTIVE = "defective"
MASKS = "ground_truth"
TRAIN, TEST = "train", "test"
# A folder or word that some sources have beside these two; here its good images are trained on like the others.
VALIDATION = "validation"
SPLITS = (TRAIN, TEST, VALIDATION)
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
class Unreadable:
    """An image that cannot be used.

    Attributes:
      record: which.
      reason: what was found, and what was expected; no full stop.
    """

    record: Record
    reason: str


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


def listed(images: Any) -> tuple[Record, ...]:
    """Records that a caller hands over, of a generator too, which can be read only once.

    Raises:
      TypeError: they are no records.
      UserError: there are none, or one stands there twice.
    """
    several = isinstance(images, Iterable) and not isinstance(images, (str, bytes))
    records = tuple(images) if several else (images,)
    seen: set[str] = set()
    for one in records:
        if not isinstance(one, Record) or not several:
            raise TypeError(f"`images`: expected records, as `mvtec_tf.scan` lists them. Received: {one!r:.100}")
        if one.path in seen:
            raise UserError(f"`images`: {one.path} stands among them twice, and would count twice. Name each once.")
        seen.add(one.path)
    if not records:
        raise UserError("`images`: there are none.")
    return records
