"""A data set looked at before any training: what is in it, and what of it would spoil a result.

Nothing here is fatal: an image that cannot be read, a mask that does not fit and a copy across
train and test are listed by name, and the rest is still looked at.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from mvtec_tf.data import masks, walk, words
from mvtec_tf.data.pillow_images import UnreadableImageError
from mvtec_tf.data.record import IMAGE_SUFFIXES, Record, Unreadable
from mvtec_tf.evaluation.report.suspects import Suspect
from mvtec_tf.exploration import duplicates as explore_duplicates
from mvtec_tf.exploration.duplicates import Pair
from mvtec_tf.exploration.images import Look, MaskLook, look, look_at_masks
from mvtec_tf.side_by_side import in_order

# So many images are decoded at a time: each may have 100 million pixels.
_READERS = 2
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


@dataclasses.dataclass(frozen=True)
class Exploration:
    """All that was found, in the order of the records.

    Attributes:
      records: all images, also the unreadable ones.
      looks: the readable ones.
      unreadable: the others.
      duplicates: pairs of the same photograph, the gravest first.
      masks: of the defective images of categories with masks.
      orphan_masks: (file, why) of masks that no image claims.
      ignored: files among the images that the scanner takes for none, and that are images or archives nevertheless.
      beside: number of other files among them: notes and the like.
      suspects: images whose labels the others speak against; None: nobody has looked, for want of features.
    """

    records: tuple[Record, ...]
    looks: tuple[Look, ...]
    unreadable: tuple[Unreadable, ...]
    duplicates: tuple[Pair, ...]
    masks: tuple[MaskLook, ...]
    orphan_masks: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    beside: int
    suspects: tuple[Suspect, ...] | None = None


def explore(records: Sequence[Record], progress: Callable[[int], None] = lambda done: None) -> Exploration:
    """Looks at every image, a few at a time.

    Args:
      records: of the scanner.
      progress: called with the number of images done so far, after each.
    """
    looks: list[Look] = []
    small: list[np.ndarray] = []
    unreadable: list[Unreadable] = []
    for done, found in enumerate(in_order(_look, records, _READERS), 1):
        if isinstance(found, Unreadable):
            unreadable.append(found)
        else:
            looks.append(found[0])
            small.append(found[1])
        progress(done)
    strays = list(_strays(records))
    ignored = tuple(file for file in strays if _is_of_images(file))
    return Exploration(
        records=tuple(records),
        looks=tuple(looks),
        unreadable=tuple(unreadable),
        duplicates=explore_duplicates.find(looks, small),
        masks=look_at_masks(records, looks),
        orphan_masks=masks.unclaimed(records),
        ignored=ignored,
        beside=len(strays) - len(ignored),
    )


def _look(record: Record) -> tuple[Look, np.ndarray] | Unreadable:
    try:
        return look(record)
    except UnreadableImageError as error:
        return Unreadable(record, str(error))


def _is_of_images(file: str) -> bool:
    """Whether a file is a photograph, by its name or its content, or an archive, in which photographs may be."""
    if file.lower().endswith((*IMAGE_SUFFIXES, *walk.OTHER_PHOTOGRAPHS, *_ARCHIVES)):
        return True
    try:
        with Image.open(file):
            return True
    except Image.DecompressionBombError:
        return True
    # Pillow's readers raise whatever a file that is none of theirs makes them stumble over.
    except Exception:
        return False


def _strays(records: Sequence[Record]) -> Iterator[str]:
    """Files among the images that are no records, sorted."""
    known = {file for record in records for file in (record.file, record.mask)}
    files = {file for folder, deep in _image_folders(records) for file in _files(folder, deep)}
    # The CSV files that list and group images lie beside them.
    yield from sorted(file for file in files - known if not file.lower().endswith(".csv"))


def _files(folder: pathlib.Path, deep: bool) -> Iterable[str]:
    if deep:
        return walk.walk(folder).files
    return (str(file) for file in folder.iterdir() if file.is_file() and not walk.is_clutter(file.name))


def _image_folders(records: Sequence[Record]) -> set[tuple[pathlib.Path, bool]]:
    """(folder, whether all below it belongs to the images too).

    The parts of a category, `train/`, `good/`, hold nothing but images. Where images lie somewhere else, as a CSV
    file may have it, only their own folders are looked at.
    """
    found = set()
    for record in records:
        below = record.path.split("/")[1:-1]
        nested = bool(below) and bool(words.part_of(below[0]))
        file = pathlib.Path(record.file)
        found.add((file.parents[len(below) - 1] if nested else file.parent, nested))
    return found
