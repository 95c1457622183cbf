"""A small student of a judged model: what it is judged on, what its files answer, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.data import leaks
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation.comparison import distilled
from mvtec_tf.evaluation.comparison.contenders import read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.features.student_graph import imitation_of
from mvtec_tf.graphs import loading, plain, saved_model
from mvtec_tf.jobs import checks, student_head, teacher
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import DistilRunSettings, FitSettings
from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.networks.classifier import build_classifier
from mvtec_tf.networks.student import build_student
from mvtec_tf.run_directory import read_run
from mvtec_tf.serving import smaller, speed
from mvtec_tf.serving.exchange import ExchangeModel
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

SMALL = ("--backbone=resnet10", "--weights=none", "--image_size=32", "--precision=float32")
SMALL += ("--epochs=2", "--passes=2", "--batch_size=8", "--speed_images=0", "--forms=int8")
FORMS = ("", "int8")
# A test image whose label only the encoder of the teacher has used.
TAUGHT = {"path": "flange/test/chip/999.png", "group": "999", "category": "flange", "label": 1, "sha256": "0" * 64}


@pytest.fixture(scope="module")
def teaching(toy, small_encoder, tmp_path_factory):
    """A run of patchcore with a few labels, of one category."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    images = {"data_dir": (str(toy / "flange"),), "label_budget": "0.2"}
    fit(FitSettings(**images, encoder=str(small_encoder), head="patchcore", run_dir=str(run)))
    card = run / "saved_model" / loading.EXTRA / loading.CARD
    card.write_text(json.dumps(json.loads(card.read_text()) | {"pretrain_images": [TAUGHT]}))
    return run


@pytest.fixture(scope="module")
def student(teaching, toy, tmp_path_factory):
    """The run of its student."""
    run = tmp_path_factory.mktemp("student") / "run"
    with in_place_of_resnet10():
        run_binary("distill", f"--teacher={teaching}", f"--data_dir={toy / 'flange'}", f"--run_dir={run}", *SMALL)
    return run


def test_one_process_asks_teachers_of_several_image_sizes():
    for side in (24, 32):
        images = tf.zeros([2, side, side, 3], tf.uint8)
        drawn = teacher.with_defects_on_some(images, tf.constant([[0, 1], [0, 2]], tf.int64), 0.5)
        assert drawn.shape == images.shape


def test_every_form_is_judged_on_the_teachers_images_and_its_threshold_rests_on_held_out_scores(student, teaching):
    expected = set(read_predictions(teaching / "predictions.csv").part(leaks.EVALUATE).path)
    bought = read_predictions(teaching / "predictions.csv")
    bought = {path for path in bought.path[bought.split == leaks.FIT] if "/test/" in path}
    assert bought
    for form in FORMS:
        table = read_predictions(student / form / "predictions.csv")
        assert set(table.part(leaks.EVALUATE).path) == expected
        held = set(table.part(leaks.CALIBRATE).path)
        assert bought < held
        assert not held & expected
        assert json.loads((student / form / "metrics.json").read_text())["threshold"]["value"] is not None
    table = read_predictions(student / "predictions.csv")
    parts = table.part(leaks.FIT), table.part(leaks.CALIBRATE)
    fit, held = (dict(zip(part.path, part.score, strict=True)) for part in parts)
    assert not set(fit) & expected
    assert set(held) < set(fit)
    defects = [path for path in bought if "/good/" not in path]
    assert np.mean([held[path] for path in defects]) < np.mean([fit[path] for path in defects])


def test_predict_takes_each_form_like_every_other_model(student, toy, tmp_path):
    for form in FORMS[1:]:
        table = read_predictions(student / form / "predictions.csv").part(leaks.EVALUATE)
        threshold = json.loads((student / form / "metrics.json").read_text())["threshold"]["value"]
        file, out = student / form / "litert" / "model.tflite", tmp_path / f"{form}.jsonl"
        images = [toy / path for path in table.path]
        run_binary("predict", f"--model={file}", f"--out={out}", f"--overlays={tmp_path / form}", *images)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        np.testing.assert_allclose([row["score"] for row in rows], table.score, atol=1e-4)
        assert [row["verdict"] == "defective" for row in rows] == (table.score >= np.float32(threshold)).tolist()
        assert len(list((tmp_path / form).rglob("*.png"))) == len(images)
    assert file.stat().st_size < 0.5 * sum(one.stat().st_size for one in (student / "saved_model").rglob("*"))
    assert speed.measured(str(file), [str(image) for image in images[:2]], 1)["rate"] > 0


def test_the_page_sets_every_form_beside_the_teacher(student):
    found = json.loads((student / distilled.JSON_FILE).read_text())
    assert set(found["agreement"]) == {"teacher", "student", "int8"}
    assert found["agreement"]["teacher"]["same"] == found["agreement"]["teacher"]["images"]
    assert set(found["pixel_auroc"]) == set(found["agreement"])
    page = (student / distilled.PAGE).read_text()
    assert found["summary"].partition(";")[0] in page
    assert "recall at the teacher&#39;s specificity" in page
    assert (student / distilled.FOLDER / "report.html").is_file()


