"""A data set looked at before any training: what is in it, and what of it would spoil a result.

Nothing here is fatal: an image that cannot be read, a mask that does not fit and a copy across
train and test are listed by name, and the rest is still looked at.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

from mvtec_tf.data import explore_duplicates, explore_masks
from mvtec_tf.data.explore_duplicates import Duplicates
from mvtec_tf.data.explore_images import Look, Signature, UnreadableImageError, look
from mvtec_tf.data.explore_masks import MaskLook
from mvtec_tf.data.records import Record

# Files that belong beside the images of a split without being one.
_HARMLESS = {"thumbs.db", "desktop.ini"}


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    record: Record
    reason: str


@dataclasses.dataclass(frozen=True)
class Exploration:
    """All that was found, in the order of the records.

    Attributes:
      records: all images, also the unreadable ones.
      looks: the readable ones.
      unreadable: the others.
      duplicates: pairs of the same photograph.
      masks: of the defective images of categories with masks.
      orphan_masks: mask files without an image.
      ignored: files among the images that the scanner takes for none.
    """

    records: tuple[Record, ...]
    looks: tuple[Look, ...]
    unreadable: tuple[Unreadable, ...]
    duplicates: Duplicates
    masks: tuple[MaskLook, ...]
    orphan_masks: tuple[str, ...]
    ignored: tuple[str, ...]


def explore(records: Sequence[Record], progress: Callable[[int], None] = lambda done: None) -> Exploration:
    """Looks at every image, one at a time.

    Args:
      records: of the scanner.
      progress: called with the number of images done so far, after each.
    """
    looks: list[Look] = []
    signatures: list[Signature] = []
    unreadable: list[Unreadable] = []
    for done, record in enumerate(records, 1):
        try:
            found, signature = look(record)
        except UnreadableImageError as error:
            unreadable.append(Unreadable(record, str(error)))
        else:
            looks.append(found)
            signatures.append(signature)
        progress(done)
    return Exploration(
        records=tuple(records),
        looks=tuple(looks),
        unreadable=tuple(unreadable),
        duplicates=explore_duplicates.find(looks, signatures),
        masks=explore_masks.look_at_masks(looks),
        orphan_masks=explore_masks.orphans(records),
        ignored=tuple(_ignored(records)),
    )


def _ignored(records: Sequence[Record]) -> Iterator[str]:
    """Files below `train/` and `test/` of the categories that are no records, sorted."""
    known = {record.file for record in records}
    # CATEGORY/SPLIT/DEFECT/IMAGE
    splits = sorted({pathlib.Path(record.file).parents[1] for record in records})
    for folder in splits:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and str(file) not in known and not _harmless(file.name):
                yield str(file)


def _harmless(name: str) -> bool:
    return name.startswith(".") or name.lower() in _HARMLESS
