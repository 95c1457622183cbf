"""A backbone of two layers in place of resnet10, where many processes or replicas each have to make its graph."""

import contextlib
from unittest import mock

from keras import layers

from mvtec_tf.networks import backbone
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
