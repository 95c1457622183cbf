"""Where the threshold comes from, and what it is when the calibrate rows say little."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from mvtec_tf.evaluation.thresholds import choose_threshold, given


def test_the_threshold_lies_midway_between_the_two_scores_it_parts():
    found = choose_threshold(np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 5.0, 9.0]))
    assert (found.value, found.method, found.images, found.defects) == (3.5, "youden", 4, 2)
    assert "4 calibrate images, 2 of them defective" in found.reason


@pytest.mark.parametrize("seed", range(30))
def test_no_other_threshold_has_a_better_balanced_accuracy(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 40)
    labels[:2] = (0, 1)
    scores = np.round(rng.normal(labels), 1)

    def balanced(threshold):
        return balanced_accuracy_score(labels, scores >= threshold)

    best = max(balanced(threshold) for threshold in [*np.unique(scores), np.inf])
    assert balanced(choose_threshold(labels, scores).value) == pytest.approx(best, abs=1e-12)


def test_where_defects_dominate_it_does_not_call_everything_defective_as_the_best_f1_would():
    # 90 defects of which 30 look good, 10 good images: calling all defective has the best F1.
    labels = np.array([1] * 90 + [0] * 10)
    scores = np.array([0.0] * 30 + [1.0] * 60 + [0.1] * 10)
    assert choose_threshold(labels, scores).value == pytest.approx(0.55)


def test_of_equally_good_cuts_the_one_that_misses_fewer_defects_is_taken():
    labels, scores = np.array([1, 0, 1, 0]), np.array([4.0, 3.0, 2.0, 1.0])
    assert choose_threshold(labels, scores).value == 1.5


@pytest.mark.parametrize("scores", [[0.3, 0.3, 0.3], [0.1, 0.2, 0.9]])
def test_scores_that_part_nothing_give_the_lowest_score(scores):
    found = choose_threshold(np.array([1, 1, 0]), np.array(scores))
    assert found.value == min(scores)
    assert found.method == "youden"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbouring_floats_are_still_parted_also_after_rounding_to_float32(dtype):
    good = dtype(0.7)
    defective = np.nextafter(good, dtype(1))
    value = choose_threshold(np.array([0, 1]), np.array([good, defective])).value
    assert good < value <= defective
    if dtype is np.float32:
        assert np.float32(good) < np.float32(value) <= np.float32(defective)


def test_tiny_and_huge_scores_do_not_underflow_or_overflow():
    assert 1e-300 < choose_threshold(np.array([0, 1]), np.array([1e-300, 2e-300])).value <= 2e-300
    value = choose_threshold(np.array([0, 1]), np.array([3.0e38, 3.4e38])).value
    assert value == pytest.approx(3.2e38)


def test_with_good_rows_only_it_is_a_quantile_of_their_scores():
    scores = np.random.default_rng(0).normal(size=1000)
    found = choose_threshold(np.zeros(1000, int), scores)
    assert found.value == pytest.approx(np.quantile(scores, 0.95), abs=1e-6)
    assert (found.method, found.images, found.defects) == ("good_quantile", 1000, 0)
    assert (scores >= found.value).sum() == 50


@pytest.mark.parametrize("count", [1, 2, 10, 20, 21, 100])
def test_the_quantile_lets_the_wanted_share_of_good_images_pass(count):
    scores = np.random.default_rng(count).permutation(count) / 7
    stopped = (scores >= choose_threshold(np.zeros(count, int), scores, quantile=0.9).value).mean()
    # A quantile between the two highest of few images can stop the highest one, not more.
    assert stopped <= max(0.1, 1 / count)


@pytest.mark.parametrize("scores", [np.zeros(20), np.array([0.0] * 19 + [1.0]), np.full(5, -3.7), np.full(3, 1e-50)])
def test_good_images_that_are_tied_at_the_quantile_are_not_all_stopped(scores):
    value = choose_threshold(np.zeros(len(scores), int), scores).value
    assert np.isfinite(value)
    assert (scores >= value).mean() <= 0.05


def test_without_calibrate_rows_there_is_no_threshold_and_a_reason():
    found = choose_threshold(np.zeros(0, int), np.zeros(0))
    assert found.value is None
    assert "no calibrate rows" in found.reason


def test_with_defective_rows_only_there_is_no_threshold_and_a_reason():
    found = choose_threshold(np.ones(3, int), np.arange(3.0))
    assert found.value is None
    assert "all calibrate rows are defective" in found.reason


def test_a_given_threshold_must_be_a_number():
    assert given(0.25).value == 0.25
    with pytest.raises(ValueError, match="nan"):
        given(float("nan"))


@pytest.mark.parametrize("quantile", [0, 1, -0.1, 95])
def test_a_quantile_outside_0_to_1_is_refused(quantile):
    with pytest.raises(ValueError, match="quantile"):
        choose_threshold(np.zeros(2, int), np.zeros(2), quantile)
