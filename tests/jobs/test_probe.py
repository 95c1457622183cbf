"""What is fitted on few labels says honestly how it does on images that it was not fitted on."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import brier_score_loss as brier

from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.evaluation.thresholds import Rule, choose_threshold
from mvtec_tf.features import reference
from mvtec_tf.heads.distance import NearestNeighbours
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HEADS, NEED_LABELS, NEED_MAPS, HeadSettings
from mvtec_tf.jobs.judging import on_line
from tests.support.in_process import run_in_process
from tests.support.tiny_network import in_place_of_resnet10


def _records(train_good, good, defective, category="cap"):
    kinds = [("train", "good", 0)] * train_good + [("test", "good", 0)] * good + [("test", "bent", 1)] * defective
    names = [f"{category}/{split}/{defect}/{i}.png" for i, (split, defect, _) in enumerate(kinds)]
    return [
        Record(name, "", category, defect, label, split, name)
        for name, (split, defect, label) in zip(names, kinds, strict=True)
    ]


def _features(labels, seed, width=60):
    """A defect moves ten of the features a little."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(labels), width))
    features[np.asarray(labels) == 1, :10] += 1.2
    return features.astype(np.float32)


def _labels(records):
    return np.array([record.label for record in records])


def test_the_probability_of_new_images_is_better_than_the_sigmoid_of_the_score_and_than_a_constant():
    """150 good training images; of the line 18 labelled images, 12 of them defective; two in three are, there."""
    records = _records(150, 6, 12)
    new_labels = (np.random.default_rng(9).random(3000) < 2 / 3).astype(int)
    new = _features(new_labels, seed=1)
    probe = fit_probe(Logistic, _features(_labels(records), seed=0), records, seed=0)
    scores = probe.head.decision_function(new)
    calibrated = brier(new_labels, probe.head.probability_of(scores, np.full(3000, "cap")))
    assert calibrated < brier(new_labels, 1 / (1 + np.exp(-scores))) - 0.02
    assert calibrated < brier(new_labels, np.full(3000, new_labels.mean())) - 0.02


@pytest.mark.parametrize("name", ["rbf_svm", "linear_svm", "logistic"])
def test_many_good_images_do_not_collapse_the_threshold(name):
    """400 good training images and eight labelled defects: at its own threshold of 0 a support vector machine finds
    hardly any; the threshold from out-of-fold scores finds most."""
    records = _records(400, 4, 8)
    features = _features(_labels(records), seed=0)
    probe = fit_probe(lambda: make_head(HeadSettings(name)), features, records, seed=0)
    chosen = choose_threshold(_labels(records)[probe.calibrate], probe.calibrate_scores).value
    new_labels = np.repeat([0, 1], 500)
    scores = probe.head.decision_function(_features(new_labels, seed=1))
    assert balanced_accuracy_score(new_labels, scores >= chosen) > 0.75
    assert np.mean(scores[new_labels == 1] >= 0) < np.mean(scores[new_labels == 1] >= chosen)


def test_out_of_fold_scores_are_those_of_heads_that_have_not_seen_the_image():
    records = _records(40, 5, 10)
    features = _features(_labels(records), seed=0)
    probe = fit_probe(Logistic, features, records, seed=0)
    assert len(probe.calibrate) == 55
    inside = probe.head.decision_function(features[probe.calibrate])
    labels = _labels(records)[probe.calibrate]
    gap = [inside[labels == 1].mean() - inside[labels == 0].mean()]
    gap.append(probe.calibrate_scores[labels == 1].mean() - probe.calibrate_scores[labels == 0].mean())
    assert gap[1] < 0.8 * gap[0]


def test_a_single_labelled_defect_is_fitted_and_the_report_says_what_it_cannot_do():
    records = _records(40, 2, 1)
    probe = fit_probe(Logistic, _features(_labels(records), seed=0), records, seed=0)
    assert not probe.head.gives_probability
    assert probe.head.probability_of(np.zeros(1, np.float32), np.array(["cap"])) is None
    assert len(probe.calibrate) == 42
    assert "single labelled defective object" in probe.warnings[0]
    assert choose_threshold(_labels(records)[probe.calibrate], probe.calibrate_scores).method == "conformal"


def test_fewer_labels_than_folds_are_each_held_out_by_themselves_and_it_is_said():
    records = _records(40, 2, 3)
    probe = fit_probe(Logistic, _features(_labels(records), seed=0), records, seed=0)
    assert _labels(records)[probe.calibrate].sum() == 3
    assert "3 labelled defective objects for 5 folds" in probe.warnings[0]
    assert probe.head.gives_probability


