"""Image files for a picture, a mask or a look, read by Pillow; what a network sees comes from `decoding` alone.

Of a BMP `decoding` is asked too: Pillow takes the word of a header that contradicts itself, and some
files of 4 and 8 bits for ones of 1 or 8.
"""

import io
import pathlib

import numpy as np
from PIL import Image

from mvtec_tf.data.record import MAX_PIXELS
from mvtec_tf.files import PathLike

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
_JPEG = b"\xff\xd8\xff"
# The last chunk with its checksum, and the last marker.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
REFUSED = "refused by the decoder of training"
_SIDEWAYS = [_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]


class UnreadableImageError(Exception):
    """A file that is not the image its name promises; the message is the reason."""


def read_stored(file: PathLike) -> Image.Image:
    """An image file, values untouched, upright. Raises `UnreadableImageError`, also for a BMP that training refuses."""
    stored = open_image(file)[1]
    if REFUSED in stored.info:
        raise UnreadableImageError(stored.info[REFUSED])
    image = upright(stored)
    image.format = stored.format
    return image


def upright_size(file: PathLike) -> tuple[int, int]:
    """(height, width) as seen upright, without decoding the pixels.

    Raises:
      UnreadableImageError: it is no image; whether its pixels can be decoded is not known.
    """
    content = _content(file)
    try:
        image = Image.open(io.BytesIO(content))
        # A PNG may say it behind its pixels.
        if image.format == "PNG" and b"eXIf" in content:
            image.load()
    # Pillow's readers raise whatever a broken file makes them stumble over; the reason is listed.
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error
    return image.size if turn(image) in _SIDEWAYS else image.size[::-1]


def read_rgb(file: PathLike) -> Image.Image:
    """An image file as Pillow's RGB image, 16 bit scaled to 8. Raises `UnreadableImageError`."""
    image = upright(open_image(file)[1])
    return Image.fromarray(np.rint(grey_levels(image)).astype(np.uint8)).convert("RGB") if deep(image) else rgb(image)


def grey_levels(image: Image.Image) -> np.ndarray:
    """float32 [H, W], 0 to 255; colours are weighted as ITU-R BT.601 has it."""
    if deep(image):
        values = np.asarray(image, np.float32)
        # 16 bit; a file of 32-bit integers or floats has no fixed white, so its brightest pixel is it.
        white = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0.0) > 255.0 else 255.0
        return np.clip(values * np.float32(255.0 / max(white, float(values.max(initial=0.0)))), 0.0, 255.0)
    return np.asarray(image if image.mode == "L" else rgb(image).convert("L"), np.float32)


def open_image(file: PathLike) -> tuple[bytes, Image.Image]:
    """A file's content and its image, decoded, as stored; of a BMP that training refuses, `info[REFUSED]` says why.

    Raises:
      UnreadableImageError: the file is empty, truncated, too large to be decoded or no image.
    """
    content = _content(file)
    refused = ""
    try:
        image = Image.open(io.BytesIO(content))
        _check_size(image)
        # Whatever the file's name: Pillow would run Ghostscript on it, which is a program within a photograph.
        if image.format == "EPS":
            raise UnreadableImageError("a PostScript file, which is no photograph")
        # Pillow does not miss it, training does.
        if _ENDS.get(image.format, b"") not in content:
            raise UnreadableImageError(f"a truncated {image.format} image: its end is missing")
        decoded, refused = _decoded(content) if image.format == "BMP" else (None, "")
        image = image if decoded is None else _of_same_pixels(image, decoded)
        image.load()
    except UnreadableImageError:
        raise
    # Pillow's readers raise whatever a broken file makes them stumble over; the reason is listed.
    except Exception as error:
        # To Pillow a JPEG of 12 bits is no image at all, and a lossless one is broken.
        refused = _decoded(content)[1] if content.startswith(_JPEG) else refused
        raise UnreadableImageError(refused or _reason(error)) from error
    if refused:
        image.info[REFUSED] = refused
    return content, image


def _decoded(content: bytes) -> tuple[np.ndarray | None, str]:
    """What training sees, uint8 [H, W, 3], or why it refuses the file."""
    # Not above: TensorFlow takes seconds to import, and few people have files that need it.
    import tensorflow as tf

    from mvtec_tf.data.decoding import pixels, unreadable

    try:
        return pixels.decode(tf.constant(content)).numpy(), ""
    except tf.errors.OpError as error:
        return None, unreadable.reason(error)


def _of_same_pixels(image: Image.Image, pixels: np.ndarray) -> Image.Image:
    """`image`, which knows how its pixels are stored, if Pillow reads it right; else one of these pixels."""
    try:
        if np.array_equal(np.asarray(rgb(image)), pixels):
            return image
    # Where Pillow takes 4 bits for 8 it ends with an error of its own.
    except OSError:
        pass
    other = Image.fromarray(pixels)
    other.format = image.format
    return other


def _content(file: PathLike) -> bytes:
    try:
        content = pathlib.Path(file).read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"the file cannot be read ({error.strerror})") from error
    if not content:
        raise UnreadableImageError("the file is empty")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is no image of a known format"
    return f"it cannot be decoded ({error})"


def _check_size(image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UnreadableImageError(
            f"its header says {image.width} x {image.height} pixels, {pixels} in all; training's `max_pixels` allows "
            f"{MAX_PIXELS} unless it is raised"
        )


def upright(image: Image.Image) -> Image.Image:
    """The image turned as Exif says, and only Exif, as training does."""
    method = turn(image)
    return image if method is None else image.transpose(method)


def turn(image: Image.Image) -> Image.Transpose | None:
    """What makes an image upright; None if it is."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return _UPRIGHT.get(exif.get(_ORIENTATION))
    # A damaged block says nothing; Pillow's reader raises whatever it stumbles over.
    except Exception:
        return None


def deep(image: Image.Image) -> bool:
    """Whether the pixels have more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def rgb(image: Image.Image) -> Image.Image:
    """An image of at most 8 bits as RGB; transparency is dropped."""
    if image.mode == "P" and "transparency" in image.info:
        # A palette with transparency goes by way of RGBA; Pillow warns about the direct way.
        image = image.convert("RGBA")
    return image.convert("RGB")


def resized(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [h, w] -> float32 [height, width]: bilinear between pixel centres, antialiased where it shrinks.

    A map of the wanted size is left as it is, to the bit.
    """
    if heat.shape == (height, width):
        return heat
    return np.asarray(Image.fromarray(heat, mode="F").resize((width, height), Image.Resampling.BILINEAR), np.float32)
