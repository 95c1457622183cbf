"""A run directory resumes its own run, refuses others, and never holds half a file."""

import hashlib
import json
import threading

import pytest

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.run_directory import RunDirectory, read_finished, read_run

DATA = {"fingerprint": "abc", "images": 3}


def _open(path, binary="train_cnn", settings=None, data=DATA):
    return RunDirectory(path, binary, settings or {"seed": 0, "epochs": 5}, data, "--seed=0\n")


def test_a_new_run_says_what_it_is(tmp_path):
    run = _open(tmp_path / "run")
    record = read_run(run.path)
    assert not run.resumed
    assert record["settings"] == {"seed": 0, "epochs": 5}
    assert record["versions"]["keras"]
    assert (run.path / "flags.txt").read_text() == "--seed=0\n"


def test_the_same_call_resumes_and_knows_when_it_is_finished(tmp_path):
    _open(tmp_path / "run").finish("Done.")
    again = _open(tmp_path / "run")
    assert again.resumed
    assert again.finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"seed": 1, "epochs": 5}}, "`seed`: 0 there, 1 here"),
        (
            {"binary": "train_simclr", "settings": {"method": "simclr"}, "data": {"fingerprint": "other"}},
            "another run. It is one of `train_cnn`, this is `train_simclr`. Choose",
        ),
        ({"data": {"fingerprint": "other"}}, "images, their labels or other files that it reads are not the same"),
        (
            {"data": DATA | {"sources": {"encoder": "2"}}},
            "another run. `encoder`: what lies there has changed since. "
            "Choose a new directory, or put back what lay there to resume it.",
        ),
        (
            {"data": DATA | {"sources": {"encoders=a=b": "2"}}, "settings": {"seed": 1, "epochs": 5}},
            "1 here; `encoders`=a=b: what lies there has changed since. "
            "Choose a new directory, or repeat that run's flags and put back what lay there to resume it.",
        ),
    ],
)
def test_another_recipe_or_other_data_is_refused(tmp_path, change, message):
    _open(tmp_path / "run", data=DATA | {"sources": {"encoder": "1", "encoders=a=b": "1"}})
    with pytest.raises(UserError, match=message):
        _open(tmp_path / "run", **change)


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no run\.json"):
        _open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_path_below_a_file_is_a_clear_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        _open(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="in the way"):
        _open(tmp_path / "file")


