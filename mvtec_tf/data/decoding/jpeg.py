"""JPEG files to pixels, upright, in TensorFlow ops; those that libjpeg does not read are refused by what they are."""

from typing import NamedTuple

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
# Start of frame: ITU-T T.81, table B.1. The first three, of 8 bits, are what nearly all files are.
_BASELINE = (0xC0, 0xC1, 0xC2)
_FRAMES = tuple(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))
_LOSSLESS, _HIERARCHICAL, _JPEG_LS = (0xC3, 0xCB), (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), 0xF7
_BITS = 8
# Without an Exif block the frame begins within so many bytes, behind a JFIF header and the tables.
_HEAD = 512
_END_OF_IMAGE = b"\xff\xd9"


class _Header(NamedTuple):
    """What the segments before the pixels say, int64 scalars.

    Attributes:
      orientation: how it is turned.
      marker, bits: of the frame.
      segments_end: no end of the image is looked for before: a preview within Exif has an end of its own.
    """

    orientation: tf.Tensor
    marker: tf.Tensor
    bits: tf.Tensor
    segments_end: tf.Tensor


def decode(data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A JPEG file to pixels.

    Args:
      data: string scalar, the file's content.
      max_pixels: what is larger is refused.

    Returns:
      uint8 [H, W, 3], RGB, upright.
    """
    # The way through the segments is taken only where there is something to find.
    usual = ~ib.contains(data, r"Exif\x00\x00") & _baseline_in(ib.numbers(data, 0, _HEAD))
    plain = [tf.constant(value, tf.int64) for value in (exif.UPRIGHT, _BASELINE[0], _BITS, 0)]
    header = _Header(*tf.cond(usual, lambda: plain, ib.apart(lambda: list(_read(data)))))
    data = ib.checked(data, *_checks(header), _ends(data, header))
    # libjpeg's own reading of the header, so that the size checked is the size decoded.
    width_and_height = tf.cast(tf.gather(tf.io.extract_jpeg_shape(data), [1, 0]), tf.int64)
    data = ib.checked(data, *ib.within(width_and_height, max_pixels))
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    turned = ib.apart(lambda: exif.upright(image, header.orientation))
    return tf.cond(header.orientation == exif.UPRIGHT, lambda: image, turned)


def _baseline_in(head: tf.Tensor) -> tf.Tensor:
    """Whether a frame of a usual kind begins within the first bytes, int64 [N]; bool scalar."""
    marker, length, bits = head[1:-3], head[2:-2], head[4:]
    kind = tf.reduce_any(marker[:, None] == _BASELINE, axis=1)
    return tf.reduce_any((head[:-4] == 0xFF) & kind & (length == 0) & (bits == _BITS))


def _checks(header: _Header) -> list[ib.Check]:
    def what() -> tf.Tensor:
        name = ib.text("of {} bits a colour", header.bits)
        for markers, known in ((_LOSSLESS, "with lossless coding"), (_HIERARCHICAL, "of several resolutions")):
            name = tf.where(tf.reduce_any(header.marker == markers), known, name)
        name = tf.where(header.marker == _JPEG_LS, "of the kind JPEG-LS", name)
        return ib.text("a JPEG image {}, which is not supported; save it as PNG or as JPEG of 8 bits", name)

    strange = tf.reduce_any(header.marker == (*_LOSSLESS, *_HIERARCHICAL, _JPEG_LS))
    return [(~strange & (header.bits == _BITS), what)]


def _ends(data: tf.Tensor, header: _Header) -> ib.Check:
    """Whether the image has an end. libjpeg refuses it too, but by a line on stderr that names no file."""

    def somewhere() -> tf.Tensor:
        values = tf.io.decode_raw(ib.part(data, header.segments_end, ib.size(data)), tf.uint8)
        return tf.reduce_any((values[:-1] == 0xFF) & (values[1:] == _END))

    last = ib.part(data, tf.maximum(ib.size(data) - len(_END_OF_IMAGE), 0), len(_END_OF_IMAGE))
    whole = tf.cond(tf.equal(last, _END_OF_IMAGE), lambda: tf.constant(True), ib.apart(somewhere))
    return whole, lambda: tf.constant("a truncated JPEG image: its end is missing")


def _read(data: tf.Tensor) -> _Header:
    """Goes from segment to segment to the scan, and notes the first Exif block and the first frame."""
    end = ib.size(data)

    def going(start: tf.Tensor, last: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (start < end) & ~last

    def step(
        start: tf.Tensor, _: tf.Tensor, block: tf.Tensor, block_bytes: tf.Tensor, frame: tf.Tensor, bits: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        head = ib.numbers(data, start, 5)
        marker, length = head[1], ib.big_endian(head[2:4])
        told = head[0] == 0xFF
        here = told & (marker == _APP1) & (block < 0) & tf.equal(ib.part(data, start + 4, len(_EXIF)), _EXIF)
        begins = told & (frame == 0) & tf.reduce_any(marker == (*_FRAMES, _JPEG_LS))
        bare, fill = tf.reduce_any(marker == _BARE), marker == _FILL
        way = tf.where(~fill, tf.where(~bare, length + 2, 2), 1)
        last = ~told | (marker == _SCAN) | (marker == _END) | (~bare & ~fill & (length < 2))
        return (
            start + way,
            last,
            tf.where(here, start + 4 + len(_EXIF), block),
            # A segment's length counts its own two bytes.
            tf.where(here, tf.maximum(length - 2 - len(_EXIF), 0), block_bytes),
            tf.where(begins, marker, frame),
            tf.where(begins, head[4], bits),
        )

    def number(value: int) -> tf.Tensor:
        return tf.constant(value, tf.int64)

    before = (number(2), tf.constant(False), number(-1), number(0), number(0), number(_BITS))
    start, _, block, block_bytes, frame, bits = tf.while_loop(
        going, step, before, maximum_iterations=_MOST_SEGMENTS, parallel_iterations=1
    )
    content = ib.part(data, tf.maximum(block, 0), block_bytes)
    found = tf.cond(block < 0, lambda: number(exif.UPRIGHT), lambda: exif.orientation(content))
    return _Header(found, frame, bits, tf.minimum(start, end))
