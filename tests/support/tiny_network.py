"""A backbone of two layers in place of resnet10, where many processes or replicas each have to make its graph, and a
denoiser of as few."""

import contextlib
from unittest import mock

from keras import layers

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import backbone, diffusion
from mvtec_tf.networks.replicas import BatchNormalization


@contextlib.contextmanager
def in_place_of_resnet10():
    with mock.patch.dict(backbone._SMALL, resnet10=_tiny):
        yield


def _tiny(inputs):
    x = inputs
    for number, (filters, stride) in enumerate(((8, 4), (16, 2))):
        x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(BatchNormalization(name=f"bn{number}")(x))
    return x


@contextlib.contextmanager
def in_place_of_the_denoiser():
    with mock.patch.object(diffusion, "build_denoiser", tiny_denoiser):
        yield


def tiny_denoiser(side, channels, width=16):
    """A network that knows the step."""
    patches, steps = layers.Input((side, side, channels)), layers.Input((), dtype="int32")
    told = layers.Dense(width, activation="swish", name="told")(diffusion.StepEmbedding(8, name="step")(steps))
    x = layers.Conv2D(width, 3, padding="same", name="first")(patches)
    x = layers.Add(name="sum")([x, layers.Reshape((1, 1, width), name="shape")(told)])
    x = layers.Activation("swish", name="swish")(x)
    return keras.Model([patches, steps], layers.Conv2D(channels, 3, padding="same", name="last")(x))
