"""What happens to pixels between a file and a network, once and for every road.

Training, evaluation, serving and the page all call `decode_and_resize`; the exported graph holds
these very ops. What a network wants beyond it (colour order, scaling) is part of its own graph.
"""

import tensorflow as tf

# Part of the disk cache's key: raise it when the pixels that this file computes change.
PIXELS_VERSION = 1


# Side of a square in pixels, or (height, width).
Size = int | tuple[int, int]


def decode_and_resize(image_bytes: tf.Tensor, image_size: Size) -> tf.Tensor:
    """Decodes one encoded image and resizes it.

    The resize is antialiased, because a defect a few pixels wide is otherwise lost or invented
    between the sampling points. The result is rounded to uint8, so that a cache of it holds
    exactly what the exported graph computes.

    Args:
      image_bytes: string scalar, a PNG, JPEG or BMP file's contents.
      image_size: side of the result in pixels, or its (height, width).

    Returns:
      uint8 [height, width, 3], RGB; a grey image has three equal channels.
    """
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return resize(image, image_size)


def resize(image: tf.Tensor, image_size: Size) -> tf.Tensor:
    """uint8 [H, W, 3] -> uint8 [height, width, 3]: bilinear, antialiased, rounded."""
    size = height_and_width(image_size)
    resized = tf.image.resize(tf.cast(image, tf.float32), size, method="bilinear", antialias=True)
    resized = tf.ensure_shape(resized, (*size, 3))
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def height_and_width(image_size: Size) -> tuple[int, int]:
    """A size in its long form."""
    return (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))


def decode_batch(image_bytes: tf.Tensor, image_size: Size) -> tf.Tensor:
    """string [B] -> uint8 [B, height, width, 3]; one file after the other."""
    return tf.map_fn(
        lambda one: decode_and_resize(one, image_size),
        image_bytes,
        fn_output_signature=tf.TensorSpec((*height_and_width(image_size), 3), tf.uint8),
    )
