"""Where a score comes from, computed inside the exported graph: Grad-CAM, and the picture of any heat map."""

from collections.abc import Callable

import matplotlib
import tensorflow as tf

# "inferno" rises evenly in brightness, so it reads without colour vision and in print.
_COLOURS = matplotlib.colormaps["inferno"]
# The photograph stays visible under the hottest spot.
_STRONGEST = 0.65
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def grad_cam(maps: tf.Tensor, score_of: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Grad-CAM of a score (Selvaraju et al., ICCV 2017, equations 1 and 2), in units of the score.

    The weight of a channel is the sum of the score's gradient over its positions, where the paper has the mean: the
    map differs by the factor h * w only, and its mean over the positions is the first-order share of these maps in
    the score. For a linear head on the maps' global average that share is exact: before negative values are cut
    off, the mean of the map and the head's bias add up to the score.

    Args:
      maps: float32 [B, h, w, C].
      score_of: maps -> float32 [B], built of differentiable ops.

    Returns:
      The scores, float32 [B], and the map, float32 [B, h, w], 0 where nothing speaks for a defect.
    """
    with tf.GradientTape() as tape:
        tape.watch(maps)
        score = score_of(maps)
    weights = tf.reduce_sum(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
    return score, tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))


def enlarge(heat_map: tf.Tensor, image_size: int) -> tf.Tensor:
    """float32 [B, h, w] -> [B, image_size, image_size], bilinear."""
    return tf.image.resize(heat_map[..., None], (image_size, image_size), method="bilinear")[..., 0]


def overlay_png(images: tf.Tensor, heat_map: tf.Tensor) -> tf.Tensor:
    """A PNG file of each photograph, in grey, under its heat map in colour.

    The colours of each image are scaled to its own largest value: pictures say where, not how much.

    Args:
      images: uint8 [B, S, S, 3].
      heat_map: float32 [B, S, S], not negative.

    Returns:
      string [B].
    """
    largest = tf.reduce_max(heat_map, axis=(1, 2), keepdims=True)
    share = tf.math.divide_no_nan(heat_map, largest)
    colours = tf.constant(_COLOURS(range(256))[:, :3], tf.float32)  # [256, 3]
    colour = tf.gather(colours, tf.cast(tf.round(share * 255), tf.int32))
    grey = tf.reduce_sum(tf.cast(images, tf.float32) / 255 * tf.constant(_LUMA), axis=-1, keepdims=True)
    opacity = _STRONGEST * share[..., None]
    mixed = tf.cast(tf.round(255 * ((1 - opacity) * grey + opacity * colour)), tf.uint8)
    return tf.map_fn(tf.io.encode_png, mixed, fn_output_signature=tf.TensorSpec([], tf.string))
