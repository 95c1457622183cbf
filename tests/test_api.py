"""The Python face: the example of its documentation runs, loads nothing before it must, and answers as files do."""

import copy
import dataclasses
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import mvtec_tf as mt
from mvtec_tf import keras_settings
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs.settings import ExtractSettings
from mvtec_tf.settings import of_keywords
from tests.support.tiny_network import in_place_of_resnet10

SMALL = {"weights": "none", "backbone": "resnet10", "image_size": 48}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("api") / "run"
    return mt.fit(toy / "flange", run_dir=run_dir, head="mahalanobis", label_budget=0.25, **SMALL)


def test_importing_the_package_loads_neither_tensorflow_nor_numpy():
    code = "import sys, mvtec_tf; print({'tensorflow', 'keras', 'numpy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_name_is_there_and_says_what_it_does():
    assert set(mt.__all__) <= set(dir(mt))
    for name in mt.__all__:
        assert getattr(mt, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        mt.fitt  # noqa: B018


def test_features_and_heads_go_by_scikit_learns_contract(toy, tmp_path):
    images = mt.scan(toy / "flange")
    cut = mt.split(images, label_budget=0.25, seed=0)
    features = mt.extract_features(images, cache=tmp_path / "features", maps=True, **SMALL)
    head = mt.heads.Fused().fit(features.of(cut.fit), cut.fit_labels)
    assert clone(head).get_params() == head.get_params()
    scores = head.decision_function(features.of(cut.evaluate))
    assert scores.shape == (len(cut.evaluate),)
    assert set(head.predict(features.of(cut.evaluate))) <= {0, 1}
    assert head.predict_proba(features.of(cut.evaluate)).shape == (len(cut.evaluate), 2)
    own = cross_val_score(mt.heads.Logistic(), features.of(cut.fit), cut.fit_labels, cv=2, scoring="roc_auc")
    assert len(own) == 2
    of_layer = mt.extract_features(images, cache=tmp_path / "layer", maps=True, feature_layers=["relu1"], **SMALL)
    others = of_layer.of(cut.evaluate)
    with pytest.raises(UserError, match="encoder: it gives no scores"):
        mt.load(tmp_path / "layer" / "encoder")
    pooled = features.of(cut.evaluate).pooled
    with pytest.raises(UserError, match="This head looks at patch maps"):
        head.decision_function(pooled)
    with pytest.raises(ValueError, match=r"maps of \{'relu1': .*, expected \{'relu0': .*, as those that the head was"):
        head.decision_function(dataclasses.replace(others, pooled=pooled))
    for one in (images, cut, features, features.of(images)):
        assert len(repr(one)) < 400
    assert f"<{len(images)} images of flange: {sum(image.label for image in images)} defective ones" in repr(images)
    assert f"evaluate {len(cut.evaluate)} ({cut.evaluate_labels.sum()} defective)" in repr(cut)
    again = mt.extract_features(images, cache=tmp_path / "features", maps=True, **SMALL)
    np.testing.assert_array_equal(again.of(one for one in cut.fit).pooled, features.of(cut.fit).pooled)


def test_what_a_notebook_sets_of_keras_moves_no_feature_and_stays_set(toy, tmp_path):
    images = mt.scan(toy / "flange")[:4]
    features = mt.extract_features(images, cache=tmp_path / "features", **SMALL).of(images)
    with keras_settings.kept():
        keras.config.set_dtype_policy("float64")
        keras.config.set_image_data_format("channels_first")
        others = mt.extract_features(images, cache=tmp_path / "others", **SMALL).of(images)
        assert keras.config.dtype_policy().name == "float64"
        assert keras.config.image_data_format() == "channels_first"
    np.testing.assert_array_equal(others.pooled, features.pooled)


def test_an_array_has_the_score_of_its_png_in_a_run_and_in_its_export(run, toy, tmp_path):
    files = sorted((toy / "flange" / "test" / "chip").glob("*.png"))[:3]
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    scores = run.score(files)
    np.testing.assert_array_equal(run.score(arrays), scores)
    np.testing.assert_array_equal(run.score([files[0], arrays[1], str(files[2])]), scores)
    np.testing.assert_array_equal(run.score(np.stack(arrays)), scores)
    np.testing.assert_array_equal(run.score(np.array(files, str)), scores)
    np.testing.assert_array_equal(run.score(np.array(files, object)), scores)
    np.testing.assert_allclose(run.score(files[0]), scores[:1], rtol=1e-5)
    exported = run.export("flange", tmp_path / "saved_models")
    np.testing.assert_allclose(exported.score(arrays), scores, rtol=1e-6)
    again = mt.load(tmp_path / "saved_models" / "flange")
    np.testing.assert_array_equal(again.predict(files), run.predict(files))
    assert run.report().is_file()
    assert 0 <= run.metrics["roc_auc"] <= 1
    found = again.explain(files[0])
    assert found.heat_map.ndim == 2
    assert found.save(tmp_path / "overlay.png").stat().st_size > 100
    with pytest.raises(UserError, match=r"overlay\.jpg: what is written is a PNG file"):
        found.save(tmp_path / "overlay.jpg")
    photograph = pathlib.Path(shutil.copy(files[0], tmp_path / "part.png"))
    for given in (photograph, [str(photograph)]):
        with pytest.raises(UserError, match=r"part\.png: that is the photograph itself, which would be lost"):
            again.explain(given).save(photograph)


def test_what_is_no_image_and_what_only_a_run_has_are_said(run, tmp_path):
    with pytest.raises(UserError, match="float64"):
        run.score(np.zeros((4, 4, 3)))
    (tmp_path / "no.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no\.png"):
        run.score(tmp_path / "no.png")
    with pytest.raises(UserError, match=r"http://x/y\.png: it cannot be read"):
        run.score("http://x/y.png")
    exported = run.export("flange", tmp_path / "saved_models")
    with pytest.raises(UserError, match="an export has no report"):
        exported.report()
    with pytest.raises(UserError, match="not a SavedModel"):
        mt.load(tmp_path)
    variables = next((exported.path / "variables").glob("*.data*"))
    variables.write_bytes(variables.read_bytes()[:100])
    with pytest.raises(UserError, match=r"flange.1: the SavedModel cannot be read \("):
        mt.load(exported.path)


def test_no_image_has_no_score_and_several_have_no_explanation_together(run, toy):
    assert run.score([]).shape == run.predict([]).shape == (0,)
    image = next((toy / "flange/test/good").iterdir())
    for several in ([image, image], []):
        with pytest.raises(UserError, match="expected one"):
            run.explain(several)
    for nothing in (None, 3, b"bytes", Image.new("RGB", (8, 8)), [None], [[image]]):
        with pytest.raises(TypeError, match="images: expected files or arrays, found"):
            run.score(nothing)
    with pytest.raises(UserError, match=r"An array of uint8 \[0, 0, 3\]: expected"):
        run.score(np.zeros((0, 0, 3), np.uint8))
    with pytest.raises(UserError, match=r"expected uint8 .* 16 bits are read as numpy\.rint\(image / 257\)"):
        run.score(np.zeros((8, 8), np.uint16))


def test_a_finished_run_is_read_and_not_fitted_again(run, toy, capsys):
    again = mt.fit(toy / "flange", run_dir=run.path, head="mahalanobis", label_budget=0.25, **SMALL)
    assert "nothing to do" in capsys.readouterr().out
    assert again.metrics == run.metrics


def test_a_run_is_read_from_any_working_directory(run, toy, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    near = mt.load("run")
    monkeypatch.chdir(toy)
    assert near.metrics == run.metrics
    assert near.report().is_file()
    image = next((toy / "flange/test/good").iterdir())
    np.testing.assert_array_equal(near.predict(image), run.predict(image))
    # As a pool of processes does it.
    np.testing.assert_array_equal(copy.deepcopy(near).score(image), run.score(image))


def test_a_seed_below_0_is_refused(toy):
    with pytest.raises(UsageError, match="`seed`=-1"):
        mt.split(mt.scan(toy / "flange"), seed=-1)


def test_images_that_can_be_read_only_once_are_cut_as_their_list_is(toy):
    images = mt.scan(toy / "flange")
    assert mt.split((one for one in images), 0.25) == mt.split(images, 0.25)


def test_one_category_is_named_by_its_name_alone(toy):
    assert mt.scan(toy, categories="flange") == mt.scan(toy / "flange")


def test_no_images_and_one_image_twice_are_refused(toy):
    with pytest.raises(UserError, match="found by a pattern that fits nothing"):
        mt.scan(toy.glob("flansch*"))
    images = mt.scan(toy / "flange")
    for wrong, why in (((), "there are none"), (images + images, "000.png stands among them twice")):
        with pytest.raises(UserError, match=f"`images`: .*{why}"):
            mt.split(wrong, 0.25)


def test_what_is_no_folder_and_no_record_is_named_and_not_taken_by_its_text(toy, tmp_path):
    for wrong in (None, [None], b"toy", 3, {"a": toy}):
        with pytest.raises(TypeError, match=r"`data`: expected a text or path, or several. Received"):
            mt.scan(wrong)
    for wrong in (toy, str(toy), [str(toy)]):
        with pytest.raises(TypeError, match=r"`images`: expected records, as `mvtec_tf.scan` lists them. Received"):
            mt.split(wrong)
    for wrong in (["a"], b"run", None):
        with pytest.raises(UsageError, match=r"`run_dir`=.*: expected a text"):
            mt.fit(toy / "flange", run_dir=wrong, weights="none")


def test_a_setting_that_another_argument_says_is_refused_and_not_left_unheard(toy, tmp_path):
    for name in ("data_dir", "categories", "out"):
        with pytest.raises(TypeError, match=f"`{name}` is what other arguments of this function say"):
            mt.extract_features(mt.scan(toy / "flange"), cache=tmp_path / "features", **{name: "other"})
    with pytest.raises(TypeError, match="`data_dir` is what"):
        mt.fit(toy / "flange", run_dir=tmp_path / "run", data_dir="other")
    assert list(tmp_path.iterdir()) == []


def test_a_slip_in_a_settings_name_is_answered_with_the_nearest(toy, tmp_path):
    with pytest.raises(TypeError, match="Did you mean 'label_budget'"):
        mt.fit(toy, run_dir=tmp_path / "run", label_buget=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"heatmaps": value} for value in ("no", 1)),
        *({"seed": value} for value in (1.5, True, None, "3")),
        *({"head_c": value} for value in ("2", True)),
    ],
    ids=str,
)
def test_a_setting_of_another_kind_is_refused_and_not_taken_for_something(wrong, toy, tmp_path):
    (name,) = wrong
    with pytest.raises(UserError, match=f"`{name}`=.*: expected"):
        mt.fit(toy / "flange", weights="none", run_dir=tmp_path / "run", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_list_may_be_written_as_at_the_command_line():
    own = {"data_dir": "a,b", "out": "features"}
    for same in ("mean,gem8", ["mean", "gem8"], np.array(["mean", "gem8"])):
        asked = of_keywords(ExtractSettings, {"pooling": same, "categories": "flange"}, own)
        assert (asked.pooling, asked.categories, asked.data_dir) == (("mean", "gem8"), ("flange",), ("a,b",))


def test_numbers_of_numpy_are_numbers(toy, tmp_path):
    asked = {"seed": np.int64(3), "head_c": np.float32(2), "weights": None}
    # As far as the missing weights.
    with pytest.raises(UserError, match="Give either"):
        mt.fit(toy / "flange", run_dir=tmp_path / "run", **asked)


def test_anybodys_table_is_judged_and_runs_are_compared(run, tmp_path):
    report = mt.judge(run.path / "predictions.csv", resamples=20)
    assert report.metrics["roc_auc"] == run.metrics["roc_auc"]
    assert report.html.is_file()
    assert report.summary
    assert report.summary.startswith(repr(report)[9:40])
    assert len(repr(report)) < 600
    page = report.html
    del report
    assert page.is_file()
    kept = mt.judge(run.path / "predictions.csv", out=tmp_path / "judged", threshold=0.5, resamples=0)
    assert (tmp_path / "judged" / "report.html").is_file()
    assert kept.document["threshold"]["value"] == 0.5
    runs = {"one": run.path, "other": run.path / "predictions.csv"}
    compared = mt.compare(runs, out=tmp_path / "compared", resamples=20)
    assert (tmp_path / "compared" / "report.html").is_file()
    assert compared
