"""The trivial baselines, and the head on them, against computations written another way."""

import fractions

import numpy as np
import pytest
from scipy import optimize

from mvtec_tf.errors import UserError
from mvtec_tf.features import baselines
from mvtec_tf.heads import linear
from mvtec_tf.heads.linear import Logistic


def _images(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _luma(pixel):
    red, green, blue = (int(value) for value in pixel)
    return fractions.Fraction(299 * red + 587 * green + 114 * blue, 1000)


def test_mean_brightness_equals_exact_fractions():
    images = _images(3, 5)
    expected = [[float(sum(_luma(p) for row in image for p in row) / 25)] for image in images]
    result = baselines.mean_brightness(images)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize(("side", "size"), [(6, 3), (7, 3), (5, 4), (4, 4), (3, 1)])
def test_grey_pixels_average_areas_also_where_a_border_cuts_a_pixel(side, size):
    images = _images(2, side)

    def cell(image, row, column):
        total = fractions.Fraction(0)
        for y in range(side):
            for x in range(side):
                total += _overlap(y, row) * _overlap(x, column) * _luma(image[y, x])
        return float(total / fractions.Fraction(side, size) ** 2)

    def _overlap(pixel, number):
        low, high = fractions.Fraction(number * side, size), fractions.Fraction((number + 1) * side, size)
        return max(fractions.Fraction(0), min(high, pixel + 1) - max(low, pixel))

    expected = [[cell(image, row, column) for row in range(size) for column in range(size)] for image in images]
    result = baselines.grey_pixels(images, size)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_a_thumbnail_has_the_same_mean_as_the_image():
    images = _images(4, 50)
    thumbnails = baselines.grey_pixels(images)
    assert thumbnails.shape == (4, 256)
    np.testing.assert_allclose(thumbnails.mean(axis=1, keepdims=True), baselines.mean_brightness(images), rtol=1e-12)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 9, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32)],
)
def test_other_arrays_than_square_rgb_bytes_are_refused(images):
    with pytest.raises(ValueError, match=r"uint8 \[N, S, S, 3\]"):
        baselines.mean_brightness(images)


def test_a_thumbnail_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="Received: 16"):
        baselines.grey_pixels(_images(1, 8))


def test_the_logistic_head_minimises_the_balanced_penalised_cross_entropy():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)) * [1.0, 10.0, 0.1, 3.0] + [5.0, 0.0, -2.0, 100.0]
    labels = (features[:, 0] + 0.3 * rng.normal(size=60) > 5.8).astype(int)
    assert 5 < labels.sum() < 25
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    inputs = np.c_[(features - mean) / deviation, np.ones(60)]
    weights = 60 / (2 * np.bincount(labels))[labels]

    def objective(parameters):
        margins = np.where(labels == 1, 1.0, -1.0) * (inputs @ parameters)
        # The intercept is not penalised.
        return np.sum(weights * np.logaddexp(0.0, -margins)) + 0.5 * np.sum(parameters[:-1] ** 2)

    best = optimize.minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-7}).x
    others = rng.normal(loc=[5.0, 0.0, -2.0, 100.0], size=(9, 4))
    expected = np.c_[(others - mean) / deviation, np.ones(9)] @ best
    # scikit-learn stops a hundredth before the minimum; the scores reach from -4 to 4.
    np.testing.assert_allclose(Logistic().fit(features, labels).decision_function(others), expected, atol=0.02)


def test_the_logistic_head_separates_what_brightness_separates():
    dark, bright = np.full((6, 16, 16, 3), 60, np.uint8), np.full((6, 16, 16, 3), 180, np.uint8)
    features = baselines.mean_brightness(np.concatenate([dark, bright]) + _images(12, 16) // 8)
    labels = np.repeat([0, 1], 6)
    scores = Logistic().fit(features[::2], labels[::2]).decision_function(features[1::2])
    np.testing.assert_array_equal(scores > 0, labels[1::2] == 1)


def test_one_class_alone_is_refused():
    with pytest.raises(UserError, match="good and defective"):
        Logistic().fit(np.random.default_rng(0).normal(size=(4, 2)), np.zeros(4, int))


def test_a_regression_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(linear, "MAX_STEPS", 1)
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="did not converge"):
        Logistic().fit(rng.normal(size=(50, 20)), rng.integers(0, 2, 50))
