"""Grad-CAM and Grad-CAM++: where in an image the evidence for a defect lies, as the network sees it.

The only part of the evaluation that takes a model. The method is tf-keras-vis'; here the maps of
several layers become one, in the unit of the score.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.data import pillow_images
from mvtec_tf.keras_settings import keras

with warnings.catch_warnings():
    # tf-keras-vis 0.8.7 takes scipy's zoom by a name that SciPy will drop in its version 2.
    warnings.simplefilter("ignore", DeprecationWarning)
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus

GRADCAM, GRADCAM_PLUS_PLUS = "gradcam", "gradcam++"
NAMES = {GRADCAM: "Grad-CAM", GRADCAM_PLUS_PLUS: "Grad-CAM++"}


def heat(parts: keras.Model, maps: Sequence[np.ndarray], method: str) -> np.ndarray:
    """Heat maps of a score that is a sum of parts, one for each of several layers.

    Always of the evidence for a defect, also of images that were called good: only so can maps be
    set against the masks of what was missed.

    - Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2) of each part with respect to its own
      layer, times the layer's number of positions, brought to the finest layer's size and added;
      what is negative in the sum is cut off last. Before that, for a linear head on global averages,
      the mean of the map is the score less the head's bias.
    - Grad-CAM++ (Chattopadhay et al., WACV 2018, equations 5 and 19) likewise, where each layer's
      weights hold positive gradients only. The factor exp(score), the same for all of an image's
      pixels, is left out: it would overflow, and set images apart by their score alone.

    Args:
      parts: flat functional float32 network, the layers' maps -> one float32 [B] for each.
      maps: float32 [B, h, w, C] of each layer.
      method: "gradcam" or "gradcam++".

    Returns:
      float32 [B, h, w], 0 or more, of the finest layer's size.
    """
    tensors = [tf.constant(one) for one in maps]
    found = [_of_layer(parts, index, tensors, method) for index in range(len(tensors))]
    height, width = max((cam.shape[1:] for cam in found), key=lambda size: size[0] * size[1])
    # What a position says is its share of the average: a coarse layer's speaks for many fine ones.
    total = sum(
        np.stack([pillow_images.resized(one, height, width) for one in cam]) * (cam.shape[1] * cam.shape[2])
        for cam in found
    )
    return np.maximum(total, 0.0).astype(np.float32)


def _of_layer(parts: keras.Model, index: int, maps: list[tf.Tensor], method: str) -> np.ndarray:
    """float32 [B, h, w], of one part with respect to its own layer's map."""
    explainer, rest = {GRADCAM: (Gradcam, {"activation_modifier": None}), GRADCAM_PLUS_PLUS: (GradcamPlusPlus, {})}[
        method
    ]
    cam = explainer(parts, clone=False)(
        [_centred if other == index else tf.zeros_like for other in range(len(parts.outputs))],
        maps,
        penultimate_layer=parts.inputs[index]._keras_history.operation,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
        **rest,
    )
    # Of Grad-CAM++ the library adds up exp(score) of all parts, each of which is exp(0) here.
    return np.asarray(cam, np.float32) / (len(parts.outputs) if method == GRADCAM_PLUS_PLUS else 1)


def _centred(score: tf.Tensor) -> tf.Tensor:
    """A score of 0 with the gradient of the score; see exp(score) above."""
    return score - tf.stop_gradient(score)
