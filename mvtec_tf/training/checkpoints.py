"""Checkpoints that a killed or stopped run resumes from, whole or not there."""

import os
import pathlib
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas
from mvtec_tf.networks.weights import save_weights
from mvtec_tf.run_directory import difference
from mvtec_tf.stopping import Stopped
from mvtec_tf.training import distribution
from mvtec_tf.training.callbacks import Position

# Counts up when what is in a checkpoint changes its meaning.
LAYOUT = 2
_NETWORK, _OPTIMIZER, _STATE = "network.weights.h5", "optimizer.npz", "state.json"
_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?")


class Stateful(Protocol):
    """Something beside the weights that a resumed run must remember."""

    def state(self) -> dict[str, Any]:
        """JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""


class _Damaged(Exception):
    """A checkpoint is not what was written."""


class Checkpoints(keras.callbacks.Callback):
    """Writes checkpoints and resumes from the newest whole one. Comes last of all callbacks. Of several machines that
    train together the chief writes and reads, and the others have from it what it has read.

    `epoch_NNNN/` is written after every `every` epochs, `epoch_NNNN_step_MMMMMM/`, after so many epochs and steps of
    the next, when `minutes` have passed since the last one, or when a signal asks the run to stop. Each holds the
    network's weights, the optimizer's state, the sums of the epoch's logs, the state of `stateful`, a copy of what is
    `beside`, and the sizes and SHA-256 of these. The learning rate, the order of images, their augmentation and
    dropout are functions of the seed and the position and need none.

    Args:
      directory: of this run.
      network: functional network whose weights are trained.
      position: where the training is; resuming sets it.
      stateful: name -> object to remember.
      beside: files in `directory` that belong to the state, if they are there.
      belongs_to: what decides the run's outcome, JSON values; a checkpoint of anything else is refused.
      every: epochs between two checkpoints; the last epoch always has one.
      minutes: between two checkpoints within an epoch; 0: none there.
      keep: how many are kept, at least 1.
      check: raises an error if the weights are not worth keeping.
      asked: says which signal has asked the run to stop, or None.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        network: keras.Model,
        position: Position,
        stateful: Mapping[str, Stateful],
        *,
        beside: tuple[pathlib.Path, ...] = (),
        belongs_to: Mapping[str, Any] | None = None,
        every: int = 1,
        minutes: float = 0.0,
        keep: int = 1,
        check: Callable[[], None] = lambda: None,
        asked: Callable[[], int | None] = lambda: None,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._network = network
        self._position = position
        self._stateful = stateful
        self._beside = beside
        self._belongs_to = dict(belongs_to or {})
        self._every = every
        self._minutes = minutes
        self._keep = keep
        self._check = check
        self._asked = asked
        self._sums: list[float] = []
        self._saved_at = time.monotonic()

    def resume(self, optimizer: keras.optimizers.Optimizer) -> bool:
        """Restores the newest whole checkpoint and says whether there was one.

        A damaged one that is newer is said and set aside under another name. The optimizer has its variables
        afterwards: a step that had to make them would be traced twice.

        Raises:
          UserError: there are checkpoints and all are damaged, or one is another run's or of another layout.
        """
        optimizer.build(self._network.trainable_variables)
        state, stored = self._read_newest() if distribution.is_chief() else (None, {})
        state = distribution.said_by_chief(state)
        distribution.share(self._network.weights)
        if state is None:
            return False
        # By all machines at once: they talk when the optimizer's step is set.
        stored = stored or {str(index): distribution.local(one) for index, one in enumerate(optimizer.variables)}
        optimizer.load_own_variables({name: distribution.from_chief(value) for name, value in stored.items()})
        for name, item in self._stateful.items():
            item.restore(state[name])
        self._sums = state["sums"]
        self._position.epoch, self._position.step = state["place"]
        return True

    def _read_newest(self) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
        """Takes the weights of the newest whole checkpoint; the rest and the optimizer's state. None: there is none."""
        damaged: dict[pathlib.Path, str] = {}
        for folder in reversed(self._found()):
            try:
                state = self._read(folder)
            except _Damaged as error:
                damaged[folder] = str(error)
                continue
            self._set_aside(damaged, folder)
            return state | {"place": place(folder)}, self._restore(folder, state)
        if damaged:
            listed = "; ".join(f"{folder.name}: {why}" for folder, why in damaged.items())
            raise UserError(
                f"{self._directory}: no checkpoint is whole ({listed}). Put a copy in their place, or remove this "
                "folder to train from the beginning."
            )
        return None, {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook; the sums of an epoch's logs have just been reset."""
        for variable, value in zip(self._logged(), self._sums, strict=False):
            # Each replica gets its share of what it has summed up by itself.
            variable.assign(value * replicas.count())
        self._sums = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        # After the last step the validation images are looked at, and the epoch's checkpoint follows.
        if self._position.step < self._position.steps and ((number := self._asked()) or self._is_time()):
            self._save(self._position.epoch, self._position.step, number)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        done, number = epoch + 1, self._asked()
        is_last = done == self._position.epochs or self.model.stop_training
        if done % self._every == 0 or is_last or number or self._is_time():
            self._save(done, 0, number)

    def kept(self) -> str:
        """What a run that ends here leaves, in words."""
        names = sorted(path.name for path in self._directory.glob("*") if not path.name.startswith("."))
        return f"Kept in {self._directory}: {', '.join(names)}." if names else "There was no checkpoint yet to keep."

    def _is_time(self) -> bool:
        return bool(self._minutes) and time.monotonic() - self._saved_at >= 60 * self._minutes

    def _logged(self) -> list[keras.Variable]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _save(self, epochs: int, steps: int, number: int | None) -> None:
        """Writes the checkpoint after so many epochs and steps; ends the run if a signal asked for it.

        Raises:
          Stopped: it did.
        """
        self._check()
        target = self._directory / (f"epoch_{epochs:04d}" + (f"_step_{steps:06d}" if steps else ""))
        if distribution.is_chief():
            self._write(target, steps)
        if number:
            name, where = signal.Signals(number).name, self._position.in_words()
            saved = f"saved in {target}" if distribution.is_chief() else "saved by the chief"
            raise Stopped(number, f"Stopped by {name} after {where}, which is {saved}.")

    def _write(self, target: pathlib.Path, steps: int) -> None:
        with files.new_directory(target, durable=True) as folder:
            save_weights(self._network, folder / _NETWORK)
            store: dict[str, Any] = {}
            self.model.optimizer.save_own_variables(store)
            np.savez(folder / _OPTIMIZER, **store)
            for file in self._beside:
                if file.exists():
                    _copy(file, folder / file.name)
            state = {
                "layout": LAYOUT,
                "belongs_to": self._belongs_to,
                "files": {file.name: _contents(file) for file in sorted(folder.iterdir())},
                # Within an epoch they are those of its steps so far.
                "sums": [float(distribution.local(variable)) for variable in self._logged()] if steps else [],
                **{name: item.state() for name, item in self._stateful.items()},
            }
            files.write_json(folder / _STATE, state)
        self._saved_at = time.monotonic()
        for older in self._found()[: -self._keep]:
            # In one step under a name that is never read.
            leaving = older.with_name(f".{older.name}.partial")
            older.rename(leaving)
            shutil.rmtree(leaving)

    def _found(self) -> list[pathlib.Path]:
        """The checkpoints, the newest last."""
        named = {path: _NAME.fullmatch(path.name) for path in self._directory.glob("epoch_*")}
        return sorted((path for path, name in named.items() if name), key=place)

    def _read(self, folder: pathlib.Path) -> dict[str, Any]:
        """The state in a checkpoint that is whole and this run's.

        Raises:
          UserError: it is whole, but of another layout or another run.
          _Damaged: it is not whole.
        """
        try:
            state = files.read_json(folder / _STATE)
        except UserError as error:
            raise _Damaged(str(error)) from error
        if state.get("layout") != LAYOUT:
            raise UserError(
                f"{folder}: written in layout {state.get('layout', 1)}, and this version reads layout {LAYOUT}. Finish "
                "the run with the version that began it (run.json names it), or train in a new `run_dir`."
            )
        for name, expected in state["files"].items():
            file = folder / name
            if not file.is_file():
                raise _Damaged(f"{name} is missing")
            if file.stat().st_size != expected["bytes"]:
                raise _Damaged(f"{name} has {file.stat().st_size:,} bytes and not {expected['bytes']:,}")
            if _contents(file) != expected:
                raise _Damaged(f"{name} is not what was written (its SHA-256 differs)")
        if differences := _differences(state["belongs_to"], self._belongs_to):
            raise UserError(
                f"{folder}: a checkpoint of another run. {'; '.join(differences)}. Choose a new `run_dir`, or repeat "
                "that run's settings."
            )
        return state

    def _set_aside(self, damaged: Mapping[pathlib.Path, str], instead: pathlib.Path) -> None:
        for folder, why in damaged.items():
            aside = folder.with_name(f"damaged_{folder.name}")
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)
            print(
                f"{folder} is damaged: {why}. It is called {aside.name} now, and the training goes on from "
                f"{instead.name}.",
                flush=True,
            )

    def _restore(self, folder: pathlib.Path, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Takes the weights and what lies beside them, and returns the optimizer's state."""
        self._network.load_weights(folder / _NETWORK)
        for file in self._beside:
            if file.name in state["files"]:
                with files.replacing(file) as temporary:
                    _copy(folder / file.name, temporary)
        with np.load(folder / _OPTIMIZER, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def place(folder: pathlib.Path) -> tuple[int, int]:
    """Finished epochs, and steps of the next one, of the checkpoint in a folder."""
    epochs, steps = _NAME.fullmatch(folder.name).groups(default="0")
    return int(epochs), int(steps)


def _contents(file: pathlib.Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": files.sha256(file)}


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name of a file that is only ever replaced, or a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    return [difference(name, there, here) for name in names]
