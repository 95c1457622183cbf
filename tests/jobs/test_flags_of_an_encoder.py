"""What stands in a run's record is what was run: flags beside an encoder or stored features hold, or are refused."""

import dataclasses
import json

import pytest

from mvtec_tf.errors import UserError
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs import opening
from mvtec_tf.jobs.settings import FitSettings
from tests.conftest import run_binary

SIDE = 48


@pytest.fixture(scope="module")
def run(toy, small_encoder, tmp_path_factory):
    """A run by the recipe on that encoder, which keeps its features."""
    run_dir = tmp_path_factory.mktemp("runs") / "by_recipe"
    run_binary("fit_probe", *_data(toy), f"--encoder={small_encoder}", "--recipe=auto", f"--run_dir={run_dir}")
    return run_dir


def _data(toy):
    return (f"--data_dir={toy}", "--categories=flange", "--label_budget=0.25")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--image_size=224"], "--image_size=224 (it has 48)"),
        (["--recipe=auto", "--image_size=448"], "--image_size=448 (it has 48)"),
        (["--backbone=mobilenetv2"], "--backbone=mobilenetv2 (it has resnet10)"),
        (["--weights_partial"], "--weights_partial=true (it has false)"),
    ],
)
@pytest.mark.parametrize("binary", ["fit_probe", "extract_features"])
def test_a_flag_that_an_encoder_cannot_follow_is_refused_before_anything_is_written(
    binary, flags, words, toy, small_encoder, tmp_path
):
    where = f"--run_dir={tmp_path / 'run'}" if binary == "fit_probe" else f"--out={tmp_path / 'out'}"
    data = _data(toy) if binary == "fit_probe" else _data(toy)[:2]
    done = run_binary(binary, *data, f"--encoder={small_encoder}", *flags, where, check=False)
    assert done.returncode == 2, done.stderr
    assert f"--encoder={small_encoder} was made with other values, which cannot be changed: {words}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flag", ["--image_size=224", "--tiles=2x2", "--pooling=mean", "--nocentre_brightness", "--backbone=mobilenetv2"]
)
def test_a_flag_that_stored_features_cannot_follow_is_refused(flag, toy, run, tmp_path):
    features = f"--features={run / 'features'}"
    done = run_binary("fit_probe", *_data(toy), features, flag, f"--run_dir={tmp_path / 'run'}", check=False)
    assert done.returncode == 2, done.stderr
    fixed = flag.replace("--no", "--").partition("=")[0]
    assert f"{features} was made with other values, which cannot be changed: {fixed}" in done.stderr


def test_a_run_records_the_size_and_the_backbone_of_its_encoder(run):
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (settings["image_size"], settings["backbone"], settings["recipe"]) == (SIDE, "resnet10", "few_labels")
    assert saved_model.read_card(run / "saved_model")["image_size"] == SIDE


def test_the_features_of_a_run_serve_another_run_and_its_flagfile_repeats_both(toy, run, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, FEW_LABELS, dataclasses.replace(RECIPES[FEW_LABELS], image_size=SIDE))
    second = tmp_path / "second"
    run_binary("fit_probe", *_data(toy), f"--features={run / 'features'}", "--recipe=auto", f"--run_dir={second}")
    written = (second / "flags.txt").read_text()
    assert "--recipe=few_labels" in written
    assert "--head=fused" in written
    settings = json.loads((second / "run.json").read_text())["settings"]
    assert (settings["image_size"], settings["pooling"]) == (SIDE, ["mean", "gem8"])
    assert (run / "predictions.csv").read_text() == (second / "predictions.csv").read_text()
    # With any other setting it would be another run.
    assert "nothing to do" in run_binary("fit_probe", f"--flagfile={second / 'flags.txt'}").stdout


def test_features_without_their_encoder_are_a_message_that_says_where_it_was_looked_for(toy, run, tmp_path):
    import shutil

    shutil.copytree(run / "features", tmp_path / "alone")
    flags = (*_data(toy), f"--features={tmp_path / 'alone'}", f"--run_dir={tmp_path / 'run'}")
    done = run_binary("fit_probe", *flags, check=False)
    assert done.returncode == 1
    assert "the encoder that made these features is not with them" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", ["--weights=none", "--image_size=64", "--backbone=mobilenetv2"])
