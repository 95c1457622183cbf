"""JPEG files to pixels, upright, in TensorFlow ops."""

import tensorflow as tf

from mvtec_tf.data.decoding import exif
from mvtec_tf.data.decoding import image_bytes as ib

SIGNATURE = b"\xff\xd8\xff"
_EXIF = b"Exif\0\0"
_APP1, _SCAN, _END, _FILL = 0xE1, 0xDA, 0xD9, 0xFF
# Markers without a segment: TEM and RST0 to RST7.
_BARE = (0x01, *range(0xD0, 0xD8))
# Real files have about ten segments before the scan; the limit bounds the time that made-up ones take.
_MOST_SEGMENTS = 1000


def decode(data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A JPEG file to pixels.

    Args:
      data: string scalar, the file's content.
      max_pixels: what is larger is refused.

    Returns:
      uint8 [H, W, 3], RGB, upright.
    """
    # libjpeg's own reading of the header, so that the size checked is the size decoded.
    width_and_height = tf.cast(tf.gather(tf.io.extract_jpeg_shape(data), [1, 0]), tf.int64)
    data = ib.checked(data, *ib.within(width_and_height, max_pixels))
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    # The way through the segments is taken only where there is something to find.
    turned = ib.apart(lambda: exif.upright(image, _orientation(data)))
    return tf.cond(ib.contains(data, r"Exif\x00\x00"), turned, lambda: image)


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """Goes from segment to segment to the first Exif block; int64 scalar."""
    end = ib.size(data)

    def going(start: tf.Tensor, length: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return (start < end) & (length >= 0) & ~found

    def step(start: tf.Tensor, _: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = ib.numbers(data, start, 4)
        marker, length = head[1], ib.big_endian(head[2:4])
        found = (head[0] == 0xFF) & (marker == _APP1) & tf.equal(ib.part(data, start + 4, len(_EXIF)), _EXIF)
        bare, fill = tf.reduce_any(marker == _BARE), marker == _FILL
        way = tf.where(~fill, tf.where(~bare, length + 2, 2), 1)
        last = (head[0] != 0xFF) | (marker == _SCAN) | (marker == _END) | ~bare & ~fill & (length < 2)
        return tf.where(found, start, start + way), tf.where(last, tf.constant(-1, tf.int64), length), found

    zero = tf.constant(0, tf.int64)
    start = tf.constant(2, tf.int64)
    start, length, found = tf.while_loop(
        going, step, (start, zero, tf.constant(False)), maximum_iterations=_MOST_SEGMENTS, parallel_iterations=1
    )
    # A segment's length counts its own two bytes.
    block = ib.part(data, start + 4 + len(_EXIF), tf.maximum(length - 2 - len(_EXIF), 0))
    return tf.cond(found, lambda: exif.orientation(block), lambda: tf.constant(exif.UPRIGHT, tf.int64))
