"""The quickstart's commands and its closing table."""

import json
import signal

import numpy as np
import pytest

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, write_predictions
from mvtec_tf.jobs import quickstart
from mvtec_tf.stopping import Stopped

_KINDS = ("good", "subtle", "gross")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """What the commands leave behind: subtle defects are scored by chance, gross ones are all found."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("quickstart")
    severities = np.repeat(_KINDS, 40)
    paths = [f"cap/test/{severity}/{i}.png" for i, severity in enumerate(severities)]
    (root / "data" / "cap").mkdir(parents=True)
    lines = [f"{path.removeprefix('cap/')},{severity}" for path, severity in zip(paths, severities, strict=True)]
    (root / "data" / "cap" / "severity.csv").write_text("\n".join(["path,severity", *lines]) + "\n")
    scores = rng.random(120) + 2 * (severities == "gross")
    label = (severities != "good").astype(int)
    predictions = Predictions.from_columns(
        path=paths, category=["cap"] * 120, defect=severities, label=label, split=["evaluate"] * 120, score=scores
    )
    for name in ("mean_brightness", "grey_pixels", "cnn", "probe", "probe/study_head"):
        judge(predictions, root / name, 1.5)
        write_predictions(root / name / "predictions.csv", predictions)
        (root / name / "run.json").write_text(json.dumps({"labels_used": 17}))
    return root


def test_the_table_has_the_trivial_classifier_the_baselines_and_every_method(run_dir):
    lines = quickstart.format_table(run_dir).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "method",
        "call everything defective",
        "mean brightness, logistic",
        "16 x 16 pixels, logistic",
        "supervised network",
        "SimCLR + logistic head",
        "SimCLR + the study's head",
    ]
    # 80 of 120 are defective: precision 2/3 and recall 1 give F1 0.8.
    assert lines[1].split()[3:] == ["0", "0.500", "0.500", "0.500", "0.800", "1.000", "0.000"]
    assert {line.split()[-7] for line in lines[2:]} == {"17"}


def test_subtle_defects_are_ranked_against_good_images_alone(run_dir):
    from mvtec_tf.evaluation.table import read_predictions

    predictions = read_predictions(run_dir / "cnn" / "predictions.csv")
    subtle = quickstart.subtle_roc_auc(predictions, run_dir / "data")
    good, hard = predictions.score[:40], predictions.score[40:80]
    assert subtle == pytest.approx(np.mean(hard[:, None] > good[None, :]))
    assert 0.3 < subtle < 0.7


def test_the_steps_train_before_they_export(tmp_path):
    steps = quickstart.steps(tmp_path, "saved_models", seed=3)
    names = [step.binary for step in steps]
    assert names[0] == "make_toy"
    assert names.index("train_simclr") < names.index("fit_probe") < names.index("export")
    assert all("--seed=3" in step.arguments for step in steps if step.binary != "export")


def test_a_failed_command_stops_the_quickstart(tmp_path):
    step = quickstart.Step("Fail", "export", ("--no_such_flag",))
    with pytest.raises(UserError, match="status 2"):
        quickstart.run([step, quickstart.Step("Never", "export", ())])


@pytest.mark.parametrize(
    ("stopped", "passed_on"), [(KeyboardInterrupt(), 0), (Stopped(signal.SIGINT), 0), (Stopped(signal.SIGTERM), 1)]
)
def test_a_signal_waits_for_the_command_to_clean_up_which_has_ctrl_c_but_no_sigterm(monkeypatch, stopped, passed_on):
    waited, terminated = [], []

    class Command:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            waited.append(1)
            if len(waited) == 1:
                raise stopped
            return 130

        def terminate(self):
            terminated.append(1)

    monkeypatch.setattr(quickstart.subprocess, "Popen", Command)
    with pytest.raises(KeyboardInterrupt):
        quickstart.run([quickstart.Step("Stop", "export", ())])
    assert (len(waited), len(terminated)) == (2, passed_on)
