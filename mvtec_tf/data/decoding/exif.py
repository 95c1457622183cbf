"""The orientation that a camera notes in Exif, and turning an image upright by it, in TensorFlow ops.

Only Exif counts, as in browsers; an orientation that stands in XMP alone, or in the text chunks of
old ImageMagick PNGs, is not looked at.
"""

import tensorflow as tf

from mvtec_tf.data.decoding import image_bytes as ib

UPRIGHT = 1
_ORIENTATION = 0x0112
_PREFIX = b"Exif\0\0"
# The second is a fault of some writers, which Pillow understands.
_LITTLE, _BIG = (b"II*\0", b"II\0*"), (b"MM\0*", b"MM*\0")
# Signed ones hold the same bytes.
_SHORT, _LONG = (3, 8), (4, 9)
_ENTRY = 12


def orientation(tiff: tf.Tensor) -> tf.Tensor:
    """The orientation in an Exif block: CIPA DC-008 (Exif 2.32), section 4.6.4, and TIFF 6.0, section 2.

    Args:
      tiff: string scalar, the block from its TIFF header on; some writers of PNG put JPEG's prefix before it.

    Returns:
      int64 scalar, 1 to 8; 1 (upright) where the block says nothing or cannot be understood.
    """
    prefixed = tf.equal(ib.part(tiff, 0, len(_PREFIX)), _PREFIX)
    tiff = tf.cond(prefixed, lambda: ib.part(tiff, len(_PREFIX), ib.size(tiff)), lambda: tiff)
    head = ib.numbers(tiff, 0, 8)
    order = ib.part(tiff, 0, 4)
    little = tf.reduce_any(tf.equal(order, _LITTLE))

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(little, ib.little_endian(values), ib.big_endian(values))

    directory = number(head[4:8])
    room = (ib.size(tiff) - directory - 2) // _ENTRY
    entries = tf.clip_by_value(number(ib.numbers(tiff, directory, 2)), 0, tf.maximum(room, 0))
    content = tf.io.decode_raw(ib.part(tiff, directory + 2, entries * _ENTRY), tf.uint8)
    rows = tf.cast(tf.reshape(content, [-1, _ENTRY]), tf.int64)
    # Where it stands twice the first counts, as for Pillow; then a row of zeros, so that there is one.
    ours = tf.boolean_mask(rows, number(rows[:, 0:2]) == _ORIENTATION)
    entry = tf.concat([ours, tf.zeros([1, _ENTRY], tf.int64)], axis=0)[0]
    kind, count = number(entry[2:4]), number(entry[4:8])
    short = tf.reduce_any(kind == _SHORT) & (count >= 1) & (count <= 2)
    long = tf.reduce_any(kind == _LONG) & (count == 1)
    found = tf.where(short, number(entry[8:10]), tf.where(long, number(entry[8:12]), 0))
    known = (little | tf.reduce_any(tf.equal(order, _BIG))) & (found >= 1) & (found <= 8)
    return tf.where(known, found, tf.constant(UPRIGHT, tf.int64))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image so that it is seen as the camera's owner saw it.

    Args:
      image: [H, W, C] as stored.
      orientation: int64 scalar, 1 to 8: where the stored first row and column belong.

    Returns:
      [H, W, C], or [W, H, C] for 5 to 8.
    """

    def turned() -> tf.Tensor:
        result = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        for axis, values in ((0, (3, 4, 7, 8)), (1, (2, 3, 6, 7))):
            result = _reversed_if(tf.reduce_any(orientation == values), result, axis)
        return result

    return tf.cond(orientation == UPRIGHT, lambda: image, turned)


def _reversed_if(wanted: tf.Tensor, image: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.cond(wanted, lambda: tf.reverse(image, [axis]), lambda: image)
