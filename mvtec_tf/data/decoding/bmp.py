"""BMP files to pixels in TensorFlow ops: 1, 4 and 8 bits with their palette, 24 and 32 bits.

TensorFlow's own decoder takes the colour numbers of a palette image for grey values and knows no 1
and 4 bits, so none of its results are used. Refused by name: run-length coding, 16 bits, the
headers of OS/2, colour masks that are no whole bytes, and a header whose fields contradict each other
or the file's length: which of them is wrong, nobody knows, and the wrong pixels look like pixels. The
size of the file in the first header is not among these fields, since many writers get it wrong.

Source: Microsoft, "Bitmap Storage" (BITMAPFILEHEADER, BITMAPINFOHEADER, BITMAPV4HEADER, BITMAPV5HEADER).
"""

from typing import NamedTuple

import tensorflow as tf

from mvtec_tf.data.decoding import image_bytes as ib

SIGNATURE = b"BM"
_FILE_HEADER = 14
# Of BITMAPINFOHEADER, the same with three or four masks, V4 and V5.
_HEADERS = (40, 52, 56, 108, 124)
_PLAIN, _MASKS, _MASKS_WITH_ALPHA = 0, 3, 6
_COMPRESSIONS = {1: "run-length coding (RLE8)", 2: "run-length coding (RLE4)", 4: "JPEG inside", 5: "PNG inside"}
_PALETTE_BITS = (1, 4, 8)
# Blue, green, red, unused: the order of bytes where no masks say otherwise.
_RED, _GREEN, _BLUE = 2, 1, 0
_MOST_BYTES = 2**31 - 1
_TOO_MANY_COLOURS = "a damaged BMP image: a palette of {} colours for pixels of {} bits"
_PIXELS_IN_HEADER = "a damaged BMP image: its pixels begin at byte {}, but its headers and palette are {} bytes long"
_TOO_FEW_BYTES = "a damaged BMP image: its header says {} bytes of pixels, its width, height and bits ask for {}"


class _Header(NamedTuple):
    """What the two headers say, int64 scalars; masks int64 [4], of red, green, blue, alpha."""

    pixels_at: tf.Tensor
    size: tf.Tensor
    width: tf.Tensor
    rows: tf.Tensor
    planes: tf.Tensor
    bits: tf.Tensor
    compression: tf.Tensor
    pixel_bytes: tf.Tensor
    colours: tf.Tensor
    masks: tf.Tensor

    @property
    def height(self) -> tf.Tensor:
        """Rows are counted from the bottom, negative ones from the top."""
        return tf.abs(self.rows)

    @property
    def indexed(self) -> tf.Tensor:
        """Whether the pixels are numbers of colours."""
        return tf.reduce_any(self.bits == _PALETTE_BITS)

    @property
    def masked(self) -> tf.Tensor:
        """Whether masks say which byte is which colour."""
        return (self.compression == _MASKS) | (self.compression == _MASKS_WITH_ALPHA)

    @property
    def palette(self) -> tf.Tensor:
        """How many colours the palette has, 0 if there is none."""
        return tf.where(self.indexed, tf.where(self.colours == 0, _two_to(self.bits), self.colours), 0)

    @property
    def end(self) -> tf.Tensor:
        """Where the headers, with masks and palette, are over."""
        behind = tf.where(self.compression == _MASKS_WITH_ALPHA, tf.constant(16, tf.int64), 12)
        behind = tf.where(self.masked, tf.maximum(behind - (self.size - _HEADERS[0]), 0), 0)
        return _FILE_HEADER + self.size + behind + 4 * self.palette

    @property
    def used_bytes(self) -> tf.Tensor:
        """Of a row."""
        return (self.width * self.bits + 7) // 8

    @property
    def row_bytes(self) -> tf.Tensor:
        """Of a row, padded to whole words."""
        return (self.width * self.bits + 31) // 32 * 4


