"""An export answers all that it promises, in plain TensorFlow too, carries its papers, and is whole or not there."""

import csv
import io
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from mvtec_tf import drift
from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UserError
from mvtec_tf.graphs import saved_model
from mvtec_tf.graphs.thresholded import ThresholdedModel, Thresholds
from mvtec_tf.networks.classifier import log_odds
from mvtec_tf.serving import configs, export, warmup
from mvtec_tf.serving.export import export_run, thresholds_of
from mvtec_tf.serving.settings import ExportOptions
from tests.support.serving_protos import BatchingParameters, MonitoringConfig
from tests.support.small_run import SIZE


@pytest.fixture(scope="module")
def files(toy_records):
    return [record.file for record in toy_records if record.split == "test"][:5]


@pytest.fixture(scope="module")
def contents(files):
    return tf.constant([pathlib.Path(file).read_bytes() for file in files])


@pytest.fixture(scope="module")
def model(exported):
    return saved_model.load(exported)


@pytest.fixture(scope="module")
def images(files):
    return np.stack([pixels.decode_and_resize(tf.io.read_file(file), SIZE) for file in files])


def test_the_served_graph_gives_the_unfolded_networks_scores(small_run, model, contents, images):
    expected = log_odds(small_run[1](images, training=False)).numpy()
    assert np.ptp(expected) > 1e-3
    answer = model.signatures["serving_default"](image_bytes=contents)
    usual = {*drift.COLUMNS, drift.UNLIKE, drift.P_VALUE}
    assert set(answer) == {"anomaly_score", "probability", "label", "threshold"} | usual
    np.testing.assert_allclose(answer["anomaly_score"], expected, atol=1e-4)
    np.testing.assert_allclose(answer["probability"], 1 / (1 + np.exp(-expected)), atol=1e-5)
    threshold = json.loads((small_run[0] / "metrics.json").read_text())["threshold"]["value"]
    np.testing.assert_allclose(answer["threshold"], threshold, rtol=1e-6)
    assert answer["label"].numpy().tolist() == (answer["anomaly_score"] >= np.float32(threshold)).numpy().tolist()


def test_pixels_of_any_size_get_the_score_of_their_file(model, files):
    for size in ((50, 70), (SIZE, SIZE)):
        pixels_of = [np.asarray(Image.open(file).convert("RGB").resize(size)) for file in files]
        encoded = tf.constant([_png(image) for image in pixels_of])
        by_file = model.signatures["serving_default"](image_bytes=encoded)
        by_pixels = model.signatures["predict_images"](images=np.stack(pixels_of))
        assert set(by_pixels) == set(by_file)
        for name, values in by_file.items():
            np.testing.assert_allclose(by_pixels[name], values, atol=1e-6)


def test_embeddings_are_what_the_head_sees(small_run, model, contents, images):
    network = small_run[1]
    expected = keras.Model(network.inputs, network.get_layer("pooled").output)(images, training=False)
    answer = model.signatures["embed"](image_bytes=contents)
    assert list(answer) == ["embedding"]
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)


def test_the_heat_map_is_grad_cam_of_the_log_odds(small_run, model, contents, images):
    """Against the definition in NumPy, with the gradient of this head by hand."""
    network = small_run[1]
    maps = keras.Model(network.inputs, network.get_layer("relu1").output)(images, training=False).numpy()
    kernel, bias = network.get_layer("dense").get_weights()
    gamma, _, _, variance = network.get_layer("head_bn").get_weights()
    last = network.get_layer("logits").get_weights()[0]
    active = maps.mean(axis=(1, 2)) @ kernel + bias > 0
    behind = (last[:, 1] - last[:, 0]) * gamma / np.sqrt(variance + network.get_layer("head_bn").epsilon)
    gradient = (active * behind) @ kernel.T
    expected = np.maximum(np.einsum("bhwc,bc->bhw", maps, gradient), 0)
    answer = model.signatures["explain"](image_bytes=contents)
    assert answer["heat_map"].shape == (len(images), SIZE, SIZE)
    assert expected.max() > 0
    enlarged = tf.image.resize(expected[..., None], (SIZE, SIZE))[..., 0]
    np.testing.assert_allclose(answer["heat_map"], enlarged, atol=1e-4 * expected.max())
    scores = model.signatures["serving_default"](image_bytes=contents)
    for name in ("anomaly_score", "probability", "threshold", "label"):
        np.testing.assert_allclose(answer[name], scores[name], atol=1e-5)


def test_the_overlay_is_a_png_that_is_grey_where_nothing_speaks_for_a_defect(model, contents):
    answer = model.signatures["explain"](image_bytes=contents)
    for png, heat in zip(answer["overlay_bytes"].numpy(), answer["heat_map"].numpy(), strict=True):
        picture = np.asarray(Image.open(io.BytesIO(png)))
        assert picture.shape == (SIZE, SIZE, 3)
        colourful = np.ptp(picture.astype(int), axis=-1) > 0
        assert not colourful[heat == 0].any()
        if heat.max() > 0:
            assert colourful[np.unravel_index(heat.argmax(), heat.shape)]