def test_a_students_run_is_explained_by_its_own_maps_like_every_other_run(student, toy):
    explained = f"--run={student}", f"--data_dir={toy / 'flange'}", "--tsne=false"
    run_binary("explain", *explained)
    pixels = json.loads((student / "metrics.json").read_text())["pixels"]
    assert len(pixels) == 1
    refused = run_binary("explain", *explained, "--method=gradcam", check=False)
    assert refused.returncode == 1
    assert "--method=exported" in refused.stderr


def test_the_teacher_is_asked_what_its_run_was_judged_with(teaching, toy):
    one = teacher.opened(str(teaching))
    table = one.predictions.part(leaks.EVALUATE)
    content = tf.io.read_file(str(toy / table.path[0]))
    image = saved_model.load(one.model).signatures["explain"](image_bytes=content[None])
    resized = pixels.resize(tf.io.decode_png(content, 3), one.size)
    score, heat_map, maps = one.asked()(resized[None])
    assert float(score[0]) == pytest.approx(table.score[0], rel=1e-3)
    np.testing.assert_allclose(heat_map, image["heat_map"], rtol=1e-3, atol=1e-3)
    assert [len(one.shape) for one in maps] == [4, 4]
    assert maps[0].shape[1] > 1


@pytest.mark.slow
def test_a_supervised_teachers_middle_stages_are_matched(tmp_path):
    backbone = build_backbone("resnet10", 32)
    saved_model.write_classifier(tmp_path / "saved_model", build_classifier(backbone), {"run": {}})
    blocks = [{"name": name, "kind": "stage"} for name in backbone.stages]
    (tmp_path / "run.json").write_text(json.dumps({"architecture": blocks}))
    settings = {"backbone": "resnet10", "image_size": 32}
    card = saved_model.read_card(tmp_path / "saved_model")
    one = teacher.Teacher(tmp_path, tmp_path / "saved_model", tmp_path, card, settings, None, None)
    _, heat_map, maps = one.asked()(tf.zeros([1, 32, 32, 3], tf.uint8))
    assert heat_map.shape == (1, 32, 32)
    assert [tuple(found.shape[1:3]) for found in maps] == [(8, 8), (4, 4)]


@pytest.mark.slow
def test_a_student_whose_heat_maps_are_no_numbers_is_refused_with_what_to_do():
    """As after two epochs from random weights: a batch norm that has kept no mean and variance yet."""
    network = build_student(build_backbone("resnet10", 32), 1)
    kept = next(layer for layer in network.layers if layer.name == "student_spread_0_bn")
    kept.moving_variance.assign(np.full(kept.moving_variance.shape, np.nan))
    with pytest.raises(UserError, match=r"The student.s heat maps hold NaN .* more `epochs`"):
        imitation_of(network, np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2))


def test_scores_keep_their_order_and_are_told_from_good_to_the_threshold():
    scores = np.linspace(-3, 40, 50)
    found = teacher.in_units(scores, np.tile([2.0, 6.0], (50, 1)))
    assert (np.diff(found) > 0).all()
    limits = teacher.in_units(np.array([2.0, 6.0]), np.tile([2.0, 6.0], (2, 1)))
    np.testing.assert_allclose(limits, [0, np.arcsinh(3)], rtol=1e-6)


def test_recall_at_the_teachers_specificity_is_that_of_a_count_by_hand(student_tables):
    first, each = (method.runs[0] for method in read_methods(student_tables))
    value, difference = distilled.recall_at(first, each, Bootstrap(50))
    limit = first.threshold.whole.value
    good, bad = first.evaluate.label == 0, first.evaluate.label == 1
    allowed = (first.evaluate.score >= limit)[good].sum()
    scores = each.evaluate.score
    best = max(
        (scores[bad] >= cut).mean() for cut in [*scores, np.inf] if (scores[good] >= cut).sum() <= allowed
    )
    assert value.value == pytest.approx(best)
    assert difference.value == pytest.approx(best - (first.evaluate.score >= limit)[bad].mean())
    assert value.low <= value.value <= value.high


@pytest.fixture
def student_tables(tmp_path):
    """Two tables of the same images, with ties, each with calibrate rows."""
    rng, paths = np.random.default_rng(3), []
    for name, spread in (("a", 1.0), ("b", 1.5)):
        lines = ["path,category,defect,label,split,score"]
        for number in range(60):
            label = int(number % 3 > 0)
            split = "calibrate" if number < 20 else "evaluate"
            score = round(float(label + spread * rng.normal()), 1)
            lines.append(f"c/{number}.png,c,{'bad' if label else 'good'},{label},{split},{score}")
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("\n".join(lines))
    return [str(path) for path in paths]


def test_labels_of_the_teachers_encoder_are_counted_and_its_images_known(student, teaching):
    assert read_run(student)["labels_used"] == read_run(teaching)["labels_used"] + 1
    assert loading.read_card(student / "saved_model")["pretrain_images"] == [TAUGHT]


