"""Methods of learning from two views: losses against independent float64 references, and how they behave."""

import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.networks import pretext, pretext_losses
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.networks.pretext_losses import dense_nt_xent, nt_xent, supervised_nt_xent
from mvtec_tf.training.settings import ContrastiveSettings
from tests.support.in_process import run_in_process

SHAPE = (6, 4)


def _unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def _negative_cosine(p_a, p_b, z_a, z_b):
    return -0.5 * np.mean([_unit(p_a)[i] @ _unit(z_b)[i] + _unit(p_b)[i] @ _unit(z_a)[i] for i in range(len(p_a))])


def _barlow_twins(z_a, z_b):
    total = 0.0
    for i in range(z_a.shape[1]):
        for j in range(z_b.shape[1]):
            correlation = np.corrcoef(z_a[:, i], z_b[:, j])[0, 1]
            total += (1 - correlation) ** 2 if i == j else 5e-3 * correlation**2
    return total


def _vicreg(z_a, z_b):
    total = 25 * np.mean((z_a - z_b) ** 2)
    for z in (z_a, z_b):
        covariance = np.cov(z, rowvar=False)
        width = len(covariance)
        total += 25 * sum(max(0.0, 1 - np.sqrt(covariance[i, i] + 1e-4)) for i in range(width)) / width
        total += sum(covariance[i, j] ** 2 for i in range(width) for j in range(width) if i != j) / width
    return total


def _draws(count, scale=0.6):
    rng = np.random.default_rng(3)
    first = rng.normal(size=SHAPE) * scale
    return [first + 0.5 * scale * rng.normal(size=SHAPE) for _ in range(count)]


def _numeric_gradient(function, arguments, which):
    gradient = np.zeros(SHAPE)
    for place in np.ndindex(SHAPE):
        ends = []
        for step in (1e-5, -1e-5):
            moved = [one.copy() for one in arguments]
            moved[which][place] += step
            ends.append(function(*moved))
        gradient[place] = (ends[0] - ends[1]) / 2e-5
    return gradient


