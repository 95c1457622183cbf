"""The literature's protocol: all good training images, all test images, no label."""

import json
import shutil

import pytest

from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import LeakError, UsageError
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.jobs import checks, fit
from mvtec_tf.jobs.settings import FitSettings
from tests.conftest import run_binary


def _records(train=3, good=2, defective=2, group=None):
    parts = [("train", "good", 0, train), ("test", "good", 0, good), ("test", "chip", 1, defective)]
    return [
        Record(
            path=f"cap/{split}/{defect}/{i}.png",
            file=f"/data/cap/{split}/{defect}/{i}.png",
            category="cap",
            split=split,
            defect=defect,
            label=label,
            group=group or f"cap/{split}/{defect}/{i}.png",
        )
        for split, defect, label, count in parts
        for i in range(count)
    ]


def _said(**more):
    return FitSettings(data_dir=("data",), run_dir="run", weights="none", protocol="one_class", **more)


def test_all_good_training_images_are_fitted_and_all_test_images_judged_without_a_label():
    records = _records()
    cut = protocol.one_class(records)
    assert cut.train_good == tuple(records[:3])
    assert cut.labelled == ()
    assert {record.path for record in cut.evaluate} == {record.path for record in records[3:]}
    half = protocol.clean(records, 0, 0)
    assert len(half.evaluate) < len(cut.evaluate)


@pytest.mark.parametrize("missing", ["good", "defective"])
def test_a_category_with_one_kind_of_test_images_is_refused_with_what_was_found(missing):
    with pytest.raises(protocol.TooFewObjectsError, match=r"'cap': .*one_class ranks one against the other"):
        protocol.one_class(_records(**{missing: 0}))


def test_good_training_images_that_were_kept_for_testing_are_none_that_others_have_judged(toy, tmp_path):
    whole = scan.scan([toy / "flange"])
    assert fit.one_class_note(protocol.one_class(whole).evaluate).endswith("at the same images, backbone and size.")
    shutil.copytree(toy / "flange", tmp_path / "flange")
    shutil.rmtree(tmp_path / "flange" / "test" / "good")
    evaluate = protocol.one_class(scan.scan([tmp_path / "flange"])).evaluate
    good = sum(not record.label for record in evaluate)
    assert f"But {good} of the {good} good test images here lie in no folder test/" in fit.one_class_note(evaluate)


def test_an_object_on_both_sides_is_a_leak_here_too():
    with pytest.raises(LeakError):
        protocol.one_class(_records(group="part 7"))


def test_a_label_is_none_of_this_protocol():
    settings, head, budget = checks.of_fit(_said(recipe="few_labels"))
    assert (settings.label_budget, budget, head.name) == ("0", 0.0, "fused")
    with pytest.raises(UsageError, match=r"`label_budget`=0\.1: `protocol`=one_class uses no label"):
        checks.of_fit(_said(recipe="few_labels", label_budget="0.1"))
    with pytest.raises(UsageError, match="label"):
        checks.of_fit(_said(head="logistic"))
    clean = FitSettings(data_dir=("data",), run_dir="run", weights="none")
    assert checks.of_fit(clean)[0].label_budget == "0.1"


@pytest.mark.slow
def test_a_run_judges_all_test_images_and_measures_heat_maps_and_says_where_the_threshold_is_from(
    toy, small_encoder, tmp_path
):
    run = tmp_path / "run"
    flags = ("--protocol=one_class", f"--encoder={small_encoder}", "--recipe=few_labels")
    done = run_binary("fit_probe", *flags, f"--data_dir={toy / 'flange'}", f"--run_dir={run}")
    document = json.loads((run / "metrics.json").read_text())
    table = read_predictions(run / "predictions.csv")
    tests = [file for file in (toy / "flange").rglob("*.png") if "test" in file.parts]
    assert document["counts"]["evaluate"]["images"] == len(tests)
    assert document["counts"]["calibrate"]["defective"] == 0
    assert {path.split("/")[1] for path in table.part("calibrate").path} == {"train"}
    assert document["threshold"]["method"] == "prediction_limit"
    (pixels,) = document["pixels"].values()
    assert 0 <= pixels["overall"]["pixel_auroc"]["value"] <= 1
    assert 0 <= pixels["overall"]["pro"]["value"] <= 1
    assert f"PRO {pixels['overall']['pro']['value']:.4f}" in done.stdout
    report = (run / "report.html").read_text()
    assert "The threshold comes from held-out good training images" in report
