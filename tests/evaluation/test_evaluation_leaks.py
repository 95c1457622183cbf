"""A classifier scored on images that it was made with is stopped, or, where a study is repeated, called no evidence."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mvtec_tf.errors import LeakError
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.comparison import report as comparison_report
from mvtec_tf.evaluation.comparison.contenders import read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, Row, read_predictions, write_predictions


def _fitted_on_noise(splits_of, group_of=lambda i: "", count=120):
    """A table of a classifier that learns noise by heart: nothing in its images tells their labels."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(count, 400)), (np.arange(count) % 4 > 0).astype(int)
    scores = LogisticRegression(C=100.0).fit(images, labels).decision_function(images)
    rows = [
        Row(f"{i}.png", "bottle", ("good", "crack")[label], label, split, float(score), group_of(i))
        for i, (label, score) in enumerate(zip(labels.tolist(), scores, strict=True))
        for split in splits_of(i)
    ]
    return Predictions.from_rows(rows)


@pytest.fixture(scope="module")
def learnt_by_heart():
    return _fitted_on_noise(lambda i: ("fit", "calibrate", "evaluate") if i < 100 else ("evaluate",))


def test_a_classifier_scored_on_the_images_it_was_fitted_on_is_stopped_whatever_its_f1(learnt_by_heart, tmp_path):
    with pytest.raises(LeakError, match=r"100 evaluated image\(s\) were seen before.*\n  0\.png is also in fit"):
        judge(learnt_by_heart, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(LeakError):
        assess(learnt_by_heart)
    judged = assess(learnt_by_heart, bootstrap=Bootstrap(50), allow_leak=True)
    assert judged.overall.metrics["f1"].value > 0.99  # noise, learnt by heart
    assert judged.verdict == "leak"


def test_an_allowed_leak_is_counted_in_the_first_sentence_of_everything_that_is_written(learnt_by_heart, tmp_path):
    path = tmp_path / "run" / "predictions.csv"
    write_predictions(path, learnt_by_heart, allow_leak=True)
    with pytest.raises(LeakError):
        read_predictions(path)
    table = read_predictions(path, allow_leak=True)
    document = judge(table, path.parent, bootstrap=Bootstrap(50), allow_leak=True)
    sentence = (
        "These figures are no evidence: labelled images are among the evaluated ones, 100 of the 120 (83.3 %) had been "
        "used to make the model "
        "(100 to fit it, 100 to stop its training or to choose its threshold)."
    )
    assert document["summary"].startswith(sentence)
    assert "beats" not in document["summary"]
    assert document["leak"] == {
        "images": 100,
        "evaluated": 120,
        "splits": {"fit": 100, "calibrate": 100},
        "same_object": 0,
        "names": [f"{i}.png" for i in range(10)],
    }
    assert json.loads((path.parent / "metrics.json").read_text()) == document
    page = (path.parent / "report.html").read_text()
    assert f'<section class="answer leak"><p>{sentence}</p>' in page
    assert "9.png and 90 more" in page
    assert "no image of theirs" not in page


def test_another_photograph_of_an_object_that_was_fitted_on_counts_as_seen():
    table = _fitted_on_noise(lambda i: ("fit" if i % 2 else "evaluate",), lambda i: f"part {i // 2}" if i < 20 else "")
    judged = assess(table, 0.0, bootstrap=Bootstrap(0), allow_leak=True)
    assert (judged.leak.images, judged.leak.same_object, judged.leak.splits) == (10, 10, {})
    assert "(10 by another image of the same object)" in judged.leak.sentence()


def test_without_a_leak_nothing_is_said_of_one_although_it_would_be_allowed(tmp_path):
    table = _fitted_on_noise(lambda i: ("fit" if i % 2 else "evaluate",))
    document = judge(table, tmp_path, 0.0, bootstrap=Bootstrap(0), allow_leak=True)
    assert document["leak"] is None
    assert "evidence" not in document["summary"]


def test_a_comparison_says_first_whose_figures_are_no_evidence_and_calls_nobody_better(learnt_by_heart, tmp_path):
    rng = np.random.default_rng(1)
    other = learnt_by_heart.part("evaluate")
    honest = [dataclasses.replace(row, score=float(rng.normal())) for row in other.rows()]
    write_predictions(tmp_path / "honest.csv", Predictions.from_rows(honest))
    run = tmp_path / "study"
    write_predictions(run / "predictions.csv", learnt_by_heart, allow_leak=True)
    judge(learnt_by_heart, run, bootstrap=Bootstrap(0), allow_leak=True)
    # A run says itself that it was judged so; a bare table cannot.
    methods = read_methods([str(tmp_path / "honest.csv"), str(run)])
    compared = comparison_report.write(methods, tmp_path / "out", bootstrap=Bootstrap(50))
    sentences = comparison_report.sentences(compared)
    assert sentences[0].startswith("The figures of study are no evidence: labelled images are among")
    difference = compared.standings[1].differences["overall", ""]["roc_auc"]
    assert difference.low > 0  # and yet:
    assert "so study is better" not in sentences[1]
    assert "which proves nothing" in sentences[1]
    assert "<b>better</b>" not in (tmp_path / "out" / "report.html").read_text()
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document["methods"]["study"]["verdict"] == "leak"
    assert document["methods"]["study"]["runs"][0]["leak"]["images"] == 100
    assert document["methods"]["honest.csv"]["runs"][0]["leak"] is None
    with pytest.raises(LeakError):
        read_methods([str(tmp_path / "honest.csv"), str(run / "predictions.csv")])
