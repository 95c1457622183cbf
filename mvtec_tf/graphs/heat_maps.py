"""Where a score comes from, computed inside the exported graph: Grad-CAM, and the picture of any heat map."""

from collections.abc import Callable, Sequence

import matplotlib
import tensorflow as tf

from mvtec_tf.data.decoding import pixels

# It rises evenly in brightness, so it reads without colour vision and in print; the reports' photographs have it too.
COLOURS = "viridis"
# The photograph stays visible under the hottest spot.
_STRONGEST = 0.65


def contributions(
    maps: Sequence[tf.Tensor], score_of: Callable[[Sequence[tf.Tensor]], tf.Tensor]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """What each position of some maps adds to a score: Grad-CAM before its ReLU, in units of the score.

    Selvaraju et al., ICCV 2017, equations 1 and 2, but for one factor: the weight of a channel is the sum of the
    score's gradient over its positions, where the paper has the mean. So the mean of a map over its positions is the
    first-order share of these maps in the score. For a linear head on the maps' global averages that share is exact:
    the means of all maps and the head's bias add up to the score.

    Args:
      maps: float32 [B, h, w, C] each, of any sizes.
      score_of: maps -> float32 [B], built of differentiable ops.

    Returns:
      The scores, float32 [B], and for each of the maps float32 [B, h, w].
    """
    with tf.GradientTape() as tape:
        tape.watch(maps)
        score = score_of(maps)
    found = []
    for values, gradient in zip(maps, tape.gradient(score, maps), strict=True):
        # A distance of 0 has no direction: its gradient is NaN, and nothing speaks for a defect.
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        weights = tf.reduce_sum(gradient, axis=(1, 2), keepdims=True)
        found.append(tf.reduce_sum(weights * values, axis=-1))
    return score, found


def grad_cam(maps: tf.Tensor, score_of: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Grad-CAM of one map, see `contributions`.

    Returns:
      The scores, float32 [B], and the map, float32 [B, h, w], 0 where nothing speaks for a defect.
    """
    score, (found,) = contributions([maps], lambda values: score_of(values[0]))
    return score, tf.nn.relu(found)


def enlarge(heat_map: tf.Tensor, image_size: pixels.Size) -> tf.Tensor:
    """float32 [B, h, w] -> [B, height, width], bilinear."""
    return tf.image.resize(heat_map[..., None], pixels.height_and_width(image_size), method="bilinear")[..., 0]


def level(score: tf.Tensor, threshold: tf.Tensor, usual: tf.Tensor) -> tf.Tensor:
    """How hot the hottest place of a map is drawn, 0 to 1: how far its score is from good images' to the threshold.

    Heat maps of different heads have different units, their scores are all read beside a threshold. So whatever is
    uppermost in a good image stays cold, and an image that is called defective has the whole scale. The reports'
    `photographs.levels` are the same.

    Args:
      score: float32 [B].
      threshold: float32 [B].
      usual: float32 [B], mean score of held-out good images.
    """
    span = threshold - usual
    share = tf.clip_by_value(tf.math.divide_no_nan(score - usual, span), 0.0, 1.0)
    return tf.where(span > 0, share, tf.cast(score >= threshold, tf.float32))


def overlay_png(
    images: tf.Tensor, heat_map: tf.Tensor, sizes: tf.Tensor, levels: tf.Tensor | None = None
) -> tf.Tensor:
    """A PNG file of each photograph, in grey, under its heat map in colour, at the photograph's own aspect ratio.

    Args:
      images: uint8 [B, height, width, 3].
      heat_map: float32 [B, height, width], not negative.
      sizes: int32 [B, 2], (height, width) of the photographs; the longer side becomes that of `images`.
      levels: float32 [B], of the largest value of each map, see `level`; None: 1, so that pictures say where, not how
        much.

    Returns:
      string [B].
    """
    largest = tf.reduce_max(heat_map, axis=(1, 2), keepdims=True)
    share = tf.math.divide_no_nan(heat_map, largest)
    if levels is not None:
        share *= levels[:, None, None]
    colours = tf.constant(matplotlib.colormaps[COLOURS](range(256))[:, :3], tf.float32)  # [256, 3]
    colour = tf.gather(colours, tf.cast(tf.round(share * 255), tf.int32))
    grey = tf.reduce_sum(tf.cast(images, tf.float32) / 255 * tf.constant(pixels.LUMA), axis=-1, keepdims=True)
    opacity = _STRONGEST * share[..., None]
    mixed = 255 * ((1 - opacity) * grey + opacity * colour)
    longest = tf.cast(tf.reduce_max(tf.shape(images)[1:3]), tf.float32)

    def drawn(one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        picture, size = one
        size = tf.cast(size, tf.float32)
        size = tf.cast(tf.maximum(tf.round(size * longest / tf.reduce_max(size)), 1.0), tf.int32)
        picture = tf.image.resize(picture, size, method="bilinear", antialias=True)
        return tf.io.encode_png(tf.cast(tf.clip_by_value(tf.round(picture), 0.0, 255.0), tf.uint8))

    return tf.map_fn(drawn, (mixed, sizes), fn_output_signature=tf.TensorSpec([], tf.string))
