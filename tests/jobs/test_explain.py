"""Where a network looks: Grad-CAM against NumPy and against the exported graph, of the very network that was judged."""

import dataclasses
import io
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.localisation import heatmaps
from mvtec_tf.evaluation.report.judge import Extras, judge, judge_again, predictions_of
from mvtec_tf.evaluation.table import Predictions, read_predictions, rows, write_predictions
from mvtec_tf.features.feature_graph import encoder_digest
from mvtec_tf.graphs import grad_cam, rebuild, saved_model, scoring
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.file import save_head
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import explain as explain_steps
from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.networks.classifier import build_classifier
from mvtec_tf.training.settings import SupervisedSettings
from tests.conftest import run_binary
from tests.support.small_run import set_weights_at_random
from tests.support.tiny_network import in_place_of_resnet10

SIZE = 64
_RECIPE = dataclasses.asdict(SupervisedSettings(backbone="resnet10", image_size=SIZE, weights="none"))
SETTINGS = _RECIPE | {f"augment_{name}": value for name, value in _RECIPE.pop("augmentation").items()}
SETTINGS |= {"categories": [], "protocol": "clean", "label_budget": "all", "validation_share": 0.2}
LAYERS = ("relu0", "relu1")


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


def _finish(run_dir, binary, settings, model, records):
    """A judged run of a SavedModel that was never trained."""
    test = [record for record in records if record.split == "test"]
    parts = {"calibrate": test[::2], "evaluate": test[1::2]}
    table = []
    for split, part in parts.items():
        scores = scoring.score_files(model, [record.file for record in part])
        table += rows(part, split, scores.score, scores.probability)
    write_predictions(run_dir / "predictions.csv", Predictions.from_rows(table))
    data = {"fingerprint": "0" * 64, "images": len(records), "categories": ["denim", "flange"]}
    record = {"binary": binary, "status": "finished", "settings": settings, "data": data, "labels_used": 8}
    record |= {"network": {"weights": "weights: none."}, "versions": {"mvtec_tf": "0"}}
    (run_dir / "run.json").write_text(json.dumps(record))
    predictions = read_predictions(run_dir / "predictions.csv")
    judge(predictions, run_dir, title="A run", notes=[("Labels", "None.")], bootstrap=Bootstrap(50))
    return run_dir


@pytest.fixture(scope="module")
def classifier():
    network = build_classifier(build_backbone("resnet10", SIZE))
    set_weights_at_random(network, 3)
    return network


@pytest.fixture(scope="module")
def cnn(classifier, toy_records, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "cnn"
    saved_model.write_classifier(run_dir / "saved_model", classifier, {"run": SETTINGS})
    denim = [record for record in toy_records if record.category == "denim"]
    return _finish(run_dir, "train_cnn", SETTINGS, run_dir / "saved_model", denim)


@pytest.fixture(scope="module")
def head(toy_records):
    """Logistic heads of two categories on features that are no more than random numbers."""
    rng = np.random.default_rng(0)
    features = rng.random((40, 8 + 16)).astype(np.float32)
    labels, categories = np.arange(40) % 2, np.repeat(["denim", "flange"], 20)
    return PerCategoryHead({name: Logistic() for name in ("denim", "flange")}).fit(features, labels, categories)


@pytest.fixture(scope="module")
def probe(head, toy_records, tmp_path_factory):
    from mvtec_tf.features.feature_graph import FeatureSettings
    from mvtec_tf.features.probe_graph import Probe, write_probe

    run_dir = tmp_path_factory.mktemp("runs") / "probe"
    backbone = build_backbone("resnet10", SIZE)
    set_weights_at_random(backbone.model, 5)
    saved_model.write_encoder(run_dir / "encoder", backbone, {"run": SETTINGS, "pretrain_images": []})
    write_probe(run_dir / "saved_model", Probe(run_dir / "encoder", FeatureSettings(LAYERS), head), {})
    key = {"encoder": encoder_digest(run_dir / "encoder"), "layers": list(LAYERS), "tiles": [1, 1]}
    save_head(run_dir / "head.npz", head, HeadSettings("logistic"), key)
    return _finish(run_dir, "fit_probe", dict(SETTINGS, encoder=None), run_dir / "saved_model", toy_records)


@pytest.fixture(scope="module")
def images(toy_records):
    files = [record.file for record in toy_records if record.split == "test"][:6]
    return np.stack([pixels.decode_and_resize(tf.io.read_file(file), SIZE).numpy() for file in files])


def _rebuilt_probe(run_dir, head):
    return rebuild.rebuild_probe(run_dir / "encoder", LAYERS, head.arrays())


def _enlarged(cam, height, width):
    rows, columns = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip((height, width), cam.shape, strict=True))
    rows, columns = np.clip(rows, 0, cam.shape[0] - 1), np.clip(columns, 0, cam.shape[1] - 1)
    return ndimage.map_coordinates(cam, np.meshgrid(rows, columns, indexing="ij"), order=1)


