"""What holds on real photographs; skipped by name where there are none."""

import json
import shutil

from tests.conftest import run_binary


def test_few_labels_on_the_starting_encoder_find_defective_bottles(real_data, real_weights, tmp_path):
    """Frozen conv3 + conv4 features and a logistic regression on 10 % of the labels: 0.98 and more, also of every third
    good training image."""
    shutil.copytree(real_data / "mvtec_ad_448" / "bottle", tmp_path / "bottle", ignore=_two_of_three)
    run_binary(
        "fit_probe",
        f"--data_dir={tmp_path / 'bottle'}",
        f"--weights={real_weights / 'resnet50_imagenet_conv1_to_conv4_fp16.h5'}",
        "--flagfile=flags/probe.flags",
        "--study_head",
        f"--run_dir={tmp_path / 'run'}",
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["overall"]["roc_auc"]["value"] > 0.97
    study = json.loads((tmp_path / "run" / "study_head" / "metrics.json").read_text())
    assert study["overall"]["roc_auc"]["value"] < metrics["overall"]["roc_auc"]["value"]


def _two_of_three(folder, names):
    return sorted(names)[1::3] + sorted(names)[2::3] if folder.endswith("train/good") else []
