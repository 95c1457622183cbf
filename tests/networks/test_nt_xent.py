"""NT-Xent against an independent double loop, values and gradients, in every precision and compiler."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.networks.pretext_losses import contrastive_accuracy, nt_xent

TEMPERATURES = pytest.mark.parametrize("temperature", [0.07, 0.5])
JIT = pytest.mark.parametrize("jit", [False, True])


def reference(z_a: np.ndarray, z_b: np.ndarray, temperature: float) -> float:
    """Equation 1 of the paper and its mean over all ordered positive pairs, in float64."""
    z = [*np.asarray(z_a, float), *np.asarray(z_b, float)]
    half = len(z) // 2

    def similarity(i: int, j: int) -> float:
        return float(z[i] @ z[j]) / (math.sqrt(z[i] @ z[i]) * math.sqrt(z[j] @ z[j]))

    total = 0.0
    for i in range(2 * half):
        j = i + half if i < half else i - half
        denominator = 0.0
        for k in range(2 * half):
            denominator += math.exp(similarity(i, k) / temperature) if k != i else 0.0
        total -= math.log(math.exp(similarity(i, j) / temperature) / denominator)
    return total / (2 * half)


def numeric_gradient(z_a: np.ndarray, z_b: np.ndarray, temperature: float) -> np.ndarray:
    """Central differences of the reference, [2, N, D]."""
    z = np.stack([z_a, z_b]).astype(float)
    gradient = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-5
        gradient[place] = (reference(*(z + step), temperature) - reference(*(z - step), temperature)) / 2e-5
    return gradient


def value_and_gradient(z_a: object, z_b: object, temperature: float, jit: bool = False) -> tuple[float, np.ndarray]:
    @tf.function(jit_compile=jit)
    def both(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = nt_xent(z[0], z[1], temperature)
        return loss, tape.gradient(loss, z)

    loss, gradient = both(tf.stack([z_a, z_b]))
    return float(loss), gradient.numpy()


def projections(images: int, dimensions: int, apart: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Partners that resemble each other, of lengths far from one."""
    rng = np.random.default_rng(images * 100 + dimensions)
    z_a = rng.normal(size=(images, dimensions))
    z_b = z_a + apart * rng.normal(size=(images, dimensions))
    return (3.0 * z_a).astype(np.float32), (0.2 * z_b).astype(np.float32)


@JIT
@TEMPERATURES
@pytest.mark.parametrize("images", [2, 5, 9])
def test_value_and_gradient_equal_the_double_loop(images, temperature, jit):
    z_a, z_b = projections(images, 6)
    value, gradient = value_and_gradient(z_a, z_b, temperature, jit)
    expected = numeric_gradient(z_a, z_b, temperature)
    assert value == pytest.approx(reference(z_a, z_b, temperature), abs=1e-5)
    assert np.abs(expected).max() > 1e-3  # a gradient of nothing would prove nothing
    assert np.allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@TEMPERATURES
def test_a_full_batch_of_256_dimensions_equals_the_double_loop(temperature):
    z_a, z_b = projections(48, 256, apart=2.0)
    assert float(nt_xent(z_a, z_b, temperature)) == pytest.approx(reference(z_a, z_b, temperature), abs=1e-5)


@JIT
def test_one_image_has_no_negatives_and_nothing_to_learn(jit):
    value, gradient = value_and_gradient(*projections(1, 4), 0.07, jit)
    assert value == 0.0
    assert np.array_equal(gradient, np.zeros((2, 1, 4)))


@JIT
@TEMPERATURES
def test_identical_vectors_cost_the_logarithm_of_the_number_of_candidates(temperature, jit):
    same = np.ones((4, 3), np.float32)
    value, gradient = value_and_gradient(same, same, temperature, jit)
    assert value == pytest.approx(math.log(7), abs=1e-5)
    assert np.allclose(gradient, 0.0, atol=1e-5)


@JIT
def test_vectors_of_zeros_and_of_great_length_stay_finite(jit):
    z_a, z_b = projections(3, 4)
    z_a[0], z_b[1] = 0.0, z_b[1] * 1e8
    value, gradient = value_and_gradient(z_a, z_b, 0.01, jit)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float64])
def test_any_precision_is_computed_in_float32(dtype):
    z_a, z_b = (tf.cast(z, dtype) for z in projections(5, 6))
    loss = nt_xent(z_a, z_b, 0.07)
    assert loss.dtype == tf.float32
    as_given = (tf.cast(z, tf.float64).numpy() for z in (z_a, z_b))
    assert float(loss) == pytest.approx(reference(*as_given, 0.07), abs=1e-5)


def test_which_view_is_first_does_not_matter():
    z_a, z_b = projections(6, 8)
    assert float(nt_xent(z_a, z_b, 0.1)) == pytest.approx(float(nt_xent(z_b, z_a, 0.1)), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -0.1])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        nt_xent(*projections(2, 3), temperature)


def test_accuracy_is_the_share_of_views_whose_partner_is_nearest():
    z_a, z_b = projections(20, 3, apart=0.8)
    z = np.concatenate([z_a, z_b]).astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    distance = np.linalg.norm(z[:, None] - z[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    expected = np.mean(distance.argmin(axis=1) == np.roll(np.arange(40), 20))
    assert 0.05 < expected < 0.95  # neither trivial
    assert float(contrastive_accuracy(z_a, z_b)) == pytest.approx(expected)


@JIT
def test_accuracy_is_one_for_perfect_views_and_zero_for_a_collapsed_network(jit):
    accuracy = tf.function(contrastive_accuracy, jit_compile=jit)
    assert float(accuracy(tf.eye(4), 5.0 * tf.eye(4))) == 1.0
    assert float(accuracy(tf.eye(1), tf.eye(1))) == 1.0
    assert float(accuracy(tf.ones((4, 1)), tf.ones((4, 1)))) == 0.0
