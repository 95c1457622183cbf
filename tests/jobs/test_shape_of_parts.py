"""Parts that are long and narrow are looked at in their own shape, from the fit to the heat map of the export."""

import json

import numpy as np
import pytest
from PIL import Image

import mvtec_tf as mt
from mvtec_tf.graphs import saved_model
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

SMALL = {"weights": "none", "backbone": "resnet10", "image_size": 64, "image_shape": "parts"}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


@pytest.fixture(scope="module")
def strips(toy, tmp_path_factory):
    """A category of the toy factory, each photograph and mask cut to its middle third."""
    root = tmp_path_factory.mktemp("strips")
    for file in (toy / "flange").rglob("*.png"):
        image = Image.open(file)
        width, height = image.size
        target = root / "flange" / file.relative_to(toy / "flange")
        target.parent.mkdir(parents=True, exist_ok=True)
        image.crop((0, height // 3, width, 2 * height // 3)).save(target)
    return root / "flange"


def test_a_run_and_its_export_see_strips_as_strips(strips, tmp_path):
    model = mt.fit(strips, run_dir=tmp_path / "run", head="patchcore", label_budget=0.25, **SMALL)
    assert saved_model.read_card(tmp_path / "run" / "saved_model")["image_size"] == [32, 96]
    files = sorted((strips / "test" / "chip").glob("*.png"))[:3]
    exported = model.export("strips", tmp_path / "saved_models")
    np.testing.assert_allclose(exported.score(files), model.score(files), rtol=1e-6)
    height, width = exported.explain(files[0]).heat_map.shape
    assert width > 2 * height
    card = tmp_path / "saved_models" / "strips" / "1" / "assets.extra" / "model_card.md"
    assert "32 x 96 pixels (height x width)" in card.read_text()
    # The encoder of the run serves another head, and has its shape.
    again = {"encoder": tmp_path / "run" / "encoder", "head": "logistic", "label_budget": 0.25}
    mt.fit(strips, run_dir=tmp_path / "logistic", **again)
    settings = json.loads((tmp_path / "logistic" / "run.json").read_text())["settings"]
    assert (settings["image_size"], settings["image_shape"]) == (64, "parts")
    assert saved_model.read_card(tmp_path / "logistic" / "saved_model")["image_size"] == [32, 96]


def test_a_shape_that_an_encoder_does_not_have_is_refused(strips, small_encoder, tmp_path):
    asked = (f"--encoder={small_encoder}", "--image_shape=parts", f"--run_dir={tmp_path / 'run'}")
    done = run_binary("fit_probe", f"--data_dir={strips}", *asked, check=False)
    assert done.returncode == 2
    assert "--image_shape=parts (it has square)" in done.stderr
    assert not (tmp_path / "run").exists()