def test_a_grid_refuses_flags_of_a_start_encoder_that_it_does_not_have(flag, toy, small_encoder, tmp_path):
    flags = (f"--data_dir={toy}", f"--encoders={small_encoder}", flag, f"--run_dir={tmp_path / 'run'}")
    done = run_binary("label_efficiency", *flags, check=False)
    assert done.returncode == 2
    assert f"{flag}: start is not among the --encoders" in done.stderr


def test_the_studys_head_is_fitted_nowhere_unasked_and_not_without_labels(toy, small_encoder, run, tmp_path):
    assert not (run / "study_head").exists()
    flags = (*_data(toy), f"--encoder={small_encoder}", f"--run_dir={tmp_path / 'run'}")
    done = run_binary("fit_probe", *flags, "--study_head", "--label_budget=0", "--recipe=auto", check=False)
    assert done.returncode == 2
    assert "--study_head: it learns from labels" in done.stderr


def test_a_head_that_was_deleted_from_a_finished_run_is_made_anew(toy, small_encoder, run):
    table = (run / "predictions.csv").read_bytes()
    (run / "head.npz").unlink()
    again = (*_data(toy), f"--encoder={small_encoder}", "--recipe=few_labels", f"--run_dir={run}")
    assert "head.npz is missing or empty. It is made anew." in run_binary("fit_probe", *again).stdout
    assert (run / "head.npz").is_file()
    assert (run / "predictions.csv").read_bytes() == table


def test_a_run_is_not_called_finished_where_its_encoder_has_been_replaced(toy, small_encoder, tmp_path):
    import shutil

    for name in ("encoder", "other"):
        shutil.copytree(small_encoder, tmp_path / name)
    mine = (*_data(toy), f"--encoder={tmp_path / 'encoder'}", "--recipe=auto", f"--run_dir={tmp_path / 'run'}")
    run_binary("fit_probe", *mine)
    assert "This run is finished" in run_binary("fit_probe", *mine).stdout
    with (tmp_path / "encoder" / "saved_model.pb").open("ab") as file:
        file.write(b"\xf2\x3f\x01a")
    done = run_binary("fit_probe", *mine, check=False)
    assert done.returncode == 1
    assert "belongs to another run. --encoder: what lies there has changed since." in done.stderr
    shutil.rmtree(tmp_path / "encoder")
    (tmp_path / "other").rename(tmp_path / "encoder")
    assert "This run is finished" in run_binary("fit_probe", *mine).stdout


@pytest.mark.parametrize("part", ["variables", "variables/variables.index", "saved_model.pb"])
def test_an_encoder_of_which_a_part_is_gone_is_said_to_be_damaged(part, toy, small_encoder, run, tmp_path):
    import shutil

    encoder, features = tmp_path / "encoder", tmp_path / "features"
    shutil.copytree(small_encoder, encoder)
    shutil.copytree(run / "features", features)
    shutil.copytree(small_encoder, features / "encoder")
    for gone in (encoder / part, features / "encoder" / part):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    flags = (*_data(toy), f"--run_dir={tmp_path / 'run'}")
    done = run_binary("fit_probe", *flags, f"--encoder={encoder}", check=False)
    assert f"--encoder={encoder}: that SavedModel is damaged: a part is missing or empty. Make it anew." in done.stderr
    done = run_binary("fit_probe", *flags, f"--features={features}", check=False)
    assert "the encoder that made these features is not with them" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_is_not_called_finished_where_a_folder_of_weights_has_been_replaced(toy_records, tmp_path):
    weights = tmp_path / "weights"
    (weights / "assets").mkdir(parents=True)
    settings = FitSettings(data_dir=("line",), weights=str(weights), run_dir=str(tmp_path / "run"))

    def finished():
        with opening.opened("fit_probe", settings, toy_records, results=()) as run:
            return run.finished or run.finish("Done.")

    for number, name in enumerate(("config.json", "model.weights.h5", "assets/words.txt")):
        (weights / name).write_text("1")
        if number:
            with pytest.raises(UserError, match="`weights`: what lies there has changed since"):
                finished()
            (weights / name).unlink()
        assert finished() is (True if number else None)


def test_a_word_among_the_weights_is_no_folder_that_happens_to_be_called_so(toy_records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = FitSettings(data_dir=("line",), weights="imagenet", run_dir="run")
    for text in ("1", "2"):
        (tmp_path / "imagenet").write_text(text)
        with opening.opened("fit_probe", settings, toy_records) as run:
            assert run.record["data"]["sources"] == {}
