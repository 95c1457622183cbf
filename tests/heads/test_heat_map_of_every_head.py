"""Whatever the head and its features, a run shows where its score comes from, as its export does."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mvtec_tf.data.decoding import pixels
from mvtec_tf.evaluation import table
from mvtec_tf.evaluation.report import photographs
from mvtec_tf.graphs import heat_maps, plain, saved_model
from mvtec_tf.heads.settings import HEADS, SCORE_UNITS
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

# What every converter knows; see `plain`.
EVERYWHERE = {
    *("Abs", "AddN", "AddV2", "ArgMax", "ArgMin", "AvgPool", "BatchMatMulV2", "BiasAdd", "BroadcastTo", "Cast"),
    *("ConcatV2", "Const", "Conv2D", "Einsum", "Equal", "Exp", "Fill", "GatherV2", "Greater", "GreaterEqual"),
    *("Identity", "Less", "LessEqual", "Log", "MatMul", "Max", "Maximum", "Mean", "Minimum", "Mul", "Neg", "Pack"),
    *("Placeholder", "Pow", "RealDiv", "Relu", "Reshape", "ResizeBilinear", "Round", "SelectV2", "Sigmoid"),
    *("Slice", "Sqrt", "Square", "Squeeze", "StridedSlice", "Sub", "Sum", "TopKV2", "Transpose", "Unpack"),
    "ZerosLike",
}
PROBE = ("fit_probe", "--label_budget=0.25")


@pytest.fixture(scope="module")
def wide(toy, tmp_path_factory):
    """The toy's flanges as photographs that are twice as wide as high."""
    root = tmp_path_factory.mktemp("wide")
    for file in (toy / "flange").rglob("*.png"):
        place = root / file.relative_to(toy)
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(file)
        image.resize((128, 64), Image.Resampling.NEAREST).save(place)
    return root / "flange"


@pytest.mark.parametrize(
    "flags",
    [
        (*PROBE, "--head=fused", "--pooling=mean,gem8", "--centre_brightness"),
        (*PROBE, "--head=logistic", "--pooling=gem8", "--centre_brightness"),
        (*PROBE, "--head=rbf_svm", "--tiles=1x2"),
        (*PROBE, "--head=patchcore", "--memory_bank=50"),
        (*PROBE, "--head=nearest_neighbours", "--heatmaps"),
        (*PROBE, "--task=defect_type"),
        ("fit_baseline", "--image_size=32"),
    ],
    ids=lambda flags: " ".join(flags[1:] if flags[0] == "fit_baseline" else flags[2:]),
)
def test_every_run_shows_its_mistakes_with_their_maps_and_can_be_explained(flags, wide, small_encoder, tmp_path):
    run = tmp_path / "run"
    encoder = [] if flags[0] == "fit_baseline" else [f"--encoder={small_encoder}"]
    run_binary(*flags, *encoder, f"--data_dir={wide}", f"--run_dir={run}")
    evaluate = table.read_predictions(run / "predictions.csv").part("evaluate")
    document = json.loads((run / "metrics.json").read_text())
    mistakes = sum(document["mistakes"][kind]["count"] for kind in ("misses", "false_alarms"))
    pictures = sorted((run / "figures").glob("mistake_*.jpg"))
    assert len(pictures) == min(mistakes, 24) > 0
    for picture in pictures:
        # Two panes of the photograph's own shape beside each other, the second one coloured.
        pixels = np.asarray(Image.open(picture)).astype(int)
        height, width = pixels.shape[:2]
        assert (width - 6) / 2 == pytest.approx(2 * height, abs=1)
    heading = re.search("<h1>(.*?)</h1>", (run / "report.html").read_text())[1]
    assert "flange" in heading
    assert "run run" in heading
    assert "label budget" in heading
    _assert_its_unit_is_said(run, flags, tmp_path / "models")
    done = run_binary("explain", f"--run={run}", f"--data_dir={wide}", "--notsne")
    assert "Traceback" not in done.stderr
    explained = json.loads((run / "metrics.json").read_text())
    assert explained["overall"] == document["overall"]
    (figures,) = explained["pixels"].values()
    assert 0 <= figures["overall"]["pixel_auroc"]["value"] <= 1
    assert explained["embedding"]["images"] == len(evaluate)
    assert heading in (run / "report.html").read_text()
    # The very maps that the export answers.
    signature = saved_model.load(run / "saved_model").signatures["explain"]
    path = evaluate.path[0]
    answer = signature(image_bytes=tf.io.read_file(str(wide / path.partition("/")[2]))[None])
    _assert_it_can_be_said_for_other_runtimes(run / "saved_model", wide / path.partition("/")[2], answer)
    found = np.load(run / "heatmaps" / f"{path}.npy")
    np.testing.assert_allclose(found, answer["heat_map"][0], atol=1e-4 * max(found.max(), 1e-6))
    assert found.max() > 0
    overlay = tf.io.decode_png(answer["overlay_bytes"][0])
    assert overlay.shape[1] == pytest.approx(2 * overlay.shape[0], abs=1)


def test_a_network_that_has_no_gradient_there_is_refused_with_the_method_that_works(wide, tmp_path):
    run = tmp_path / "run"
    network = ("--weights=none", "--backbone=resnet10", "--image_size=32", "--head=logistic", "--pooling=mean,gem8")
    with in_place_of_resnet10():
        run_binary(*PROBE, *network, f"--data_dir={wide}", f"--run_dir={run}")
        done = run_binary("explain", f"--run={run}", f"--data_dir={wide}", "--method=gradcam", check=False)
    assert done.returncode == 1
    assert "Use --method=exported." in done.stderr


def test_heat_maps_have_one_scale_of_colours_everywhere():
    assert heat_maps.COLOURS == photographs.COLOURS


def test_every_head_names_the_unit_of_its_score_once_and_the_documentation_uses_it(pytestconfig):
    assert set(SCORE_UNITS) == set(HEADS)
    page = (pytestconfig.rootpath / "docs" / "heads-and-features.md").read_text()
    for head, unit in SCORE_UNITS.items():
        (row,) = re.findall(rf"^\| `{head}` \|.*\|$", page, re.MULTILINE)
        assert row.endswith(f"| {unit} |")


def _assert_its_unit_is_said(run, flags, models):
    """The same in record, report, the diagram of an encoder and, of the recipe's head, the card of its export."""
    unit = json.loads((run / "run.json").read_text())["score_unit"]
    page = (run / "report.html").read_text()
    assert f"Scores are {unit}." in page
    assert (f"Score: {unit}" in page) is (flags[0] == "fit_probe")
    if "--head=fused" in flags:
        assert unit == SCORE_UNITS["fused"]
        assert "log-odds" not in page
        run_binary("export", f"--run={run}", "--name=m", f"--saved_models={models}")
        card = (models / "m" / "1" / "assets.extra" / "model_card.md").read_text()
        assert f"score: {unit}" in card
        assert "log-odds" not in card


def _assert_it_can_be_said_for_other_runtimes(model, photograph, expected):
    """The same score and map of pixels, in ops of which every converter knows each."""
    size = saved_model.read_card(model)["image_size"]
    said = plain.of_export(saved_model.load(model), size)
    image = pixels.decode_and_resize(tf.io.read_file(str(photograph)), size)
    found = said.function(image[None])
    for name in ("anomaly_score", "heat_map"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
    operations = {one.type for one in said.function.get_concrete_function().graph.get_operations()}
    assert operations <= EVERYWHERE, operations - EVERYWHERE
