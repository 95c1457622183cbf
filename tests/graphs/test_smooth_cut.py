"""The smoothed threshold: against the formula written out, and for what it is there."""

import numpy as np
import pytest
from scipy.stats import norm

from mvtec_tf.evaluation.smooth_cut import smooth_cut
from mvtec_tf.evaluation.thresholds import Rule, choose_threshold

SMOOTH = Rule("smooth_youden")


def _draw(rng, good, defective):
    scores = np.concatenate([rng.normal(0, 1, good), rng.normal(2.5, 1.5, defective)])
    return np.arange(good + defective) >= good, scores


def _written_out(scores, defective):
    points = np.linspace(scores.min(), scores.max(), 4000)
    shares = []
    for own in (scores[defective], scores[~defective]):
        width = 1.06 * own.std() * len(own) ** -0.2
        shares.append(norm.sf((points[:, None] - own) / width).mean(axis=1))
    return points[np.argmax(shares[0] - shares[1])]


@pytest.mark.parametrize(("good", "defective"), [(300, 12), (15, 40), (5, 2)])
def test_the_cut_is_that_of_the_formula(good, defective):
    labels, scores = _draw(np.random.default_rng(good), good, defective)
    assert smooth_cut(scores, labels) == pytest.approx(_written_out(scores, labels), abs=np.ptp(scores) / 500)


def test_an_image_that_counts_twice_is_an_image_that_is_there_twice():
    labels, scores = _draw(np.random.default_rng(1), 40, 9)
    twice = np.random.default_rng(2).integers(1, 3, len(scores))
    weighed = smooth_cut(scores, labels, twice.astype(float))
    assert weighed == pytest.approx(smooth_cut(np.repeat(scores, twice), np.repeat(labels, twice)), abs=1e-9)


def test_other_units_of_the_score_move_the_cut_alike():
    labels, scores = _draw(np.random.default_rng(3), 60, 8)
    assert smooth_cut(1000 * scores - 7, labels) == pytest.approx(1000 * smooth_cut(scores, labels) - 7, abs=20)


def test_few_defects_move_it_less_than_youdens_cut_and_it_is_no_worse():
    rng = np.random.default_rng(4)
    cuts = {"smooth_youden": [], "youden": []}
    for _ in range(200):
        labels, scores = _draw(rng, 200, 8)
        for name, found in cuts.items():
            found.append(choose_threshold(labels.astype(int), scores, rule=Rule(name)).value)
    smooth, plain = (np.array(cuts[name]) for name in cuts)
    assert smooth.std() < 0.85 * plain.std()
    balanced = [(norm.sf((cut - 2.5) / 1.5) + norm.cdf(cut)).mean() / 2 for cut in (smooth, plain)]
    assert balanced[0] > balanced[1]


def test_a_single_defect_has_the_spread_of_the_good_images():
    scores = np.append(np.random.default_rng(5).normal(size=100), 6.0)
    value = smooth_cut(scores, np.arange(101) == 100)
    assert scores[:100].max() < value < 6


def test_without_any_spread_it_is_youdens_and_without_defects_the_order_statistic():
    labels = np.array([0, 0, 1, 1])
    assert choose_threshold(labels, np.array([1.0, 1, 2, 2]), rule=SMOOTH).value == 1.5
    good = np.arange(100.0)
    found = choose_threshold(np.zeros(100, int), good, rule=SMOOTH)
    assert (found.value, found.method) == (choose_threshold(np.zeros(100, int), good).value, "conformal")
    assert "cannot be had" not in found.reason
