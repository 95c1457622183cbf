"""What happens to pixels between a file and a network, once and for every road.

Training decodes image by image (`decode_and_resize`), and graphs, by which all else is scored, decode batches
(`decode_batch`): both are `decode` and `resize`. What a network wants beyond it (colour order, scaling) is part of its
own graph.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from mvtec_tf.data.decoding import bmp, jpeg, png
from mvtec_tf.data.decoding import image_bytes as ib
from mvtec_tf.data.record import MAX_PIXELS

# Part of the disk cache's key: raise it when the pixels that this file computes change.
PIXELS_VERSION = 4
# ITU-R BT.601, the weights of every common grey conversion.
LUMA = (0.299, 0.587, 0.114)
# Mean of the three channel means (123.7, 116.8, 103.9) that keras.applications subtracts.
_IMAGENET_BRIGHTNESS = 115.0
# Where a byte may be anything, -1.
_SIGNATURES = [[*form.SIGNATURE, *[-1] * (8 - len(form.SIGNATURE))] for form in (png, jpeg, bmp)]
# Bytes at the beginning that the decoders of PNG and BMP look at.
_HEAD = 70
# Side of a square in pixels, or (height, width).
Size = int | tuple[int, int]
# Beginnings of what is found in the wild under an image's name.
_STRANGERS = {
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"<": "a text (HTML, SVG or XML)",
}


def decode(image_bytes: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes one encoded image, whatever its kind, to 8-bit RGB, upright.

    Understood are PNG (1 to 16 bits, grey, colour, palette), JPEG and BMP (1, 4, 8, 24, 32 bits).
    Three equal channels are made of grey. 16 bits become 8 by v / 257, rounded; a camera's 12 bits
    in the low bits of 16 stay as dark as they are stored. Transparency is dropped, the colour
    below it stays. The orientation that Exif gives (JPEG, PNG) is applied. Of an animated PNG
    the still picture is taken.

    Args:
      image_bytes: string scalar, a file's contents; its name does not matter.
      max_pixels: the largest width x height that is decoded. It is read from the header before
        anything is allocated. TensorFlow itself refuses PNGs from 2^29 bytes of pixels on.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      InvalidArgumentError: truncated or damaged bytes, another format, or too many pixels.
    """
    return _decoder(max_pixels)(image_bytes)


def decode_and_resize(image_bytes: tf.Tensor, image_size: Size, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes one encoded image and resizes it.

    The resize is antialiased, because a defect a few pixels wide is otherwise lost or invented
    between the sampling points. The result is rounded to uint8, so that a cache of it holds
    exactly what the exported graph computes.

    Args:
      image_bytes: string scalar, a PNG, JPEG or BMP file's contents, see `decode`.
      image_size: side of the result in pixels, or its (height, width).
      max_pixels: see `decode`.

    Returns:
      uint8 [height, width, 3], RGB; a grey image has three equal channels.

    Raises:
      InvalidArgumentError: see `decode`.
    """
    return resize(decode(image_bytes, max_pixels), image_size)


def resize(image: tf.Tensor, image_size: Size) -> tf.Tensor:
    """uint8 [H, W, 3] -> uint8 [height, width, 3]: bilinear, antialiased, rounded."""
    size = height_and_width(image_size)
    resized = tf.image.resize(tf.cast(image, tf.float32), size, method="bilinear", antialias=True)
    resized = tf.ensure_shape(resized, (*size, 3))
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def height_and_width(image_size: Size) -> tuple[int, int]:
    """A size in its long form."""
    return (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))


def decode_batch(image_bytes: tf.Tensor, image_size: Size, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """string [B] -> uint8 [B, height, width, 3]; one file after the other."""
    return decode_batch_with_sizes(image_bytes, image_size, max_pixels)[0]


def decode_batch_with_sizes(
    image_bytes: tf.Tensor, image_size: Size, max_pixels: int = MAX_PIXELS
) -> tuple[tf.Tensor, tf.Tensor]:
    """string [B] -> uint8 [B, height, width, 3], and (height, width) of the upright photographs, int32 [B, 2]."""

    def decoded(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode(one, max_pixels)
        return resize(image, image_size), tf.shape(image)[:2]

    pixels = tf.TensorSpec((*height_and_width(image_size), 3), tf.uint8)
    return tf.map_fn(decoded, image_bytes, fn_output_signature=(pixels, tf.TensorSpec([2], tf.int32)))


@functools.lru_cache
def _decoder(max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """`decode` as one graph, made once a process. Conditions and loops are written out: nothing for AutoGraph."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def decode(data: tf.Tensor) -> tf.Tensor:
        head = ib.numbers(data, 0, _HEAD)
        signatures = tf.constant(_SIGNATURES, tf.int64)
        matches = tf.reduce_all((signatures == head[:8]) | (signatures < 0), axis=1)
        kind = tf.argmax(tf.cast(tf.concat([matches, [True]], axis=0), tf.int32), output_type=tf.int32)
        branches = (
            lambda: png.decode(data, head, max_pixels),
            lambda: jpeg.decode(data, max_pixels),
            lambda: bmp.decode(data, head, max_pixels),
            lambda: _refuse(data),
        )
        return tf.switch_case(kind, [ib.apart(branch) for branch in branches])

    return decode


def _refuse(data: tf.Tensor) -> tf.Tensor:
    found = tf.where(tf.strings.length(data) == 0, "an empty file", "something else")
    for beginning, name in _STRANGERS.items():
        found = tf.where(tf.equal(ib.part(data, 0, len(beginning)), beginning), name, found)
    data = ib.checked(data, (tf.constant(False), lambda: ib.text("expected a PNG, JPEG or BMP image, found {}", found)))
    # Never reached, but a branch needs a result of the others' shape.
    return tf.zeros(tf.stack([tf.strings.length(data), 1, 3]), tf.uint8)


def centre_brightness(images: tf.Tensor) -> tf.Tensor:
    """Shifts each image to the mean brightness of ImageNet's photographs, over all pixels and colours.

    MVTec AD's good and defective test screws were photographed in different light (docs/measured.md): without the shift
    a good screw in the evening looks odder than a scratched one in the morning. Differences between colours stay.

    Args:
      images: uint8 [B, H, W, 3].

    Returns:
      uint8 [B, H, W, 3]; what leaves 0 to 255 is cut off.
    """
    values = tf.cast(images, tf.float32)
    shift = _IMAGENET_BRIGHTNESS - tf.reduce_mean(values, axis=[1, 2, 3], keepdims=True)
    return tf.cast(tf.clip_by_value(tf.round(values + shift), 0.0, 255.0), tf.uint8)