@pytest.mark.parametrize("name", sorted(set(HEADS) - NEED_MAPS))
def test_every_head_copes_with_fewer_labels_than_folds(name):
    records = _records(40, 1, 2)
    features = _features(_labels(records), seed=0)
    probe = fit_probe(lambda: make_head(HeadSettings(name)), features, records, seed=0)
    assert "2 labelled defective objects for 5 folds" in probe.warnings[0]
    assert np.isfinite(probe.calibrate_scores).all()
    assert _labels(records)[probe.calibrate].sum() == 2


@pytest.mark.parametrize("name", sorted(set(HEADS) - NEED_MAPS))
@pytest.mark.parametrize(("good", "defective"), [(6, 0), (0, 6)])
def test_labels_of_one_class_only_serve_or_are_refused_with_a_way_out(name, good, defective):
    """Good ones alone leave nothing to learn for heads that need labels; defective ones stand beside train/good."""
    records = _records(40, good, defective)
    features = _features(_labels(records), seed=0)
    if name in NEED_LABELS and not defective:
        with pytest.raises(UserError, match=r"all 46 given are good\. .*`label_budget`"):
            fit_probe(lambda: make_head(HeadSettings(name)), features, records, seed=0)
        return
    probe = fit_probe(lambda: make_head(HeadSettings(name)), features, records, seed=0)
    assert np.isfinite(probe.calibrate_scores).all()
    assert choose_threshold(_labels(records)[probe.calibrate], probe.calibrate_scores).value is not None


def test_without_labels_there_is_no_probability():
    records = _records(40, 0, 0)
    head = HeadSettings("mahalanobis")
    probe = fit_probe(lambda: make_head(head), _features(_labels(records), seed=0), records, seed=0)
    assert not probe.head.gives_probability
    assert probe.warnings == ()


def test_a_category_with_one_class_only_is_named_with_a_way_out():
    records = [*_records(20, 2, 4), *_records(20, 2, 0, category="nut")]
    with pytest.raises(UserError, match=r"category 'nut': .*all 22 given are good.*`label_budget`"):
        fit_probe(Logistic, _features(_labels(records), seed=0), records, seed=0)


def test_where_the_line_has_moved_the_threshold_lets_more_of_its_good_parts_pass_and_the_probability_is_better():
    """All test images differ from the good training images in ten features that no defect touches."""
    records = _records(100, 6, 12)
    cut, new_labels = Cut(tuple(records[:100]), tuple(records[100:]), ()), np.repeat([0, 1], 300)

    def moved(labels, seed, by):
        features = _features(labels, seed)
        features[:, 20:30] += by[:, None]
        features[labels == 1, :10] += 0.5
        return features

    features = moved(_labels(records), 2, 2.0 * (np.arange(118) >= 100))
    before = fit_probe(NearestNeighbours, features, records, seed=0)
    scores = before.head.decision_function(moved(new_labels, 9, np.full(600, 2.0)))
    labels, cap = _labels(records)[before.calibrate], np.full(600, "cap")
    error = brier(new_labels, before.head.probability_of(scores, cap))
    after, line = on_line(before, cut)
    assert line["cap"].shown
    np.testing.assert_array_equal(after.calibrate_scores[100:], before.calibrate_scores[100:])
    rule = Rule("smooth_youden")
    cuts = [choose_threshold(labels, each.calibrate_scores, rule=rule).value for each in (before, after)]
    specificity = [np.mean(scores[:300] < cut) for cut in cuts]
    assert specificity[1] > specificity[0] + 0.2
    assert brier(new_labels, after.head.probability_of(scores, cap)) < error - 0.02


def test_what_is_usual_needs_no_second_look_by_the_network(tmp_path):
    """The features that a head was fitted on say what the exported graph would."""
    toy = tmp_path / "toy"
    asked = ("--image_size=48", "--train_good=12", "--test_good=6", "--per_defect=2", "--products=denim,flange")
    run_in_process("make_toy", f"--out={toy}", *asked)
    own = ("--weights=none", "--backbone=resnet10", "--image_size=48", "--head=mahalanobis", "--label_budget=0")
    with in_place_of_resnet10():
        run_in_process("fit_probe", f"--data_dir={toy}", *own, f"--run_dir={tmp_path / 'run'}")
    found = reference.Reference.load(tmp_path / "run" / reference.FILE)
    table = read_predictions(tmp_path / "run" / "predictions.csv").part("calibrate")
    files = [str(toy / path) for path in table.path.tolist()]
    (tmp_path / "run" / reference.FILE).unlink()
    reference.keep(tmp_path / "run", files, table.score, table.objects)
    again = reference.Reference.load(tmp_path / "run" / reference.FILE)
    assert set(found.category.tolist()) == {0, 1}
    for name, value in vars(found).items():
        np.testing.assert_allclose(value, getattr(again, name), rtol=1e-3, atol=1e-4, err_msg=name)
