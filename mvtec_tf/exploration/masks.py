"""Masks looked at: how much of an image its defect covers, and which masks cannot be used."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from mvtec_tf.data import masks
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.record import Record
from mvtec_tf.exploration.images import Look

OK = "ok"


@dataclasses.dataclass(frozen=True)
class MaskLook:
    """The mask of one image.

    Attributes:
      record: which image.
      state: `OK`, or what is wrong, one of the states of `masks.MaskError`.
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


def look_at_masks(records: Sequence[Record], looks: Iterable[Look]) -> tuple[MaskLook, ...]:
    """Masks of the defective images, and those masks of good ones that mark something, sorted by path.

    A category without any mask has none on purpose and is left out; in one with masks a missing
    one is listed.

    Args:
      records: all of them.
      looks: the readable ones.
    """
    claimed_by = masks.shared(records)
    found: list[MaskLook] = []
    by_category: dict[str, list[Look]] = collections.defaultdict(list)
    for one in looks:
        if one.record.label:
            by_category[one.record.category].append(one)
        elif one.record.mask and not _marks_nothing(one.record.mask):
            found.append(MaskLook(one.record, masks.CONTRADICTS, reason=f"{one.record.mask} is not empty"))
    found += [
        _look_at_mask(one, claimed_by)
        for ones in by_category.values()
        if any(other.record.mask for other in ones)
        for one in ones
    ]
    return tuple(sorted(found, key=lambda mask: mask.record.path))


def _marks_nothing(file: str) -> bool:
    try:
        masks.read(file)
    except MaskError as error:
        return error.state == masks.EMPTY
    return False


def _look_at_mask(image: Look, claimed_by: Mapping[str, str]) -> MaskLook:
    record = image.record
    if not record.mask:
        return MaskLook(record, masks.MISSING, reason="other defective images of the category have a mask")
    try:
        masks.refuse_shared(claimed_by.get(record.path, ""))
        mask = masks.read(record.mask, (image.height, image.width))
    except MaskError as error:
        if error.mask is None:
            return MaskLook(record, error.state, reason=str(error))
        height, width = error.mask.shape
        return MaskLook(record, error.state, float(error.mask.mean()), width, height, str(error))
    height, width = mask.shape
    return MaskLook(record, OK, float(mask.mean()), width, height)
