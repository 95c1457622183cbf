"""An export's files for other runtimes: the SavedModel's answers by every road, or a refusal that says why."""

import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.graphs import plain, saved_model
from mvtec_tf.graphs.thresholded import Thresholds
from mvtec_tf.jobs.export import export_run
from mvtec_tf.serving import exchange, formats
from mvtec_tf.serving.client import BadImageError, LocalModel
from mvtec_tf.serving.exchange import FORMS, ExchangeModel
from mvtec_tf.serving.export import export_again
from mvtec_tf.serving.preprocess import preprocess
from mvtec_tf.serving.settings import OTHER_FORMATS, ExportSettings
from tests.conftest import run_binary
from tests.support import image_samples

EVERY = pytest.mark.parametrize("form", OTHER_FORMATS)
# What Pillow itself reads wrongly or not at all, and 16 bits that it makes 8 by dropping the lower ones.
_OTHERWISE = ("bmp of black and white in", "bmp of near black", "png colour of 16", "png grey and alpha of 16")
_OTHERWISE += ("png colour and alpha of 16", "png of 16 bits turned")


def _settings(small_run, toy, folder, *forms, **more):
    names = {"run": str(small_run[0]), "name": "small", "saved_models": str(folder)}
    return ExportSettings(**names, formats=("saved_model", *forms), data_dir=(str(toy),), **more)


@pytest.fixture(scope="module")
def everywhere(small_run, toy, tmp_path_factory):
    """saved_models/small/1 of `small_run`, with every format beside it."""
    return export_run(_settings(small_run, toy, tmp_path_factory.mktemp("everywhere"), *OTHER_FORMATS))


def _file(version, form):
    return version / "assets.extra" / form / FORMS[form].files[0]


def _photographs(toy):
    """A file of another size than the network's, and a JPEG of another shape."""
    file = next((toy / "flange" / "test").rglob("*.png"))
    wide = io.BytesIO()
    Image.open(file).resize((90, 50)).save(wide, "JPEG", quality=95)
    return [file.read_bytes(), wide.getvalue()]


@EVERY
def test_each_form_answers_what_the_saved_model_answers(form, everywhere, toy):
    model, other = LocalModel(everywhere), ExchangeModel(_file(everywhere, form), threads=1)
    photograph, _ = _photographs(toy)
    for signature in ("serving_default", "explain"):
        expected, found = (one(signature, [photograph, photograph]) for one in (model, other))
        assert set(found) == set(expected)
        for name in set(expected) - {"overlay_bytes"}:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)
            assert found[name].dtype.kind == expected[name].dtype.kind
    # It would fork this process.
    assert sys.modules.get("openvino_telemetry") is None
    pictures = [Image.open(io.BytesIO(answer["overlay_bytes"][0])) for answer in (found, expected)]
    assert pictures[0].size == pictures[1].size


def test_the_cards_name_every_form_and_what_its_trial_found(everywhere):
    extra = everywhere / "assets.extra"
    assert set(saved_model.read_card(everywhere)["formats"]) == set(OTHER_FORMATS)
    text = (extra / "model_card.md").read_text()
    for form in OTHER_FORMATS:
        found = json.loads((extra / form / "model.json").read_text())["tried"]
        assert found["other_verdicts"] == 0
        assert found["images"] > 0
        assert found["largest_difference"] <= found["allowed"] == formats.SCORES_AGREE
        assert found["roc_auc"] == pytest.approx(found["roc_auc_of_saved_model"])
        assert f"- {form}: images: {found['images']}; largest difference: " in text.replace("_", " ")


def test_another_threshold_is_another_version_without_the_files_that_have_the_old_one(everywhere, tmp_path):
    version = pathlib.Path(shutil.copytree(everywhere, tmp_path / "small" / "1"))
    other = export_again(version, Thresholds(0.5, "moved by hand"))
    assert "formats" not in saved_model.read_card(other)
    assert "litert" not in (other / "assets.extra" / "model_card.md").read_text()
    assert not (other / "assets.extra" / "litert").exists()


