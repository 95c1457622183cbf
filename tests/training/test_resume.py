"""A training that is stopped, killed or hindered at any step goes on from there to the very same end."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
from keras import layers

from mvtec_tf.data import input_pipeline
from mvtec_tf.errors import UserError
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.stopping import Stopped
from mvtec_tf.training import callbacks, loop
from mvtec_tf.training.settings import TrainingSettings

_STEPS, _EPOCHS, _BATCH = 4, 4, 2
_OUTSET = TrainingSettings(epochs=_EPOCHS, batch_size=_BATCH, checkpoint_minutes=0.0)


class _Meddler(keras.callbacks.Callback):
    """Does something after a step, counted from 1 over the steps of its training, and gives KeepBest what it reads."""

    def __init__(self, step=0, what=None):
        super().__init__()
        self._left = step
        self._what = what

    def on_train_batch_end(self, batch, logs=None):
        self._left -= 1
        if self._left == 0:
            self._what()

    def on_epoch_end(self, epoch, logs=None):
        # The second epoch is the best, by a number that no kill can change.
        logs |= {"val_f1": float(epoch == 1), "val_loss": 1.0}


def _train(path, step=0, what=None, record=None, patience=9, **settings):
    """A training of a small network with batch norm and dropout; returns its logs, its weights, and the best ones."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5)]
    )
    network = keras.Model(network.inputs, layers.Dense(1)(network.outputs[0]))
    model = keras.Model(network.inputs, network.outputs)
    model.compile("adamw", "mse", run_eagerly=True)  # a graph takes a second to be made
    run = RunDirectory(path, "train", record or {}, {"fingerprint": "same"}, "")
    images = np.random.default_rng(0).integers(0, 255, (_STEPS * _BATCH, 4, 4, 3), np.uint8)

    def batches(first_epoch, first_step):
        return input_pipeline.training_batches(
            images,
            np.arange(len(images)) % 2,
            _BATCH,
            0,
            lambda pixels, labels, seeds: (pixels / 255, labels + seeds[:, 1] % 3),
            first_epoch=first_epoch,
            first_step=first_step,
            epochs=_EPOCHS,
        )

    best = callbacks.KeepBest(run.checkpoints / "best.weights.h5", network, patience)
    meddler, asked = _Meddler(step, what), dataclasses.replace(_OUTSET, **settings)
    try:
        history = loop.run_epochs(run, model, network, batches, asked, _STEPS, [meddler, best])
    finally:
        run.close()
    weights = network.get_weights()
    network.load_weights(best.file)
    return history, weights, network.get_weights()


def _ask(number):
    return lambda: signal.raise_signal(number)


def _checkpoints(path):
    return sorted(one.name for one in (path / "checkpoints").iterdir() if one.is_dir())