def test_the_export_runs_under_saved_model_cli_without_this_package(exported, model, files, tmp_path):
    np.save(tmp_path / "bytes.npy", np.array([pathlib.Path(files[0]).read_bytes()]))
    np.save(tmp_path / "pixels.npy", np.asarray(Image.open(files[0]).convert("RGB"))[None])
    # One process for all: what takes long is starting TensorFlow.
    common = ["--dir", str(exported), "--tag_set", "serve"]
    runs = [["show", "--dir", str(exported), "--all"]]
    for name in sorted(model.signatures):
        given = "images=pixels.npy" if name == "predict_images" else "image_bytes=bytes.npy"
        out = ["--outdir", str(tmp_path / name)]
        runs.append(["run", *common, "--signature_def", name, "--inputs", given, *out])
    script = (
        "import sys; sys.modules['mvtec_tf'] = None\n"
        "from tensorflow.python.tools import saved_model_cli\n"
        f"for run in {runs!r}:\n"
        "    sys.argv = ['saved_model_cli', *run]\n"
        "    try:\n"
        "        saved_model_cli.main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # What the optimiser of graphs cannot read it reports as an error each time a server loads the model.
    assert "layout failed" not in done.stderr
    for name in ("serving_default", "predict_images", "embed", "explain"):
        assert f"signature_def['{name}']" in done.stdout
    content = tf.constant([pathlib.Path(files[0]).read_bytes()])
    for name in ("serving_default", "explain"):
        for output, expected in model.signatures[name](image_bytes=content).items():
            if output != "overlay_bytes":
                np.testing.assert_allclose(np.load(tmp_path / name / f"{output}.npy"), expected, atol=1e-5)
    assert np.load(tmp_path / "embed" / "embedding.npy").shape == (1, 16)


def test_warm_up_requests_are_the_servers_own_records_and_run(exported, model):
    file = exported / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))
    ]
    sent = {
        (log.predict_log.request.model_spec.name, log.predict_log.request.model_spec.signature_name) for log in logs
    }
    assert sent == {("small", name) for name in ("serving_default", "predict_images", "embed", "explain")}
    answers = list(warmup.replay(model, file))
    assert len(answers) == len(logs)
    for log, (_, answer) in zip(logs, answers, strict=True):
        (batch,) = {value.tensor_shape.dim[0].size for value in log.predict_log.request.inputs.values()}
        assert {len(value) for value in answer.values()} == {batch}


def test_the_papers_are_inside(small_run, exported):
    extra = exported / "assets.extra"
    for name in ("predictions.csv", "metrics.json", "flags.txt"):
        assert (extra / name).read_bytes() == (small_run[0] / name).read_bytes()
    card = json.loads((extra / "model_card.json").read_text())
    metrics = json.loads((small_run[0] / "metrics.json").read_text())
    assert card["metrics"]["overall"]["f1"]["value"] == metrics["overall"]["f1"]["value"]
    assert card["threshold"]["value"] == metrics["threshold"]["value"]
    text = (extra / "model_card.md").read_text()
    f1 = metrics["overall"]["f1"]
    for part in (
        metrics["summary"],
        f"{f1['value']:.3f} [{f1['low']:.3f} to {f1['high']:.3f}]",
        metrics["threshold"]["reason"],
        "random start",
        "Known limits",
        "python -m mvtec_tf.bin.train_cnn --flagfile=flags.txt",
        "--data_dir=DATA",
        "not stated",
    ):
        assert part in text
    facts = saved_model.read_card(exported)
    assert facts["batch_norm"] == {"folded": 3, "kept": []}
    assert facts["version"] == 1


def test_the_card_names_weights_by_their_checksum_and_licences_by_their_owner(small_run, tmp_path):
    run_dir = _copy_of(small_run[0], tmp_path / "run")
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"abc")
    record = json.loads((run_dir / "run.json").read_text())
    record["settings"]["weights"] = str(weights)
    record["network"]["weights"] = "weights: 3 layers loaded; 2 layers NOT in the file keep their RANDOM start."
    (run_dir / "run.json").write_text(json.dumps(record))
    options = ExportOptions(data_licence="CC BY", weights_licence="MIT")
    version = export_run(run_dir, "m", tmp_path / "out", options)
    text = (version / "assets.extra" / "model_card.md").read_text()
    # The SHA-256 of "abc" in FIPS 180-2, appendix B.1.
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in text
    assert "licence: MIT" in text
    assert "licence: CC BY" in text
    assert "RANDOM start" in text.split("Known limits")[1]
    assert str(tmp_path) not in text