def decode(data: tf.Tensor, head: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A BMP file to pixels.

    Args:
      data: string scalar, the file's content.
      head: int64 [70], its first bytes.
      max_pixels: what is larger is refused.

    Returns:
      uint8 [H, W, 3], RGB, the first row on top.
    """
    header = _read(head)
    size = tf.stack([header.width, header.height])
    data = ib.checked(data, *_checks_of_form(header), *ib.within(size, max_pixels))
    # Computed with the size, so only once the size is known to be sound.
    data = ib.checked(data, *_checks_of_length(data, header))
    total = header.row_bytes * header.height
    content = ib.part(data, header.pixels_at, total)
    # Some writers leave out the padding of the last row.
    content = tf.io.decode_raw(content, tf.uint8, fixed_length=tf.cast(total, tf.int32))
    rows = tf.reshape(content, tf.stack([header.height, header.row_bytes]))
    rows = tf.cond(header.rows < 0, lambda: rows, lambda: tf.reverse(rows, [0]))
    image = tf.cond(header.indexed, lambda: _by_palette(data, header, rows), lambda: _by_bytes(header, rows))
    return tf.ensure_shape(image, [None, None, 3])


def _read(head: tf.Tensor) -> _Header:
    default = tf.constant([*(255 * 256**byte for byte in (_RED, _GREEN, _BLUE)), 0], tf.int64)
    size, compression = ib.little_endian(head[14:18]), ib.little_endian(head[30:34])
    masks = ib.little_endian(tf.reshape(head[54:70], [4, 4]))
    # In short headers the last four bytes are something else.
    has_alpha = (size >= _HEADERS[2]) | (compression == _MASKS_WITH_ALPHA)
    masks = tf.where(has_alpha, masks, tf.concat([masks[:3], [0]], axis=0))
    rows = ib.little_endian(head[22:26])
    return _Header(
        pixels_at=ib.little_endian(head[10:14]),
        size=size,
        width=ib.little_endian(head[18:22]),
        rows=tf.where(rows < 2**31, rows, rows - 2**32),
        planes=ib.little_endian(head[26:28]),
        bits=ib.little_endian(head[28:30]),
        compression=compression,
        pixel_bytes=ib.little_endian(head[34:38]),
        colours=ib.little_endian(head[46:50]),
        masks=tf.where(compression == _PLAIN, default, masks),
    )


def _checks_of_form(header: _Header) -> list[ib.Check]:
    plain = header.compression == _PLAIN
    places = _byte_of_masks(header.masks)
    # The colours, and alpha if there is any, each a byte of its own.
    apart = tf.reduce_sum(tf.one_hot(places, 4, dtype=tf.int64), axis=0) <= 1
    whole = tf.reduce_all(places[:3] >= 0) & ((header.masks[3] == 0) | (places[3] >= 0)) & tf.reduce_all(apart)

    def what_compression() -> tf.Tensor:
        name = ib.text("compression {}", header.compression)
        for number, known in _COMPRESSIONS.items():
            name = tf.where(header.compression == number, known, name)
        return ib.text("a BMP image with {}, which is not supported; save it uncompressed", name)

    return [
        (
            tf.reduce_any(header.size == _HEADERS),
            lambda: ib.text("a BMP image with a header of {} bytes (OS/2 or damaged), not supported", header.size),
        ),
        (plain | header.masked, what_compression),
        (
            tf.reduce_any(header.bits == (*_PALETTE_BITS, 24, 32)),
            lambda: ib.text("a BMP image of {} bits per pixel; supported are 1, 4, 8, 24 and 32", header.bits),
        ),
        (
            plain | ((header.bits == 32) & whole),
            lambda: ib.text("a BMP image whose colour masks are not whole bytes of 32 bits, not supported"),
        ),
        (
            header.planes == 1,
            lambda: ib.text("a damaged BMP image: its header says {} colour planes, expected 1", header.planes),
        ),
        (
            ~header.indexed | (header.palette <= _two_to(header.bits)),
            lambda: ib.text(_TOO_MANY_COLOURS, header.palette, header.bits),
        ),
        (header.pixels_at >= header.end, lambda: ib.text(_PIXELS_IN_HEADER, header.pixels_at, header.end)),
    ]


def _checks_of_length(data: tf.Tensor, header: _Header) -> list[ib.Check]:
    pixels, total = header.row_bytes * (header.height - 1) + header.used_bytes, header.row_bytes * header.height
    wanted = header.pixels_at + pixels
    return [
        (total <= _MOST_BYTES, lambda: ib.text("a BMP image of {} bytes, more than fit into memory", total)),
        (
            (header.pixel_bytes == 0) | (header.pixel_bytes >= pixels),
            lambda: ib.text(_TOO_FEW_BYTES, header.pixel_bytes, pixels),
        ),
        (
            ib.size(data) >= wanted,
            lambda: ib.text("a truncated BMP image: {} bytes expected, {} found", wanted, ib.size(data)),
        ),
    ]


def _by_palette(data: tf.Tensor, header: _Header, rows: tf.Tensor) -> tf.Tensor:
    """Colour numbers, `bits` each, the first in the highest bits -> uint8 [H, W, 3]."""
    bits = tf.cast(tf.where(header.bits > 8, tf.constant(8, tf.int64), header.bits), tf.int32)
    shifts = tf.cast(tf.range(8 - bits, -1, -bits), tf.uint8)
    mask = tf.cast(tf.bitwise.left_shift(1, bits) - 1, tf.uint8)
    numbers = tf.bitwise.bitwise_and(tf.bitwise.right_shift(rows[:, :, None], shifts), mask)
    numbers = tf.reshape(numbers, tf.stack([header.height, -1]))[:, : header.width]
    numbers = ib.checked(
        numbers,
        (
            tf.cast(tf.reduce_max(numbers), tf.int64) < header.palette,
            lambda: ib.text("a damaged BMP image: it uses more colours than the {} of its palette", header.palette),
        ),
    )
    palette = ib.numbers(data, _FILE_HEADER + header.size, 4 * 256)
    palette = tf.cast(tf.gather(tf.reshape(palette, [256, 4]), [_RED, _GREEN, _BLUE], axis=1), tf.uint8)
    return tf.gather(palette, tf.cast(numbers, tf.int32))


def _by_bytes(header: _Header, rows: tf.Tensor) -> tf.Tensor:
    """Pixels of 3 or 4 whole bytes -> uint8 [H, W, 3]; a byte of transparency is dropped."""
    pixels = tf.reshape(rows[:, : header.used_bytes], tf.stack([header.height, header.width, -1]))
    return tf.gather(pixels, tf.maximum(_byte_of_masks(header.masks)[:3], 0), axis=2)


def _byte_of_masks(masks: tf.Tensor) -> tf.Tensor:
    """int64 [N] -> which of the four bytes each is, int64 [N]; -1 where it is none."""
    bytes_ = tf.constant([255 * 256**byte for byte in range(4)], tf.int64)
    equal = masks[:, None] == bytes_
    return tf.where(tf.reduce_any(equal, axis=1), tf.argmax(tf.cast(equal, tf.int32), axis=1), -1)


def _two_to(bits: tf.Tensor) -> tf.Tensor:
    """2 ** bits, of at most 8 bits."""
    return tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.minimum(bits, 8))
