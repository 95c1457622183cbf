"""One image file looked at: what it is, how bright it is, and the signatures that find its copies.

Every function holds one decoded image at a time. What stays of an image is a few numbers and a
signature of 17 KB, so that a large data set needs no large memory.
"""

import dataclasses
import hashlib
import io
import os
import pathlib
import struct

import numpy as np
from PIL import Image

from mvtec_tf.data.decoding.limits import MAX_PIXELS
from mvtec_tf.data.formats.scan import Record

# What the decoder of training and serving understands; Pillow reads more than that.
DECODABLE_FORMATS = ("PNG", "JPEG", "BMP")
# What Exif says of how to turn the stored pixels: CIPA DC-008 (Exif 2.32), section 4.6.4.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
HASH_BITS = 64
DETAIL_SIDE = 128
# Detail is kept in quarters of a grey level: finer than what a JPEG of good quality disturbs.
_DETAIL_STEPS = 4.0
_HASH_SIDE = 32
_HASH_FREQUENCIES = 8


class UnreadableImageError(Exception):
    """A file that is not the image its name promises; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What was found in one image file.

    Attributes:
      record: which image.
      width: in pixels, of the upright image.
      height: in pixels, of the upright image.
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
    content, stored = _open(record.file)
    image = _upright(stored)
    grey = grey_levels(image)
    found = Look(
        record=record,
        width=image.width,
        height=image.height,
        mode=image.mode,
        format=_format(content, stored),
        frames=getattr(stored, "n_frames", 1),
        file_bytes=len(content),
        brightness=float(grey.mean(dtype=np.float64)),
        contrast=float(grey.std(dtype=np.float64)),
        file_hash=hashlib.sha256(content).hexdigest(),
        pixel_hash=_pixel_hash(image),
    )
    return found, Signature(perceptual_hash(grey), fine_detail(grey))


def read_grey(file: str | os.PathLike[str]) -> np.ndarray:
    """Grey values of an image file, float32 [H, W], 0 to 255. Raises `UnreadableImageError`."""
    return grey_levels(_upright(_open(file)[1]))


def read_rgb(file: str | os.PathLike[str]) -> Image.Image:
    """An image file as Pillow's RGB image, 16 bit scaled to 8. Raises `UnreadableImageError`."""
    image = _upright(_open(file)[1])
    return Image.fromarray(np.rint(grey_levels(image)).astype(np.uint8)).convert("RGB") if _deep(image) else _rgb(image)


def grey_levels(image: Image.Image) -> np.ndarray:
    """float32 [H, W], 0 to 255; colours are weighted as ITU-R BT.601 has it."""
    if _deep(image):
        values = np.asarray(image, np.float32)
        # 16 bit; a file of 32-bit integers or floats has no fixed white, so its brightest pixel is it.
        white = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0.0) > 255.0 else 255.0
        return np.clip(values * np.float32(255.0 / max(white, float(values.max(initial=0.0)))), 0.0, 255.0)
    return np.asarray(image if image.mode == "L" else _rgb(image).convert("L"), np.float32)


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


def _open(file: str | os.PathLike[str]) -> tuple[bytes, Image.Image]:
    try:
        content = pathlib.Path(file).read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"the file cannot be read ({error.strerror})") from error
    if not content:
        raise UnreadableImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(content))
        _check_size(image)
        image.load()
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("its content is no image of a known format") from error
    except UnreadableImageError:
        raise
    # Pillow's readers raise whatever a broken file makes them stumble over; the reason is listed.
    except Exception as error:
        raise UnreadableImageError(f"it cannot be decoded ({error})") from error
    return content, image


def _check_size(image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UnreadableImageError(
            f"its header says {image.width} x {image.height} pixels, {pixels} in all; training's --max_pixels allows "
            f"{MAX_PIXELS} unless it is raised"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned as Exif says, and only Exif, as training does."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        method = _UPRIGHT.get(exif.get(_ORIENTATION))
    # A damaged block says nothing; Pillow's reader raises whatever it stumbles over.
    except Exception:
        method = None
    return image if method is None else image.transpose(method)


def _format(content: bytes, image: Image.Image) -> str:
    if image.format != "BMP":
        return image.format or ""
    header, bits, compression = struct.unpack_from("<14xI10xHI", content)
    if header in (12, 64):
        return "BMP of OS/2"
    if bits == 16:
        return "BMP of 16 bits"
    return "BMP, run-length coded" if compression in (1, 2) else "BMP"


def _deep(image: Image.Image) -> bool:
    """Whether the pixels have more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        # A palette with transparency goes by way of RGBA; Pillow warns about the direct way.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _pixel_hash(image: Image.Image) -> str:
    digest = hashlib.sha256(f"{image.width}x{image.height} ".encode())
    digest.update(np.asarray(image).tobytes() if _deep(image) else _rgb(image).tobytes())
    return digest.hexdigest()