LOSSES = {
    "negative_cosine": (
        lambda p_a, p_b, z_a, z_b: pretext_losses.negative_cosine((p_a, p_b), (z_a, z_b)), _negative_cosine, 4, 2
    ),
    "barlow_twins": (pretext_losses.barlow_twins, _barlow_twins, 2, 2),
    "vicreg": (pretext_losses.vicreg, _vicreg, 2, 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_are_those_of_the_papers_equation(name):
    function, reference, count, with_gradient = LOSSES[name]
    arguments = _draws(count)
    tensors = [tf.constant(one, tf.float32) for one in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = function(*tensors)
    gradients = tape.gradient(loss, tensors)
    np.testing.assert_allclose(loss, reference(*arguments), rtol=1e-5)
    for which in range(count):
        if which >= with_gradient:
            assert gradients[which] is None
            continue
        expected = _numeric_gradient(reference, arguments, which)
        np.testing.assert_allclose(gradients[which], expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_byols_loss_is_the_mean_squared_distance_of_unit_vectors():
    p_a, p_b, t_a, t_b = _draws(4)
    expected = np.mean([np.sum((_unit(p) - _unit(t)) ** 2, axis=1) for p, t in ((p_a, t_b), (p_b, t_a))])
    found = pretext.METHODS["byol"].loss(pretext.Views(None, (p_a, p_b), (t_a, t_b)), 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def _dense_nt_xent(patches, maps, temperature):
    total, flat = [], [[_unit(one.reshape(-1, one.shape[-1])) for one in view] for view in (*patches, *maps)]
    views, features = flat[:2], flat[2:]
    for side in (0, 1):
        for i, ours in enumerate(views[side]):
            others = [_unit(view[k].mean(axis=0)[None])[0] for view in views for k in range(len(view)) if k != i]
            for s, patch in enumerate(ours):
                partner = np.argmax(features[1 - side][i] @ features[side][i][s])
                positive = np.exp(patch @ views[1 - side][i][partner] / temperature)
                total.append(-np.log(positive / (positive + sum(np.exp(patch @ t / temperature) for t in others))))
    return np.mean(total)


def test_the_loss_of_patches_and_its_gradient_are_those_of_a_loop_over_patches():
    rng = np.random.default_rng(5)
    patches, maps = rng.normal(size=(2, 3, 2, 2, 4)), rng.normal(size=(2, 3, 2, 2, 5))
    variable = tf.Variable(patches, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = dense_nt_xent(tuple(tf.unstack(variable)), tuple(tf.constant(maps, tf.float32)), 0.2)
    np.testing.assert_allclose(loss, _dense_nt_xent(patches, maps, 0.2), rtol=1e-5)
    gradient = tape.gradient(loss, variable).numpy()
    for place in [(0, 0, 0, 1, 2), (0, 2, 1, 0, 0), (1, 1, 1, 1, 3)]:
        ends = []
        for step in (1e-5, -1e-5):
            moved = patches.copy()
            moved[place] += step
            ends.append(_dense_nt_xent(moved, maps, 0.2))
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-5)


def _supervised_nt_xent(z_a, z_b, labels, temperature):
    z, labels, total = _unit(np.concatenate([z_a, z_b])), [*labels, *labels], 0.0
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        whole = np.log(sum(np.exp(z[i] @ z[k] / temperature) for k in others))
        total += np.mean([whole - z[i] @ z[p] / temperature for p in others if labels[p] == labels[i]])
    return total / len(z)


def test_the_loss_with_labels_and_its_gradient_are_those_of_a_loop_over_views():
    arguments, labels = _draws(2), [0, 0, 1, 0, 1, 2]
    tensors = [tf.constant(one, tf.float32) for one in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = supervised_nt_xent(*tensors, tf.constant([*labels, *labels]), 0.3)
    np.testing.assert_allclose(loss, _supervised_nt_xent(*arguments, labels, 0.3), rtol=1e-5)
    for which, gradient in enumerate(tape.gradient(loss, tensors)):
        expected = _numeric_gradient(lambda *z: _supervised_nt_xent(*z, labels, 0.3), arguments, which)
        np.testing.assert_allclose(gradient, expected, atol=1e-5)
    alone = supervised_nt_xent(*tensors, tf.constant([*range(6), *range(6)]), 0.3)
    np.testing.assert_allclose(alone, nt_xent(*tensors, 0.3), rtol=1e-6)


def test_one_image_has_no_patches_to_be_told_from():
    rng = np.random.default_rng(0)
    one = tuple(tf.constant(rng.normal(size=(2, 1, 2, 2, 4)), tf.float32))
    assert float(dense_nt_xent(one, one, 0.1)) == pytest.approx(0.0, abs=1e-6)


def test_what_tells_a_collapse_is_one_or_none_where_it_should_be():
    one_vector = np.ones((64, 16))
    spread = np.random.default_rng(0).normal(size=(4096, 16))
    assert float(pretext_losses.deviation(one_vector)) == pytest.approx(0.0, abs=1e-3)
    assert float(pretext_losses.deviation(spread)) == pytest.approx(1.0, abs=0.02)
    assert float(pretext_losses.effective_rank(one_vector)) == pytest.approx(1.0, abs=0.05)
    assert float(pretext_losses.effective_rank(np.eye(16) * 3)) == pytest.approx(16.0, rel=1e-4)
    for value in (np.nan, np.inf, 1e30):
        diverged = spread[:8].copy()
        diverged[3, 2] = value
        assert np.isfinite(pretext_losses.effective_rank(diverged))


def test_every_method_can_be_asked_for_and_no_other():
    assert typing.get_args(typing.get_type_hints(ContrastiveSettings)["method"]) == tuple(pretext.METHODS)


def _small(method, steps=10, rate=1e-2):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.ops.cast(inputs, "float32") / 127.5 - 1
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="first")(x)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu", name="last")(x)
    backbone = Backbone(keras.Model(inputs, x), ("last",), None)
    network = pretext.build_network(backbone, method, hidden=32, dimensions=16)
    model = pretext.Pretext(network, method, 0.2, steps)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9))
    return model


def _views(count=32):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 4, 4, 3)).repeat(4, 1).repeat(4, 2).astype(int)
    noisy = [np.clip(images + rng.normal(0, 20, images.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    return tuple(noisy)


@pytest.mark.parametrize("method", pretext.METHODS)
def test_a_method_lowers_its_loss_and_says_how_spread_its_vectors_are(method):
    model, views = _small(method, steps=20), _views()
    logs = [model.train_on_batch(*views, return_dict=True) for _ in range(20)]
    model.reset_metrics()
    last = model.train_on_batch(*views, return_dict=True)
    assert last["loss"] < logs[0]["loss"]
    assert 0.1 < last["deviation"] < 1.1
    assert 1 < last["effective_rank"] <= 16
    assert model.predict(views[0], verbose=0).shape == (32, 16)


def test_byols_target_is_the_moving_average_of_the_network():
    steps = 10
    model, views = _small("byol", steps), _views()
    expected = [np.array(one) for one in model._target]
    np.testing.assert_allclose(np.concatenate([one.ravel() for one in expected]),
                               np.concatenate([np.array(one).ravel() for one in model._online]))
    for step in range(1, 6):
        model.train_on_batch(*views)
        tau = 1 - (1 - 0.99) * (np.cos(np.pi * step / steps) + 1) / 2
        expected = [tau * old + (1 - tau) * np.array(new) for old, new in zip(expected, model._online, strict=True)]
    for found, wanted in zip(model._target, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not any(weight is one for weight in model.network.trainable_variables for one in model._target)


def test_simsiam_collapses_without_the_stopped_gradient(monkeypatch):
    spread = {}
    for stopped in (True, False):
        if not stopped:
            monkeypatch.setattr(pretext_losses.tf, "stop_gradient", lambda values: values)
        model, views = _small("simsiam", steps=200, rate=0.05), _views()
        for _ in range(200):
            model.train_on_batch(*views)
        model.reset_metrics()
        spread[stopped] = model.train_on_batch(*views, return_dict=True)
    assert spread[False]["deviation"] < 0.3 < 0.8 < spread[True]["deviation"]
    assert spread[True]["effective_rank"] > 2 * spread[False]["effective_rank"]


def test_a_method_without_a_temperature_refuses_one(tmp_path):
    asked = (f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'run'}", "--method=byol", "--temperature=0.5")
    done = run_in_process("train_simclr", *asked, check=False)
    assert (done.returncode, "--method=byol has no temperature" in done.stderr) == (2, True)