def test_a_broken_record_is_named(tmp_path):
    _open(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json"):
        _open(tmp_path / "run")


def test_what_a_killed_write_left_is_removed_on_resume(tmp_path):
    run = _open(tmp_path / "run")
    run.close()
    (run.path / ".123.partial.predictions.csv").write_text("half")
    (run.path / "checkpoints" / ".epoch_0002.partial.x").mkdir(parents=True)
    _open(tmp_path / "run")
    assert not [path for path in run.path.rglob("*partial*")]


def test_timings_add_up_over_calls_and_a_stopped_one_counts(tmp_path):
    with pytest.raises(KeyboardInterrupt), _open(tmp_path / "run").timed("train"):
        raise KeyboardInterrupt
    assert list(read_run(tmp_path / "run")["timings_seconds"]) == ["train"]
    for _ in range(2):
        with _open(tmp_path / "run").timed("train"):
            pass
    assert list(read_run(tmp_path / "run")["timings_seconds"]) == ["train"]


def test_a_run_that_was_refused_at_once_is_as_if_it_had_never_been(tmp_path):
    run = _open(tmp_path / "run")
    (run.tensorboard / "images").mkdir(parents=True)
    run.discard_if_unused()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    _open(tmp_path / "run").discard_if_unused()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("work", ["checkpoints", "saved_model", "predictions.csv", "cells"])
def test_a_run_that_came_to_something_is_kept(tmp_path, work):
    run = _open(tmp_path / "run")
    (run.path / work).mkdir()
    run.discard_if_unused()
    assert (run.path / "run.json").exists()


def test_a_resumed_run_is_kept(tmp_path):
    _open(tmp_path / "run")
    _open(tmp_path / "run").discard_if_unused()
    assert read_run(tmp_path / "run")["status"] == "running"


def _with_features(tmp_path):
    run = _open(tmp_path / "run")
    shard = run.path / "features" / "shard_00000"
    shard.mkdir(parents=True)
    (shard / "pooled.npy").write_bytes(b"an hour's work")
    return run, shard


def test_a_refusal_after_the_features_keeps_them_and_the_right_flag_goes_on_with_them(tmp_path):
    run, shard = _with_features(tmp_path)
    run.discard_if_unused()
    assert (shard / "pooled.npy").exists()
    right = RunDirectory(run.path, "train_cnn", {"seed": 0, "epochs": 6}, DATA, "--epochs=6\n", of_features=["seed"])
    assert right.record["settings"]["epochs"] == 6
    assert read_run(run.path)["settings"]["epochs"] == 6
    assert (run.path / "flags.txt").read_text() == "--epochs=6\n"
    assert (shard / "pooled.npy").exists()


@pytest.mark.parametrize("further", ["checkpoints", "saved_model", "predictions.csv"])
def test_features_that_were_made_otherwise_or_used_already_are_not_gone_on_with(tmp_path, further):
    run, _ = _with_features(tmp_path)
    run.close()
    with pytest.raises(UserError, match="`seed`: 0 there, 1 here"):
        RunDirectory(run.path, "train_cnn", {"seed": 1, "epochs": 5}, DATA, "", of_features=["seed"])
    (run.path / further).mkdir()
    with pytest.raises(UserError, match="`epochs`: 5 there, 6 here"):
        RunDirectory(run.path, "train_cnn", {"seed": 0, "epochs": 6}, DATA, "", of_features=["seed"])


@pytest.mark.parametrize("damage", ["deleted", "emptied", "graph deleted", "index emptied", "numbers deleted"])
def test_what_is_damaged_of_a_finished_run_is_named_by_it_and_by_what_is_made_of_it(tmp_path, damage):
    run = _open(tmp_path / "run")
    (run.saved_model / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (run.saved_model / name).write_text("x")
    run.predictions.write_text("path,label\n")
    files.write_json(run.path / "metrics.json", {})
    assert run.damaged(["saved_model", "predictions.csv"]) == []
    run.note(status="finished")
    assert read_finished(run.path)["status"] == "finished"
    if damage == "deleted":
        run.predictions.unlink()
    elif damage == "emptied":
        run.predictions.write_text("")
    elif damage == "graph deleted":
        (run.saved_model / "saved_model.pb").unlink()
    elif damage == "index emptied":
        (run.saved_model / "variables" / "variables.index").write_text("")
    else:
        (run.saved_model / "variables" / "variables.data-00000-of-00001").unlink()
    of_the_table = damage in ("deleted", "emptied")
    named = "predictions.csv" if of_the_table else "saved_model"
    with pytest.raises(UserError, match=rf"damaged: {named} missing, empty or in part gone. Its command, repeated"):
        read_finished(run.path)
    assert run.damaged(["saved_model", "predictions.csv"]) == [named]
    # A model that is there in part would be taken for a whole one.
    assert run.saved_model.exists() == of_the_table


def test_a_file_is_hashed_once_as_long_as_it_is_the_same(tmp_path, monkeypatch):
    file, read = tmp_path / "image.png", []
    file.write_bytes(b"one")
    real = files.hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *args: read.append(1) or real(*args))
    assert files.sha256(file) == files.sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    file.write_bytes(b"two, longer")
    assert files.sha256(file) == hashlib.sha256(b"two, longer").hexdigest()
    file.unlink()
    with pytest.raises(UserError, match=r"image\.png: cannot be read"):
        files.sha256(file)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "metrics.json"
    files.write_json(target, {"f1": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(target, {"f1": float("nan")})
    assert json.loads(target.read_text()) == {"f1": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_that_was_locked_for_nothing_is_taken_away_and_who_waited_for_it_has_it_again(tmp_path):
    folder = tmp_path / "name"
    waited = threading.Thread(target=lambda: _filled(folder))

    def refused():
        with files.alone_in(folder):
            waited.start()
            # Long enough for the other one to wait for the lock, if it gets so far.
            waited.join(0.2)
            raise UserError("refused")

    with pytest.raises(UserError, match="refused"):
        refused()
    waited.join()
    assert [one.name for one in folder.iterdir()] == ["file"]
    with pytest.raises(UserError), files.alone_in(folder):
        raise UserError("what was there before stays")
    assert folder.is_dir()
    with pytest.raises(UserError), files.alone_in(tmp_path / "other"):
        raise UserError("nothing is left")
    assert [one.name for one in tmp_path.iterdir()] == ["name"]


def _filled(folder):
    with files.alone_in(folder):
        (folder / "file").write_text("")


def test_a_failed_directory_is_not_there(tmp_path):
    def write_half():
        with files.new_directory(tmp_path / "1") as directory:
            (directory / "half").write_text("x")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_never_replaced(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(FileExistsError), files.new_directory(tmp_path / "1"):
        pass
