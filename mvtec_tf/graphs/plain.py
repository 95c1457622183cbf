"""An export's answer to the pixels of one image, said in ops that other runtimes have too.

The graph of a SavedModel is made for files and for batches of any size: it has a decoder, loops over images, shapes
that are known only when it runs, images that are parted by their category, and gradients. Of one image of a known size
nearly all of this is known beforehand. So the graph is gone through op by op (partial evaluation): what depends on no
pixel is computed now, loops are written out, and what other runtimes have not is said otherwise. What is left are the
ops that compute.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager.context import context
from tensorflow.python.eager.execute import execute
from tensorflow.python.ops.control_flow_util_v2 import get_func_graph

from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UserError
from mvtec_tf.graphs.signatures import EXPLAIN

IMAGES = "images"
# Of an output that is a picture, encoded.
_ENCODED = "_bytes"
# An eager tensor where the value is known now, a symbolic one where it depends on pixels, a list of these, or `_Named`.
_Value = Any
_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


@dataclasses.dataclass(frozen=True)
class Plain:
    """The answer to the pixels of one image.

    Attributes:
      function: a tf.function without variables, `images` uint8 [1, height, width, 3], RGB -> each output that is a
        number and depends on the image; of a name out of a list its place.
      names: output -> that list.
      constants: output -> its value, of those that are the same for every image.
    """

    function: Any
    names: dict[str, list[str]]
    constants: dict[str, float | int | str]


def of_export(model: Any, image_size: pixels.Size) -> Plain:
    """What the signature `explain` of an export makes of pixels, without the decoder before it.

    Args:
      model: a loaded SavedModel.
      image_size: of the pixels that its network takes.

    Raises:
      UserError: it has no such signature, or its graph is none of this program's.
    """
    if EXPLAIN not in model.signatures:
        raise UserError(
            f"The model gives no verdicts (it has no signature {EXPLAIN}), and only models that do can be had in other "
            "formats."
        )
    graph = model.signatures[EXPLAIN].graph
    # Nested structures are flattened by the order of their keys.
    outputs = dict(zip(sorted(graph.structured_outputs), graph.outputs, strict=True))
    names: dict[str, list[str]] = {}
    constants: dict[str, float | int | str] = {}

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        captured = {inside.ref(): outside for outside, inside in graph.captures}
        run, found = _Run(images, captured, _Constants()), {}
        for name in filter(lambda name: not name.endswith(_ENCODED), outputs):
            value = run.of(outputs[name])
            if isinstance(value, _Named):
                value, names[name] = value.place, value.names
            if _known(value):
                constants[name] = _plain(value)
            else:
                found[name] = tf.identity(value, name=name)
        return found

    spec = tf.TensorSpec([1, *pixels.height_and_width(image_size), 3], tf.uint8, name=IMAGES)
    function = tf.function(answer, input_signature=[spec], autograph=False)
    # Names and constants are known once it is traced.
    function.get_concrete_function()
    return Plain(function, names, constants)


def _plain(value: tf.Tensor) -> float | int | str:
    (one,) = value.numpy().tolist()
    return one.decode() if isinstance(one, bytes) else one


@dataclasses.dataclass(frozen=True)
class _Named:
    """Strings out of a list."""

    place: tf.Tensor
    names: list[str]


class _Constants:
    """What is known in the graph that is being built: one constant each, however often it is used."""

    def __init__(self) -> None:
        # With the value itself, whose number is another's as soon as it is gone.
        self._there: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        self._read: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}
        self._chosen: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}

    def only_image(self, condition: tf.Tensor) -> tf.Tensor:
        """Which images are of a category, int64 [1, 1]: the only one; `condition_of` says whether it is."""
        with tf.init_scope():
            place = tf.zeros([1, 1], tf.int64)
        self._chosen[id(place)] = place, condition
        return place

    def condition_of(self, place: _Value) -> tf.Tensor | None:
        """Bool [1], whether the only image is at a place; None of a place that is no image's of a category."""
        return self._chosen.get(id(place), (None, None))[1]

    def in_graph(self, value: _Value) -> tf.Tensor:
        """The tensor of a value; one that depends on pixels is in the graph already."""
        if not _known(value):
            return value
        if id(value) not in self._there:
            self._there[id(value)] = value, tf.constant(value.numpy())
        return self._there[id(value)][1]

    def of_variable(self, resource: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Its value, which is known."""
        if id(resource) not in self._read:
            with tf.init_scope():
                self._read[id(resource)] = resource, tf.raw_ops.ReadVariableOp(resource=resource, dtype=dtype)
        return self._read[id(resource)][1]


class _Run:
    """The values of the tensors of one graph, computed when they are asked for.

    Args:
      images: pixels, which take the place of the decoder's.
      values: of some tensors, by reference.
      constants: what is known in the graph that is being built.
      outside: a function's inputs, by reference -> what gives their values; they are asked for only if they are used.
    """

    def __init__(
        self,
        images: tf.Tensor,
        values: Mapping[Any, _Value],
        constants: _Constants,
        outside: Mapping[Any, Callable[[], _Value]] | None = None,
    ) -> None:
        self._images = images
        self._values = dict(values)
        self._constants = constants
        self._outside = outside or {}
        self._called: dict[tf.Operation, tuple[_Run, list[tf.Tensor]]] = {}

    def of(self, tensor: tf.Tensor) -> _Value:
        """The value of a tensor. What it needs is computed first, in turn and not by recursion: networks are deep."""
        waiting = [tensor]
        while waiting:
            one = waiting[-1]
            if one.ref() in self._values:
                waiting.pop()
            elif (found := self._without_inputs(one)) is not None:
                self._values[one.ref()] = found
            elif missing := [needed for needed in one.op.inputs if needed.ref() not in self._values]:
                waiting += missing
            else:
                results = self._computed(one.op, [self._values[needed.ref()] for needed in one.op.inputs])
                self._values |= {own.ref(): value for own, value in zip(one.op.outputs, results, strict=True)}
        return self._values[tensor.ref()]

    def _without_inputs(self, tensor: tf.Tensor) -> _Value:
        """The value of a tensor that is not computed from all inputs of its op; None of others."""
        operation = tensor.op
        if tensor.ref() in self._outside:
            return self._outside[tensor.ref()]()
        if operation.type == "TensorListStack" and tensor.dtype == tf.uint8:
            return self._images
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            if operation not in self._called:
                graph = _graph_of(operation, "f")
                outside = {
                    inside.ref(): (lambda given=given: self.of(given))
                    for inside, given in zip(graph.inputs, operation.inputs, strict=True)
                }
                self._called[operation] = _Run(self._images, {}, self._constants, outside), graph.outputs
            run, outputs = self._called[operation]
            return run.of(outputs[tensor.value_index])
        return None

    def _computed(self, operation: tf.Operation, inputs: list[_Value]) -> list[_Value]:
        if operation.type in ("While", "StatelessWhile"):
            return self._unrolled(operation, inputs)
        if operation.type == "Where" and not _known(inputs[0]):
            if inputs[0].shape != [1]:
                raise UserError(f"The graph looks for places in {inputs[0].shape}, which depend on the image.")
            return [self._constants.only_image(inputs[0])]
        if operation.type == "TensorScatterUpdate":
            condition = self._constants.condition_of(inputs[1])
            if condition is not None:
                old, _, new = map(self._constants.in_graph, inputs)
                return [tf.where(tf.reshape(condition, [-1] + [1] * (len(old.shape) - 1)), new, old)]
        if operation.type == "ReadVariableOp":
            return [self._constants.of_variable(inputs[0], operation.get_attr("dtype"))]
        if operation.type == "ResourceGather":
            values = self._constants.of_variable(inputs[0], operation.get_attr("dtype"))
            return [tf.gather(*map(self._constants.in_graph, (values, inputs[1])))]
        if operation.type == "ShapeN":
            return [_static_shape(operation, one) for one in inputs]
        known = all(map(_known, inputs))
        with tf.init_scope() if known else contextlib.nullcontext():
            if operation.type in _KNOWN and (found := _KNOWN[operation.type](operation, *inputs)) is not None:
                return [found]
            # A loop's list of tensors is known by the ops above alone.
            given = inputs if known else list(map(self._constants.in_graph, inputs))
            if operation.type in _OTHERWISE:
                return [_OTHERWISE[operation.type](*given)]
            return _compute(operation, given) if known else _add(operation, given)

    def _unrolled(self, operation: tf.Operation, values: list[_Value]) -> list[_Value]:
        """The results of a loop whose number of rounds is known."""
        condition, body = _graph_of(operation, "cond"), _graph_of(operation, "body")
        while True:
            (go_on,) = self._inside(condition, values)
            if not _known(go_on):
                raise UserError("The graph has a loop whose number of rounds depends on the image.")
            if not bool(go_on):
                return values
            values = self._inside(body, values)

    def _inside(self, graph: Any, values: list[_Value]) -> list[_Value]:
        given = {one.ref(): value for one, value in zip(graph.inputs, values, strict=True)}
        run = _Run(self._images, given, self._constants)
        return [run.of(one) for one in graph.outputs]


def _graph_of(operation: tf.Operation, attribute: str) -> Any:
    """The graph of a function that an operation calls."""
    shapes = [one.shape for one in operation.inputs]
    return get_func_graph(operation, shapes, operation.get_attr(attribute).name)


def _known(value: _Value) -> bool:
    return all(map(_known, value)) if isinstance(value, list) else value is None or hasattr(value, "numpy")


def _add(operation: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """The same operation on other inputs, in the graph that is being built."""
    # An underscore begins what TensorFlow notes for itself, such as shapes.
    attributes = {name: value for name, value in operation.node_def.attr.items() if not name.startswith("_")}
    types = [one.dtype for one in operation.outputs]
    graph = tf.compat.v1.get_default_graph()
    # Its name says in the files which part of the network it is.
    return list(graph.create_op(operation.type, inputs, types, name=operation.name, attrs=attributes).outputs)


def _compute(operation: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """The operation's results on known inputs."""
    attributes = []
    for one in operation.op_def.attr:
        value = operation.get_attr(one.name)
        if one.type in ("type", "list(type)"):
            value = value.as_datatype_enum if one.type == "type" else [part.as_datatype_enum for part in value]
        attributes += [one.name, value]
    return list(execute(operation.type, len(operation.outputs), inputs, tuple(attributes), context()))


def _no_other_input(operation: tf.Operation) -> _Value:
    raise UserError(f"The graph's answer depends on {operation.name}, and not on pixels alone.")


def _static_shape(operation: tf.Operation, value: tf.Tensor) -> tf.Tensor | None:
    if not value.shape.is_fully_defined():
        return None
    with tf.init_scope():
        return tf.constant(value.shape.as_list(), operation.outputs[0].dtype)


def _only_choice(operation: tf.Operation, values: tf.Tensor, axis: tf.Tensor) -> tf.Tensor | None:
    """Of one, the largest and the smallest is the first."""
    shape, place = values.shape.as_list(), int(axis)
    if shape[place] != 1:
        return None
    del shape[place]
    with tf.init_scope():
        return tf.zeros(shape, operation.outputs[0].dtype)


def _named(_: tf.Operation, values: tf.Tensor, place: tf.Tensor, axis: tf.Tensor) -> _Value:
    """Strings are no numbers: of such a choice the place is kept."""
    del axis
    if values.dtype != tf.string or _known(place):
        return None
    return _Named(place, [name.decode() for name in values.numpy().tolist()])


def _to_half(operation: tf.Operation, value: tf.Tensor) -> tf.Tensor | None:
    """Rounds to float16's 11 digits by arithmetic first (Veltkamp; Dekker, Numerische Mathematik 1971, 5.7).

    A cast to float16 and back is all that keeps maps as coarse as a head was fitted on, and converters take such a pair
    for idle and leave it out. Below float16's smallest normal number, 6e-5, more digits stay than float16 has.
    """
    if _known(value) or value.dtype != tf.float32 or operation.outputs[0].dtype != tf.float16:
        return None
    larger = value * (2.0**13 + 1)
    return tf.cast((value - larger) + larger, tf.float16)


def _slice_gradient(
    operation: tf.Operation, shape: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, strides: tf.Tensor, gradient: tf.Tensor
) -> tf.Tensor:
    """The gradient where the slice was, else 0."""
    masks = {name: operation.get_attr(name) for name in _MASKS}
    with tf.init_scope():
        count = int(tf.reduce_prod(shape))
        places = tf.reshape(tf.range(1, count + 1), shape)
        taken = tf.raw_ops.StridedSlice(input=places, begin=begin, end=end, strides=strides, **masks)
        taken = tf.reshape(taken, [-1, 1])
        # For every place: which number of the gradient it gets, or the 0 in front.
        source = tf.scatter_nd(taken, tf.range(1, len(taken) + 1), [count + 1])[1:].numpy()
    flat = tf.concat([tf.zeros([1], gradient.dtype), tf.reshape(gradient, [-1])], axis=0)
    return tf.reshape(tf.gather(flat, tf.constant(source)), shape.numpy())


def _log1p(value: tf.Tensor) -> tf.Tensor:
    """log(1 + x) that keeps the digits of a small x (Goldberg, ACM Computing Surveys 1991, theorem 4, after Kahan)."""
    more = 1 + value
    ratio = tf.math.log(more) / tf.where(more == 1, tf.ones_like(more), more - 1)
    return value * tf.where(more == 1, tf.ones_like(more), ratio)


def _erfc(value: tf.Tensor) -> tf.Tensor:
    """The complementary error function, to 1.2e-7 of itself (Press et al., Numerical Recipes in C, 2nd ed., 6.2)."""
    size = tf.abs(value)
    t = 1 / (1 + size / 2)
    power = tf.zeros_like(t)
    for factor in _ERFC:
        power = factor + t * power
    tail = t * tf.exp(power - tf.square(size))
    return tf.where(value < 0, 2 - tail, tail)


# Of t = 1 / (1 + x / 2), the highest power first.
_ERFC = (0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196)
_ERFC += (1.00002368, -1.26551223)


def _sum_by_place(_: tf.Operation, values: tf.Tensor, places: tf.Tensor, count: tf.Tensor) -> tf.Tensor | None:
    """The gradient of what was gathered from known places: rows of zeros and ones times the values."""
    if not _known(places):
        return None
    with tf.init_scope():
        taken = tf.transpose(tf.one_hot(tf.reshape(places, [-1]), int(count), dtype=values.dtype)).numpy()
    rows = tf.reshape(values, [taken.shape[1], -1])
    return tf.reshape(tf.matmul(tf.constant(taken), rows), [int(count), *values.shape[len(places.shape) :]])


def _whole_update(_: tf.Operation, old: tf.Tensor, place: tf.Tensor, new: tf.Tensor) -> tf.Tensor | None:
    return new if _known(place) and old.shape[0] == len(place) == 1 else None


# What is known of one image, and what must be said with care: op, its inputs -> its one result; None: as it is.
_KNOWN: Mapping[str, Callable[..., _Value]] = {
    "Placeholder": _no_other_input,
    "Cast": _to_half,
    "Const": lambda operation: tf.constant(tf.get_static_value(operation.outputs[0])),
    "Shape": _static_shape,
    "ArgMin": _only_choice,
    "ArgMax": _only_choice,
    "GatherV2": _named,
    "Identity": lambda _, value: value,
    "StopGradient": lambda _, value: value,
    "PreventGradient": lambda _, value: value,
    "TensorScatterUpdate": _whole_update,
    "Pad": lambda _, value, sizes: value if _known(sizes) and not sizes.numpy().any() else None,
    # Of the only image's name; see `signatures.also_empty`.
    "StridedSlice": lambda _, value, *__: value if isinstance(value, _Named) else None,
    "StridedSliceGrad": _slice_gradient,
    "UnsortedSegmentSum": _sum_by_place,
    # A list of tensors is a list here too; these are the ops that a loop over images has.
    "TensorListReserve": lambda _, __, count: [None] * int(count),
    "TensorListFromTensor": lambda _, value, __: tf.unstack(value),
    "TensorListGetItem": lambda _, values, place, __: values[int(place)],
    "TensorListSetItem": lambda _, values, place, value: [*values[: int(place)], value, *values[int(place) + 1 :]],
    "TensorListStack": lambda _, values, __: tf.stack(values),
}
# Ops that not all other runtimes have, said by those that they have.
_OTHERWISE: Mapping[str, Callable[..., tf.Tensor]] = {
    "ClipByValue": lambda value, low, high: tf.minimum(tf.maximum(value, low), high),
    "Erfc": _erfc,
    "DivNoNan": lambda value, by: tf.where(by == 0, tf.zeros_like(value), value / tf.where(by == 0, 1.0, by)),
    "IsFinite": lambda value: tf.abs(value) < np.inf,
    "Log1p": _log1p,
    "SqrtGrad": lambda root, gradient: 0.5 * gradient / root,
    "ReluGrad": lambda gradient, value: gradient * tf.cast(value > 0, gradient.dtype),
}
