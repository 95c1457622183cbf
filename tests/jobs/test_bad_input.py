"""Whatever is wrong with what a training is given or runs into, it says so and leaves nothing half-written behind."""

import contextlib

import keras
import numpy as np
import pytest
from PIL import Image

from mvtec_tf.errors import UserError
from mvtec_tf.jobs.report_folder import refuse_among_photographs
from tests.conftest import run_binary

SIMCLR = ("--backbone=resnet10", "--weights=none", "--image_size=32", "--batch_size=8", "--precision=float32")
SIMCLR = (*SIMCLR, "--projection_hidden=16", "--projection_dimensions=8", "--epochs=3")


@pytest.fixture(scope="module")
def good_only(tmp_path_factory):
    """A plain folder without a single defective image, names with spaces and umlauts."""
    folder = tmp_path_factory.mktemp("data") / "Größe M"
    (folder / "good").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "good" / f"Prüfling {number}.png")
    return folder


def test_an_export_to_a_place_that_cannot_be_written_names_it(small_run, tmp_path):
    (tmp_path / "file").touch()
    models = tmp_path / "file" / "models"
    export = run_binary("export", f"--run={small_run[0]}", "--name=m", f"--saved_models={models}", check=False)
    assert export.returncode == 1
    assert export.stderr.splitlines()[-1].startswith(f"ERROR: --saved_models={models}: ")
    assert "Not a directory" in export.stderr


def test_weights_of_another_network_leave_no_run_behind(good_only, tmp_path):
    weights = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(weights)
    flags = (f"--data_dir={good_only}", f"--run_dir={tmp_path / 'run'}", *SIMCLR, f"--weights={weights}")
    done = run_binary("train_simclr", *flags, check=False)
    assert done.returncode == 1
    assert f"--weights={weights}" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "flag"),
    [("train_simclr", "cache"), ("explore_data", "out"), ("make_toy", "out")],
)
def test_a_place_that_cannot_be_written_is_named(good_only, tmp_path, name, flag):
    (tmp_path / "file").touch()
    given = {"data_dir": good_only, "run_dir": tmp_path / "run", flag: tmp_path / "file" / "below"}
    own = {"train_simclr": ("data_dir", "run_dir", "cache"), "explore_data": ("data_dir", "out"), "make_toy": ("out",)}
    flags = [f"--{key}={value}" for key, value in given.items() if key in own[name]]
    done = run_binary(name, *flags, *(SIMCLR if name == "train_simclr" else ()), check=False)
    assert done.returncode == 1
    assert f"--{flag}={tmp_path / 'file' / 'below'}" in done.stderr
    assert "Not a directory" in done.stderr or "File exists" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any("partial" in path.name or "temp" in path.name for path in tmp_path.rglob("*"))


def test_the_protocol_needs_defective_images_and_says_which_category_has_none(good_only, tmp_path):
    flags = (f"--data_dir={good_only}", f"--run_dir={tmp_path / 'run'}")
    done = run_binary("fit_baseline", *flags, check=False)
    assert done.returncode == 1
    assert "category 'Größe M': no defective test image" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_label_budget_that_buys_no_defect_leaves_no_run_behind(toy, tmp_path):
    flags = (f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}", "--label_budget=0.01")
    done = run_binary("fit_baseline", *flags, check=False)
    assert done.returncode == 1
    assert "--label_budget=0.01" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_report_takes_no_place_of_another_run_an_export_or_photographs(small_run, exported, toy, tmp_path):
    run, table = small_run[0], tmp_path / "theirs.csv"
    table.write_bytes((run / "predictions.csv").read_bytes())
    holds = {run: "a run", exported: "an exported model", toy / "flange": "photographs (ground_truth, test, train)"}
    for out, what in holds.items():
        before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
        for asked in (
            ("evaluate", f"--predictions={table}"),
            ("explore_data", f"--data_dir={toy / 'denim'}"),
            ("compare", f"--runs=a={table},b={run}"),
            ("drift", f"--table={table}"),
        ):
            done = run_binary(*asked, f"--out={out}", check=False)
            assert done.returncode == 1
            assert f"--out={out}: holds {what}" in done.stderr.replace("`", "")
        assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("folder", "sources", "judged", "refused"),
    [
        ("line/cap/run", ["line"], None, True),
        ("line/cap/run/new", ["line/cap"], None, True),
        ("line/cap/defective/run", ["line"], None, True),
        ("line/lid/test/run", ["line/lid"], None, True),
        ("line/lid/train/good/run", ["line"], None, True),
        ("new/drift", (), "new", True),
        ("line/lid/run", ["line"], None, False),
        ("line/run", ["line"], None, False),
        ("line/cap/run", ["line/lid"], "new", False),
    ],
)
def test_no_pictures_are_written_where_the_next_look_at_the_photographs_finds_them(
    tmp_path, monkeypatch, folder, sources, judged, refused
):
    monkeypatch.chdir(tmp_path)
    for name in ("cap/good", "cap/defective/chip", "lid/train/good", "lid/test/chip"):
        (tmp_path / "line" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="among the photographs") if refused else contextlib.nullcontext():
        refuse_among_photographs(folder, "`out`", sources, judged)
