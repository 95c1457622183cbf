"""Schedules and OneCycleAdamW against PyTorch's formulas, written out in float64."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.training.schedules import CosineByEpoch, OneCycle, OneCycleAdamW, WarmupCosine, one_cycle_beta_1

JIT = pytest.mark.parametrize("jit", [False, True])


def annealed(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)


def torch_one_cycle(step: int, total: int, peak: float) -> tuple[float, float]:
    """(learning rate, beta1) of OneCycleLR(max_lr=peak, total_steps=total) and its defaults."""
    first = peak / 25
    phases = [(0.3 * total - 1, first, peak, 0.95, 0.85), (total - 1, peak, first / 1e4, 0.85, 0.95)]
    start_step = 0.0
    for end_step, lr_0, lr_1, beta_0, beta_1 in phases:
        if step <= end_step or end_step == total - 1:
            share = (step - start_step) / (end_step - start_step)
            return annealed(lr_0, lr_1, share), annealed(beta_0, beta_1, share)
        start_step = end_step
    raise AssertionError("no phase")


@pytest.mark.parametrize("total", [2, 7, 20, 100, 1234])
def test_one_cycle_is_pytorchs_at_every_step(total):
    schedule = OneCycle(0.01, total)
    expected = np.array([torch_one_cycle(step, total, 0.01) for step in range(total)])
    steps = np.arange(total)
    found = np.stack([schedule(steps), one_cycle_beta_1(steps, total)], axis=1)
    # Relative, so that the small rates at the end count too, but for 1e-8 of the peak.
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-10)


def test_one_cycle_starts_peaks_and_ends_where_it_says():
    schedule = OneCycle(0.01, 100)
    assert float(schedule(0)) == pytest.approx(0.01 / 25)
    assert float(schedule(29)) == pytest.approx(0.01)
    assert float(schedule(99)) == pytest.approx(0.01 / 25 / 1e4)
    assert float(schedule(500)) == float(schedule(99))
    assert [float(one_cycle_beta_1(step, 100)) for step in (0, 29, 99)] == pytest.approx([0.95, 0.85, 0.95])


@pytest.mark.parametrize("total", [1, 3, 10])
def test_one_cycle_is_finite_and_within_its_bounds_in_the_shortest_runs(total):
    rates = [float(OneCycle(0.01, total)(step)) for step in range(total)]
    assert all(0 < rate <= 0.01 + 1e-9 for rate in rates)


def torch_adamw(weights: np.ndarray, gradients: np.ndarray, peak: float, total: int, decay: float) -> np.ndarray:
    """The trajectory of torch.optim.AdamW under OneCycleLR, [steps, ...], in float64."""
    weights = weights.astype(float)
    m, v, trajectory = np.zeros_like(weights), np.zeros_like(weights), []
    for step, gradient in enumerate(gradients.astype(float)):
        rate, beta_1 = torch_one_cycle(step, total, peak)
        weights = weights * (1 - rate * decay)
        m = beta_1 * m + (1 - beta_1) * gradient
        v = 0.999 * v + 0.001 * gradient**2
        denominator = np.sqrt(v) / math.sqrt(1 - 0.999 ** (step + 1)) + 1e-8
        weights = weights - rate / (1 - beta_1 ** (step + 1)) * m / denominator
        trajectory.append(weights)
    return np.array(trajectory)


@JIT
def test_one_cycle_adamw_walks_pytorchs_way(jit):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype(np.float32)
    gradients = rng.normal(size=(20, 4, 3)).astype(np.float32)
    variable = keras.Variable(start)
    optimizer = OneCycleAdamW(0.05, 20, weight_decay=0.1)
    optimizer.build([variable])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]), jit_compile=jit)
    found = []
    for gradient in gradients:
        step(tf.constant(gradient))
        found.append(variable.numpy())
    expected = torch_adamw(start, gradients, peak=0.05, total=20, decay=0.1)
    assert np.abs(expected[-1] - start).max() > 0.1  # it went somewhere
    assert np.allclose(found, expected, rtol=0, atol=1e-5)


def training_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(OneCycleAdamW(0.05, 10, global_clipnorm=1.0), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_run_cut_in_two_by_saved_weights_equals_the_whole_run(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 5)).astype(np.float32), rng.normal(size=(80, 1)).astype(np.float32)

    def train(model: keras.Model, rows: slice) -> None:
        model.fit(x[rows], y[rows], batch_size=8, shuffle=False, verbose=0)

    whole, first, second = training_model(), training_model(), training_model()
    train(whole, slice(0, 80))
    train(first, slice(0, 40))
    first.save_weights(tmp_path / "half.weights.h5")
    second.load_weights(tmp_path / "half.weights.h5")
    assert int(second.optimizer.iterations) == 5
    assert float(second.optimizer.beta_1) == pytest.approx(torch_one_cycle(5, 10, 0.05)[1], abs=1e-6)
    train(second, slice(40, 80))
    for expected, found in zip(whole.get_weights(), second.get_weights(), strict=True):
        assert np.array_equal(expected, found)


def test_fit_trains_with_one_cycle_adamw_under_xla():
    x = np.random.default_rng(2).normal(size=(64, 5)).astype(np.float32)
    model = training_model()
    model.compile(OneCycleAdamW(0.05, 80), "mse", jit_compile=True)
    losses = model.fit(x, x.sum(axis=1, keepdims=True), batch_size=8, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 100), (4, 4), (0, 1)])
def test_warmup_cosine_rises_linearly_and_falls_along_a_cosine(warmup, total):
    schedule = WarmupCosine(0.2, warmup, total, final=0.01)
    expected = [
        0.2 * (step + 1) / warmup if step < warmup else annealed(0.2, 0.01, (step - warmup) / (total - warmup))
        for step in range(total)
    ]
    assert [float(schedule(step)) for step in range(total)] == pytest.approx(expected, rel=1e-5)
    assert float(schedule(max(total, warmup + 1))) == pytest.approx(0.01)


def test_warmup_cosine_of_a_run_without_steps_can_be_made():
    assert math.isfinite(float(WarmupCosine(0.2, 0, 0)(0)))


def test_cosine_by_epoch_is_pytorchs_cosine_annealing_stepped_after_each_epoch():
    # The recursion with which PyTorch goes from one epoch's rate to the next, not its closed form.
    rate, recursion = 1e-4, []
    for epoch in range(30):
        recursion.append(rate)
        ratio = (1 + math.cos(math.pi * (epoch + 1) / 30)) / (1 + math.cos(math.pi * epoch / 30))
        rate = ratio * (rate - 1e-7) + 1e-7
    schedule = CosineByEpoch(1e-4, 1e-7, steps_per_epoch=7, epochs=30)
    found = [float(schedule(tf.constant(step, tf.int64))) for step in range(210)]
    assert found == pytest.approx(np.repeat(recursion, 7).tolist(), rel=1e-5)
    assert float(schedule(210)) == pytest.approx(1e-7)
    assert float(schedule(1000)) == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "made",
    [
        OneCycle(0.1, 50),
        WarmupCosine(0.1, 5, 50, 0.001),
        CosineByEpoch(0.1, 0.001, 5, 10),
        OneCycleAdamW(0.1, 50, 0.2, global_clipnorm=1.0),
    ],
    ids=lambda made: type(made).__name__,
)
def test_it_comes_back_from_its_config(made):
    back = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert type(back) is type(made)
    assert back.get_config() == made.get_config()
    if isinstance(made, OneCycleAdamW):
        assert float(back.learning_rate) == float(made.learning_rate)
        assert float(back.beta_1) == float(made.beta_1) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: OneCycle(0.0, 10), "peak"),
        (lambda: OneCycle(0.1, 0), "total_steps"),
        (lambda: OneCycleAdamW(0.1, 0), "total_steps"),
        (lambda: WarmupCosine(0.1, 11, 10), "warmup_steps"),
        (lambda: WarmupCosine(0.1, -1, 10), "warmup_steps"),
        (lambda: CosineByEpoch(0.1, 0.0, 0, 10), "steps_per_epoch"),
    ],
)
def test_impossible_plans_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()
