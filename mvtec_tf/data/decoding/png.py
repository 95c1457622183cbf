"""PNG files to pixels, upright, in TensorFlow ops: grey, colour, palette, 1 to 16 bits, transparency dropped."""

import tensorflow as tf

from mvtec_tf.data.decoding import exif
from mvtec_tf.data.decoding import image_bytes as ib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = [*b"IHDR"]
_EXIF, _END = b"eXIf", b"IEND"
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
    """Goes from chunk to chunk to the Exif block, which may also stand behind the pixels; int64 scalar.

    There should be one; of several the last counts, as for Pillow.
    """
    end = ib.size(data)
    several = ib.contains(tf.strings.regex_replace(data, _EXIF.decode(), "", replace_global=False), _EXIF.decode())

    def going(start: tf.Tensor, block: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return (start < end) & (several | (block < 0))

    def step(start: tf.Tensor, block: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length, kind = ib.big_endian(ib.numbers(data, start, 4)), ib.part(data, start + 4, 4)
        found = tf.equal(kind, _EXIF)
        return (
            tf.where(tf.equal(kind, _END), end, start + _BEFORE + length + _AFTER),
            tf.where(found, start + _BEFORE, block),
            tf.where(found, length, count),
        )

    before = [tf.constant(value, tf.int64) for value in (len(SIGNATURE), -1, 0)]
    _, block, count = tf.while_loop(going, step, before, maximum_iterations=_MOST_CHUNKS, parallel_iterations=1)
    content = ib.part(data, tf.maximum(block, 0), count)
    return tf.cond(block < 0, lambda: tf.constant(exif.UPRIGHT, tf.int64), lambda: exif.orientation(content))