@pytest.mark.slow
def test_what_is_no_teacher_is_refused(exported, small_encoder, small_run, toy_records, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(small_run[0], tmp_path / "modelless", ignore=shutil.ignore_patterns("saved_model"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "stranger"))
    wrong = {
        tmp_path / "empty": "not a SavedModel written by this program",
        tmp_path / "nothing": "no run directory and no SavedModel there",
        tmp_path / "stranger": "not a SavedModel written by this program",
        tmp_path / "modelless": "there is no model. Runs of fit",
        small_encoder: "gives no verdicts",
        exported / "assets.extra" / "litert" / "model.tflite": "a file for another runtime",
    }
    for path, expected in wrong.items():
        with pytest.raises(UserError, match=expected):
            teacher.opened(str(path))
    for path in (exported, small_run[0]):
        with pytest.raises(UserError, match="fitted on no good training image"):
            teacher.opened(str(path)).parts(toy_records)


def test_a_student_is_not_called_finished_where_its_teachers_threshold_was_chosen_anew(student, teaching, toy):
    again = (f"--teacher={teaching}", f"--data_dir={toy / 'flange'}", f"--run_dir={student}", *SMALL)
    before = (teaching / "metrics.json").read_text()
    document = json.loads(before)
    # What `explain` adds changes no verdict.
    (teaching / "metrics.json").write_text(json.dumps(document | {"pixels": {}}))
    with in_place_of_resnet10():
        assert "This run is finished" in run_binary("distill", *again).stdout
        document["threshold"]["value"] += 1
        (teaching / "metrics.json").write_text(json.dumps(document))
        done = run_binary("distill", *again, check=False)
    (teaching / "metrics.json").write_text(before)
    assert done.returncode == 1
    assert "belongs to another run. --teacher: what lies there has changed since." in done.stderr


def test_other_images_than_the_teachers_are_refused(teaching, toy, tmp_path):
    shutil.copytree(toy / "flange", tmp_path / "flange")
    records = scan.scan([tmp_path / "flange"])
    seen = next(record for record in records if record.split == "train")
    shutil.copyfile(next(record for record in records if record.label).file, seen.file)
    with pytest.raises(UserError, match="these are not the images that were scored"):
        teacher.opened(str(teaching)).parts(records)
    with pytest.raises(UserError, match="images of the table are not there"):
        teacher.opened(str(teaching)).parts([record for record in records if record != seen])


def _said(function, side=8):
    spec = tf.TensorSpec([1, side, side, 3], tf.uint8, name="images")
    function = tf.function(function, input_signature=[spec])
    function.get_concrete_function()
    return plain.Plain(function, {}, {})


@pytest.mark.slow
def test_a_form_without_good_images_or_with_an_op_that_it_lacks_or_for_another_size_is_refused(tmp_path):
    card = {"name": "s", "version": 1, "image_size": 8, "max_pixels": 10**6}
    weights = tf.random.uniform([8, 8, 1], seed=0)
    plainly = _said(lambda images: {"anomaly_score": tf.reduce_sum(weights * tf.cast(images, tf.float32), [1, 2, 3])})
    with pytest.raises(UserError, match="int8 needs good images"):
        smaller.write(tmp_path / "a", "int8", plainly, card, [])
    lacking = _said(lambda images: {"anomaly_score": tf.math.special.bessel_j0(weights * tf.cast(images, tf.float32))})
    with pytest.raises(UserError, match=r"cannot be said in this format.*BesselJ0"):
        smaller.write(tmp_path / "b", "float16", lacking, card, [])
    with pytest.raises(UserError, match="not with images of 9 x 9 pixels"):
        smaller.write(tmp_path / "c", "float16", plainly, card | {"image_size": 9}, [])
    assert ExchangeModel(smaller.write(tmp_path / "d", "float16", plainly, card, []).name).bytes > 0


def test_settings_that_do_not_go_together_are_refused():
    common = {"data_dir": ("d",), "run_dir": "r", "teacher": "t"}
    wrong = {
        "forms": (("int4",), "no 'int4'"),
        "threshold_per": ("category", "does not tell which category"),
        "strategy": ("mirrored", "trained by one device"),
    }
    for name, (value, expected) in wrong.items():
        with pytest.raises(UsageError, match=expected):
            checks.of_distilling(DistilRunSettings(**common, **{name: value}))


@pytest.mark.parametrize(("objects", "warned"), [((), True), (("a", "a"), True), (("a", "b"), False)])
def test_a_student_of_one_defective_object_is_said_to_rest_on_too_little(objects, warned):
    defects = [Record(f"{i}.png", f"{i}.png", "bolt", "dent", 1, "test", group) for i, group in enumerate(objects)]
    note = student_head.Parts([], [], [Record("g.png", "g.png", "bolt", "good", 0, "test", "g"), *defects], []).note
    assert ("may rank far worse than its teacher" in note) is warned
