"""Random changes of training images, as a pure function of the images and one seed per image.

Every random number is drawn by a stateless op from the image's own seed, and every step computes an
image in a way that does not depend on its neighbours in the batch. So one seed gives the same pixels
in another process, in another batch and after a resume. (`tf.data` runs a graph as it is written. In a
`tf.function` TensorFlow may rearrange arithmetic: a byte in 10^5 was seen to differ by one level.)

keras-cv supplies the transformations that it has right (rotation, hue, Gaussian blur) through its
deterministic methods; its own random state is never drawn from, because its layers inside `RandomApply`
give different images in different processes under one seed. The rest is written here:
  - its brightness adds where torchvision (whose strengths are used here) multiplies; its contrast pivots
    on a mean per channel, not on the mean grey; its saturation scales S of HSV instead of blending with grey;
  - its flip builds two float masks as large as the batch (measured: twice the time of flipping the chosen images);
  - its crop takes one image at a time, around the same TensorFlow op that takes a batch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras_cv
import tensorflow as tf

from mvtec_tf import keras_settings
from mvtec_tf.data.augment_settings import Augmentation, ClassifierAugmentation, ContrastiveAugmentation
from mvtec_tf.data.decoding.pixels import LUMA

# keras-cv imports Keras by itself.
keras_settings.apply()

# The side at which strengths that are lengths in pixels are given, that of the ImageNet recipes.
REFERENCE_SIDE = 224

# torchvision's RandomResizedCrop draws as often before it takes the whole image.
_CROP_ATTEMPTS = 10

# keras-cv takes the process's global random generator when a layer has no seed; with one it makes its own,
# which stays unused all the same.
_UNUSED_SEED = 1


def augment_classifier(images: tf.Tensor, seeds: tf.Tensor, config: ClassifierAugmentation) -> tf.Tensor:
    """Flips, rotates, jitters colours and blurs, in this order.

    Args:
      images: uint8 [B, S, S, 3], S known when the graph is built.
      seeds: int32 or int64 [B, 2], one per image; a new one for each epoch gives new images.
      config: the strengths.

    Returns:
      uint8 [B, S, S, 3].
    """
    images = _checked(images)
    draws = tf.unstack(uniform(seeds, stream=0, count=11), axis=1)
    horizontal, vertical, rotated, angle, jittered, *factors, blurred, width = draws
    images = change_where(horizontal < config.horizontal_flip, tf.image.flip_left_right, images)
    images = change_where(vertical < config.vertical_flip, tf.image.flip_up_down, images)
    radians = spread(angle, math.radians(config.rotation_degrees))
    images = change_where(rotated < config.rotation_probability, rotate, images, radians)
    images = change_where(jittered < config.jitter_probability, jitter, images, *_jitter_factors(factors, config))
    widths = (config.blur_kernel_max - config.blur_kernel_min) // 2 + 1
    half_width = tf.floor(width * widths) + (config.blur_kernel_min - 1) / 2
    # A kernel's usual standard deviation when only its width is given (OpenCV, getGaussianKernel).
    sigma = 0.3 * (half_width - 1.0) + 0.8
    largest = (config.blur_kernel_max - 1) / 2
    blur_drawn = functools.partial(blur, largest_half_width=largest)
    return change_where(blurred < config.blur_probability, blur_drawn, images, sigma, half_width)


def two_views(images: tf.Tensor, seeds: tf.Tensor, config: ContrastiveAugmentation) -> tuple[tf.Tensor, tf.Tensor]:
    """Two independent views of each image: crop, flip, colour jitter, grey, blur, in this order.

    Args:
      images: uint8 [B, S, S, 3], S known when the graph is built.
      seeds: int32 or int64 [B, 2], one per image; each view folds its own number into it.
      config: the strengths.

    Returns:
      (view_a, view_b), each uint8 [B, S, S, 3].
    """
    images = _checked(images)
    return _view(images, seeds, 1, config), _view(images, seeds, 2, config)


def _view(images: tf.Tensor, seeds: tf.Tensor, stream: int, config: ContrastiveAugmentation) -> tf.Tensor:
    draws = uniform(seeds, stream=stream, count=9 + 4 * _CROP_ATTEMPTS)
    flipped, jittered, *factors, grey, blurred, width = tf.unstack(draws[:, :9], axis=1)
    draw_box = functools.partial(crop_box, area_min=config.crop_area_min, aspect_max=config.crop_aspect_max)
    images = crop(images, tf.map_fn(draw_box, draws[:, 9:]))
    images = change_where(flipped < config.horizontal_flip, tf.image.flip_left_right, images)
    images = change_where(jittered < config.jitter_probability, jitter, images, *_jitter_factors(factors, config))
    images = change_where(grey < config.grey_probability, to_grey, images)
    sigma = config.blur_sigma_min + (config.blur_sigma_max - config.blur_sigma_min) * width
    # Three standard deviations hold 99.7 % of the Gaussian.
    largest = max(1.0, 3.0 * config.blur_sigma_max)
    blur_drawn = functools.partial(blur, largest_half_width=largest)
    return change_where(blurred < config.blur_probability, blur_drawn, images, sigma, tf.fill(tf.shape(sigma), largest))


def rotate(images: tf.Tensor, radians: tf.Tensor) -> tf.Tensor:
    """Rotates about the centre, counter-clockwise, bilinear.

    What comes in from outside is the image reflected at its edge. Black corners, torchvision's default,
    would tell the network which images were rotated and look like a defect on a bright background.

    Args:
      images: uint8 [B, S, S, 3].
      radians: float32 [B].
    """
    # One at a time: TensorFlow's cosine of a vector depends in the last bit on the place in the vector.
    layer = _layer(keras_cv.layers.RandomRotation, 0.0, fill_mode="reflect")
    return tf.map_fn(
        lambda pair: _to_uint8(layer.augment_images(tf.cast(pair[0], tf.float32)[None], {"angles": pair[1][None]})[0]),
        (images, radians),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.uint8),
    )


def jitter(
    images: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor, saturation: tf.Tensor, hue: tf.Tensor
) -> tf.Tensor:
    """torchvision's ColorJitter, in the fixed order of the arguments (there the order is random as well).

    Args:
      images: uint8 [B, S, S, 3].
      brightness: float32 [B], multiplies the image.
      contrast: float32 [B], 1 keeps, 0 gives the image's mean grey.
      saturation: float32 [B], 1 keeps, 0 gives the grey image.
      hue: float32 [B], shift in turns of the colour circle.

    Returns:
      uint8 [B, S, S, 3].
    """
    brightness, contrast, saturation = (x[:, None, None, None] for x in (brightness, contrast, saturation))
    # Rounded, so that the sums below are over integers and the same in whatever order they are added.
    x = tf.round(_clip(tf.cast(images, tf.float32) * brightness))
    sums = tf.reduce_sum(tf.cast(x, tf.int32), axis=(1, 2), keepdims=True)
    mean_grey = _luma(tf.cast(sums, tf.float32)) * (1.0 / (images.shape[1] * images.shape[2]))
    x = _clip(contrast * x + (1.0 - contrast) * mean_grey)
    x = _clip(saturation * x + (1.0 - saturation) * _luma(x))
    return _to_uint8(_layer(keras_cv.layers.RandomHue, 0.0, value_range=(0, 255)).augment_images(x, hue))


def to_grey(images: tf.Tensor) -> tf.Tensor:
    """uint8 [B, S, S, 3] -> the same with three equal channels."""
    return tf.broadcast_to(_to_uint8(_luma(tf.cast(images, tf.float32))), tf.shape(images))


def blur(images: tf.Tensor, sigma: tf.Tensor, half_width: tf.Tensor, largest_half_width: float) -> tf.Tensor:
    """Gaussian blur; the image is reflected at its edge.

    Lengths are in pixels of a 224 px image and are scaled with S / 224, so that a blur takes away the
    same details of the object at every cached size; the kernel keeps at least one pixel on each side.

    Args:
      images: uint8 [B, S, S, 3].
      sigma: float32 [B], standard deviation.
      half_width: float32 [B], the kernel is cut off beyond this distance.
      largest_half_width: the largest possible `half_width`; fixes the kernel's shape in the graph.

    Returns:
      uint8 [B, S, S, 3].
    """
    scale = images.shape[1] / REFERENCE_SIDE
    reach = max(1, round(largest_half_width * scale))
    distance = tf.range(-reach, reach + 1, dtype=tf.float32)
    border = [[reach, reach], [reach, reach], [0, 0]]
    layer = _layer(keras_cv.layers.RandomGaussianBlur, 1, 0.0)

    def blur_one(one: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, sigma, half_width = one
        # A kernel of width zero is the identity; the floor only keeps the division away from 0 / 0.
        weights = tf.exp(-0.5 * tf.square(distance / tf.maximum(sigma * scale, 1e-3)))
        inside = tf.abs(distance) <= tf.maximum(1.0, tf.round(half_width * scale))
        weights = tf.where(inside, weights, 0.0)
        weights = weights / tf.reduce_sum(weights)
        kernels = (tf.reshape(weights, (-1, 1, 1, 1)), tf.reshape(weights, (1, -1, 1, 1)))
        # keras-cv pads with zeros, which darkens the rim: it is given a reflected rim that is cut off again.
        padded = tf.pad(tf.cast(image, tf.float32), border, mode="REFLECT")
        blurred = layer.augment_image(padded, kernels)
        return _to_uint8(blurred[reach:-reach, reach:-reach])

    # One at a time: each image has its own kernel (and one image's three channels fit the processor's cache).
    signature = tf.TensorSpec(images.shape[1:], tf.uint8)
    return tf.map_fn(blur_one, (images, sigma, half_width), fn_output_signature=signature)


def crop(images: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Cuts boxes out and enlarges them to the images' size, bilinear.

    Args:
      images: uint8 [B, S, S, 3].
      boxes: float32 [B, 4], (top, left, bottom, right) as shares of the side; (0, 0, 1, 1) is the identity.

    Returns:
      uint8 [B, S, S, 3].
    """
    cut = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), images.shape[1:3])
    return _to_uint8(cut)


