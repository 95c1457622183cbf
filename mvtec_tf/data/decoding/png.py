"""PNG files to pixels, upright, in TensorFlow ops: grey, colour, palette, 1 to 16 bits, transparency dropped."""

import tensorflow as tf

from mvtec_tf.data.decoding import exif
from mvtec_tf.data.decoding import image_bytes as ib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = [*b"IHDR"]
_EXIF = b"eXIf"
# Length and type before a chunk's content, checksum after it.
_BEFORE, _AFTER = 8, 4
# libpng writes 8 kB a chunk: enough for half a gigabyte. The limit bounds the time that made-up files take.
_MOST_CHUNKS = 65536


def decode(data: tf.Tensor, head: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A PNG file to pixels.

    16 bits become 8 by v / 257, rounded: 65535 is 255. TensorFlow's own way to 8 bits cuts the low
    byte off instead.

    Args:
      data: string scalar, the file's content.
      head: int64 [70], its first bytes.
      max_pixels: what is larger is refused.

    Returns:
      uint8 [H, W, 3], RGB, upright.
    """
    size = ib.big_endian(tf.reshape(head[16:24], [2, 4]))
    begins = (
        tf.reduce_all(head[12:16] == _HEADER),
        lambda: tf.constant("a damaged PNG image: it does not begin with a header (IHDR)"),
    )
    data = ib.checked(data, begins, *ib.within(size, max_pixels))
    image = tf.cond(head[24] == 16, ib.apart(lambda: _deep(data)), lambda: _shallow(data))
    # The way through the chunks is taken only where there is something to find.
    turned = ib.apart(lambda: exif.upright(image, _orientation(data)))
    return tf.cond(ib.contains(data, _EXIF.decode()), turned, lambda: image)


def _shallow(data: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.io.decode_image(data, channels=3, expand_animations=False), [None, None, 3])


def _deep(data: tf.Tensor) -> tf.Tensor:
    image = tf.ensure_shape(tf.io.decode_png(data, channels=3, dtype=tf.uint16), [None, None, 3])
    # No quotient is nearer than 1 / 514 to a half, so float32 rounds every one of them right.
    return tf.cast(tf.round(tf.cast(image, tf.float32) / 257.0), tf.uint8)


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """Goes from chunk to chunk to the Exif block, which may also stand behind the pixels; int64 scalar."""
    end = ib.size(data)

    def going(start: tf.Tensor, _: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return (start < end) & ~found

    def step(start: tf.Tensor, _: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length = ib.big_endian(ib.numbers(data, start, 4))
        found = tf.equal(ib.part(data, start + 4, 4), _EXIF)
        return tf.where(found, start, start + _BEFORE + length + _AFTER), length, found

    zero = tf.constant(0, tf.int64)
    start = tf.constant(len(SIGNATURE), tf.int64)
    start, length, found = tf.while_loop(
        going, step, (start, zero, tf.constant(False)), maximum_iterations=_MOST_CHUNKS, parallel_iterations=1
    )
    block = ib.part(data, start + _BEFORE, length)
    return tf.cond(found, lambda: exif.orientation(block), lambda: tf.constant(exif.UPRIGHT, tf.int64))
