"""Good images are all there is, the commonest beginning: everything fits, judges false alarms, exports and predicts."""

import csv
import json
import shutil

import pytest

from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.label_efficiency.grid import make_grid
from mvtec_tf.run_directory import read_run
from mvtec_tf.serving.export import export_run
from tests.conftest import run_binary


def _layout(root, toy, name, defects):
    """The toy's flanges in one of the layouts, with so many defective images."""
    good = sorted((toy / "flange" / "train" / "good").iterdir())
    bad = sorted((toy / "flange" / "test" / "chip").iterdir())[:defects]
    if name == "list":
        lines = [f"{file},good" for file in good] + [f"{file},defective" for file in bad]
        (root / "flange.csv").write_text("\n".join(["path,label", *lines]) + "\n")
        return root / "flange.csv"
    folders = {
        "train only": ("train/good", "test/chip"),
        "train and test": ("train/good", "test/chip"),
        "plain": ("good", "defective/chip"),
    }[name]
    for folder, files in zip(folders, (good, bad), strict=True):
        if files:
            (root / "flange" / folder).mkdir(parents=True)
        for file in files:
            shutil.copy(file, root / "flange" / folder)
    if name == "train and test":
        shutil.copytree(toy / "flange" / "test" / "good", root / "flange" / "test" / "good")
    return root / "flange"


LAYOUTS = ("train only", "train and test", "plain", "list")


@pytest.mark.parametrize("defects", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_labels_every_layout_is_cut_into_good_images_to_learn_from_and_others_to_judge(
    layout, defects, toy, tmp_path
):
    said = []
    found = records.scan([_layout(tmp_path, toy, layout, defects)], say=said.append)
    cut = protocol.clean(found, 0.0, 0)
    assert cut.train_good
    assert not cut.labelled
    assert sum(record.label for record in cut.evaluate) == defects
    assert any(not record.label for record in cut.evaluate)
    assert {record.path for record in (*cut.train_good, *cut.evaluate)} == {record.path for record in found}
    # Whatever the reader decided by itself is said.
    assert bool(said) == (layout != "train and test")
    assert protocol.clean(found, 0.0, 7) == cut


@pytest.mark.parametrize("defects", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_labels_to_buy_it_is_refused_and_the_way_that_needs_none_is_named(layout, defects, toy, tmp_path):
    found = records.scan([_layout(tmp_path, toy, layout, defects)])
    with pytest.raises(UserError, match=rf"no defective test image .*found {defects} .*`label_budget`=0"):
        protocol.clean(found, 0.1, 0)


@pytest.mark.parametrize("defects", [0, 1])
def test_a_grid_over_what_cannot_be_cut_is_refused_before_anything_is_computed(defects, toy, tmp_path):
    found = records.scan([_layout(tmp_path, toy, "plain", defects)])
    with pytest.raises(UserError, match="too few for a pool and an evaluation part"):
        make_grid(found, [("start", "mahalanobis")], ["0"], range(2), {})


def test_a_new_photograph_moves_no_other_and_two_objects_are_enough(toy, tmp_path):
    folder = _layout(tmp_path, toy, "train only", 0)
    before = {record.path: record.split for record in records.scan([folder])}
    shutil.copy(folder / "train" / "good" / "000.png", folder / "train" / "good" / "new.png")
    after = {record.path: record.split for record in records.scan([folder])}
    assert {path: split for path, split in after.items() if path in before} == before
    for file in sorted((folder / "train" / "good").iterdir())[2:]:
        file.unlink()
    assert sorted(record.split for record in records.scan([folder])) == ["test", "train"]


def test_a_test_set_of_defects_alone_borrows_good_images_from_training(toy, tmp_path):
    folder = _layout(tmp_path, toy, "train only", 6)
    cut = protocol.clean(records.scan([folder]), 0.2, 0)
    assert {record.label for record in cut.evaluate} == {0, 1}
    assert any(record.label for record in cut.labelled)


def test_the_report_on_good_images_has_no_figure_of_detection_and_says_what_would_be_needed(tmp_path):
    rows = [Row(f"a/train/{i}.png", "a", "good", 0, "calibrate", i / 40) for i in range(40)]
    rows += [Row(f"a/test/{i}.png", "a", "good", 0, "evaluate", i / 19) for i in range(20)]
    document = judge(Predictions.from_rows(rows), tmp_path)
    summary = document["summary"]
    assert "falsely stopped 1 of 20 good images (5.0 %, 95 % interval" in summary
    assert "no figures of detection. For them, photograph defective parts" in summary
    assert "ROC-AUC" not in summary
    rate = document["overall"]["fpr"]
    assert 0 <= rate["low"] < rate["value"] < rate["high"] < 0.5
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("<h2>Figures</h2>") : page.index("</table>", page.index("<h2>Figures</h2>"))]
    assert "Specificity" in table
    for name in ("ROC-AUC", "F1", "Recall", "Accuracy", "NPV"):
        assert name not in table


@pytest.mark.slow
@pytest.mark.parametrize(
    "binary",
    [
        ("fit_baseline", "--features=mean_brightness", "--image_size=32"),
        ("fit_probe", "--recipe=auto", "--encoder="),
    ],
    ids=lambda flags: flags[0],
)
def test_a_run_on_good_images_alone_is_exported_with_its_threshold_and_predicts_what_it_was_judged_on(
    binary, toy, small_encoder, tmp_path
):
    binary = [f"{flag}{small_encoder}" if flag == "--encoder=" else flag for flag in binary]
    folder, run = _layout(tmp_path, toy, "train only", 0), tmp_path / "run"
    run_binary(binary[0], *binary[1:], f"--data_dir={folder}", "--label_budget=0", f"--run_dir={run}")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["threshold"]["method"] == "prediction_limit"
    assert metrics["counts"]["evaluate"]["defective"] == 0
    assert read_run(run)["labels_used"] == 0
    model = export_run(run, "m", tmp_path / "saved_models")
    assert "no figures of detection" in (model / "assets.extra" / "model_card.md").read_text()
    from mvtec_tf.graphs import saved_model, scoring

    with (run / "predictions.csv").open() as file:
        judged = [row for row in csv.DictReader(file) if row["split"] == "evaluate"]
    files = [str(folder / row["path"].partition("/")[2]) for row in judged]
    answer = scoring.run_signature(saved_model.load(model).signatures["explain"], files, "explained", 8)
    assert answer["anomaly_score"] == pytest.approx([float(row["score"]) for row in judged], rel=1e-4)
    assert answer["threshold"] == pytest.approx([metrics["threshold"]["value"]] * len(files), rel=1e-6)
    assert answer["heat_map"].min() >= 0
    assert answer["heat_map"].max() > 0
