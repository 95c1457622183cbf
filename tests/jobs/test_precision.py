"""A network in bfloat16: what is judged is what is served, and no export changes a verdict."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.networks import copies
from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.networks.fold import fold_batch_norm
from tests.support.in_process import run_in_process
from tests.support.tiny_network import in_place_of_resnet10

SMALL = ("--weights=none", "--backbone=resnet10", "--image_size=64")


def _run(name, *arguments):
    return run_in_process(name, *arguments, check=False)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    asked = ("--image_size=64", "--train_good=12", "--test_good=10", "--per_defect=4", "--products=flange")
    assert _run("make_toy", f"--out={folder}", *asked).returncode == 0
    return folder / "flange"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "probe"
    done = _run("fit_probe", f"--data_dir={data}", *SMALL, "--label_budget=0.5", f"--run_dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def _export(run, data, folder, *flags, precision="bfloat16"):
    asked = (f"--run={run}", f"--data_dir={data}", "--name=probe", f"--saved_models={folder}")
    return _run("export", *asked, f"--precision={precision}", *flags)


def test_a_copy_in_bfloat16_computes_maps_in_it_and_is_near_the_original():
    network = fold_batch_norm(build_backbone("resnet10", 64).model).model
    half = copies.in_bfloat16(network)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    one, other = (np.asarray(model(images, training=False), np.float32) for model in (network, half))
    assert half.output.dtype == "bfloat16"
    assert 0 < np.abs(one - other).max() < 0.05 * np.abs(one).max()


@pytest.fixture(scope="module")
def half(run, data, tmp_path_factory):
    """The run's export in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    done = _export(run, data, folder)
    assert done.returncode == 0, done.stderr
    return folder / "probe" / "1"


def test_an_export_in_bfloat16_keeps_every_verdict_and_says_how_near_it_is(half):
    card = saved_model.read_card(half)
    assert card["precision"] == "bfloat16"
    assert 0 < card["largest_difference"] < card["standard_deviation_of_scores"]
    assert card["compared_images"] > 0


def test_an_export_that_would_change_a_verdict_is_refused_and_named(run, half, data, tmp_path):
    rows = [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()]
    score, split, path = (rows[0].index(name) for name in ("score", "split", "path"))
    evaluated = [row for row in rows[1:] if row[split] == "evaluate"]
    table = {row[path]: float(row[score]) for row in evaluated}
    served = scoring.score_files(half, [str(data.parent / name) for name in table]).score
    between = np.mean(max(zip(table.values(), served, strict=True), key=lambda one: abs(one[0] - one[1])))
    done = _export(run, data, tmp_path / "b", f"--threshold={between}")
    assert done.returncode == 1
    assert "another verdict" in done.stderr
    assert not list((tmp_path / "b").rglob("saved_model.pb"))


@pytest.mark.slow
def test_a_fit_in_bfloat16_is_served_as_it_was_judged(data, tmp_path):
    asked = (*SMALL, "--precision=bfloat16", "--label_budget=0.5", f"--run_dir={tmp_path / 'probe'}")
    done = _run("fit_probe", f"--data_dir={data}", *asked)
    assert done.returncode == 0, done.stderr
    assert saved_model.read_card(tmp_path / "probe" / "encoder")["precision"] == "bfloat16"
    explained = _run("explain", f"--run={tmp_path / 'probe'}", f"--data_dir={data}", "--method=gradcam")
    assert explained.returncode == 0, explained.stderr


def test_an_encoder_cannot_be_had_in_another_precision(run, data, tmp_path):
    asked = (f"--encoder={run / 'encoder'}", "--precision=bfloat16", f"--run_dir={tmp_path / 'other'}")
    done = _run("fit_probe", f"--data_dir={data}", *asked)
    assert done.returncode == 2
    assert "--precision=bfloat16 (it has float32)" in done.stderr


def test_a_run_without_a_network_has_nothing_to_compute_in_bfloat16(data, tmp_path):
    folder = tmp_path / "grey"
    assert _run("fit_baseline", f"--data_dir={data}", f"--run_dir={folder}").returncode == 0
    done = _export(folder, data, tmp_path)
    assert done.returncode == 1
    assert "no verdicts of a network" in done.stderr


def _auto(run, folder):
    return _run("export", f"--run={run}", "--name=probe", f"--saved_models={folder}", "--precision=auto")


def test_an_encoder_is_exported_in_float32_with_a_word_and_in_nothing_else(data, tmp_path):
    asked = ("--weights=none", "--backbone=resnet10", "--image_size=32", "--epochs=1", "--batch_size=4")
    # Good images are all that a pretraining needs.
    shutil.copytree(data / "train" / "good", tmp_path / "Größe M" / "good")
    done = _run("train_simclr", f"--data_dir={tmp_path / 'Größe M'}", *asked, f"--run_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    refused = _export(tmp_path / "run", data, tmp_path / "a")
    assert refused.returncode == 1
    assert "a run of mvtec-tf pretrain, an encoder, which gives no verdicts. --precision=bfloat16 is" in refused.stderr
    assert not (tmp_path / "a").exists()
    done = _auto(tmp_path / "run", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "It computes in float32. " in done.stdout
    assert "an encoder, which gives no verdicts" in done.stdout
    assert saved_model.read_card(tmp_path / "b" / "probe" / "1")["precision"] == "float32"


@pytest.mark.parametrize("asked", ["auto", "bfloat16"])
def test_images_of_the_same_names_that_are_not_the_run_s_are_refused_as_such(asked, run, data, tmp_path):
    other = tmp_path / "flange"
    shutil.copytree(data, other)
    for file in other.rglob("test/*/*.png"):
        with Image.open(file) as image:
            image.point(lambda value: value // 2).save(file)
    done = _export(run, other, tmp_path / "a", precision=asked)
    assert done.returncode == 1
    said = r"these are not the images that were scored: (\d+) of the \1 evaluated ones, flange/test/"
    assert re.search(said, done.stderr)
    assert "verdict" not in done.stderr
    assert not (tmp_path / "a").exists()
    done = _export(run, tmp_path / "flange" / "train", tmp_path / "a", precision=asked)
    assert done.returncode == 1
    assert not (tmp_path / "a").exists()


def test_verdicts_are_compared_on_images_that_must_be_named(run, tmp_path):
    done = _auto(run, tmp_path)
    assert (done.returncode, "Say with --data_dir where they are" in done.stderr) == (2, True)
