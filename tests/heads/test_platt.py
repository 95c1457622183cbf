"""Scores become probabilities that mean what they say."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss as brier

from mvtec_tf.heads.probability import fit_platt, line_weights


@pytest.fixture
def scores():
    """Scores of 40 good and 15 defective images that overlap; not log-odds."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 15])
    return rng.normal(loc=100 + 30 * labels, scale=20), labels


def test_the_curve_is_the_one_a_general_minimiser_finds(scores):
    values, labels = scores
    weights = np.random.default_rng(1).uniform(0.5, 2, len(labels))
    targets = np.where(labels == 1, 16 / 17, 1 / 42)

    def loss(point):
        odds = point[0] * (values - 100) / 20 + point[1]
        return np.sum(weights * (np.logaddexp(0, odds) - targets * odds))

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    found = fit_platt(values, labels, weights)
    np.testing.assert_allclose([found.slope * 20, found.intercept + 100 * found.slope], best, atol=1e-4)


def test_probabilities_of_new_images_are_better_than_the_sigmoid_of_the_score(scores):
    values, labels = scores
    rng = np.random.default_rng(2)
    new_labels = (rng.random(2000) < 15 / 55).astype(int)
    new = rng.normal(loc=100 + 30 * new_labels, scale=20)
    calibrated = brier(new_labels, fit_platt(values, labels).probability(new))
    assert calibrated < 0.15
    assert calibrated < brier(new_labels, 1 / (1 + np.exp(-new)))
    assert calibrated < brier(new_labels, np.full(2000, new_labels.mean()))


def test_perfectly_separated_scores_do_not_claim_certainty():
    found = fit_platt(np.array([1.0, 2.0, 3.0, 11.0, 12.0]), np.array([0, 0, 0, 1, 1]))
    low, high = found.probability(np.array([1.0, 12.0]))
    assert 0.1 < low < 0.3
    assert 0.65 < high < 0.9


def test_scores_that_rank_the_wrong_way_round_get_one_probability_for_all():
    labels = np.repeat([0, 1], 10)
    found = fit_platt(-np.arange(20.0), labels)
    assert found.slope == 0
    np.testing.assert_allclose(found.probability(np.array([-100.0, 100.0])), 0.5, atol=1e-6)


def _few_labels(*outliers):
    """Held-out scores of 60 good and 12 defective images that are well apart, but for the outliers among the latter."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [60, 12])
    scores = np.where(labels == 1, rng.normal(6, 3, 72), rng.normal(-9, 2.5, 72))
    scores[72 - len(outliers) :] = outliers
    return scores, labels


def test_two_held_out_defects_far_below_all_others_do_not_flatten_the_curve():
    found = fit_platt(*_few_labels(-78, -65))
    low, high = found.probability(np.array([-4.8, 5.5]))
    assert low < 0.25
    assert high > 0.7
    # The mirror image: good images that score far above all defects.
    scores, labels = _few_labels(-78, -65)
    mirrored = fit_platt(-scores, 1 - labels)
    assert mirrored.slope == pytest.approx(found.slope)
    assert mirrored.intercept == pytest.approx(-found.intercept)


def test_how_far_an_outlier_lies_changes_nothing():
    assert fit_platt(*_few_labels(-78, -65)) == fit_platt(*_few_labels(-7800, -650))


def test_scores_that_rank_rightly_more_often_than_not_get_a_rising_curve():
    """Four of ten defects far below, too many for the spread of the others to tell them."""
    scores = np.concatenate([np.linspace(-1, 1, 20), np.linspace(3, 4, 6), np.linspace(-90, -60, 4)])
    found = fit_platt(scores, np.repeat([0, 1], [20, 10]))
    assert found.slope > 0.1


def test_equal_scores_get_one_probability_for_all():
    assert fit_platt(np.full(6, 3.0), np.array([0, 0, 0, 0, 1, 1])).slope == 0


def test_extra_good_images_do_not_make_defects_rare():
    """12 labelled images of which 8 are defective, 500 good training images beside them."""
    labels = np.repeat([0, 1, 0], [4, 8, 500])
    weights = line_weights(labels, np.arange(512) < 12)
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 1].sum() / weights.sum() == pytest.approx(9 / 14)


def test_one_kind_only_cannot_be_calibrated():
    with pytest.raises(ValueError, match="good and defective"):
        fit_platt(np.arange(3.0), np.zeros(3, int))
