"""Batch norm that is folded away leaves the numbers as they were."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mvtec_tf.networks.backbone import build_backbone, freeze_up_to
from mvtec_tf.networks.classifier import build_classifier
from mvtec_tf.networks.fold import fold_batch_norm, with_frozen_folded
from mvtec_tf.training import precision
from tests.support.small_run import set_weights_at_random


def _images(size, count=3):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize(("name", "stages"), [("resnet10", 0), ("resnet50", 4)])
def test_the_folded_network_gives_the_same_logits(name, stages):
    network = build_classifier(build_backbone(name, 64, cut_after_stage=stages))
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            rng = np.random.default_rng(0)
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    folded = fold_batch_norm(network)
    images = _images(64)
    expected = network(images, training=False).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(folded.model(images, training=False), expected, atol=1e-4)
    assert folded.kept == ()
    assert not [layer for layer in folded.model.layers if isinstance(layer, layers.BatchNormalization)]
    assert {layer.name for layer in folded.model.layers} == {layer.name for layer in network.layers}


@pytest.mark.parametrize(
    "linear",
    [
        layers.Conv2D(6, 3, padding="same", groups=3),
        layers.Conv2D(6, 3, use_bias=False),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.DepthwiseConv2D(3, use_bias=False),
        layers.SeparableConv2D(5, 3),
        layers.SeparableConv2D(5, 3, use_bias=False),
        layers.Dense(4),
        layers.Dense(4, use_bias=False),
    ],
    ids=lambda layer: f"{type(layer).__name__}, {'with' if layer.use_bias else 'no'} bias",
)
def test_every_kind_of_linear_layer_takes_the_batch_norm_behind_it(linear):
    inputs = keras.Input((9, 9, 3))
    linear = type(linear).from_config(linear.get_config())
    model = keras.Model(inputs, layers.ReLU()(layers.BatchNormalization(scale=False)(linear(inputs))))
    set_weights_at_random(model)
    folded = fold_batch_norm(model)
    assert len(folded.folded) == 1
    x = np.random.default_rng(2).normal(size=(2, 9, 9, 3)).astype(np.float32)
    expected = model(x, training=False).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(folded.model(x), expected, atol=1e-5)


def test_batch_norm_that_cannot_be_folded_stays():
    inputs = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, activation="relu", name="not_linear")(inputs)
    behind_relu = layers.BatchNormalization(name="behind_relu")(shared)
    twice = layers.Conv2D(4, 3, name="twice")(behind_relu)
    branch = layers.BatchNormalization(name="branch")(twice)
    model = keras.Model(inputs, [layers.Add()([branch, twice]), layers.Conv2D(2, 3, padding="same")(branch)])
    set_weights_at_random(model)
    folded = fold_batch_norm(model)
    assert folded.folded == ()
    assert set(folded.kept) == {"behind_relu", "branch"}
    x = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype(np.float32)
    for got, expected in zip(folded.model(x), model(x, training=False), strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_original_keeps_its_weights():
    network = build_classifier(build_backbone("resnet10", 32))
    before = [weight.copy() for weight in network.get_weights()]
    fold_batch_norm(network)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("number_format", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.1)])
def test_what_is_frozen_is_folded_for_training_and_the_rest_learns_the_same(number_format, tolerance):
    with precision.dtype_policy(number_format):
        backbone = build_backbone("resnet10", 32)
        network = build_classifier(backbone)
    freeze_up_to(network, backbone, 1)
    trained = with_frozen_folded(network)
    set_weights_at_random(network)  # after: as a resumed run loads them
    assert sum(type(layer).__name__ == "_Frozen" for layer in trained.layers) > 3
    assert list(map(id, trained.trainable_variables)) == list(map(id, network.trainable_variables))
    steps = []
    for model in (network, trained):
        keras.utils.set_random_seed(0)
        with tf.GradientTape() as tape:
            logits = model(_images(32))
            loss = tf.reduce_sum(tf.square(logits))
        steps.append([logits, *tape.gradient(loss, model.trainable_variables)])
    for expected, got in zip(*steps, strict=True):
        assert np.ptp(expected) > 0
        got, expected = (np.asarray(one, np.float64) for one in (got, expected))
        assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected)


def test_a_network_of_which_nothing_is_frozen_is_trained_as_it_is():
    network = build_classifier(build_backbone("resnet10", 32))
    assert with_frozen_folded(network) is network