def test_the_servers_files_parse_with_its_own_protos(small_run, exported, tmp_path):
    root = exported.parents[1]
    models = _models(root)
    (entry,) = models.model_config_list.config
    assert (entry.name, entry.base_path, entry.model_platform) == ("small", "/models/small", "tensorflow")
    assert dict(entry.version_labels) == {"stable": 1, "canary": 1}
    batching = text_format.Parse((root / configs.BATCHING).read_text(), BatchingParameters())
    assert batching.max_batch_size.value > 1
    assert batching.batch_timeout_micros.value > 0
    monitoring = text_format.Parse((root / configs.MONITORING).read_text(), MonitoringConfig())
    assert monitoring.prometheus_config.enable
    compose = (root / configs.COMPOSE).read_text()
    for name in (configs.MODELS, configs.BATCHING, configs.MONITORING):
        assert f"=/models/{name}" in compose


def _next_version(root, name, **options):
    """What an export does around the graph that it writes."""
    export._next_version(root, name, ExportOptions(**options), lambda directory, version: None)


def test_a_canary_follows_the_newest_version_and_stable_waits_for_a_person(tmp_path):
    for name, version in (("a", 1), ("a", 2), ("b", 1)):
        (tmp_path / name / str(version)).mkdir(parents=True)
        configs.write(tmp_path, (name, version))
    before = _models(tmp_path)
    assert [dict(entry.version_labels) for entry in before.model_config_list.config] == [
        {"stable": 1, "canary": 2},
        {"stable": 1, "canary": 1},
    ]
    assert list(before.model_config_list.config[0].model_version_policy.specific.versions) == [1, 2]
    # What a person writes stays: another model, and another label.
    before.model_config_list.config.add(name="elsewhere", base_path="/mnt/elsewhere", model_platform="tensorflow")
    before.model_config_list.config[1].version_labels["line7"] = 1
    (tmp_path / configs.MODELS).write_text(text_format.MessageToString(before))
    (tmp_path / configs.BATCHING).write_text("max_batch_size { value: 4 }\n")
    _next_version(tmp_path, "b", labels=("stable", "canary"))
    after = {entry.name: entry for entry in _models(tmp_path).model_config_list.config}
    assert set(after) == {"a", "b", "elsewhere"}
    assert dict(after["b"].version_labels) == {"stable": 2, "canary": 2, "line7": 1}
    assert (tmp_path / configs.BATCHING).read_text() == "max_batch_size { value: 4 }\n"


def test_a_version_without_a_label_is_said_not_to_be_loaded_and_what_is_no_label_is_refused(tmp_path, capsys):
    _next_version(tmp_path, "a", labels=())
    assert "has no label" not in capsys.readouterr().out
    _next_version(tmp_path, "a", labels=())
    assert f"{tmp_path / 'a' / '2'} has no label, so a server does not load it" in capsys.readouterr().out
    for wrong in ("", "a b", 'x"y', "2", "\u00fc", "a/b"):
        with pytest.raises(UserError, match="is no label"):
            ExportOptions(labels=("stable", wrong))
    assert ExportOptions(labels=("line-7.b", "_", "2b")).labels == ("line-7.b", "_", "2b")


def test_a_models_config_that_is_broken_is_named_and_kept(tmp_path):
    (tmp_path / configs.MODELS).write_text("model_config_list { nonsense")
    with pytest.raises(UserError, match=r"models\.config"):
        _next_version(tmp_path, "m")
    assert (tmp_path / configs.MODELS).read_text() == "model_config_list { nonsense"