@EVERY
def test_predict_writes_the_same_rows_with_a_file_of_another_runtime(form, everywhere, toy, tmp_path):
    photographs = sorted((toy / "flange" / "test" / "good").glob("*.png"))[:3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(photographs[0].read_bytes()[:200])
    tables = []
    for name, model in (("a", everywhere), ("b", _file(everywhere, form))):
        out = tmp_path / f"{name}.jsonl"
        done = run_binary("predict", f"--model={model}", f"--out={out}", *photographs, broken, check=False)
        assert done.returncode == 1, done.stderr
        assert "1 of 4 images could not be judged" in done.stderr
        tables.append([json.loads(line) for line in out.read_text().splitlines()])
    for expected, found in zip(*tables, strict=True):
        for name in set(expected) - {"model", "error"}:
            number = isinstance(expected[name], float)
            assert found[name] == (pytest.approx(expected[name], abs=1e-3) if number else expected[name]), name
        assert bool(found["error"]) == bool(expected["error"]) == found["path"].endswith("broken.png")
    assert form in tables[1][0]["model"]


def test_a_form_needs_neither_tensorflow_nor_this_package_s_other_half(everywhere, toy):
    photograph = next((toy / "flange" / "test").rglob("*.png"))
    code = (
        "import sys; from mvtec_tf.serving.exchange import ExchangeModel\n"
        "print(ExchangeModel(sys.argv[1])('serving_default', [open(sys.argv[2], 'rb').read()])['anomaly_score'][0])\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(_file(everywhere, "onnx")), str(photograph)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = LocalModel(everywhere)("serving_default", [photograph.read_bytes()])["anomaly_score"][0]
    assert float(done.stdout) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [(48, 48), (31, 64), (100, 120)])
def test_preprocess_gives_the_pixels_of_the_graph_whatever_the_size(size):
    rng = np.random.default_rng(0)
    for height, width in ((97, 61), (48, 48), (20, 200)):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file, "PNG")
        expected = pixels.decode_and_resize(tf.constant(file.getvalue()), size).numpy()
        found = preprocess(file.getvalue(), *size, height * width)[0].astype(int)
        # Where a mean lies between two numbers, the order of a sum decides.
        assert np.abs(found - expected).max() <= 1
        assert np.mean(found != expected) < 1e-3


def test_preprocess_reads_every_kind_of_file_as_the_graph_does():
    for name, (content, _) in image_samples.good().items():
        if not name.startswith(_OTHERWISE):
            expected = pixels.decode_and_resize(tf.constant(content), 32).numpy().astype(int)
            # Decoders of JPEG differ by a few grey levels.
            allowed = 12 if content.startswith(b"\xff\xd8") else 1
            assert np.abs(preprocess(content, 32, 32, 10**6)[0] - expected).max() <= allowed, name


@pytest.fixture(scope="module")
def onnx_alone(everywhere, tmp_path_factory):
    """The folder of one form, as it is copied to a device."""
    device = tmp_path_factory.mktemp("device") / "onnx"
    return pathlib.Path(shutil.copytree(everywhere / "assets.extra" / "onnx", device))


@pytest.mark.slow
def test_a_folder_that_was_copied_elsewhere_predicts_and_is_changed_by_nobody(onnx_alone, toy, tmp_path):
    photograph = next((toy / "flange" / "test").rglob("*.png"))
    model = ExchangeModel(onnx_alone / "model.onnx")
    assert model.export is None
    with pytest.raises(BadImageError):
        model("serving_default", [b"no image"])
    with pytest.raises(UserError, match="no signature 'embed'; it has serving_default, explain"):
        model("embed", [photograph.read_bytes()])
    with pytest.raises(ValueError, match=r"its header says 64 x 64 pixels; at most 100 are decoded"):
        preprocess(photograph.read_bytes(), 32, 32, 100)
    changed = pathlib.Path(shutil.copytree(onnx_alone, tmp_path / "changed"))
    (changed / "model.onnx").write_bytes((onnx_alone / "model.onnx").read_bytes()[:-1])
    done = run_binary("predict", f"--model={changed / 'model.onnx'}", f"--out={tmp_path / 'a.csv'}", toy, check=False)
    assert done.returncode == 1
    assert "not as it was exported (model.json beside it is of another file)" in done.stderr
    card = json.loads((onnx_alone / "model.json").read_text())
    (onnx_alone / "model.json").write_text(json.dumps(card | {"image_size": [48, 64]}))
    with pytest.raises(UserError, match=r"ONNX Runtime cannot read it, or not with images of 48 x 64 pixels, which"):
        ExchangeModel(onnx_alone / "model.onnx")
    (onnx_alone / "model.json").write_text(json.dumps(card))
    (changed / "model.json").unlink()
    with pytest.raises(UserError, match="no export of this program"):
        ExchangeModel(changed / "model.onnx")
    with pytest.raises(UserError, match=r"model.tflite: no such file"):
        ExchangeModel(onnx_alone / "model.tflite")


