"""The network behind an exported model, rebuilt in Keras, for what needs the gradients of its score.

The numbers come from the SavedModel itself: what is explained is what was judged.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import layers

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.graphs import saved_model
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import EMBEDDING, build_backbone
from mvtec_tf.networks.classifier import POOLED, build_classifier, log_odds
from mvtec_tf.networks.copies import BFLOAT16, in_bfloat16, stable_paths
from mvtec_tf.networks.fold import fold_batch_norm

# Of a linear head; every other array makes a score that is no sum over features.
_LINEAR = {"weights", "bias"}


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """A network in two halves, cut where it is explained, so that the long first one runs once for all explanations.

    Attributes:
      maps: uint8 [B, H, W, 3], RGB -> a list with one map float32 [B, h, w, C] for each of `layers`.
      parts: these maps -> a list with one float32 [B] for each; their sum is the score.
      layers: names of the layers whose maps these are.
    """

    maps: keras.Model
    parts: keras.Model
    layers: tuple[str, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.maps.input_shape[1:3]

    @property
    def shapes(self) -> list[tuple]:
        """Of the maps, [B, h, w, C] each."""
        return [output.shape for output in self.maps.outputs]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The maps of uint8 [B, H, W, 3], float32 each."""
        return keras.tree.flatten(self.maps.predict_on_batch(images))

    def score(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [B] of these maps."""
        inputs = list(maps) if len(maps) > 1 else maps[0]
        return sum(np.asarray(part) for part in keras.tree.flatten(self.parts(inputs, training=False)))


def rebuild_classifier(path: files.PathLike, settings: Mapping[str, Any]) -> Rebuilt:
    """The supervised network: its whole score is one part, made of its last convolutional stage.

    Args:
      path: SavedModel of a classifier.
      settings: of the run that wrote it: backbone, image_size, backbone_stages.

    Raises:
      UserError: the SavedModel is not of such a network.
    """
    network = classifier_of(path, settings)
    last = network.get_layer(POOLED).input
    head = keras.Model(last, [log_odds(network.output)])
    # Layers of its own: Grad-CAM asks each layer for its output, and a shared one answers for its first network.
    parts = keras.models.clone_model(head)
    parts.set_weights(head.get_weights())
    return Rebuilt(keras.Model(network.inputs, [last]), parts, (last._keras_history.operation.name,))


def rebuild_probe(encoder: files.PathLike, feature_layers: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Rebuilt:
    """Encoder, global averages and a linear head for each category; each feature layer has a part of the score.

    Args:
      encoder: SavedModel of the encoder.
      feature_layers: whose averages the head was fitted on.
      arrays: of the fitted head, see `PerCategoryHead.arrays`.

    Raises:
      UserError: the head is not linear, or the SavedModel not of such a network.
    """
    weights, bias = _linear_heads(arrays)
    network = encoder_of(encoder)
    end = saved_model.read_card(encoder)["stages"][-1]
    names = tuple(end if name == EMBEDDING else name for name in feature_layers)
    found = [keras.ops.cast(network.get_layer(name).output, "float32") for name in names]
    maps = [keras.Input(output.shape[1:], name=f"map_{index}") for index, output in enumerate(found)]
    averages = [layers.GlobalAveragePooling2D()(one) for one in maps]
    parts = _LinearParts(weights, bias, arrays["means"], arrays["scale"], name="score_parts")(averages)
    return Rebuilt(keras.Model(network.inputs, found), keras.Model(maps, list(parts)), names)


def classifier_of(path: files.PathLike, settings: Mapping[str, Any]) -> keras.Model:
    """The network of a classifier's SavedModel, batch norm folded; see `rebuild_classifier`."""
    backbone = build_backbone(
        settings["backbone"], settings["image_size"], cut_after_stage=settings.get("backbone_stages", 0)
    )
    return _restored(build_classifier(backbone), path)


def encoder_of(path: files.PathLike) -> keras.Model:
    """The network of an encoder's SavedModel, batch norm folded. Raises UserError: it is none of this version."""
    card = saved_model.read_card(path)
    settings, size = card["run"], card["image_size"]
    backbone = build_backbone(settings["backbone"], size, cut_after_stage=settings.get("backbone_stages", 0))
    network = _restored(backbone.model, path)
    return in_bfloat16(network) if card.get("precision") == BFLOAT16 else network


def _linear_heads(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """weights float32 [K, D] and bias [K] of the categories' heads."""
    count = len(arrays["means"])
    for number in range(count):
        found = {name.partition("/")[2] for name in arrays if name.startswith(f"{number}/")}
        if found != _LINEAR:
            raise UserError(
                "Grad-CAM explains a score that is a sum over features, and this head's is not (it holds "
                f"{', '.join(sorted(found))}). Fit a linear head (`head`=logistic), or one that draws heat maps of its "
                "own (`head`=patchcore)."
            )
    weights, bias = ([arrays[f"{number}/{name}"] for number in range(count)] for name in ("weights", "bias"))
    return np.stack(weights).astype(np.float32), np.array(bias, np.float32)


class _LinearParts(layers.Layer):
    """Splits the score of each image's own linear head into what each layer's averages add to it.

    The head's bias goes to the first part. Which head is an image's own is a choice, through which no
    gradient flows.
    """

    def __init__(self, weights: np.ndarray, bias: np.ndarray, means: np.ndarray, scale: np.ndarray, name: str) -> None:
        super().__init__(name=name)
        self._weights, self._bias = weights, bias
        self._scaled_means, self._scale = means / scale, scale

    def compute_output_shape(self, input_shape: list[tuple]) -> list[tuple]:
        return [shape[:1] for shape in input_shape]

    def call(self, averages: list) -> list:
        ops = keras.ops
        scaled = ops.concatenate(averages, axis=1) / self._scale
        distances = ops.sum(ops.square(scaled[:, None] - self._scaled_means[None]), axis=-1)
        own = ops.argmin(distances, axis=-1)
        weights = ops.take(ops.convert_to_tensor(self._weights), own, axis=0)
        parts, start = [], 0
        for average in averages:
            width = average.shape[-1]
            parts.append(ops.sum(average * weights[:, start : start + width], axis=-1))
            start += width
        parts[0] = parts[0] + ops.take(ops.convert_to_tensor(self._bias), own)
        return parts


def _restored(network: keras.Model, path: files.PathLike) -> keras.Model:
    """The network with folded batch norm, as it was exported, and the SavedModel's weights."""
    restored = fold_batch_norm(network).model
    variables = {variable.name.removesuffix(":0"): variable for variable in saved_model.load(path).variables}
    stored = {stable: variables[name] for name, stable in stable_paths(variables).items()}
    names = stable_paths(weight.path for weight in restored.weights)
    for weight in restored.weights:
        value = stored.get(names[weight.path])
        if value is None or tuple(value.shape) != tuple(weight.shape):
            found = "nothing" if value is None else f"shape {tuple(value.shape)}"
            raise UserError(
                f"{path}: not the network of its run's settings: expected {weight.path} of shape "
                f"{tuple(weight.shape)}, found {found}. Was it written by another version?"
            )
        weight.assign(value)
    return restored
