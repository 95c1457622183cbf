"""The weighted cross-entropy is PyTorch's weighted mean, in every precision and compiler."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.networks.losses import WeightedCrossEntropy, balanced_class_weights


def reference(logits: np.ndarray, labels: np.ndarray, weights: list[float]) -> float:
    """The formula in PyTorch's documentation of CrossEntropyLoss, term by term in float64."""
    total = weight_sum = 0.0
    for row, label in zip(np.asarray(logits, float), labels, strict=True):
        probability = math.exp(row[label] - row.max()) / sum(math.exp(x - row.max()) for x in row)
        total += weights[label] * -math.log(probability)
        weight_sum += weights[label]
    return total / weight_sum


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (64, 2)).astype(np.float32), (rng.random(64) < 0.2).astype(np.int64)


def test_a_fixed_batch_gives_the_value_worked_out_by_hand():
    # -log p of the labels: log(1 + e^-3), log 2, log(1 + e^4); weights 1, 3, 1.
    logits, labels = [[2.0, -1.0], [0.5, 0.5], [-3.0, 1.0]], [0, 1, 0]
    by_hand = (math.log1p(math.exp(-3)) + 3 * math.log(2) + math.log1p(math.exp(4))) / (1 + 3 + 1)
    assert by_hand == pytest.approx(1.22923586)
    assert float(WeightedCrossEntropy([1.0, 3.0])(labels, logits)) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.3, 2.7], [5.0, 0.1]])
def test_it_is_the_weighted_mean_of_a_double_loop(batch, weights):
    logits, labels = batch
    loss = WeightedCrossEntropy(weights)
    assert float(loss(labels, logits)) == pytest.approx(reference(logits, labels, weights), abs=1e-6)
    assert float(loss(labels[:, None], logits)) == pytest.approx(reference(logits, labels, weights), abs=1e-6)


def test_the_scale_of_the_weights_does_not_matter(batch):
    logits, labels = batch
    small, large = (float(WeightedCrossEntropy([scale, 3 * scale])(labels, logits)) for scale in (0.01, 100.0))
    assert small == pytest.approx(large, abs=1e-6)


def test_gradients_are_those_of_the_formula(batch):
    logits, labels = batch
    weights = np.array([0.4, 2.0])
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = WeightedCrossEntropy(weights)(labels, variable)
    e = np.exp(logits.astype(float))
    expected = (e / e.sum(axis=1, keepdims=True) - np.eye(2)[labels]) * weights[labels][:, None] / weights[labels].sum()
    assert np.allclose(tape.gradient(loss, variable), expected, atol=1e-7)


def test_sample_weights_multiply_class_weights_in_both_sums(batch):
    logits, labels = batch
    # An image of weight two counts as if it were there twice.
    twice = np.concatenate([logits, logits[:10]]), np.concatenate([labels, labels[:10]])
    sample_weight = np.where(np.arange(64) < 10, 2.0, 1.0)
    found = float(WeightedCrossEntropy([1.0, 4.0])(labels, logits, sample_weight=sample_weight))
    assert found == pytest.approx(reference(*twice, [1.0, 4.0]), abs=1e-6)


def test_huge_logits_stay_finite():
    loss = WeightedCrossEntropy([1.0, 1.0])([0, 1], [[1e4, -1e4], [1e4, -1e4]])
    assert float(loss) == pytest.approx(1e4)


def test_bfloat16_logits_are_summed_in_float32(batch):
    logits, labels = batch
    rough = tf.cast(logits, tf.bfloat16)
    found = WeightedCrossEntropy([1.0, 4.0])(labels, rough)
    assert found.dtype == tf.float32
    assert float(found) == pytest.approx(reference(tf.cast(rough, tf.float32).numpy(), labels, [1.0, 4.0]), abs=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_fit_reports_the_same_loss_with_and_without_xla(batch, jit):
    features, labels = batch
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="identity")])
    model.compile(keras.optimizers.SGD(0.0), WeightedCrossEntropy([0.5, 2.0]), jit_compile=jit)
    dataset = tf.data.Dataset.from_tensor_slices((features, labels)).batch(64)
    history = model.fit(dataset, epochs=1, shuffle=False, verbose=0).history
    assert history["loss"] == [pytest.approx(reference(features, labels, [0.5, 2.0]), abs=1e-5)]


def test_it_comes_back_from_its_config():
    loss = WeightedCrossEntropy(np.array([0.5, 2.0]))
    back = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(back, WeightedCrossEntropy)
    assert back.get_config() == loss.get_config()


@pytest.mark.parametrize("weights", [[], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_weights_that_are_not_positive_are_refused(weights):
    with pytest.raises(ValueError, match="class_weights"):
        WeightedCrossEntropy(weights)


def test_balanced_weights_let_both_classes_count_the_same():
    weights = balanced_class_weights([0] * 30 + [1] * 10)
    assert weights.tolist() == [40 / 60, 40 / 20]
    assert weights @ [30, 10] == pytest.approx(40)


@pytest.mark.parametrize("labels", [[0, 0], [1], []])
def test_a_missing_class_is_an_error_with_the_counts(labels):
    with pytest.raises(UserError, match=f"{labels.count(0)} good and {labels.count(1)} defective"):
        balanced_class_weights(labels)


def test_other_labels_than_0_and_1_are_refused():
    with pytest.raises(ValueError, match="Received"):
        balanced_class_weights([0, 1, 2])
