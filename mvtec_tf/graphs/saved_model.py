"""Writing SavedModels (`loading` reads them): encoded image files in, features or scores out, preprocessing inside.

A scoring graph is written once, at the end of training; predictions are made with it, and what is
served later is that same graph with a threshold beside it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UsageError
from mvtec_tf.graphs import signatures
from mvtec_tf.graphs.loading import CARD, EXTRA, load, newest, read_card
from mvtec_tf.graphs.signatures import IMAGE_BYTES, Signature
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import architecture
from mvtec_tf.networks.backbone import EMBEDDING, Backbone
from mvtec_tf.networks.copies import BFLOAT16, FLOAT32, in_bfloat16
from mvtec_tf.networks.fold import fold_batch_norm

__all__ = ["CARD", "EXTRA", "load", "newest", "read_card"]
__all__ += ["part_of", "write_classifier", "write_encoder", "write_module"]


def write_classifier(
    path: files.PathLike, model: keras.Model, card: Mapping[str, Any], max_pixels: int = pixels.MAX_PIXELS
) -> None:
    """Writes a classifier with its batch norm folded and the signatures of `signatures.of_classifier`.

    Args:
      path: a new directory.
      model: uint8 [B, S, S, 3] -> float32 logits [B, 2].
      card: what a reader needs to know of it, JSON.
      max_pixels: images that are larger are refused, see `pixels.decode`.
    """
    folded = fold_batch_norm(model)
    card = dict(
        card,
        kind="classifier",
        image_size=model.input_shape[1],
        max_pixels=max_pixels,
        batch_norm={"folded": len(folded.folded), "kept": list(folded.kept)},
    )
    write_folded(path, folded.model, card)


def write_encoder(
    path: files.PathLike,
    backbone: Backbone,
    card: Mapping[str, Any],
    layers: Sequence[str] = (),
    max_pixels: int = pixels.MAX_PIXELS,
    precision: str = FLOAT32,
) -> None:
    """Writes a frozen encoder with its batch norm folded. Its outputs are named like layers: the last one of every
    stage, and `layers`.

    Signatures:
      embed (and serving_default): `image_bytes` string [B] -> each layer's global average, float32
        [B, C].
      embed_maps: `image_bytes` string [B] -> each layer's map, float32 [B, h, w, C].
      embed_pixels: `images` uint8 [B, H, W, 3] -> the same maps, for whoever has pixels or cuts tiles.
    `embedding` is the network's end.

    Args:
      path: a new directory.
      backbone: uint8 [B, H, W, 3] -> maps.
      card: what a reader needs to know of it, JSON.
      layers: more layers than the stages' last ones.
      max_pixels: images that are larger are refused, see `pixels.decode`.
      precision: number format of the network, float32 or bfloat16; what it answers is float32.

    Raises:
      UsageError: the network has no such layer, or its output is no map.
    """
    names = tuple(dict.fromkeys((*backbone.stages, *layers)))
    network = fold_batch_norm(backbone.model).model
    height, width = network.input_shape[1:3]
    size = height if height == width else [height, width]
    card = dict(card, kind="encoder", image_size=size, stages=backbone.stages, middle_stages=backbone.middle_stages)
    card |= {"max_pixels": max_pixels, "precision": precision}
    card["architecture"] = architecture.describe(backbone.model, backbone.stages, trained=False)
    network = in_bfloat16(network) if precision == BFLOAT16 else network
    write_folded(path, network, dict(card, layers=names))


def write_folded(path: files.PathLike, network: keras.Model, card: Mapping[str, Any]) -> None:
    """Writes a network whose batch norm is folded, with the signatures of its kind.

    Args:
      path: a new directory.
      network: of a classifier or an encoder, see `write_classifier` and `write_encoder`.
      card: what these say of it.
    """
    limit = card["max_pixels"]
    if card["kind"] == "classifier":
        endpoints = signatures.of_classifier(network, limit)
    else:
        endpoints = _of_encoder(network, card["layers"], card["image_size"], limit)
    # `rebuild` finds the numbers of the network by the names of these.
    held = tf.train.Checkpoint(variables=[variable.value for variable in network.variables])
    write_module(path, held, signatures.traced(endpoints), card)


def _of_encoder(network: keras.Model, names: Sequence[str], size: pixels.Size, max_pixels: int) -> dict[str, Signature]:
    maps = {name: _map_of(network, name) for name in names} | {EMBEDDING: network.output}
    # A network in bfloat16 gives the numbers that it has, in the format in which all that follows computes.
    maps = {name: keras.ops.cast(value, "float32") for name, value in maps.items()}
    images = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8, name="images")
    model = keras.Model(network.inputs, maps)
    mapper = signatures.once(signatures.also_empty(functools.partial(model, training=False)), images)

    def embed(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        found = mapper(pixels.decode_batch(image_bytes, size, max_pixels))
        return {name: tf.reduce_mean(value, [1, 2]) for name, value in found.items()}

    def embed_maps(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return mapper(pixels.decode_batch(image_bytes, size, max_pixels))

    return {
        "serving_default": Signature(embed, IMAGE_BYTES),
        "embed": Signature(embed, IMAGE_BYTES),
        "embed_maps": Signature(embed_maps, IMAGE_BYTES),
        "embed_pixels": Signature(mapper, images),
    }


def write_module(
    path: files.PathLike,
    module: tf.Module | tf.train.Checkpoint,
    signatures: Mapping[str, Callable],
    card: Mapping[str, Any],
) -> None:
    """Writes a module of plain variables and loaded SavedModels.

    Args:
      path: a new directory.
      module: holds everything that the signatures use.
      signatures: name -> tf.function, or a trace of one.
      card: what a reader needs to know of it, JSON.
    """
    with files.new_directory(path) as directory:
        tf.saved_model.save(module, str(directory), signatures=dict(signatures))
        (directory / EXTRA).mkdir()
        files.write_json(directory / EXTRA / CARD, dict(card))


def part_of(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """The network as far as the maps of `layers` need it.

    Raises:
      UsageError: the network has no such layer, or its output is no map.
    """
    return keras.Model(model.inputs, [_map_of(model, name) for name in layers])


def _map_of(model: keras.Model, name: str) -> keras.KerasTensor:
    try:
        output = model.get_layer(name).output
    except ValueError as error:
        raise UsageError(f"`feature_layers`={name}: {model.name} has no such layer.") from error
    if len(output.shape) != 4:
        raise UsageError(f"`feature_layers`={name}: its output is {output.shape}, expected a map [B, h, w, C].")
    return output
