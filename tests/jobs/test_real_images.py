"""What holds on real photographs; skipped by name where there are none."""

import json

from tests.conftest import run_binary


def test_few_labels_on_the_starting_encoder_find_defective_bottles(real_data, real_weights, tmp_path):
    """Frozen conv3 + conv4 features and a logistic regression on 10 % of the labels: 0.98 and more."""
    run_binary(
        "fit_probe",
        f"--data_dir={real_data / 'mvtec_ad_448' / 'bottle'}",
        f"--weights={real_weights / 'resnet50_imagenet_conv1_to_conv4_fp16.h5'}",
        "--flagfile=flags/probe.flags",
        "--study_head",
        f"--run_dir={tmp_path / 'run'}",
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["overall"]["roc_auc"]["value"] > 0.97
    study = json.loads((tmp_path / "run" / "study_head" / "metrics.json").read_text())
    assert study["overall"]["roc_auc"]["value"] < metrics["overall"]["roc_auc"]["value"]
