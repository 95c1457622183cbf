"""A student in fewer bits, as LiteRT files: the network's weights in float16, or the network in int8 between its first
and last maps.

What is read off the last maps stays in float32: 256 steps are too few to rank images by, and means and maxima of one
map differ too much to share them. So do the layers that the head sees, see `networks.student.early`, and what is
computed of the answers: the head, the threshold, how usual an image is.
"""

import contextlib
import io
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.errors import UserError
from mvtec_tf.features.student_graph import SCOPE
from mvtec_tf.graphs import plain
from mvtec_tf.networks.student import READ_OFF
from mvtec_tf.serving import exchange, formats
from mvtec_tf.serving.settings import INT8

_LITERT = "litert"


def require(kinds: Sequence[str]) -> None:
    """Raises UserError if what these need is not installed."""
    if kinds:
        exchange.require(exchange.FORMS[_LITERT].module, exchange.FORMS[_LITERT].name)
        exchange.require("ai_edge_quantizer", "ai-edge-quantizer, which writes fewer bits,")


def write(
    folder: pathlib.Path, kind: str, said: plain.Plain, card: Mapping[str, Any], good: Sequence[np.ndarray]
) -> exchange.ExchangeModel:
    """Writes all that a device needs, and opens it.

    Args:
      folder: a new one.
      kind: one of `settings.STUDENT_FORMS`.
      said: the student, with or without its threshold.
      card: of the student.
      good: images uint8 [1, S, S, 3] of good parts, by whose values the steps of int8 are chosen.

    Raises:
      UserError: an op has no such form, or there are no good images.
    """
    if kind == INT8 and not good:
        raise UserError("int8 needs good images, by whose values its steps are chosen, and there are none.")

    def convert(function: Any, file: pathlib.Path) -> None:
        formats.write_litert(function, file)
        if kind == INT8:
            _quantise(file, good, card.get("early_layers", ()))
        else:
            _halve(file)

    return formats.put(folder, _LITERT, said, card, convert)


def _halve(file: pathlib.Path) -> None:
    """Replaces the weights of a file's network by float16; a head's distances would lose the digits they are about."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    halved = quantizer.Quantizer(str(file))
    names = qtyping.TFLOperationName
    for weighing in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED):
        halved.add_weight_only_config(f"{SCOPE}/", weighing, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    with contextlib.redirect_stdout(io.StringIO()):
        halved.quantize().export_model(str(file), overwrite=True)


def _quantise(file: pathlib.Path, good: Sequence[np.ndarray], early: Sequence[str]) -> None:
    """Replaces a file's network by its int8 form (Jacob et al., CVPR 2018), but for what is read off and its `early`
    layers."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    quantised = quantizer.Quantizer(str(file))
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    quantised.add_static_config(f"{SCOPE}/", every, activation_num_bits=8, weight_num_bits=8)
    named = "|".join(map(re.escape, early))
    # In Keras' scaling of pixels, ops stand where layers do elsewhere.
    for kept in (f"({'|'.join(READ_OFF)})", "/(truediv|Sub|mul)", *([f"/({named})(_\\d+)?/"] if named else [])):
        quantised.update_quantization_recipe(f"{SCOPE}/.*{kept}", every, algorithm_key=AlgorithmName.NO_QUANTIZE)
    images = [{exchange.IMAGES: image} for image in good]
    # It prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        seen = quantised.calibrate({"serving_default": images})
        quantised.quantize(seen).export_model(str(file), overwrite=True)