def crop_box(uniform: tf.Tensor, area_min: float, aspect_max: float) -> tf.Tensor:
    """One box as torchvision's RandomResizedCrop draws it: the first of ten that fits, else the whole image.

    Args:
      uniform: float32 [40] in [0, 1).
      area_min: the area is uniform in [area_min, 1].
      aspect_max: width / height is log-uniform in [1 / aspect_max, aspect_max].

    Returns:
      float32 [4], (top, left, bottom, right) as shares of the side.
    """
    area, aspect, top, left = tf.split(uniform, 4)
    area = area_min + (1.0 - area_min) * area
    aspect = tf.exp(spread(aspect, math.log(aspect_max)))
    height, width = tf.sqrt(area / aspect), tf.sqrt(area * aspect)
    top, left = top * (1.0 - height), left * (1.0 - width)
    boxes = tf.stack([top, left, top + height, left + width], axis=1)
    fits = tf.logical_and(height <= 1.0, width <= 1.0)
    return tf.where(tf.reduce_any(fits), boxes[tf.argmax(tf.cast(fits, tf.int32))], [0.0, 0.0, 1.0, 1.0])


def uniform(seeds: tf.Tensor, stream: int, count: int) -> tf.Tensor:
    """float32 [B, count] in [0, 1); row i depends on seeds[i] and `stream` alone."""

    def draw(seed: tf.Tensor) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.constant(stream, tf.int64), alg="philox")
        return tf.random.stateless_uniform((count,), seed, alg="philox")

    return tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec((count,), tf.float32))


