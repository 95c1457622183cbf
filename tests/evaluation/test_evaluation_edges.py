"""Tables that are hardly any: one image, one class, one score. Each has a defined answer, and a report."""

import warnings

import numpy as np
import pytest

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.comparison.contenders import read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report import summary
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, Row, write_predictions
from mvtec_tf.evaluation.thresholds import Rule

_SOME = Bootstrap(40)


def _row(name, label, score, category="bottle", split="evaluate"):
    return Row(f"{category}/{split}/{name}.png", category, ("good", "crack")[label], label, split, float(score))


def _usual(category="bottle", split="evaluate"):
    rng = np.random.default_rng(0)
    return [_row(i, i % 2, rng.normal(2 * (i % 2)), category, split) for i in range(40)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", [0, 1])
def test_a_category_of_one_image_has_the_figures_that_one_image_can_have(label):
    judged = assess(Predictions.from_rows([*_usual(), _row("only", label, 5.0, "screw")]), 1.0, bootstrap=_SOME)
    found = judged.categories["screw"].metrics
    # The image was called defective.
    there = {"accuracy": float(label), "precision": float(label), "cost": 1.0 - label}
    there |= {"recall": 1.0, "fnr": 0.0, "f1": 1.0} if label else {"specificity": 0.0, "fpr": 1.0}
    assert {name: metric.value for name, metric in found.items() if metric.value is not None} == there
    for name in set(found) - set(there):
        assert found[name].reason, name
    # One image tells nearly nothing: whatever it shows, the opposite is not excluded.
    name = "recall" if label else "specificity"
    assert (found[name].low, found[name].high) == pytest.approx((0.025, 1.0) if label else (0.0, 0.975))
    assert judged.categories["screw"].verdict == "unknown"
    assert judged.mean["roc_auc"].value == judged.categories["bottle"].metrics["roc_auc"].value
    assert "screw" in judged.mean["roc_auc"].note


@pytest.mark.parametrize("label", [0, 1])
def test_a_table_of_one_image_is_judged_and_reported(label, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = judge(Predictions.from_rows([_row("only", label, 5.0)]), tmp_path, 1.0, bootstrap=_SOME)
    assert document["verdict"] == "unknown"
    assert "is unknown" in document["summary"]
    assert (tmp_path / "report.html").exists()


def test_a_category_with_calibrate_rows_of_one_image_borrows_the_threshold_and_says_so():
    rows = [*_usual(), *_usual(split="calibrate"), *_usual("screw"), _row("one", 1, 3.0, "screw", "calibrate")]
    judged = assess(Predictions.from_rows(rows), rule=Rule(per="category"), bootstrap=_SOME)
    own = judged.threshold.categories["screw"]
    assert own.value == judged.threshold.whole.value
    assert "has no threshold of its own (all calibrate rows are defective" in own.warning


@pytest.mark.filterwarnings("error")
def test_scores_that_are_all_equal_rank_nothing_and_call_all_alike():
    rows = [_row(i, i % 2, 7.0) for i in range(20)] + [_row(i, i % 2, 7.0, split="calibrate") for i in range(10)]
    judged = assess(Predictions.from_rows(rows), bootstrap=_SOME)
    found = judged.overall.metrics
    assert (found["roc_auc"].value, found["pr_auc"].value, found["mcc"].value) == (0.5, 0.5, 0)
    assert (judged.overall.counts.tn, judged.overall.counts.fn) == (0, 0)
    assert judged.overall.verdict == "no_better"
    said = " ".join(summary.sentences(judged))
    assert ("every image has the same score" in said, "two values" in said) == (True, False)


@pytest.mark.parametrize("label", [0, 1])
def test_a_whole_table_of_one_class_has_intervals_where_it_has_figures(label):
    rng = np.random.default_rng(1)
    judged = assess(Predictions.from_rows([_row(i, label, rng.normal()) for i in range(60)]), 0.0, bootstrap=_SOME)
    for name, metric in judged.overall.metrics.items():
        if metric.value is None:
            assert metric.reason
            assert metric.low is None
        else:
            assert metric.low <= metric.value <= metric.high, name
    assert set(judged.overall.metrics) == set(metrics.NAMES)


def test_a_score_that_is_no_number_is_refused_by_name():
    rows = [*_usual(), _row("broken", 1, float("nan"))]
    with pytest.raises(UserError, match=r"row 40: score nan.*mend the model or leave the image out"):
        judge(Predictions.from_rows(rows), "nowhere")


def test_two_models_of_which_each_was_judged_on_images_of_its_own_are_not_compared(tmp_path):
    # As the study did: SimCLR on 1,725 test images, the supervised network on another 773.
    for name, counts in (("simclr", (5, 462, 8, 1250)), ("cnn", (596, 14, 43, 120))):
        kinds = ((0, 0), (0, 1), (1, 0), (1, 1))  # label and call
        pairs = [pair for pair, count in zip(kinds, counts, strict=True) for _ in range(count)]
        rows = [_row(f"{name}{i}", label, call) for i, (label, call) in enumerate(pairs)]
        write_predictions(tmp_path / f"{name}.csv", Predictions.from_rows(rows))
    with pytest.raises(UserError, match=r"not judged on the same evaluation images: 1,725 only in .*simclr.csv") as e:
        read_methods([str(tmp_path / "simclr.csv"), str(tmp_path / "cnn.csv")])
    assert "773 only in" in str(e.value)
