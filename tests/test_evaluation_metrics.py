"""The figures agree with scikit-learn, and where a figure does not exist, it is said why."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mvtec_tf.evaluation import metrics


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
    assert metrics.roc_auc(labels, scores).value == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores), abs=1e-9
    )
    assert metrics.pr_auc(labels, scores).value == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), abs=1e-9
    )


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.1, 0.5, 0.4, 0.9])
    pairs = [(d > g) + 0.5 * (d == g) for d in scores[labels == 1] for g in scores[labels == 0]]
    assert metrics.roc_auc(labels, scores).value == pytest.approx(np.mean(pairs))


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
    }
    expected["fpr"] = 1 - expected["specificity"]
    expected["fnr"] = 1 - expected["recall"]
    found = metrics.measure(labels, scores, threshold)
    for name, value in expected.items():
        if np.isnan(value):
            assert found[name].value is None, name
        else:
            assert found[name].value == pytest.approx(value, abs=1e-9), name


def test_a_score_that_reaches_the_threshold_is_called_defective():
    assert metrics.confusion(np.array([0, 1]), np.array([0.5, 0.5]), 0.5) == metrics.Confusion(tn=0, fp=1, fn=0, tp=1)


def test_every_metric_is_measured_by_name():
    found = metrics.measure(np.array([0, 1]), np.array([0.0, 1.0]), 0.5)
    assert set(found) == {
        *("accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy"),
        *("npv", "fpr", "fnr", "roc_auc", "pr_auc"),
    }


def test_without_defective_images_only_what_good_images_tell_has_a_value():
    found = metrics.measure(np.zeros(4, int), np.array([0.0, 0.1, 0.2, 0.9]), 0.5)
    values = {name: metric.value for name, metric in found.items() if metric.value is not None}
    assert values == {"accuracy": 0.75, "specificity": 0.75, "fpr": 0.25, "precision": 0.0, "npv": 1.0}
    for name in ("recall", "f1", "fnr", "balanced_accuracy", "roc_auc", "pr_auc"):
        assert found[name].reason == "there are no defective images"


def test_without_good_images_only_what_defective_images_tell_has_a_value():
    found = metrics.measure(np.ones(4, int), np.array([0.0, 0.1, 0.2, 0.9]), 0.5)
    values = {name: metric.value for name, metric in found.items() if metric.value is not None}
    assert values == {"accuracy": 0.25, "recall": 0.25, "fnr": 0.75, "precision": 1.0, "npv": 0.0, "f1": 0.4}
    for name in ("specificity", "fpr", "balanced_accuracy", "roc_auc", "pr_auc"):
        assert found[name].reason == "there are no good images"


def test_nothing_called_defective_has_no_precision_but_an_f1_of_zero():
    found = metrics.measure(np.array([0, 1]), np.array([0.0, 0.1]), 0.5)
    assert (found["precision"].value, found["precision"].reason) == (None, "nothing was called defective")
    assert found["f1"].value == 0
    assert found["recall"].value == 0


def test_no_images_give_no_figures_and_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.measure(np.zeros(0, int), np.zeros(0), 0.5)
    assert all(metric.value is None and metric.reason for metric in found.values())


def test_without_a_threshold_the_rankings_remain_and_the_rest_says_why():
    found = metrics.measure(np.array([0, 1]), np.array([0.2, 0.1]), None, "nobody chose one")
    assert (found["roc_auc"].value, found["pr_auc"].value) == (0.0, 0.5)
    assert {found[name].reason for name in metrics.AT_THRESHOLD} == {"nobody chose one"}
    assert all(found[name].value is None for name in metrics.AT_THRESHOLD)


def test_always_defective_has_the_figures_that_follow_from_the_share_of_defects():
    found = metrics.measure_always_defective(np.array([1, 1, 1, 0]))
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
    }


def test_mean_over_categories_is_unweighted_and_names_the_categories_it_lacks():
    small = metrics.measure(np.array([0, 1]), np.array([0.0, 1.0]), 0.5)
    large = metrics.measure(np.array([0] * 50 + [1] * 50), np.zeros(100), 0.5)
    mean = metrics.mean_over({"small": small, "large": large})
    assert mean["recall"].value == 0.5
    assert mean["roc_auc"].value == 0.75
    assert mean["precision"].value == 1.0
    assert mean["precision"].note == "mean over 1 of 2 categories (large: nothing was called defective)"
    assert mean["recall"].note == ""


def test_a_mean_that_no_category_has_says_so():
    good = metrics.measure(np.zeros(2, int), np.zeros(2), 0.5)
    assert metrics.mean_over({"a": good})["recall"].as_json() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no category has it: there are no defective images",
    }


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 2], [0.0, 1.0]), ([0, 1], [0.0, np.nan]), ([0, 1], [0.0]), ([[0, 1]], [[0.0, 1.0]])]
)
@pytest.mark.parametrize("metric", [metrics.roc_auc, metrics.pr_auc, lambda y, s: metrics.confusion(y, s, 0.5)])
def test_labels_and_scores_that_are_none_are_refused(labels, scores, metric):
    with pytest.raises(ValueError, match="Received"):
        metric(np.array(labels), np.array(scores))