def test_each_image_is_called_by_the_threshold_of_the_category_that_the_model_chose(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def score(x):
        return {"anomaly_score": x, "category": tf.cast(x > 10, tf.int64)}

    tf.saved_model.save(tf.Module(), str(tmp_path), signatures={"serving_default": score, "explain": score})
    scoring = tf.saved_model.load(str(tmp_path))
    thresholds = Thresholds(5.0, "chosen", {"cap": 2.0, "washer": 20.0})
    model = ThresholdedModel(scoring, thresholds, ("cap", "washer"))
    functions = model.signatures()
    answer = functions["serving_default"](tf.constant([1.0, 3.0, 15.0, 25.0]))
    assert set(answer) == {"anomaly_score", "threshold", "label"}
    assert answer["threshold"].numpy().tolist() == [2, 2, 20, 20]
    assert answer["label"].numpy().tolist() == [0, 1, 0, 1]
    assert functions["explain"](tf.constant([1.0, 15.0]))["category"].numpy().tolist() == [b"cap", b"washer"]


def test_a_third_verdict_is_of_the_category_that_the_model_chose_and_a_model_without_one_answers_none(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def score(x):
        return {"anomaly_score": x, "category": tf.cast(x > 10, tf.int64)}

    tf.saved_model.save(tf.Module(), str(tmp_path), signatures={"serving_default": score})
    scoring = tf.saved_model.load(str(tmp_path))
    thresholds = Thresholds(3.0, "chosen", {"washer": 12.0}, unsure={"": (2.0, 4.0), "washer": (12.0, 12.0)})
    answer = ThresholdedModel(scoring, thresholds, ("cap", "washer")).signatures()["serving_default"]
    given = tf.constant([1.0, 2.0, 3.9, 4.0, 11.0, 12.0])
    assert answer(given)["verdict"].numpy().tolist() == [0, 2, 2, 1, 0, 1]
    assert answer(given)["label"].numpy().tolist() == [0, 0, 1, 1, 0, 1]
    assert answer(given[:0])["verdict"].shape == [0]
    one_for_all = Thresholds(4.0, "chosen", unsure={"": (2.0, 4.0)})
    answer = ThresholdedModel(scoring, one_for_all).signatures()["serving_default"]
    assert answer(given)["verdict"].numpy().tolist() == [0, 2, 2, 1, 1, 1]


def test_a_zone_beside_its_threshold_is_not_exported(small_run, tmp_path):
    run_dir = _copy_of(small_run[0], tmp_path / "run")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    limit = metrics["threshold"]["value"]
    for low, high in ((limit + 1, limit + 2), (limit - 2, limit - 1)):
        metrics["doubt"] = {"zones": {"": {"low": low, "high": high}}}
        (run_dir / "metrics.json").write_text(json.dumps(metrics))
        with pytest.raises(UserError, match="would contradict it"):
            thresholds_of(run_dir, None)
        assert thresholds_of(run_dir, 0.25).unsure == {}
    metrics["doubt"] = {"zones": {"": {"low": limit - 1, "high": limit}}}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    assert thresholds_of(run_dir, None).unsure == {"": (limit - 1, limit)}


def test_what_is_usual_is_the_same_by_every_road(model, contents, images, exported):
    by_bytes = model.signatures["serving_default"](image_bytes=contents)
    by_pixels = model.signatures["predict_images"](images=tf.constant(images))
    explained = model.signatures["explain"](image_bytes=contents)
    for name in (*drift.COLUMNS, drift.UNLIKE, drift.P_VALUE):
        np.testing.assert_allclose(by_pixels[name], by_bytes[name], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(explained[name], by_bytes[name], atol=1e-3, err_msg=name)
    assert (exported / "assets.extra" / drift.REFERENCE_FILE).is_file()


def test_thresholds_of_categories_are_refused_for_a_model_that_cannot_tell_them_apart(small_run, tmp_path):
    run_dir = _copy_of(small_run[0], tmp_path / "run")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    own = metrics["threshold"] | {"value": 1.0}
    metrics["threshold"] |= {"per": "category", "categories": {"cap": own, "washer": own}}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match="`threshold`"):
        export_run(run_dir, "m", tmp_path / "out")
    assert not (tmp_path / "out" / "m").exists()
    version = export_run(run_dir, "m", tmp_path / "out", ExportOptions(threshold=0.25))
    assert version.name == "1"
    assert saved_model.read_card(version)["threshold"] == 0.25


def test_a_failed_export_leaves_nothing_and_a_later_one_clears_what_a_killed_one_left(small_run, tmp_path, monkeypatch):
    root = tmp_path / "out"
    export_run(small_run[0], "m", root)
    before = _contents(root / "m" / "1")
    (root / "m" / ".2.partial.abc").mkdir()
    monkeypatch.setattr(warmup, "write", lambda *_: (_ for _ in ()).throw(UserError("full disk")))
    with pytest.raises(UserError, match="full disk"):
        export_run(small_run[0], "m", root)
    assert [path.name for path in (root / "m").iterdir()] == ["1"]
    assert _contents(root / "m" / "1") == before


def test_the_evaluations_scores_are_in_the_export_and_what_the_export_answers(exported, model, toy):
    with (exported / "assets.extra" / "predictions.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["split"] == "evaluate"]
    contents = tf.constant([(pathlib.Path(toy) / row["path"]).read_bytes() for row in table])
    answer = model.signatures["serving_default"](image_bytes=contents)
    np.testing.assert_allclose(answer["anomaly_score"], [float(row["score"]) for row in table], atol=1e-5)


def _models(root):
    return text_format.Parse((root / configs.MODELS).read_text(), model_server_config_pb2.ModelServerConfig())


def _png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _copy_of(run_dir, to):
    """A run whose graph is the same; its papers can be changed."""
    to.mkdir()
    for item in run_dir.iterdir():
        if item.name in ("run.json", "metrics.json"):
            (to / item.name).write_bytes(item.read_bytes())
        else:
            (to / item.name).symlink_to(item)
    return to


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
