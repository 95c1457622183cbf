"""Train steps compile with XLA, agree with the plain graph, and leave frozen layers alone."""

import dataclasses

import keras
import numpy as np
import pytest

from mvtec_tf.errors import UsageError
from mvtec_tf.networks.backbone import build_backbone, freeze_up_to
from mvtec_tf.networks.classifier import build_classifier, log_odds
from mvtec_tf.networks.losses import WeightedCrossEntropy
from mvtec_tf.networks.pretext import Pretext, build_network
from mvtec_tf.training import contrastive, precision
from mvtec_tf.training.schedules import OneCycleAdamW, WarmupCosine
from mvtec_tf.training.settings import ContrastiveSettings
from tests.support.tiny_network import in_place_of_resnet10


def _images(count, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, size, size, 3), np.uint8)


def _simclr(jit, policy="float32"):
    keras.utils.set_random_seed(0)
    with precision.dtype_policy(policy):
        network = build_network(build_backbone("resnet10", 32), hidden=32, dimensions=16)
    model = Pretext(network, temperature=0.5)
    optimizer = keras.optimizers.AdamW(WarmupCosine(1e-3, 1, 10), weight_decay=1e-4, global_clipnorm=1.0)
    model.compile(optimizer, jit_compile=jit)
    # As in training: a step that had to make these variables would be traced twice.
    optimizer.build(network.trainable_variables)
    return model, network


def _classifier(jit):
    keras.utils.set_random_seed(0)
    backbone = build_backbone("resnet10", 32)
    network = build_classifier(backbone)
    freeze_up_to(network, backbone, 2)
    network.compile(OneCycleAdamW(1e-3, 10, weight_decay=1e-4), WeightedCrossEntropy([0.5, 2.0]), jit_compile=jit)
    network.optimizer.build(network.trainable_variables)
    return network


def _two_steps(model, *batch):
    return [float(np.ravel(model.train_on_batch(*batch))[0]) for _ in range(2)]


@pytest.mark.slow
def test_two_simclr_steps_agree_with_and_without_xla():
    views = _images(8), _images(8, seed=1)
    outcomes = {}
    for jit in (False, True):
        with in_place_of_resnet10():
            model, network = _simclr(jit)
        losses = [model.train_on_batch(*views, return_dict=True)["loss"] for _ in range(2)]
        outcomes[jit] = (losses, network.predict(_images(4), verbose=0))
    for plain, compiled in zip(outcomes[False], outcomes[True], strict=True):
        np.testing.assert_allclose(plain, compiled, atol=1e-4)
    assert outcomes[True][0][0] != outcomes[True][0][1]


@pytest.mark.slow
def test_two_classifier_steps_agree_with_and_without_xla():
    labels = np.array([0, 1] * 4)
    with in_place_of_resnet10():
        start = build_classifier(build_backbone("resnet10", 32)).get_weights()
    losses = {}
    for jit in (False, True):
        with in_place_of_resnet10():
            model = _classifier(jit)
        model.set_weights(start)
        # Dropout draws other numbers under XLA; what is compared is the step, not the draw.
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        losses[jit] = _two_steps(model, _images(8), labels)
    np.testing.assert_allclose(losses[False], losses[True], atol=1e-4)


def test_simclr_learns_to_tell_images_apart():
    model, _ = _simclr(False)
    images = _images(16)
    views = images, np.clip(images.astype(int) + 10, 0, 255).astype(np.uint8)
    losses = [float(model.train_on_batch(*views, return_dict=True)["loss"]) for _ in range(15)]
    assert losses[-1] < losses[0] - 0.3


def test_simclr_trains_in_bfloat16_with_float32_weights():
    model, network = _simclr(False, "mixed_bfloat16")
    before = [weight.copy() for weight in network.get_weights()]
    logs = model.train_on_batch(_images(8), _images(8, seed=1), return_dict=True)
    assert np.isfinite(logs["loss"])
    assert {weight.dtype.name for weight in network.get_weights()} == {"float32"}
    assert any((a != b).any() for a, b in zip(before, network.get_weights(), strict=True))


def test_frozen_layers_and_their_batch_norm_do_not_move():
    model = _classifier(False)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    _two_steps(model, _images(8), np.array([0, 1] * 4))
    moved = {
        layer.name
        for layer in model.layers
        if any((a != b).any() for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert not [name for name in moved if name.startswith(("conv1", "conv2", "conv3"))]
    assert "conv4_block1_1_bn" in moved
    assert "logits" in moved


def test_a_resnet50_has_its_study_head_and_is_frozen_up_to_its_last_stages():
    backbone = build_backbone("resnet50", 32)
    model = build_classifier(backbone)
    freeze_up_to(model, backbone, 2)
    frozen = sum(weight.shape.num_elements() for weight in model.non_trainable_weights if "conv" in weight.path)
    assert frozen > 1_000_000
    assert [layer.name for layer in model.layers[-7:]] == [
        "pooled",
        "head_dropout_1",
        "head_dense",
        "head_relu",
        "head_bn",
        "head_dropout_2",
        "logits",
    ]


def test_the_log_odds_give_the_softmax_probability():
    logits = np.array([[0.3, -1.2], [2.0, 5.0]], np.float32)
    expected = np.exp(logits)[:, 1] / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds(logits))), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16"])
def test_a_policy_holds_inside_and_is_gone_after(name):
    before = keras.config.dtype_policy().name
    with precision.dtype_policy(name):
        assert keras.config.dtype_policy().name == name
    assert keras.config.dtype_policy().name == before


def test_named_choices_of_precision_and_compiler_are_kept():
    assert precision.resolve_precision("float32") == "float32"
    assert precision.resolve_precision("auto") in ("float32", "mixed_bfloat16")
    assert precision.resolve_jit("on") is True
    assert precision.resolve_jit("off") is False


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_frozen_stages_of_a_pretraining_are_not_among_what_it_trains(method):
    with in_place_of_resnet10():
        settings = ContrastiveSettings(backbone="resnet10", weights="none", image_size=32, method=method)
        network, backbone, facts = contrastive.network_of(dataclasses.replace(settings, frozen_stages=1))
        with pytest.raises(UsageError, match="`frozen_stages`=2: resnet10 has 2 stages"):
            contrastive.network_of(dataclasses.replace(settings, frozen_stages=2))
    trained = {weight.path.partition("/")[0] for weight in network.trainable_variables}
    assert "conv1" in trained
    assert not {"conv0", "bn0"} & trained
    assert backbone.stages == ("relu0", "relu1")
    assert facts["frozen"] == "frozen: 2 layers (conv0 ... bn0)."


@pytest.mark.slow
def test_frozen_batch_norm_of_a_pretraining_keeps_its_statistics_while_all_else_is_trained():
    with in_place_of_resnet10():
        settings = ContrastiveSettings(backbone="resnet10", weights="none", image_size=32, frozen_batch_norm=True)
        network, _, facts = contrastive.network_of(settings)
    before = {weight.path: np.array(weight) for weight in network.weights}
    model = contrastive.compiled(network, settings, images=48, jit=False)
    model.train_on_batch(_images(8), _images(8, seed=1))
    moved = {path.split("/")[0] for path, value in before.items() if not np.array_equal(value, _of(network, path))}
    assert {"conv0", "conv1", "projection_bn"} <= moved
    assert not {"bn0", "bn1"} & moved
    assert facts == {"batch_norm": "batch norm: frozen, as it was at the start."}


def _of(network, path):
    return np.array(next(weight for weight in network.weights if weight.path == path))