def _assert_equal(ours, theirs):
    assert ours[0] == theirs[0]
    for one, other in zip(ours[1] + ours[2], theirs[1] + theirs[2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a training without a break gives."""
    return _train(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        _train(path, 2 * _STEPS + 2, _ask(signal.SIGTERM))
    assert _checkpoints(path) == ["epoch_0002", "epoch_0002_step_000002"]
    return path


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The directory of a run that was stopped after step 2 of epoch 3, with one checkpoint more."""
    return shutil.copytree(stopped_once, tmp_path / "run")


@pytest.fixture
def no_job_of_a_shell():
    """A shell starts background jobs with Ctrl-C ignored, which the program respects: not so here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 1), (signal.SIGINT, _STEPS + 3), (signal.SIGINT, 2 * _STEPS), (signal.SIGTERM, _EPOCHS * _STEPS)],
)
def test_a_signal_in_any_step_saves_it_and_the_end_is_that_without_a_signal(
    whole, tmp_path, capfd, no_job_of_a_shell, number, step
):
    epoch, of_epoch = divmod(step - 1, _STEPS)
    where = f"step {of_epoch + 1}/4 of epoch {epoch + 1}/4"
    with pytest.raises(Stopped, match=rf"^Stopped by {number.name} after {where}, which is saved in .*epoch_") as ended:
        _train(tmp_path / "run", step, _ask(number))
    assert ended.value.number == number
    assert f"{number.name}: the step is finished and saved. A second" in capfd.readouterr().err
    assert signal.getsignal(number) is (signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    _assert_equal(_train(tmp_path / "run"), whole)
    after = where if of_epoch + 1 < _STEPS else f"epoch {epoch + 1}"
    assert f"Resumed from the checkpoint after {after}." in capfd.readouterr().out


def test_a_second_signal_is_no_longer_waited_with(tmp_path):
    seen = []

    def ask():
        signal.raise_signal(signal.SIGTERM)
        seen.append(signal.getsignal(signal.SIGTERM))

    with pytest.raises(Stopped):
        _train(tmp_path / "run", 1, ask)
    assert seen == [signal.SIG_DFL]


def test_a_run_that_is_stopped_again_and_again_comes_to_the_same_end(whole, tmp_path):
    for _ in range(_EPOCHS):
        try:
            ended = _train(tmp_path / "run", 5, _ask(signal.SIGTERM), keep_checkpoints=1)
        except Stopped:
            assert len(_checkpoints(tmp_path / "run")) == 1
            continue
        break
    _assert_equal(ended, whole)


def test_minutes_that_have_passed_are_saved_within_an_epoch_and_the_newest_are_kept(whole, tmp_path):
    ended = _train(tmp_path / "run", checkpoint_minutes=1e-9, keep_checkpoints=3)
    _assert_equal(ended, whole)
    assert _checkpoints(tmp_path / "run") == ["epoch_0003_step_000002", "epoch_0003_step_000003", "epoch_0004"]


def test_early_stopping_is_remembered_from_within_an_epoch(tmp_path):
    alone = _train(tmp_path / "whole", patience=1)
    assert len(alone[0]) == 3 < _EPOCHS
    with pytest.raises(Stopped):
        _train(tmp_path / "run", 2 * _STEPS + 1, _ask(signal.SIGTERM), patience=1)
    (tmp_path / "run" / "checkpoints" / "best.weights.h5").unlink()  # a checkpoint has its own
    _assert_equal(_train(tmp_path / "run", patience=1), alone)
    _assert_equal(_train(tmp_path / "run", patience=1), alone)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("network.weights.h5", "truncated"),
        ("optimizer.npz", "changed"),
        ("optimizer.npz", "missing"),
        ("state.json", "truncated"),
        ("best.weights.h5", "longer"),
    ],
)
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(whole, stopped, capsys, name, how):
    file = stopped / "checkpoints" / "epoch_0002_step_000002" / name
    content = bytearray(file.read_bytes())
    file.unlink()  # the best weights have a second name
    content[len(content) // 2] ^= 1
    changed = {"truncated": content[:-100], "changed": content, "longer": content + b"x"}
    if how != "missing":
        file.write_bytes(changed[how])
    _assert_equal(_train(stopped), whole)
    said = capsys.readouterr().out
    assert f"epoch_0002_step_000002 is damaged: {name}" in said.replace(f"{file.parent}/", "")
    assert "goes on from epoch_0002." in said
    assert "Resumed from the checkpoint after epoch 2." in said
    assert "damaged_epoch_0002_step_000002" in _checkpoints(stopped)


def _tree(path):
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def test_checkpoints_that_are_all_damaged_are_refused_and_left(stopped):
    for folder in (stopped / "checkpoints").glob("epoch_*"):
        os.truncate(folder / "optimizer.npz", 10)
    before = _tree(stopped / "checkpoints")
    with pytest.raises(UserError, match=r"no checkpoint is whole .*optimizer.npz has 10 bytes and not .* remove this"):
        _train(stopped)
    assert _tree(stopped / "checkpoints") == before


@pytest.mark.parametrize(("layout", "said"), [(None, "layout 1"), (99, "layout 99")])
def test_a_checkpoint_of_another_layout_is_refused_and_left(stopped, layout, said):
    file = stopped / "checkpoints" / "epoch_0002_step_000002" / "state.json"
    state = json.loads(file.read_text())
    del state["layout"]
    file.write_text(json.dumps(state | ({"layout": layout} if layout else {})))
    before = _tree(stopped / "checkpoints")
    with pytest.raises(UserError, match=f"written in {said}, and this version reads layout 2"):
        _train(stopped)
    assert _tree(stopped / "checkpoints") == before


def test_a_checkpoint_of_other_settings_is_refused_and_left(stopped, tmp_path):
    """As somebody would copy it into another run; that the run itself is another one is seen before, by run.json."""
    other = tmp_path / "other"
    RunDirectory(other, "train", {"seed": 1, "batch_size": 2}, {"fingerprint": "same"}, "").close()
    shutil.copytree(stopped / "checkpoints", other / "checkpoints")
    with pytest.raises(UserError, match=r"another run. `batch_size`: None there, 2 here; `seed`: None there, 1 here"):
        _train(other, record={"seed": 1, "batch_size": 2})
    assert _checkpoints(other) == _checkpoints(stopped)


@pytest.mark.parametrize("step", [1, 2 * _STEPS + 1])
def test_a_disk_that_is_full_while_saving_leaves_the_last_checkpoint(whole, tmp_path, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def ask():
        monkeypatch.setattr(np, "savez", full)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(OSError, match="No space left"):
        _train(tmp_path / "run", step, ask)
    left = list((tmp_path / "run" / "checkpoints").glob("epoch_*"))
    assert [one.name for one in left] == ([] if step == 1 else ["epoch_0001", "epoch_0002"])
    assert not list((tmp_path / "run").rglob("*partial*"))
    monkeypatch.undo()
    _assert_equal(_train(tmp_path / "run"), whole)


def test_weights_that_are_no_numbers_are_saved_at_no_step(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_is_finite", lambda weight: False)
    with pytest.raises(callbacks.Diverged, match="diverged in step 2/4 of epoch 1/4"):
        _train(tmp_path / "run", 2, _ask(signal.SIGTERM))
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_a_run_that_is_resumed_with_another_keras_or_number_format_says_so(tmp_path, capsys):
    for name in ("first", "second"):
        run = RunDirectory(tmp_path / "run", "train", {}, {"fingerprint": "same"}, "")
        loop._say_other_machine(run, "float32")
        run.note(network={"precision": "precision: mixed_bfloat16; XLA: off."})
        run.note(versions=run.record["versions"] | {"keras": "3.0"})
        run.close()
        said = capsys.readouterr().out
        assert (said != "") == (name == "second")
    assert "begun with precision mixed_bfloat16 (now float32), keras 3.0 (now" in said


@pytest.mark.parametrize("seed", [0, 7, sys.maxsize // 1000])
def test_dropout_is_a_function_of_seed_and_position(seed):
    network = keras.Sequential([keras.Input((100,)), layers.Dropout(0.5)])
    position = callbacks.Position(10_000, 10)
    fresh = callbacks.FreshDropout(network, seed, position)

    def masks(epoch, step):
        position.epoch, position.step = epoch, step
        fresh.on_train_batch_begin(0)
        return network(np.ones((1, 100)), training=True).numpy().tobytes()

    assert masks(3, 4) == masks(3, 4)
    assert len({masks(epoch, step) for epoch in (0, 1, 5000) for step in (0, 1)}) == 6
