"""The fused batch norm is Keras' own: its values, its gradients, its averages, its weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.networks.replicas import BatchNormalization

SHAPE = (4, 5, 3, 6)


def _both(dtype="float32", shape=SHAPE, **settings):
    """(fused, Keras' own), of equal weights."""
    kinds = (BatchNormalization, keras.layers.BatchNormalization)
    pair = [kind(momentum=0.9, dtype=dtype, **settings) for kind in kinds]
    rng = np.random.default_rng(1)
    for layer in pair:
        layer.build((None, *shape[1:]))
    weights = [rng.uniform(0.5, 2.0, value.shape) for value in pair[0].get_weights()]
    for layer in pair:
        layer.set_weights(weights)
    return pair


def _step(layer, x, training):
    """Output, gradients by the input and the trained weights, and all weights after."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.sin(3.0 * tf.cast(y, tf.float32)))
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    return [np.asarray(value, np.float64) for value in (tf.cast(y, tf.float32), *gradients, *layer.get_weights())]


def _images(shape=SHAPE, dtype="float32"):
    return tf.cast(tf.constant(np.random.default_rng(0).normal(2.0, 3.0, shape), tf.float32), dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}, {"trainable": False}, {"axis": 3}])
def test_values_gradients_and_averages_are_those_of_keras(settings, training):
    fused, own = _both(**settings)
    for mine, theirs in zip(_step(fused, _images(), training), _step(own, _images(), training), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)


def test_a_batch_of_one_value_is_no_division_by_zero():
    fused, own = _both(shape=(1, 1, 1, 6))
    for mine, theirs in zip(*(_step(layer, _images((1, 1, 1, 6)), True) for layer in (fused, own)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_statistics_and_averages_are_those_of_float32():
    fused, own = _both("mixed_bfloat16")
    mine, theirs = (_step(layer, _images(dtype="bfloat16"), True) for layer in (fused, own))
    np.testing.assert_allclose(mine[0], theirs[0], rtol=0.02, atol=0.02)
    for one, other in zip(mine[-4:], theirs[-4:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert fused(_images(dtype="bfloat16")).dtype == tf.bfloat16


def test_what_is_no_map_goes_the_way_of_keras():
    fused, own = _both(shape=(7, 6))
    for mine, theirs in zip(*(_step(layer, _images((7, 6)), True) for layer in (fused, own)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_every_network_and_its_copies_have_it_and_take_the_weights_of_keras_own():
    model = build_backbone("mobilenetv2", 32).model
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert names
    for network in (model, in_float32(model)):
        assert {type(network.get_layer(name)) for name in names} == {BatchNormalization}
    plain = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    model.set_weights(plain.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    expected = plain(keras.applications.mobilenet_v2.preprocess_input(image.astype(np.float32)), training=False)
    np.testing.assert_allclose(model(image, training=False), expected, rtol=1e-3, atol=1e-3)
