"""The original study's protocol: what it drew, that it is a leak, and that it passes only when that is said."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.errors import LeakError, UserError
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.run_directory import read_run
from mvtec_tf.study import protocol as study
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

pytestmark = pytest.mark.slow

SMALL = ("--backbone=resnet10", "--weights=none", "--image_size=32", "--batch_size=16", "--precision=float32")


def _train_good(records):
    return [record for record in records if record.split == "train"]


def test_simclr_sees_85_percent_of_the_good_training_images(toy_records):
    good = _train_good(toy_records)
    part = study.pretrain_part(good, seed=0)
    assert len(part) == round(0.85 * len(good))
    assert len({record.path for record in part}) == len(part)
    assert set(part) <= set(good)
    assert part == study.pretrain_part(good, seed=0) != study.pretrain_part(good, seed=1)


def test_the_head_is_fitted_on_70_percent_of_the_labelled_and_scored_on_all_test_images(toy_records):
    cut, labels_used = study.probe_cut(toy_records, 0.25, seed=0, allow_leak=True)
    tests = {record.path for record in toy_records if record.split == "test"}
    assert {record.path for record in cut.evaluate} == tests
    assert labels_used == 2 * round(0.25 * len(tests) / 2)
    assert len(cut.labelled) == round(0.7 * labels_used)
    assert {record.path for record in cut.labelled} <= tests


def test_labels_are_drawn_whatever_they_show(toy_records):
    shares = [
        np.mean([record.label for record in study.probe_cut(toy_records, 0.25, seed, allow_leak=True)[0].labelled])
        for seed in range(20)
    ]
    # Stratified draws would all have one share.
    assert len(set(shares)) > 5
    assert np.mean(shares) == pytest.approx(18 / 26, abs=0.1)


def test_the_network_is_judged_on_the_stratified_fifth_that_it_was_not_fitted_on(toy_records):
    fit, evaluate = study.supervised_parts(toy_records, seed=0, allow_leak=True)
    assert {*fit, *evaluate} == set(toy_records)
    assert not set(fit) & set(evaluate)
    for label in (0, 1):
        kept = sum(record.label == label for record in fit)
        assert kept == round(0.8 * sum(record.label == label for record in toy_records))


def test_without_allow_leak_it_is_a_leak_that_says_how_to_repeat_the_study(toy_records):
    with pytest.raises(LeakError, match=r"(?s)test/.* is also in fit.*`allow_leak`"):
        study.probe_cut(toy_records, 0.25, seed=0, allow_leak=False)
    with pytest.raises(LeakError, match=r"(?s)is also in calibrate.*`allow_leak`"):
        study.supervised_parts(toy_records, seed=0, allow_leak=False)


def test_too_few_images_are_a_message(toy_records):
    with pytest.raises(UserError, match="`label_budget`"):
        study.probe_cut(toy_records, 0.001, seed=0, allow_leak=True)
    good = [dataclasses.replace(record, label=0) for record in toy_records]
    with pytest.raises(UserError, match="0 defective"):
        study.supervised_parts(good, seed=0, allow_leak=True)


@pytest.mark.parametrize(
    ("name", "flags", "status", "words"),
    [
        ("train_cnn", ["--allow_leak"], 2, "--protocol=study"),
        ("train_cnn", ["--protocol=study", "--label_budget=0.1"], 2, "--label_budget"),
        ("fit_probe", ["--weights=none", "--allow_leak"], 2, "--protocol=study"),
        ("fit_probe", ["--weights=none", "--protocol=study", "--label_budget=all"], 2, "--label_budget=all"),
        ("fit_probe", ["--weights=none", "--protocol=study", "--head=lda"], 2, "--head"),
        ("fit_probe", ["--weights=none", "--protocol=study"], 1, "add --allow_leak"),
        ("fit_baseline", ["--protocol=study"], 2, "protocol"),
    ],
)
def test_only_this_protocol_may_leak_and_only_when_told(name, flags, status, words, toy, tmp_path):
    done = run_binary(name, f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}", *flags, check=False)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory):
    with in_place_of_resnet10():
        return _train_all(tmp_path_factory.mktemp("study"), toy)


def _train_all(root, toy):
    simclr = ("--passes_per_epoch=1", "--epochs=2", "--projection_hidden=32", "--projection_dimensions=16")
    data = f"--data_dir={toy}"
    run_binary(
        "train_simclr", "--flagfile=flags/simclr_study.flags", data, f"--run_dir={root / 'simclr'}", *SMALL, *simclr
    )
    # As if labels of other parts had been bought for the encoder.
    card = next((root / "simclr" / "saved_model").rglob("mvtec_tf.json"))
    said = json.loads(card.read_text())
    said["pretrain_images"].append({"path": "other/1.png", "group": "", "category": "other", "label": 1})
    card.write_text(json.dumps(said))
    probe = (f"--encoder={root / 'simclr'}", "--label_budget=0.25")
    run_binary("fit_probe", "--flagfile=flags/probe_study.flags", data, f"--run_dir={root / 'probe'}", *probe)
    cnn = ("--epochs=1", "--trainable_stages=5")
    run_binary("train_cnn", "--flagfile=flags/cnn_study.flags", data, f"--run_dir={root / 'cnn'}", *SMALL, *cnn)
    return root


def test_the_rate_falls_once_an_epoch_without_warm_up(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs / "simclr" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    rates = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("curves/learning_rate")]
    # The rate of the step after each epoch: half of the cosine's way down, then its end.
    assert rates == pytest.approx([(1e-4 + 1e-7) / 2, 1e-7], rel=1e-3)
    assert read_run(runs / "simclr")["data"]["images"] == round(0.85 * 32)


@pytest.mark.parametrize(("name", "split"), [("probe", "fit"), ("cnn", "calibrate")])
def test_the_reports_say_first_that_labelled_images_were_evaluated(name, split, runs, toy_records):
    metrics = json.loads((runs / name / "metrics.json").read_text())
    table = read_predictions(runs / name / "predictions.csv", allow_leak=True)
    again = set(table.part(split).path) & set(table.part("evaluate").path)
    assert again
    first = metrics["summary"].split(". ")[0]
    assert str(len(again)) in first
    assert "label" in first
    assert metrics["threshold"]["value"] == 0.0
    report = (runs / name / "report.html").read_text()
    assert first.split(",")[0] in report


def test_the_studys_head_is_exported_and_scores_all_test_images(runs, toy_records):
    table = read_predictions(runs / "probe" / "predictions.csv", allow_leak=True).part("evaluate")
    assert len(table) == sum(record.split == "test" for record in toy_records)
    assert (runs / "probe" / "saved_model" / "saved_model.pb").is_file()


def test_labels_that_the_encoder_has_used_are_counted_by_the_study_too(runs):
    assert read_run(runs / "probe")["labels_used"] == 12 + 1  # a quarter of 26, twice, rounded to even; the encoder's
    assert "The encoder has used the labels of 1 more test image, 1 of them defective" in (
        runs / "probe" / "report.html"
    ).read_text()


def test_evaluate_lets_a_leak_pass_only_in_a_run_of_the_study(runs, tmp_path):
    table = runs / "probe" / "predictions.csv"
    judged = run_binary(
        "evaluate", f"--predictions={table}", f"--out={tmp_path / 'out'}", "--allow_leak", "--threshold=0"
    )
    assert "These figures are no evidence: labelled images are among the evaluated ones" in judged.stdout
    for flags, status, words in (((), 1, "is also in fit"), (("--allow_leak",), 2, "no run.json")):
        bare = tmp_path / "bare.csv"
        bare.write_bytes(table.read_bytes())
        done = run_binary("evaluate", f"--predictions={bare}", f"--out={tmp_path / 'no'}", *flags, check=False)
        assert done.returncode == status
        assert words in done.stderr
        assert not (tmp_path / "no").exists()
