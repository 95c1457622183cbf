"""One image file looked at: what it is, how bright it is, and a small picture that helps to find its copies.

Every function holds one decoded image at a time. What stays of an image is a few numbers and 32 KB,
so that a large data set needs no large memory.
"""

import dataclasses
import hashlib

import numpy as np
from PIL import Image

from mvtec_tf.data import pillow_images
from mvtec_tf.data.record import Record

# What the decoder of training and serving understands; Pillow reads more than that.
DECODABLE_FORMATS = ("PNG", "JPEG", "BMP")
SMALL_SIDE = 128


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
