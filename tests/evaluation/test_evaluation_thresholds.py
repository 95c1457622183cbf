"""Where the threshold comes from, and what it is when the calibrate rows say little."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.evaluation.thresholds import Rule, choose, choose_threshold, given


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


@pytest.mark.parametrize("scores", [np.zeros(20), np.array([0.0] * 19 + [1.0]), np.full(5, -3.7), np.full(3, 1e-50)])
def test_good_images_that_are_tied_at_the_order_statistic_are_not_all_stopped(scores):
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


def _slow(labels, scores, better):
    """The best cut by trying every one, also the one above all scores: (value of `better`, called images)."""
    cuts = [*np.unique(scores), np.inf]
    return max(better(labels, scores >= cut) for cut in cuts)


def _costs(labels, called):
    return -(7 * (labels > called).sum() + 2 * (labels < called).sum())


@pytest.mark.parametrize("seed", range(10))
def test_best_f1_and_least_cost_are_the_best_of_all_cuts(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 40)
    labels[:2] = (0, 1)
    scores = np.round(rng.normal(labels), 1)
    for method, better in (("best_f1", f1_score), ("least_cost", _costs)):
        found = choose_threshold(labels, scores, rule=Rule(method), costs=Costs(7, 2))
        assert better(labels, scores >= found.value) == pytest.approx(_slow(labels, scores, better)), method
        assert found.method == method


def test_where_nothing_is_worth_stopping_the_threshold_lies_above_all_scores():
    labels, scores = np.array([0, 0, 1]), np.array([1.0, 2.0, 0.5])
    assert choose_threshold(labels, scores, rule=Rule("least_cost"), costs=Costs(1, 10)).value > 2.0
    all_pass = Rule("target_specificity", target=1.0)
    assert choose_threshold(np.array([0, 1]), np.array([2.0, 1.0]), rule=all_pass).value > 2


def test_a_wanted_specificity_needs_good_images_only_and_the_other_methods_fall_back_and_say_so():
    scores = np.arange(100.0)
    found = choose_threshold(np.zeros(100, int), scores, rule=Rule("target_specificity", target=0.9))
    assert (found.method, (scores >= found.value).sum()) == ("target_specificity", 9)
    for method in ("best_f1", "least_cost"):
        found = choose_threshold(np.zeros(100, int), scores, rule=Rule(method))
        assert found.method == "conformal"
        assert f"{method} cannot be had" in found.reason


def _calibrate(good, defective, category="bottle", group=""):
    rows = [
        Row(f"{category}/{label}/{i}", category, ("good", "bad")[label], label, "calibrate", float(score), group)
        for label, scores in enumerate((good, defective))
        for i, score in enumerate(scores)
    ]
    return rows


def _choose(rows, rule=None, resamples=200, categories=("bottle",)):
    return choose(Predictions.from_rows(rows), categories, rule or Rule(), Costs(), Bootstrap(resamples))


def test_the_interval_of_a_threshold_is_that_of_thresholds_chosen_on_resamples():
    rng = np.random.default_rng(0)
    table = Predictions.from_rows(_calibrate(np.round(rng.normal(size=40), 1), np.round(rng.normal(1.5, size=40), 1)))
    resampling = Resampling(table.path, table.category, table.group, table.label, Bootstrap(200))
    for rule in (Rule(), Rule("best_f1"), Rule("target_recall", target=0.9), Rule("target_specificity", target=0.9)):
        values = []
        for counts in np.concatenate(list(resampling.chunks())).astype(int):
            labels, scores = np.repeat(table.label, counts), np.repeat(table.score, counts)
            values.append(choose_threshold(labels, scores, rule=rule).value)
        found = choose(table, ("bottle",), rule, Costs(), Bootstrap(200)).whole
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found.low, found.high) == pytest.approx((min(low, found.value), max(high, found.value))), rule.method


def test_more_calibrate_images_make_the_interval_of_a_threshold_narrower():
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 2000):
        found = _choose(_calibrate(rng.normal(size=count), rng.normal(2, size=count))).whole
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_the_interval_of_an_order_statistic_of_good_images_exists_too():
    found = _choose(_calibrate(np.arange(50.0), [])).whole
    assert found.low < found.value <= found.high <= 50


def test_few_calibrate_images_are_warned_of_and_images_of_one_object_count_once():
    many, few = np.arange(30.0), np.arange(5.0)
    assert _choose(_calibrate(many, many + 5)).whole.warning == ""
    assert "only 5 defective calibrate images" in _choose(_calibrate(many, few)).whole.warning
    one_object = _choose(_calibrate(many, [], group="part 7") + _calibrate([], many)).whole
    assert "only 1 good calibrate images" in one_object.warning
    # The share of good images to let pass is a matter of the good ones alone.
    assert _choose(_calibrate(many, few), Rule("target_specificity", target=0.9)).whole.warning == ""


def test_a_wanted_share_that_so_few_images_cannot_show_is_warned_of():
    scores = np.arange(50.0)
    found = _choose(_calibrate(scores, scores), Rule("target_specificity", target=0.99)).whole
    assert "for 1 % you need at least 99 good objects" in found.warning
    assert _choose(_calibrate(scores, scores), Rule("target_recall", target=0.98)).whole.warning == ""


def test_each_category_has_its_own_threshold_and_borrows_one_where_it_has_no_rows():
    scores = np.arange(40.0)
    rows = _calibrate(scores, scores + 40) + _calibrate(scores + 100, scores + 140, "screw")
    chosen = _choose(rows, Rule(per="category"), categories=("bottle", "nut", "screw"))
    assert (chosen.of("bottle").value, chosen.of("screw").value) == (39.5, 139.5)
    assert chosen.of("nut").value == chosen.whole.value
    assert "no threshold of its own (there are no calibrate rows" in chosen.of("nut").warning
    assert chosen.each(np.array(["screw", "bottle"], object)).tolist() == [139.5, 39.5]
    document = chosen.as_json()
    assert (document["per"], document["value"], set(document["categories"])) == (
        "category",
        chosen.whole.value,
        {"bottle", "nut", "screw"},
    )


def test_images_are_called_by_the_threshold_of_their_category():
    rows = _calibrate([0, 1], [2, 3]) + _calibrate([10, 11], [12, 13], "screw")
    evaluated = [
        Row(f"{c}/{i}", c, ("good", "bad")[label], label, "evaluate", float(score))
        for c, base in (("bottle", 0), ("screw", 10))
        for i, (label, score) in enumerate([(0, base + 1), (0, base), (1, base + 2), (1, base + 3)])
    ]
    table = Predictions.from_rows(rows + evaluated)
    own = assess(table, rule=Rule(per="category"))
    assert own.as_json()["confusion"]["overall"] == {"tn": 4, "fp": 0, "fn": 0, "tp": 4}
    assert assess(table).overall.counts.fp + assess(table).overall.counts.fn > 0


def test_evaluate_rows_never_move_the_threshold():
    rows = _calibrate([0, 1], [2, 3])
    for score in (-1e6, 1e6):
        evaluated = [Row("e", "bottle", "bad", 1, "evaluate", score), Row("f", "bottle", "good", 0, "evaluate", -score)]
        assert assess(Predictions.from_rows(rows + evaluated)).threshold.whole.value == 1.5


@pytest.mark.parametrize(
    "wrong", [{"method": "middle"}, {"per": "image"}, {"target": 0.9}, {"method": "target_recall"}]
)
def test_rules_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="Received"):
        Rule(**wrong)


@pytest.mark.parametrize("target", [0, -0.5, 1.01, 95])
def test_a_share_that_is_none_is_refused(target):
    with pytest.raises(ValueError, match="target"):
        Rule("target_recall", target=target)
