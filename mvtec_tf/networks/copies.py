"""Copies of a network whose layers keep their names, or get the ones that a fresh process would give them.

Every copy has the batch norm and the dropout of `replicas`.

What belongs together across two copies - weights, stages, the variables of a SavedModel - is found by name, and Keras
numbers the layers that were given none by how many of their class the process has made before.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.replicas import BatchNormalization, Dropout

# Number formats of a network that is only served.
FLOAT32, BFLOAT16 = "float32", "bfloat16"
# What stands for a layer of Keras' own: faster, or of the batch of all replicas.
_OURS = {keras.layers.BatchNormalization: BatchNormalization, keras.layers.Dropout: Dropout}
# Types of a layer's input that are no number format of a network.
_INTEGERS = ("uint8", "int32", "int64")


def in_float32(model: keras.Model) -> keras.Model:
    """Copies a functional network with its weights and names, whatever number format it was trained in."""
    return _copy(model, "dtype", lambda dtype: dtype if dtype in _INTEGERS else FLOAT32)


def in_bfloat16(model: keras.Model) -> keras.Model:
    """Copies a functional network, whose maps [B, h, w, C] the copy computes in bfloat16, and all else in float32.

    The weights stay float32, and are rounded where they are used.
    """

    def makes_maps(layer: keras.Layer) -> bool:
        return all(len(output.shape) == 4 for output in keras.tree.flatten(layer.output))

    return _copy(model, "dtype", lambda dtype: dtype if dtype in _INTEGERS else "mixed_bfloat16", makes_maps)


def renamed(model: keras.Model, prefix: str) -> keras.Model:
    """Copies a functional network with its weights, whose layers, and itself, are called PREFIX_NAME."""
    names = {layer.name for layer in model.layers}
    copied = _copy(model, "name", lambda name: f"{prefix}_{name}" if name in names else name)
    copied.name = f"{prefix}_{model.name}"
    return copied


def prepared(model: keras.Model) -> keras.Model:
    """Gives layers that Keras named the names that they have in a process that builds nothing else.

    Args:
      model: a functional network, as its constructor made it.

    Returns:
      The network itself if it has those names and nothing that a copy has otherwise, else a copy with its weights.
    """
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    # Keras counts as layers are made, so the number tells their order also where the graph's order is another one.
    for _, stem, name in sorted(filter(None, map(_named_by_keras, _leaves(model)))):
        number = counts.get(stem, 0)
        counts[stem] = number + 1
        names[name] = f"{stem}_{number}" if number else stem
    changes = any(type(layer) in _OURS for layer in _leaves(model))
    if not changes and all(name == stable for name, stable in names.items()):
        return model
    return _copy(model, "name", lambda name: names.get(name, name))


def stable_paths(paths: Iterable[str]) -> dict[str, str]:
    """path of a weight -> the path without the number that Keras gave a weight without a name (`variable_90`)."""
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for folder, number, path in sorted(map(_split, paths)):
        if number is None:
            found[path] = path
            continue
        counts[folder] = counts.get(folder, -1) + 1
        found[path] = f"{folder}/variable_{counts[folder]}"
    return found


def _split(path: str) -> tuple[str, int | None, str]:
    named = re.fullmatch(r"(.*)/variable(?:_(\d+))?", path)
    return (named[1], int(named[2] or 0), path) if named else (path, None, path)


def _leaves(model: keras.Model) -> Iterator[keras.Layer]:
    """Every layer that is no model of its own: ConvNeXt has some models within."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _named_by_keras(layer: keras.Layer) -> tuple[int, str, str] | None:
    """(number, stem, name) if `layer` has a name of the form that Keras gives to layers of its class."""
    stem = _snake_case(type(layer).__name__)
    found = re.fullmatch(rf"{stem}(?:_(\d+))?", layer.name)
    return (int(found[1] or 0), stem, layer.name) if found else None


def _snake_case(name: str) -> str:
    """As Keras makes a layer's name of its class: Conv2D -> conv2d, LayerNormalization -> layer_normalization."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _copy(
    model: keras.Model,
    key: str,
    change: Callable[[Any], Any],
    of: Callable[[keras.Layer], bool] = lambda layer: True,
) -> keras.Model:
    copies: dict[keras.Operation, keras.Operation] = {}

    def copy(layer: keras.Operation) -> keras.Operation:
        config = layer.get_config()
        if isinstance(layer, keras.Layer) and of(layer):
            config = _changed(config, key, change)
        copies[layer] = _OURS.get(type(layer), type(layer)).from_config(config)
        return copies[layer]

    # Initial values, soon replaced, are drawn from Python's generator: what is built next must not depend on it.
    state = random.getstate()
    copied = keras.models.clone_model(model, clone_function=copy)
    random.setstate(state)
    for layer in model.layers:
        if layer.weights:
            copies[layer].set_weights(layer.get_weights())
    return copied


def _changed(config: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """A layer's configuration with `change` made to every `key`, also in those of layers within."""
    if isinstance(config, dict):
        return {name: change(value) if name == key else _changed(value, key, change) for name, value in config.items()}
    return [_changed(item, key, change) for item in config] if isinstance(config, list) else config
