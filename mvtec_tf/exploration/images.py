"""One image file and its mask looked at: what it is, how bright it is, how much of it the defect covers, and a small
picture that helps to find its copies.

Every function holds one decoded image at a time. What stays of an image is a few numbers and 32 KB,
so that a large data set needs no large memory.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from mvtec_tf.data import masks, pillow_images
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.record import Record

# What the decoder of training and serving understands; Pillow reads more than that.
DECODABLE_FORMATS = ("PNG", "JPEG", "BMP")
SMALL_SIDE = 128
# State of a mask with which nothing is wrong.
OK = "ok"


@dataclasses.dataclass(frozen=True)
class Look:
    """What was found in one image file.

    Attributes:
      record: which image.
      width: in pixels, of the upright image.
      height: in pixels, of the upright image.
      turned_in_place: whether Exif turns or mirrors the stored pixels, but leaves the size as it is.
      mode: of the pixels as stored, Pillow's name: L, RGB, P (palette), RGBA, I;16 (16 bit) ...
      format: of the file by its content, whatever its name says: PNG, JPEG ...; of a BMP that training
        refuses, with the reason.
      frames: more than 1 in an animation or a multi-page file; only the first is looked at.
      file_bytes: size of the file.
      brightness: mean grey value, 0 to 255; 16-bit images are scaled to it.
      contrast: standard deviation of the grey values, same unit.
      levels: of an image of more than 8 bits, how many grey levels of 8 its values span, 1 to 256; None of others.
      file_hash: SHA-256 of the file, hex.
      pixel_hash: SHA-256 of size and decoded RGB values, hex: the same for all lossless copies.
    """

    record: Record
    width: int
    height: int
    turned_in_place: bool
    mode: str
    format: str
    frames: int
    file_bytes: int
    brightness: float
    contrast: float
    levels: int | None
    file_hash: str
    pixel_hash: str


def look(record: Record) -> tuple[Look, np.ndarray]:
    """Reads one image: what was found, and its grey values shrunk to a square, see `small`.

    Raises:
      UnreadableImageError: the file is empty, truncated, too large to be decoded or no image.
    """
    content, stored = pillow_images.open_image(record.file)
    image = pillow_images.upright(stored)
    grey = pillow_images.grey_levels(image)
    found = Look(
        record=record,
        width=image.width,
        height=image.height,
        turned_in_place=pillow_images.turn(stored) is not None and image.size == stored.size,
        mode=image.mode,
        format=_format(stored),
        frames=getattr(stored, "n_frames", 1),
        file_bytes=len(content),
        brightness=float(grey.mean(dtype=np.float64)),
        contrast=float(grey.std(dtype=np.float64)),
        levels=int(np.ptp(np.rint(grey))) + 1 if pillow_images.deep(image) else None,
        file_hash=hashlib.sha256(content).hexdigest(),
        pixel_hash=pixel_hash(image),
    )
    return found, small(grey)


def small(grey: np.ndarray) -> np.ndarray:
    """float32 [H, W] -> float16 [128, 128]: the whole image, whatever its shape, to an eighth of a grey level."""
    side = (SMALL_SIDE, SMALL_SIDE)
    return np.asarray(Image.fromarray(grey).resize(side, Image.Resampling.HAMMING), np.float32).astype(np.float16)


def _format(image: Image.Image) -> str:
    # Pillow's word for a JPEG with more pictures behind the first one, as phones write it.
    found = "JPEG" if image.format == "MPO" else image.format or ""
    refused = image.info.get(pillow_images.REFUSED)
    return f"{found}: {refused}" if refused else found


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of size and RGB values of a stored image, upright, hex: the same for all lossless copies."""
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(np.asarray(image).tobytes() if pillow_images.deep(image) else pillow_images.rgb(image).tobytes())
    return digest.hexdigest()


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
      digest: of its pixels, whatever the file; "" if something is wrong.
    """

    record: Record
    state: str
    area: float | None = None
    width: int = 0
    height: int = 0
    reason: str = ""
    digest: str = ""


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
    digest = hashlib.sha256(f"{width} ".encode() + np.packbits(mask).tobytes()).hexdigest()
    return MaskLook(record, OK, float(mask.mean()), width, height, digest=digest)