def test_the_rebuilt_networks_give_the_scores_that_were_judged(cnn, probe, head, images, toy_records):
    files = [record.file for record in toy_records if record.split == "test"][:6]
    for run_dir, rebuilt in (
        (cnn, rebuild.rebuild_classifier(cnn / "saved_model", SETTINGS)),
        (probe, _rebuilt_probe(probe, head)),
    ):
        served = scoring.score_files(run_dir / "saved_model", files).score
        assert np.ptp(served) > 0.01
        np.testing.assert_allclose(rebuilt.score(rebuilt.run(images)), served, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", grad_cam.NAMES)
def test_maps_of_a_linear_head_are_its_weighted_features_position_by_position(probe, head, images, method):
    rebuilt = _rebuilt_probe(probe, head)
    maps = rebuilt.run(images)
    assert [one.shape[1:3] for one in maps] == [(16, 16), (8, 8)]
    found = grad_cam.heat(rebuilt.parts, maps, method)
    arrays = head.arrays()
    features = np.concatenate([one.mean(axis=(1, 2)) for one in maps], axis=1)
    distances = (((features[:, None] - arrays["means"]) / arrays["scale"]) ** 2).sum(-1)
    assert found.shape == (6, 16, 16)
    for image, category in enumerate(distances.argmin(1)):
        weights = arrays[f"{category}/weights"]
        expected = 0
        for values, own in zip(maps, (weights[:8], weights[8:]), strict=True):
            # Of a linear head on averages Grad-CAM++ keeps the channels that speak for a defect.
            own = np.maximum(own, 0) if method == grad_cam.GRADCAM_PLUS_PLUS else own
            expected = expected + _enlarged(values[image] @ own, 16, 16)
        np.testing.assert_allclose(found[image], np.maximum(expected, 0), rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_before_it_is_cut_off_the_mean_of_a_map_is_the_score_less_the_bias(probe, head, images):
    rebuilt = _rebuilt_probe(probe, head)
    maps = rebuilt.run(images)
    # A head all of whose evidence is for a defect: nothing is cut off.
    arrays = {name: np.abs(value) if name.endswith("weights") else value for name, value in head.arrays().items()}
    for number in range(2):
        arrays[f"{number}/bias"] = np.float32(0.7)
    positive = rebuild.rebuild_probe(probe / "encoder", LAYERS, arrays)
    found = grad_cam.heat(positive.parts, maps, grad_cam.GRADCAM)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), positive.score(maps) - 0.7, rtol=1e-4)


def test_the_map_of_the_supervised_network_is_that_which_its_export_answers(cnn, images, toy_records):
    rebuilt = rebuild.rebuild_classifier(cnn / "saved_model", SETTINGS)
    found = grad_cam.heat(rebuilt.parts, rebuilt.run(images), grad_cam.GRADCAM)
    files = [record.file for record in toy_records if record.split == "test"][:6]
    signature = saved_model.load(cnn / "saved_model").signatures["explain"]
    served = signature(image_bytes=tf.constant([pathlib.Path(file).read_bytes() for file in files]))["heat_map"].numpy()
    assert found.max() > 0
    for mine, theirs in zip(found, served, strict=True):
        np.testing.assert_allclose(_enlarged(mine, SIZE, SIZE), theirs, rtol=1e-3, atol=1e-4 * served.max())


