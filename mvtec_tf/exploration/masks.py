"""Masks looked at: how much of an image its defect covers, and which masks cannot be used."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from mvtec_tf.data.formats.scan import Record
from mvtec_tf.exploration.images import Look, UnreadableImageError, read_grey

OK = "ok"
MISSING = "missing"
EMPTY = "empty"
FULL = "full"
OTHER_SIZE = "other size"
UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class MaskLook:
    """The mask of one defective image.

    Attributes:
      record: which image.
      state: `OK`, or what is wrong: `MISSING`, `EMPTY` (no pixel is set), `FULL` (every pixel is),
        `OTHER_SIZE` than its image, `UNREADABLE`.
      area: share of the pixels that are set, 0 to 1; None if it could not be read.
      width: of the mask in pixels, 0 if it could not be read.
      height: likewise.
      reason: in words, if something is wrong.
    """

    record: Record
    state: str
    area: float | None = None
    width: int = 0
    height: int = 0
    reason: str = ""


def look_at_masks(looks: Iterable[Look]) -> tuple[MaskLook, ...]:
    """Masks of the defective images, sorted by path.

    A category without any mask has none on purpose and is left out; in one with masks a missing
    one is listed.
    """
    by_category: dict[str, list[Look]] = collections.defaultdict(list)
    for one in looks:
        if one.record.label:
            by_category[one.record.category].append(one)
    found = [
        _look_at_mask(one) for ones in by_category.values() if any(other.record.mask for other in ones) for one in ones
    ]
    return tuple(sorted(found, key=lambda mask: mask.record.path))


def orphans(records: Sequence[Record]) -> tuple[str, ...]:
    """Files in the folders of masks in use that are the mask of no image, and no image themselves, sorted."""
    known = {file for record in records for file in (record.mask, record.file)}
    folders = {pathlib.Path(record.mask).parent for record in records if record.mask}
    files = (str(file) for folder in folders for file in folder.iterdir() if not file.name.startswith("."))
    return tuple(sorted(file for file in files if file not in known))


def _look_at_mask(image: Look) -> MaskLook:
    record = image.record
    if not record.mask:
        return MaskLook(record, MISSING, reason="other defective images of the category have a mask")
    try:
        grey = read_grey(record.mask)
    except UnreadableImageError as error:
        return MaskLook(record, UNREADABLE, reason=str(error))
    height, width = grey.shape
    # Any value above black is defect: masks are written as 0/1 as well as 0/255.
    area = float(np.mean(grey > 0.0))
    state, reason = OK, ""
    if (width, height) != (image.width, image.height):
        state, reason = OTHER_SIZE, f"{width} x {height}, its image has {image.width} x {image.height}"
    elif not area:
        state, reason = EMPTY, "no pixel of it is set"
    elif area == 1.0:
        state, reason = FULL, "every pixel of it is set"
    return MaskLook(record, state, area, width, height, reason)
