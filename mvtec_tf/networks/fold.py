"""Batch norm folded into the layers beside it: the same numbers with fewer ops, of what is not trained.

In inference batch norm is y = scale * x + shift with constants, scale = gamma / sqrt(variance + epsilon) and
shift = beta - scale * mean. A linear layer before it takes both into its weights (Jacob et al., CVPR 2018,
section 3.2), and so does a dense layer after it.
"""

import dataclasses
from collections.abc import Callable, Container

import numpy as np
import tensorflow as tf
from keras import layers

from mvtec_tf.keras_settings import keras

_BEFORE = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)


@dataclasses.dataclass(frozen=True)
class Folded:
    """A network without the batch norm that could be folded.

    Attributes:
      model: computes what the original does in inference; has its layers' names, and none of its weights.
      folded: names of the batch norm layers that are gone; a layer of that name passes its input on.
      kept: names of those that stay, because no linear layer stands directly beside them.
    """

    model: keras.Model
    folded: tuple[str, ...]
    kept: tuple[str, ...]


def fold_batch_norm(model: keras.Model) -> Folded:
    """Folds every batch norm of a flat functional network that stands directly beside a linear layer.

    A layer before batch norm must be linear and feed nothing else; a dense layer after it may stand behind
    dropout, which does nothing in inference. Layers that are called more than once are left alone, and so is what
    is an output of the model.

    Args:
      model: float32; it is not changed.
    """
    graph = _Graph(model)
    before: dict[str, layers.BatchNormalization] = {}
    after: dict[str, layers.BatchNormalization] = {}
    kept = []
    for layer in model.layers:
        if not isinstance(layer, layers.BatchNormalization):
            continue
        if (linear := graph.linear_before(layer)) is not None:
            before[linear.name] = layer
        elif (dense := graph.dense_after(layer)) is not None:
            after[dense.name] = layer
        else:
            kept.append(layer.name)
    gone = {layer.name for layer in (*before.values(), *after.values())}

    def copy(layer: layers.Layer) -> layers.Layer:
        if layer.name in gone:
            return layers.Identity(name=layer.name)
        config = layer.get_config()
        if layer.name in before or layer.name in after:
            config["use_bias"] = True
        return type(layer).from_config(config)

    clone = _rebuilt(model, copy, gone)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in gone or not weights:
            continue
        if layer.name in after:
            weights = _take_from_input(weights, after[layer.name])
        if layer.name in before:
            weights = _take_from_output(layer, weights, before[layer.name])
        clone.get_layer(layer.name).set_weights(weights)
    return Folded(clone, tuple(layer.name for layer in model.layers if layer.name in gone), tuple(kept))


def with_frozen_folded(network: keras.Model) -> keras.Model:
    """The network with every frozen convolution and the frozen batch norm behind it as one, to train the rest of it.

    Args:
      network: flat, functional.

    Returns:
      A model that shares all layers with `network`: it takes what is loaded into that later, and trains it.
    """
    graph = _Graph(network)
    norms = {}
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization) and not layer.trainable:
            linear = graph.linear_before(layer)
            if type(linear) is layers.Conv2D and not linear.trainable:
                norms[linear.name] = layer
    gone = {norm.name for norm in norms.values()}

    def shared(layer: layers.Layer) -> layers.Layer:
        if layer.name in gone:
            return layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        return _Frozen(layer, norms[layer.name]) if layer.name in norms else layer

    return _rebuilt(network, shared, gone) if norms else network


def _rebuilt(
    model: keras.Model, layer_of: Callable[[layers.Layer], layers.Layer], gone: Container[str]
) -> keras.Model:
    """The graph of a model with other layers, of which those that stand for a batch norm pass their input on."""

    def call(operation: keras.Operation, *args: object, **kwargs: object) -> object:
        # The call that is repeated is that of a batch norm, whose further arguments this layer does not know.
        return operation(args[0]) if operation.name in gone else operation(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=layer_of, call_function=call)


