"""What a network is made of, as plain data for a run's record: its blocks from the image to the output."""

import math
from collections.abc import Sequence
from typing import Any

from mvtec_tf.keras_settings import keras


def describe(model: keras.Model, stages: Sequence[str], trained: bool = True) -> list[dict[str, Any]]:
    """The blocks of a network in the order in which an image goes through them.

    Args:
      model: a flat functional graph.
      stages: names of the last layer at each resolution of its backbone; what follows the last of
        them is the head, whose layers are blocks of their own.
      trained: whether the network is trained as a whole; if not, no weight of it is.

    Returns:
      For each block: "name"; "kind", the class of a head's layer, "image" or "stage"; "shape" of its
      output without the batch; "parameters", batch norm's statistics included; "trained" of them.
    """
    shape = model.inputs[0].shape[1:]
    blocks = [{"name": model.inputs[0].name, "kind": "image", "shape": list(shape), "parameters": 0, "trained": 0}]
    ends, waiting = list(stages), []
    for layer in model.layers[1:]:
        waiting.append(layer)
        if ends and layer.name != ends[0]:
            continue
        kind = "stage" if ends else type(layer).__name__
        ends = ends[1:]
        blocks.append(_block(layer, kind, waiting, trained))
        waiting = []
    return blocks


def _block(last: keras.Layer, kind: str, layers: Sequence[keras.Layer], trained: bool) -> dict[str, Any]:
    weights = [weight for layer in layers for weight in layer.trainable_weights] if trained else []
    return {
        "name": last.name,
        "kind": kind,
        "shape": list(last.output.shape[1:]),
        "parameters": sum(layer.count_params() for layer in layers),
        "trained": sum(math.prod(weight.shape) for weight in weights),
    }
