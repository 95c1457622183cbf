"""What an exported model answers to: the signatures' names, inputs, and the functions of a classifier.

| signature         | takes                              | answers                                              |
|-------------------|------------------------------------|------------------------------------------------------|
| `serving_default` | `image_bytes` string [B]           | `anomaly_score`, perhaps `probability`, float32 [B]  |
| `predict_images`  | `images` uint8 [B, H, W, 3], RGB   | the same                                             |
| `embed`           | `image_bytes`                      | `embedding` float32 [B, D]: what the head sees       |
| `explain`         | `image_bytes`                      | the same as `serving_default`, and `heat_map` float32|
|                   |                                    | [B, S, S], `overlay_bytes` string [B]: PNG files     |

Whatever has a score also answers `embedding` and `image_statistics` float32 [B, 3], see `image_statistics`. An export
makes of these how unlike the training images an image is, see `features.reference`, and adds `threshold` float32 [B]
and `label` int64 [B]; to `explain` also `heat_level` float32 [B], see `heat_maps.level`, at which its overlays are
drawn. TensorFlow Serving's REST form takes and gives strings whose name ends in `_bytes` as {"b64": ...}.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from mvtec_tf.data.decoding import pixels
from mvtec_tf.graphs import heat_maps
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.networks.classifier import POOLED, log_odds

SERVING_DEFAULT = "serving_default"
PREDICT_IMAGES = "predict_images"
EMBED = "embed"
EXPLAIN = "explain"
HEAT_MAP = "heat_map"
OVERLAY = "overlay_bytes"
# How hot the hottest place of a heat map is, see `heat_maps.level`; exports answer it.
HEAT_LEVEL = "heat_level"
IMAGE_STATISTICS = "image_statistics"

IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")

Answer = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Signature:
    """One of a model's.

    Attributes:
      function: takes one tensor.
      takes: its name, shape and dtype.
    """

    function: Callable[[tf.Tensor], Answer]
    takes: tf.TensorSpec


def of_pixels(
    image_size: pixels.Size,
    judge: Callable[[tf.Tensor], Answer],
    embed: Callable[[tf.Tensor], Answer],
    explain: Callable[[tf.Tensor], tuple[Answer, tf.Tensor]],
    max_pixels: int = pixels.MAX_PIXELS,
) -> dict[str, Signature]:
    """The four signatures of a model, from what it makes of pixels uint8 [B, height, width, 3].

    Args:
      image_size: of those pixels.
      judge: pixels -> `anomaly_score`, `embedding` and what goes with them.
      embed: pixels -> `embedding`.
      explain: pixels -> what `judge` answers, and a heat map, float32 [B, h, w], not negative.
      max_pixels: encoded images that are larger are refused before they are decoded.
    """

    judge, embed, explain = also_empty(judge), also_empty(embed), also_empty(explain)
    pixels_of_one_size = tf.TensorSpec([None, *pixels.height_and_width(image_size), 3], tf.uint8)
    judged = once(lambda images: judge(images) | {IMAGE_STATISTICS: image_statistics(images)}, pixels_of_one_size)

    def serving_default(image_bytes: tf.Tensor) -> Answer:
        return judged(pixels.decode_batch(image_bytes, image_size, max_pixels))

    def predict_images(images: tf.Tensor) -> Answer:
        return judged(resize_batch(images, image_size))

    def embed_bytes(image_bytes: tf.Tensor) -> Answer:
        return embed(pixels.decode_batch(image_bytes, image_size, max_pixels))

    def explain_bytes(image_bytes: tf.Tensor) -> Answer:
        images, sizes = pixels.decode_batch_with_sizes(image_bytes, image_size, max_pixels)
        answer, heat_map = explain(images)
        heat_map = heat_maps.enlarge(heat_map, image_size)
        answer[IMAGE_STATISTICS] = image_statistics(images)
        return answer | {HEAT_MAP: heat_map, OVERLAY: heat_maps.overlay_png(images, heat_map, sizes)}

    return {
        SERVING_DEFAULT: Signature(serving_default, IMAGE_BYTES),
        PREDICT_IMAGES: Signature(predict_images, IMAGES),
        EMBED: Signature(embed_bytes, IMAGE_BYTES),
        EXPLAIN: Signature(explain_bytes, IMAGE_BYTES),
    }


def overlays(image_size: pixels.Size, max_pixels: int) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Image files, heat maps and levels, [B] each -> the pictures of `explain`, drawn anew at these levels."""

    def draw(image_bytes: tf.Tensor, heat_map: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
        images, sizes = pixels.decode_batch_with_sizes(image_bytes, image_size, max_pixels)
        return heat_maps.overlay_png(images, heat_map, sizes, levels)

    return draw


def of_module(module: Any) -> dict[str, Callable]:
    """The same four of a module with `image_size`, `judge`, `embed`, `explain` and `max_pixels`, as a SavedModel wants
    them: name -> trace of a tf.function."""
    return traced(of_pixels(module.image_size, module.judge, module.embed, module.explain, module.max_pixels))


def traced(named: Mapping[str, Signature]) -> dict[str, Callable]:
    """Signatures as a SavedModel wants them, name -> trace of a tf.function; equal ones are traced once."""
    found = {one: once(one.function, one.takes).get_concrete_function() for one in set(named.values())}
    return {name: found[one] for name, one in named.items()}


def once(function: Callable[[tf.Tensor], Any], takes: tf.TensorSpec) -> Callable[[tf.Tensor], Any]:
    """The same function of one tensor, traced once however many signatures call it: a network is most of its graph."""
    return tf.function(function, input_signature=[takes], autograph=False)


def image_statistics(images: tf.Tensor) -> tf.Tensor:
    """Brightness, contrast and sharpness of uint8 [B, H, W, 3]: float32 [B, 3].

    Mean and standard deviation of the grey values, and the standard deviation of their Laplacian (Pech-Pacheco et al.,
    "Diatom autofocusing in brightfield microscopy", ICPR 2000) by that of the grey values, so that a lamp moves the
    first two and a lens the last one. 0 where nothing is to be seen.
    """
    grey = tf.tensordot(tf.cast(images, tf.float32), tf.constant(pixels.LUMA, tf.float32), 1)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    contrast = tf.math.reduce_std(grey, [1, 2])
    sharpness = tf.math.divide_no_nan(tf.math.reduce_std(laplacian, [1, 2]), contrast)
    return tf.stack([tf.reduce_mean(grey, [1, 2]), contrast, sharpness], axis=1)


def of_classifier(model: keras.Model, max_pixels: int = pixels.MAX_PIXELS) -> dict[str, Signature]:
    """The signatures of a network uint8 [B, S, S, 3] -> float32 logits [B, 2] with a layer `pooled`."""
    pooled = model.get_layer(POOLED)
    to_maps = keras.Model(model.inputs, pooled.input)
    from_maps = keras.Model(pooled.input, model.output)
    to_embedding = keras.Model(model.inputs, pooled.output)
    to_both = keras.Model(model.inputs, [model.output, pooled.output])

    def answer(score: tf.Tensor, embedding: tf.Tensor) -> Answer:
        embedding = tf.cast(embedding, tf.float32)
        return {"anomaly_score": score, "probability": tf.sigmoid(score), EMBEDDING: embedding}

    def judge(images: tf.Tensor) -> Answer:
        logits, embedding = to_both(images, training=False)
        return answer(log_odds(logits), embedding)

    def embed(images: tf.Tensor) -> Answer:
        return {EMBEDDING: to_embedding(images, training=False)}

    def explain(images: tf.Tensor) -> tuple[Answer, tf.Tensor]:
        maps = to_maps(images, training=False)
        score, heat_map = heat_maps.grad_cam(maps, lambda values: log_odds(from_maps(values, training=False)))
        return answer(score, tf.reduce_mean(maps, [1, 2])), heat_map

    return of_pixels(model.input_shape[1], judge, embed, explain, max_pixels)


def also_empty(function: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], Any]:
    """The same function of images [B, ...], also of none: convolutions on a CPU refuse an empty batch.

    Args:
      function: images -> nest of tensors [B, ...].
    """

    def of_any_number(images: tf.Tensor) -> Any:
        count = tf.shape(images)[0]
        missing = tf.cast(tf.equal(count, 0), tf.int32)
        nothing = [[0, 0]] * (len(images.shape) - 1)
        return tf.nest.map_structure(lambda value: value[:count], function(tf.pad(images, [[0, missing], *nothing])))

    return of_any_number


def resize_batch(images: tf.Tensor, image_size: pixels.Size) -> tf.Tensor:
    """uint8 [B, H, W, 3] -> uint8 [B, height, width, 3], each as a decoded file of these pixels would be."""
    return tf.map_fn(
        lambda one: pixels.resize(one, image_size),
        images,
        fn_output_signature=tf.TensorSpec((*pixels.height_and_width(image_size), 3), tf.uint8),
    )
