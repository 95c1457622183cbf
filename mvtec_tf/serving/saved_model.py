"""Writing SavedModels: encoded image files in, features or scores out, preprocessing inside.

A scoring graph is written once, at the end of training; predictions are made with it, and what is
served later is that same graph with a threshold beside it.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from mvtec_tf import atomic
from mvtec_tf.data import pixels
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.models.backbone import Backbone
from mvtec_tf.models.classifier import log_odds
from mvtec_tf.models.simclr import EMBEDDING

# TensorFlow Serving leaves the contents of this folder alone.
EXTRA = "assets.extra"
CARD = "mvtec_tf.json"
IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")


def write_classifier(path: atomic.PathLike, model: keras.Model, card: Mapping[str, Any]) -> None:
    """Writes a classifier: `image_bytes` [B] -> `anomaly_score` [B] (log-odds), `probability` [B].

    Args:
      path: a new directory.
      model: uint8 [B, S, S, 3] -> float32 logits [B, 2].
      card: what a reader needs to know of it, JSON.
    """
    size = model.input_shape[1]

    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        score = log_odds(model(pixels.decode_batch(image_bytes, size), training=False))
        return {"anomaly_score": score, "probability": tf.sigmoid(score)}

    endpoints = {"serving_default": (serve, IMAGE_BYTES)}
    _write_keras(path, [model], endpoints, dict(card, kind="classifier", image_size=size))


def write_encoder(
    path: atomic.PathLike, backbone: Backbone, card: Mapping[str, Any], layers: Sequence[str] = ()
) -> None:
    """Writes a frozen encoder. Its outputs are named like layers: the last one of every stage, and `layers`.

    Signatures:
      embed (and serving_default): `image_bytes` string [B] -> each layer's global average, float32
        [B, C].
      embed_maps: `image_bytes` string [B] -> each layer's map, float32 [B, h, w, C].
      embed_pixels: `images` uint8 [B, S, S, 3] -> the same maps, for whoever has pixels or cuts tiles.
    `embedding` is the network's end.

    Args:
      path: a new directory.
      backbone: uint8 [B, S, S, 3] -> maps.
      card: what a reader needs to know of it, JSON.
      layers: more layers than the stages' last ones.

    Raises:
      UsageError: the network has no such layer, or its output is no map.
    """
    names = tuple(dict.fromkeys((*backbone.stages, *layers)))
    maps = {name: _map_of(backbone.model, name) for name in names} | {EMBEDDING: backbone.model.output}
    outputs = {name: keras.layers.GlobalAveragePooling2D()(value) for name, value in maps.items()}
    averages, mapper = keras.Model(backbone.model.inputs, outputs), keras.Model(backbone.model.inputs, maps)
    size = backbone.model.input_shape[1]

    def embed(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return averages(pixels.decode_batch(image_bytes, size), training=False)

    def embed_maps(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return mapper(pixels.decode_batch(image_bytes, size), training=False)

    def embed_pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return mapper(images, training=False)

    card = dict(card, kind="encoder", image_size=size, stages=backbone.stages, middle_stages=backbone.middle_stages)
    images = tf.TensorSpec([None, size, size, 3], tf.uint8, name="images")
    endpoints = {
        "serving_default": (embed, IMAGE_BYTES),
        "embed": (embed, IMAGE_BYTES),
        "embed_maps": (embed_maps, IMAGE_BYTES),
        "embed_pixels": (embed_pixels, images),
    }
    _write_keras(path, [averages, mapper], endpoints, dict(card, layers=names))


def write_module(
    path: atomic.PathLike, module: tf.Module, signatures: Callable | Mapping[str, Callable], card: Mapping[str, Any]
) -> None:
    """Writes a module of plain variables and loaded SavedModels.

    Args:
      path: a new directory.
      module: holds everything that the signatures use.
      signatures: name -> tf.function, or the only one, `serving_default`.
      card: what a reader needs to know of it, JSON.
    """
    named = dict(signatures) if isinstance(signatures, Mapping) else {"serving_default": signatures}
    with atomic.new_directory(path) as directory:
        tf.saved_model.save(module, str(directory), signatures=named)
        _write_card(directory, card)


def load(path: atomic.PathLike) -> Any:
    """The SavedModel in `path`.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    if not (pathlib.Path(path) / "saved_model.pb").is_file():
        raise UserError(f"{path}: no SavedModel (no saved_model.pb in it).")
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{path}: the SavedModel cannot be read ({error}).") from error


def read_card(path: atomic.PathLike) -> dict[str, Any]:
    """What the SavedModel in `path` says of itself.

    Raises:
      UserError: it was not written by this program.
    """
    file = pathlib.Path(path) / EXTRA / CARD
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not a SavedModel written by this program ({EXTRA}/{CARD} is missing).") from error


def _map_of(model: keras.Model, name: str) -> keras.KerasTensor:
    try:
        output = model.get_layer(name).output
    except ValueError as error:
        raise UsageError(f"--feature_layers={name}: {model.name} has no such layer.") from error
    if len(output.shape) != 4:
        raise UsageError(f"--feature_layers={name}: its output is {output.shape}, expected a map [B, h, w, C].")
    return output


def _write_keras(
    path: atomic.PathLike,
    models: Sequence[keras.Model],
    endpoints: Mapping[str, tuple[Callable, tf.TensorSpec]],
    card: Mapping[str, Any],
) -> None:
    archive = keras.export.ExportArchive()
    for model in models:
        archive.track(model)
    for name, (function, argument) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=[argument])
    with atomic.new_directory(path) as directory:
        archive.write_out(str(directory), verbose=False)
        _write_card(directory, card)


def _write_card(directory: pathlib.Path, card: Mapping[str, Any]) -> None:
    (directory / EXTRA).mkdir()
    atomic.write_json(directory / EXTRA / CARD, dict(card))