def test_grad_cam_plus_plus_of_a_head_with_a_bend_follows_the_paper(cnn, classifier, images):
    rebuilt = rebuild.rebuild_classifier(cnn / "saved_model", SETTINGS)
    maps = rebuilt.run(images)
    found = grad_cam.heat(rebuilt.parts, maps, grad_cam.GRADCAM_PLUS_PLUS)
    values = tf.constant(maps[0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        score = keras.tree.flatten(rebuilt.parts(values, training=False))[0]
    gradient = tape.gradient(score, values).numpy().astype(np.float64)
    # Equation 19 for exp(score), whose derivatives are powers of the gradient; the weights of equation 5.
    alpha = gradient**2 / (2 * gradient**2 + gradient**3 * maps[0].sum(axis=(1, 2), keepdims=True) + (gradient == 0))
    total = alpha.sum(axis=(1, 2), keepdims=True)
    weights = (np.maximum(gradient, 0) * alpha / np.where(total == 0, 1, total)).sum(axis=(1, 2), keepdims=True)
    expected = np.maximum((weights * maps[0]).sum(-1), 0) * maps[0][0, ..., 0].size
    assert found.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_a_map_does_not_depend_on_the_images_beside_it(cnn, images):
    rebuilt = rebuild.rebuild_classifier(cnn / "saved_model", SETTINGS)
    maps = rebuilt.run(images)
    for method in grad_cam.NAMES:
        together = grad_cam.heat(rebuilt.parts, maps, method)
        alone = np.concatenate([grad_cam.heat(rebuilt.parts, [maps[0][i : i + 1]], method) for i in range(6)])
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5 * together.max())


def test_a_head_that_is_no_sum_over_features_is_refused(probe):
    arrays = {"means": np.zeros((1, 3)), "scale": np.ones(3), "0/mean": np.zeros(3), "0/whitening": np.eye(3)}
    with pytest.raises(UserError, match="is a sum over features, and this head's is not"):
        rebuild.rebuild_probe(probe / "encoder", LAYERS, arrays)


def test_a_saved_model_of_another_network_is_refused(cnn):
    with pytest.raises(UserError, match=r"not the network of its run's settings: expected .* found"):
        rebuild.rebuild_classifier(cnn / "saved_model", dict(SETTINGS, backbone_stages=1))


@pytest.fixture(scope="module")
def explained(cnn, probe, toy_records):
    """Both runs, explained: name -> (folder, what was there before, the new document)."""
    found = {}
    for name, run_dir in (("cnn", cnn), ("probe", probe)):
        before = json.loads((run_dir / "metrics.json").read_text())
        record = explain_steps.read_explainable(run_dir)
        evaluate = predictions_of(run_dir).part("evaluate")
        records = image_files.records_of(toy_records, evaluate, "`data_dir`")
        made = explain_steps.explain_run(run_dir, record, evaluate, records, list(grad_cam.NAMES), 10)
        files = image_files.from_records(toy_records, evaluate, "toy")
        projector = run_dir / "tensorboard"
        extras = Extras(files, made.maps, made.about_maps, made.features, tsne=False, projector=projector)
        found[name] = (run_dir, before, judge_again(run_dir, extras, "untitled"))
    return found


@pytest.mark.parametrize("name", ["cnn", "probe"])
def test_an_explained_run_keeps_its_figures_and_gains_those_of_its_maps(explained, name):
    run_dir, before, document = explained[name]
    assert {key: document[key] for key in before if key != "asked"} == {k: v for k, v in before.items() if k != "asked"}
    assert document["asked"]["title"] == "A run"
    assert set(document["pixels"]) == {"Grad-CAM", "Grad-CAM++"}
    for figures in document["pixels"].values():
        assert set(figures["categories"]) == set(document["categories"])
        pointing = figures["overall"]["pointing_game"]
        assert 0 <= pointing["low"] <= pointing["value"] <= pointing["high"] <= 1
        assert 0 < figures["overall"]["pointing_game_at_random"]["value"] < 0.5
    assert document["embedding"]["images"] == sum(document["counts"]["evaluate"][k] for k in ("good", "defective"))
    page = (run_dir / "report.html").read_text()
    for words in ("Where the heat maps point", "The most confident mistakes", "What the network sees alike", "A run"):
        assert words in page
    assert len(page) < 8_000_000
    assert (run_dir / "tensorboard" / "projector" / "sprite.jpg").is_file()


def test_a_stopped_explanation_goes_on_with_the_missing_maps_and_gives_the_same(explained, toy_records, monkeypatch):
    run_dir, _, _ = explained["probe"]
    record = explain_steps.read_explainable(run_dir)
    evaluate = predictions_of(run_dir).part("evaluate")
    records = image_files.records_of(toy_records, evaluate, "`data_dir`")
    folder = run_dir / "heatmaps" / "gradcam"
    files = sorted(folder.rglob("*.npy"))
    assert len(files) == len(records)
    kept, lost = files[:-3], files[-3:]
    before = {file: file.read_bytes() for file in files}
    stamps = {file: file.stat().st_mtime_ns for file in kept}
    for file in lost:
        file.unlink()
    explain_steps.explain_run(run_dir, record, evaluate, records, ["gradcam"], 10)
    assert {file: file.stat().st_mtime_ns for file in kept} == stamps
    for file in lost:
        np.testing.assert_allclose(np.load(file), np.load(io.BytesIO(before[file])), rtol=1e-4, atol=1e-5)


def test_maps_of_another_network_are_not_kept(tmp_path):
    heatmaps.write(tmp_path / "maps", "a.png", np.zeros((2, 2)))
    key = {"method": "gradcam", "layers": ["a"], "saved_model": "one"}
    explain_steps.begin(tmp_path / "maps", key)
    assert not list((tmp_path / "maps").rglob("*.npy"))
    for other, kept in ((key, True), (key | {"saved_model": "another"}, False)):
        heatmaps.write(tmp_path / "maps", "a.png", np.zeros((2, 2)))
        explain_steps.begin(tmp_path / "maps", other)
        assert (tmp_path / "maps" / "a.png.npy").exists() == kept


def test_other_images_than_those_that_were_judged_are_refused_by_their_score(cnn, toy_records, tmp_path):
    evaluate = predictions_of(cnn).part("evaluate")
    records = image_files.records_of(toy_records, evaluate, "`data_dir`")[::-1]
    record = explain_steps.read_explainable(cnn)
    copy = tmp_path / "cnn"
    shutil.copytree(cnn, copy)
    with pytest.raises(UserError, match="Are these the images that were judged"):
        explain_steps.explain_run(copy, record, evaluate, records, ["gradcam"], 5)


def test_another_encoder_than_that_of_the_head_is_refused(probe, cnn, toy_records, tmp_path):
    backbone = build_backbone("resnet10", SIZE)
    saved_model.write_encoder(tmp_path / "encoder", backbone, {"run": SETTINGS, "pretrain_images": []})
    evaluate = predictions_of(probe).part("evaluate")
    record = explain_steps.read_explainable(probe)
    with pytest.raises(UserError, match="not the encoder that the head"):
        explain_steps.explain_run(probe, record, evaluate, [], ["gradcam"], 5, encoder=str(tmp_path / "encoder"))


def test_a_run_that_is_not_finished_or_no_classifier_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"binary": "train_cnn", "status": "running"}))
    with pytest.raises(UserError, match="not finished"):
        explain_steps.read_explainable(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"binary": "train_simclr", "status": "finished"}))
    with pytest.raises(UserError, match="a run of `train_simclr`"):
        explain_steps.read_explainable(tmp_path)


def test_the_binary_explains_a_run_and_says_so_when_it_is_wrongly_used(cnn, toy, tmp_path):
    copy = tmp_path / "cnn"
    shutil.copytree(cnn, copy)
    # Of a killed call.
    left = copy / "heatmaps" / ".000.partial.x.npz"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    done = run_binary("explain", f"--run={copy}", f"--data_dir={toy}", "--method=gradcam", "--notsne")
    assert not left.exists()
    assert done.stdout.splitlines()[-1] == str(copy)
    assert "The hottest pixel of Grad-CAM lies in the true mask in" in done.stdout
    assert set(json.loads((copy / "metrics.json").read_text())["pixels"]) == {"Grad-CAM"}
    for flags, message in (
        ((), "--run is missing"),
        ((f"--run={copy}",), "--data_dir is missing"),
        ((f"--run={copy}", f"--data_dir={toy}", "--method=saliency"), "--method=saliency"),
    ):
        wrong = run_binary("explain", *flags, check=False)
        assert wrong.returncode == 2, wrong.stderr
        assert message in wrong.stderr
