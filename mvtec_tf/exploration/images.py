"""One image file looked at: what it is, how bright it is, and the signatures that find its copies.

Every function holds one decoded image at a time. What stays of an image is a few numbers and a
signature of 17 KB, so that a large data set needs no large memory.
"""

import dataclasses
import hashlib

import numpy as np
from PIL import Image

from mvtec_tf.data import pillow_images
from mvtec_tf.data.formats.scan import Record

# What the decoder of training and serving understands; Pillow reads more than that.
DECODABLE_FORMATS = ("PNG", "JPEG", "BMP")
HASH_BITS = 64
DETAIL_SIDE = 128
# Detail is kept in quarters of a grey level: finer than what a JPEG of good quality disturbs.
_DETAIL_STEPS = 4.0
_HASH_SIDE = 32
_HASH_FREQUENCIES = 8


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
    file_hash: str
    pixel_hash: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """What is kept of an image to find its near-duplicates.

    Attributes:
      hash_bits: bool [64], see `perceptual_hash`.
      detail: int8 [128 * 128], see `fine_detail`.
    """

    hash_bits: np.ndarray
    detail: np.ndarray


def look(record: Record) -> tuple[Look, Signature]:
    """Reads one image.

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
        file_hash=hashlib.sha256(content).hexdigest(),
        pixel_hash=_pixel_hash(image),
    )
    return found, Signature(perceptual_hash(grey), fine_detail(grey))


def shrink(grey: np.ndarray, width: int, height: int) -> np.ndarray:
    """float32 [H, W] -> [height, width]; each value is the mean of the area it covers, not rounded."""
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX), np.float32)


def perceptual_hash(grey: np.ndarray) -> np.ndarray:
    """The 64-bit hash pHash: signs of the 8 x 8 lowest cosine frequencies against their median.

    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1.
    The mean brightness is left out, since it says nothing about the content.
    """
    small = shrink(grey, _HASH_SIDE, _HASH_SIDE)
    frequencies = (_COSINES @ small @ _COSINES.T).ravel()
    frequencies[0] = 0.0
    return frequencies > np.median(frequencies[1:])


def fine_detail(grey: np.ndarray) -> np.ndarray:
    """What distinguishes photographs of two parts of one kind: each pixel less its surroundings.

    Returns:
      int8 [128 * 128], in quarters of a grey level, cut at +-127.
    """
    detail = high_pass(shrink(grey, DETAIL_SIDE, DETAIL_SIDE), 1)
    return np.clip(np.rint(detail * _DETAIL_STEPS), -127, 127).astype(np.int8).ravel()


def high_pass(grey: np.ndarray, radius: int) -> np.ndarray:
    """float32 [H, W] less its mean over the (2 * radius + 1)^2 pixels around; edges are repeated."""
    side = 2 * radius + 1
    sums = np.pad(np.pad(grey.astype(np.float64), radius, mode="edge"), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    means = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    return (grey - means).astype(np.float32)


def _cosines() -> np.ndarray:
    frequency, place = np.mgrid[:_HASH_FREQUENCIES, :_HASH_SIDE]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * _HASH_SIDE)).astype(np.float32)


_COSINES = _cosines()


def _format(image: Image.Image) -> str:
    # Pillow's word for a JPEG with more pictures behind the first one, as phones write it.
    found = "JPEG" if image.format == "MPO" else image.format or ""
    refused = image.info.get(pillow_images.REFUSED)
    return f"{found}: {refused}" if refused else found


def _pixel_hash(image: Image.Image) -> str:
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(np.asarray(image).tobytes() if pillow_images.deep(image) else pillow_images.rgb(image).tobytes())
    return digest.hexdigest()