class _Frozen(keras.layers.Layer):
    """A convolution and the batch norm behind it, by the weights of both as they are when it is called."""

    def __init__(self, linear: layers.Conv2D, norm: layers.BatchNormalization) -> None:
        # Weights are multiplied in float32, and the product rounded, once; maps stay in their number format.
        super().__init__(name=linear.name, dtype="float32", autocast=False, trainable=False)
        self._linear, self._norm = linear, norm

    def compute_output_spec(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        """[B, h, w, C] -> what the convolution makes of it."""
        return keras.KerasTensor(self._linear.compute_output_shape(maps.shape), maps.dtype)

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        """[B, h, w, C] -> [B, h', w', D]."""
        norm, linear = self._norm, self._linear
        scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
        scale = scale * norm.gamma if norm.scale else scale
        shift = (linear.bias if linear.use_bias else 0.0) - norm.moving_mean
        shift = shift * scale + (norm.beta if norm.center else 0.0)
        kernel = tf.cast(tf.convert_to_tensor(linear.kernel) * scale, maps.dtype)
        return tf.nn.bias_add(linear.convolution_op(maps, kernel), tf.cast(shift, maps.dtype))


class _Graph:
    """Who feeds whom in a functional network."""

    def __init__(self, model: keras.Model) -> None:
        self._outputs = {id(tensor) for tensor in keras.tree.flatten(model.outputs)}
        self._consumers: dict[int, list[keras.Operation]] = {}
        self._calls: dict[int, int] = {}
        # Keras has no public way to ask which calls belong to this model: its layers may be shared with others.
        for node in (node for nodes in model._nodes_by_depth.values() for node in nodes):
            self._calls[id(node.operation)] = self._calls.get(id(node.operation), 0) + 1
            for tensor in node.arguments.keras_tensors:
                self._consumers.setdefault(id(tensor), []).append(node.operation)

    def linear_before(self, norm: layers.BatchNormalization) -> layers.Layer | None:
        """The linear layer that feeds `norm` and nothing else."""
        if not self._is_plain(norm):
            return None
        layer = norm.input._keras_history.operation
        linear = isinstance(layer, _BEFORE) and layer.activation is keras.activations.linear
        return layer if linear and self._is_plain(layer) and self._only_consumer(layer) is norm else None

    def dense_after(self, norm: layers.BatchNormalization) -> layers.Dense | None:
        """The dense layer that `norm` alone feeds, be it through dropout."""
        layer = norm
        while self._is_plain(layer):
            layer = self._only_consumer(layer)
            if not isinstance(layer, layers.Dropout):
                break
        return layer if isinstance(layer, layers.Dense) and self._calls[id(layer)] == 1 else None

    def _is_plain(self, layer: layers.Layer) -> bool:
        channels_last = getattr(layer, "axis", -1) in (-1, len(layer.output.shape) - 1)
        channels_last &= getattr(layer, "data_format", "channels_last") == "channels_last"
        return channels_last and self._calls[id(layer)] == 1 and len(layer._inbound_nodes) == 1

    def _only_consumer(self, layer: layers.Layer) -> keras.Operation | None:
        consumers = self._consumers.get(id(layer.output), [])
        return consumers[0] if len(consumers) == 1 and id(layer.output) not in self._outputs else None


def _scale_and_shift(norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """float64 [C] each."""
    mean, variance = (np.asarray(values, np.float64) for values in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, np.float64)
    shift = -mean * scale
    return scale, shift + np.asarray(norm.beta, np.float64) if norm.center else shift


def _take_from_output(
    layer: layers.Layer, weights: list[np.ndarray], norm: layers.BatchNormalization
) -> list[np.ndarray]:
    """Weights of `layer` that give what `norm` made of its output."""
    scale, shift = _scale_and_shift(norm)
    *kernels, bias = weights if layer.use_bias else [*weights, 0.0]
    kernel = np.asarray(kernels[-1], np.float64)
    # A depthwise kernel [h, w, C, M] has its output channels on two axes.
    per_output = scale.reshape(kernel.shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else scale
    return [*kernels[:-1], (kernel * per_output).astype(np.float32), (bias * scale + shift).astype(np.float32)]


def _take_from_input(weights: list[np.ndarray], norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Weights of a dense layer that give with `norm`'s input what they gave with its output."""
    scale, shift = _scale_and_shift(norm)
    kernel = np.asarray(weights[0], np.float64)
    bias = shift @ kernel + (weights[1] if len(weights) > 1 else 0.0)
    return [(kernel * scale[:, None]).astype(np.float32), bias.astype(np.float32)]