@pytest.fixture
def version(exported, tmp_path):
    """A copy of the SavedModel alone."""
    return pathlib.Path(shutil.copytree(exported, tmp_path / "version"))


def _write(version, form, toy):
    images = sorted(map(str, (toy / "flange" / "test" / "good").glob("*.png")))[:4]
    trial = formats.Trial(images, np.zeros(len(images), int))
    return formats.write(version, saved_model.read_card(version), [form], trial)


def test_a_runtime_that_is_not_installed_is_named_with_the_way_to_get_it(version, toy, monkeypatch):
    for missing, words in (
        ("ai_edge_litert", "LiteRT is not installed. Install it by: pip install ai-edge-litert"),
        ("tf2onnx", "tf2onnx, which writes ONNX files, is not installed. Install it by: pip install tf2onnx"),
    ):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, missing=missing: None if name == missing else name)
        with pytest.raises(UserError, match=words):
            _write(version, "onnx" if missing == "tf2onnx" else "litert", toy)
    assert not (version / "assets.extra" / "onnx").exists()


@pytest.mark.slow
def test_a_form_that_differs_is_not_exported_and_says_by_how_much(small_run, toy, monkeypatch, tmp_path):
    exact = ExchangeModel.of_pixels

    def shifted(model, images):
        answer = exact(model, images)
        changed = {"label": 1 - answer["label"], "heat_map": answer["heat_map"] + 0.1}
        return answer | changed | {"anomaly_score": answer["anomaly_score"] * 1.01}

    monkeypatch.setattr(ExchangeModel, "of_pixels", shifted)
    with pytest.raises(UserError) as refused:
        export_run(_settings(small_run, toy, tmp_path, "litert"))
    words = str(refused.value)
    assert re.match(r"LiteRT: scores of the same pixels differ by up to 0.00\d+ of score and spread, allowed is", words)
    assert re.search(r"; heat maps differ by .*; (\d+) of \1 images get another verdict; scores of the files", words)
    assert not list(tmp_path.rglob("saved_model.pb"))


@pytest.mark.slow
@EVERY
def test_an_op_that_a_format_does_not_have_is_named(form, version, toy, monkeypatch):
    monkeypatch.setattr(plain, "_OTHERWISE", {})
    with pytest.raises(UserError, match=r"the model cannot be said in this format \(.*ReluGrad"):
        _write(version, form, toy)


def test_a_network_in_bfloat16_is_refused_as_such(version, toy):
    card = saved_model.read_card(version) | {"precision": "bfloat16"}
    with pytest.raises(UserError, match="network computes in bfloat16"):
        formats.write(version, card, ["litert"], formats.Trial([], np.zeros(0)))


def test_formats_that_there_are_not_or_that_contradict_other_settings_are_refused(small_run, toy, tmp_path):
    with pytest.raises(UsageError, match=r"no 'tflite'; there are saved_model, litert, onnx, openvino"):
        export_run(_settings(small_run, toy, tmp_path, "tflite"))
    with pytest.raises(UsageError, match=r"compute in float32. Leave `precision` out"):
        export_run(_settings(small_run, toy, tmp_path, "onnx", precision="bfloat16"))
    with pytest.raises(UsageError, match="Say with `data_dir` where"):
        export_run(ExportSettings(run=str(small_run[0]), name="small", saved_models=str(tmp_path), formats=("onnx",)))
    assert not list(tmp_path.iterdir())


def test_the_formats_have_a_form_each():
    assert tuple(exchange.FORMS) == OTHER_FORMATS
