"""The figures agree with scikit-learn, and where a figure does not exist, it is said why."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mvtec_tf.evaluation import metrics, sample, trivial
from mvtec_tf.evaluation.metrics import Costs


def _cases():
    rng = np.random.default_rng(7)
    for size in (2, 3, 10, 101, 1000):
        for digits in (1, 2, 15):  # one digit: nearly all scores are tied
            labels = rng.integers(0, 2, size)
            labels[:2] = (0, 1)
            yield labels, np.round(rng.normal(labels * rng.uniform(-0.5, 3)), digits)
    yield np.array([0, 1, 1, 0]), np.zeros(4)
    yield np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    yield np.array([0, 0, 1, 1]), np.array([1e38, -1e38, 3e38, 1e-30])


@pytest.mark.parametrize(("labels", "scores"), _cases())
def test_rankings_agree_with_scikit_learn_also_when_scores_are_tied(labels, scores):
    assert sample.measure(labels, scores, None)["roc_auc"].value == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores), abs=1e-9
    )
    assert sample.measure(labels, scores, None)["pr_auc"].value == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), abs=1e-9
    )


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.1, 0.5, 0.4, 0.9])
    pairs = [(d > g) + 0.5 * (d == g) for d in scores[labels == 1] for g in scores[labels == 0]]
    assert sample.measure(labels, scores, None)["roc_auc"].value == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("labels", "scores"), _cases())
@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 1.0])
def test_figures_at_a_threshold_agree_with_scikit_learn(labels, scores, where):
    threshold = np.quantile(scores, where)
    called = (scores >= threshold).astype(int)
    counts = metrics.confusion(labels, scores, threshold)
    tn, fp, fn, tp = sklearn_metrics.confusion_matrix(labels, called, labels=(0, 1)).ravel()
    assert (counts.tn, counts.fp, counts.fn, counts.tp) == (tn, fp, fn, tp)
    score = {"zero_division": np.nan}
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, called),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, called),
        "precision": sklearn_metrics.precision_score(labels, called, **score),
        "recall": sklearn_metrics.recall_score(labels, called, **score),
        "f1": sklearn_metrics.f1_score(labels, called, **score),
        "specificity": sklearn_metrics.recall_score(labels, called, pos_label=0, **score),
        "npv": sklearn_metrics.precision_score(labels, called, pos_label=0, **score),
        "mcc": sklearn_metrics.matthews_corrcoef(labels, called),
        "cost": np.mean(7 * (labels > called) + 2 * (labels < called)),
    }
    expected["fpr"] = 1 - expected["specificity"]
    expected["fnr"] = 1 - expected["recall"]
    found = sample.measure(labels, scores, threshold, costs=Costs(miss=7, false_alarm=2))
    for name, value in expected.items():
        if np.isnan(value):
            assert found[name].value is None, name
        else:
            assert found[name].value == pytest.approx(value, abs=1e-9), name


def test_a_score_that_reaches_the_threshold_is_called_defective():
    assert metrics.confusion(np.array([0, 1]), np.array([0.5, 0.5]), 0.5) == metrics.Confusion(tn=0, fp=1, fn=0, tp=1)


def test_every_metric_is_measured_by_name():
    found = sample.measure(np.array([0, 1]), np.array([0.0, 1.0]), 0.5)
    assert set(found) == set(metrics.NAMES)
    assert set(found) == {
        *("accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy", "mcc", "cost"),
        *("npv", "fpr", "fnr", "roc_auc", "pr_auc", "brier", "expected_calibration_error"),
        *("recall_at_95_specificity", "recall_at_99_specificity"),
        *("specificity_at_95_recall", "specificity_at_99_recall"),
    }


def test_without_defective_images_only_what_good_images_tell_has_a_value():
    found = sample.measure(np.zeros(4, int), np.array([0.0, 0.1, 0.2, 0.9]), 0.5)
    values = {name: metric.value for name, metric in found.items() if metric.value is not None}
    assert values == {"accuracy": 0.75, "specificity": 0.75, "fpr": 0.25, "precision": 0.0, "npv": 1.0, "cost": 0.25}
    for name in ("recall", "f1", "fnr", "balanced_accuracy", "mcc", *metrics.RANKING):
        assert found[name].reason == "there are no defective images"


def test_without_good_images_only_what_defective_images_tell_has_a_value():
    found = sample.measure(np.ones(4, int), np.array([0.0, 0.1, 0.2, 0.9]), 0.5)
    values = {name: metric.value for name, metric in found.items() if metric.value is not None}
    expected = {"accuracy": 0.25, "recall": 0.25, "fnr": 0.75, "precision": 1.0, "npv": 0.0, "f1": 0.4, "cost": 0.75}
    assert values == expected
    for name in ("specificity", "fpr", "balanced_accuracy", "mcc", *metrics.RANKING):
        assert found[name].reason == "there are no good images"


def test_nothing_called_defective_has_no_precision_but_an_f1_of_zero():
    found = sample.measure(np.array([0, 1]), np.array([0.0, 0.1]), 0.5)
    assert (found["precision"].value, found["precision"].reason) == (None, "nothing was called defective")
    assert found["f1"].value == 0
    assert found["recall"].value == 0


def test_no_images_give_no_figures_and_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sample.measure(np.zeros(0, int), np.zeros(0), 0.5)
    assert all(metric.value is None and metric.reason for metric in found.values())


def test_without_a_threshold_the_rankings_remain_and_the_rest_says_why():
    found = sample.measure(np.array([0, 1]), np.array([0.2, 0.1]), None, "nobody chose one")
    assert (found["roc_auc"].value, found["pr_auc"].value) == (0.0, 0.5)
    assert {found[name].reason for name in metrics.AT_THRESHOLD} == {"nobody chose one"}
    assert all(found[name].value is None for name in metrics.AT_THRESHOLD)


def test_always_defective_has_the_figures_that_follow_from_the_share_of_defects():
    found = trivial.always_defective(np.array([1, 1, 1, 0]), Costs(miss=5, false_alarm=2))
    values = {name: metric.value for name, metric in found.items()}
    assert values == {
        "roc_auc": 0.5,
        "pr_auc": 0.75,
        "balanced_accuracy": 0.5,
        "f1": pytest.approx(6 / 7),
        "recall": 1.0,
        "specificity": 0.0,
        "precision": 0.75,
        "npv": None,
        "accuracy": 0.75,
        "fpr": 1.0,
        "fnr": 0.0,
        "mcc": 0.0,
        "cost": 0.5,
        "recall_at_95_specificity": 0.0,
        "recall_at_99_specificity": 0.0,
        "specificity_at_95_recall": 0.0,
        "specificity_at_99_recall": 0.0,
        "brier": 0.25,
        "expected_calibration_error": 0.25,
    }


def test_always_good_passes_everything_and_finds_nothing():
    found = trivial.always_good(np.array([1, 1, 1, 0]), Costs(miss=5, false_alarm=2))
    wanted = {"recall": 0.0, "specificity": 1.0, "f1": 0.0, "precision": None, "npv": 0.25, "cost": 3.75, "brier": 0.75}
    assert {name: found[name].value for name in wanted} == wanted


def test_chance_has_the_figures_of_a_coin_thrown_many_times():
    labels = np.repeat([0, 1], (300, 700))
    found = trivial.chance(labels, Costs(miss=5, false_alarm=2))
    rng = np.random.default_rng(0)
    throws = [sample.measure(labels, rng.random(1000), 0.5, costs=Costs(5, 2)) for _ in range(150)]
    for name in set(metrics.NAMES) - set(metrics.OF_PROBABILITY):
        mean = np.mean([throw[name].value for throw in throws])
        assert found[name].value == pytest.approx(mean, abs=0.02), name
    assert found["brier"].value == 0.25
    assert found["expected_calibration_error"].value == pytest.approx(0.2)


@pytest.mark.parametrize("labels", [[0, 0], [1], []])
def test_classifiers_that_do_not_look_are_defined_for_one_class_and_for_no_images(labels):
    for measured in trivial.CLASSIFIERS.values():
        found = measured(np.array(labels, int), Costs())
        assert set(found) == set(metrics.NAMES)
        assert found["roc_auc"].value is None
        assert (found["accuracy"].value is None) == (not labels)


@pytest.mark.parametrize(("labels", "scores"), _cases())
@pytest.mark.parametrize("percent", [95, 99])
def test_operating_points_are_the_best_of_all_thresholds(labels, scores, percent):
    recalls, specificities = [0.0], [0.0]
    for threshold in np.unique(scores):
        called = scores >= threshold
        recall, specificity = called[labels == 1].mean(), (~called)[labels == 0].mean()
        recalls += [recall] if specificity >= percent / 100 - 1e-12 else []
        specificities += [specificity] if recall >= percent / 100 - 1e-12 else []
    found = sample.measure(labels, scores, None)
    assert found[f"recall_at_{percent}_specificity"].value == pytest.approx(max(recalls), abs=1e-12)
    assert found[f"specificity_at_{percent}_recall"].value == pytest.approx(max(specificities), abs=1e-12)


def test_a_specificity_of_exactly_95_percent_is_enough():
    labels = np.repeat([0, 1], (20, 4))
    scores = np.array([*np.zeros(19), 0.5, 0.2, 0.3, 0.4, 0.6])
    found = sample.measure(labels, scores, None)
    assert found["recall_at_95_specificity"].value == 1.0
    assert found["recall_at_99_specificity"].value == 0.25


def test_figures_of_probabilities_agree_with_independent_ones():
    rng = np.random.default_rng(3)
    for size in (1, 2, 50, 1000):
        labels = rng.integers(0, 2, size)
        probabilities = rng.choice([rng.random(size), rng.integers(0, 16, size) / 15])
        found = sample.measure(labels, np.zeros(size), None, probabilities=probabilities)
        expected = sklearn_metrics.brier_score_loss(labels, probabilities, pos_label=1) if size > 1 else None
        if expected is not None:
            assert found["brier"].value == pytest.approx(expected, abs=1e-9)
        error = 0.0
        for index in range(15):
            inside = [
                (p, y)
                for p, y in zip(probabilities, labels, strict=True)
                if index / 15 < p <= (index + 1) / 15 or (index == 0 and p == 0)
            ]
            error += abs(sum(p for p, _ in inside) - sum(y for _, y in inside)) / size
        assert found["expected_calibration_error"].value == pytest.approx(error, abs=1e-9)


def test_without_probabilities_their_figures_say_so():
    found = sample.measure(np.array([0, 1]), np.array([0.0, 1.0]), 0.5)
    assert found["brier"].reason == found["expected_calibration_error"].reason == metrics.NO_PROBABILITY


def test_each_image_can_have_a_threshold_of_its_own():
    labels, scores = np.array([0, 1, 0, 1]), np.array([1.0, 2.0, 11.0, 12.0])
    counts = metrics.confusion(labels, scores, np.array([1.5, 1.5, 11.5, 11.5]))
    assert counts == metrics.Confusion(tn=2, fp=0, fn=0, tp=2)


@pytest.mark.parametrize("costs", [(-1, 1), (0, 0), (float("nan"), 1), (1, float("inf"))])
def test_costs_that_are_none_are_refused(costs):
    with pytest.raises(ValueError, match="Received"):
        Costs(*costs)


def test_mean_over_categories_is_unweighted_and_names_the_categories_it_lacks():
    small = sample.measure(np.array([0, 1]), np.array([0.0, 1.0]), 0.5)
    large = sample.measure(np.array([0] * 50 + [1] * 50), np.zeros(100), 0.5)
    mean = metrics.mean_over({"small": small, "large": large})
    assert mean["recall"].value == 0.5
    assert mean["roc_auc"].value == 0.75
    assert mean["precision"].value == 1.0
    assert mean["precision"].note == "mean over 1 of 2 categories (large: nothing was called defective)"
    assert mean["recall"].note == ""


def test_a_mean_that_no_category_has_says_so():
    good = sample.measure(np.zeros(2, int), np.zeros(2), 0.5)
    assert metrics.mean_over({"a": good})["recall"].as_json() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no category has it: there are no defective images",
    }


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 2], [0.0, 1.0]), ([0, 1], [0.0, np.nan]), ([0, 1], [0.0]), ([[0, 1]], [[0.0, 1.0]])]
)
@pytest.mark.parametrize("metric", [lambda y, s: sample.measure(y, s, None), lambda y, s: metrics.confusion(y, s, 0.5)])
def test_labels_and_scores_that_are_none_are_refused(labels, scores, metric):
    with pytest.raises(ValueError, match="Received"):
        metric(np.array(labels), np.array(scores))
