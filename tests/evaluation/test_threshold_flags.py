"""A training is told how to choose the threshold too, is judged so, and keeps it for whoever exports the run."""

import json

import pytest

from tests.conftest import run_binary


def test_a_run_judges_by_thresholds_of_each_category_and_keeps_them(toy, tmp_path):
    run = tmp_path / "run"
    wanted = ("--threshold_per=category", "--target_specificity=0.9", "--cost_miss=20")
    run_binary("fit_baseline", f"--data_dir={toy}", f"--run_dir={run}", "--image_size=32", *wanted)
    document = json.loads((run / "metrics.json").read_text())
    threshold = document["threshold"]
    assert threshold["per"] == "category"
    assert set(threshold["categories"]) == set(document["categories"])
    for own in threshold["categories"].values():
        assert own["method"] == "target_specificity"
        assert own["low"] <= own["value"] <= own["high"]
        assert "the promise is kept on average" in own["warning"]
    assert document["costs"] == {"miss": 20.0, "false_alarm": 1.0}
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["threshold_per"] == "category"
    assert "--target_specificity=0.9" in (run / "flags.txt").read_text()
    assert list((run / "tensorboard").glob("*tfevents*"))


@pytest.mark.parametrize("binary", ["train_cnn", "fit_probe", "fit_baseline"])
def test_contradictions_are_refused_before_any_work(binary, tmp_path):
    needed = (f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'run'}")
    done = run_binary(binary, *needed, "--threshold_method=target_recall", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: --threshold_method=target_recall needs --target_recall")
    assert not (tmp_path / "run").exists()