def spread(uniform: tf.Tensor, strength: float) -> tf.Tensor:
    """[0, 1) -> [-strength, strength)."""
    return strength * (2.0 * uniform - 1.0)


def _jitter_factors(uniform: list[tf.Tensor], config: Augmentation) -> list[tf.Tensor]:
    brightness, contrast, saturation, hue = uniform
    pairs = ((brightness, config.brightness), (contrast, config.contrast), (saturation, config.saturation))
    return [1.0 + spread(draw, strength) for draw, strength in pairs] + [spread(hue, config.hue)]


def change_where(
    chosen: tf.Tensor, change: Callable[..., tf.Tensor], images: tf.Tensor, *parameters: tf.Tensor
) -> tf.Tensor:
    """Changes the chosen images only: the others keep every bit and cost no time."""
    rows = tf.where(chosen)

    def changed() -> tf.Tensor:
        part = [tf.gather_nd(each, rows) for each in (images, *parameters)]
        return tf.tensor_scatter_nd_update(images, rows, change(*part))

    return tf.cond(tf.size(rows) > 0, changed, lambda: images)


def _luma(images: tf.Tensor) -> tf.Tensor:
    """float32 [..., 3] -> [..., 1]. Term by term: a matrix product may add in another order in another batch."""
    red, green, blue = tf.split(images, 3, axis=-1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 255.0)


def _to_uint8(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(_clip(tf.round(images)), tf.uint8)


def _checked(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    shape = images.shape
    if images.dtype != tf.uint8 or shape.rank != 4 or not shape[1:].is_fully_defined() or shape[1] != shape[2]:
        raise ValueError(
            f"images must be uint8 [B, S, S, 3] with S known when the graph is built. Received: {images.dtype} {shape}"
        )
    return images


@functools.cache
def _layer(kind: type[keras_cv.layers.BaseImageAugmentationLayer], *args: float, **kwargs: Any) -> Any:
    """A layer of keras-cv, made once and outside of any graph, because it holds a generator (a variable)."""
    with tf.init_scope():
        # float32 whatever the process's precision: it would otherwise compute pixels in bfloat16.
        return kind(*args, seed=_UNUSED_SEED, dtype="float32", **kwargs)
