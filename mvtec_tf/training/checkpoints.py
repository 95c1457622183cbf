"""Checkpoints that a killed run resumes from, whole or not there."""

import pathlib
import shutil
from typing import Any, Protocol

import numpy as np

from mvtec_tf import files
from mvtec_tf.keras_settings import keras


class Stateful(Protocol):
    """Something beside the weights that a resumed run must remember."""

    def state(self) -> dict[str, Any]:
        """JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""


class Checkpoints(keras.callbacks.Callback):
    """Writes `epoch_NNNN/` after every `every` epochs and keeps the newest.

    Each holds the network's weights, the optimizer's state, and the state of `stateful`. The
    learning rate, the order of images and their augmentation are functions of the step and need none.

    Args:
      directory: of this run.
      network: functional network whose weights are trained.
      stateful: name -> object to remember.
      every: epochs between two checkpoints; the last epoch always has one.
      epochs: of the whole run.
    """

    def __init__(
        self, directory: pathlib.Path, network: keras.Model, stateful: dict[str, Stateful], every: int, epochs: int
    ) -> None:
        super().__init__()
        self._directory = directory
        self._network = network
        self._stateful = stateful
        self._every = every
        self._epochs = epochs

    def resume(self, optimizer: keras.optimizers.Optimizer) -> int:
        """Restores the newest checkpoint, if there is one, and returns the number of finished epochs."""
        found = self._found()
        if not found:
            return 0
        newest = found[-1]
        self._network.load_weights(newest / "network.weights.h5")
        optimizer.build(self._network.trainable_variables)
        with np.load(newest / "optimizer.npz", allow_pickle=False) as stored:
            optimizer.load_own_variables({name: stored[name] for name in stored.files})
        state = files.read_json(newest / "state.json")
        for name, item in self._stateful.items():
            item.restore(state[name])
        return int(newest.name.removeprefix("epoch_"))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        done = epoch + 1
        if done % self._every and done != self._epochs and not self.model.stop_training:
            return
        older = self._found()
        target = self._directory / f"epoch_{done:04d}"
        with files.new_directory(target) as directory:
            self._network.save_weights(directory / "network.weights.h5")
            store: dict[str, Any] = {}
            self.model.optimizer.save_own_variables(store)
            np.savez(directory / "optimizer.npz", **store)
            files.write_json(directory / "state.json", {name: item.state() for name, item in self._stateful.items()})
        for directory in older:
            shutil.rmtree(directory)

    def kept(self) -> str:
        """What a run that ends here leaves, in words."""
        names = sorted(path.name for path in self._directory.glob("*") if not path.name.startswith("."))
        return f"Kept in {self._directory}: {', '.join(names)}." if names else "There was no checkpoint yet to keep."

    def _found(self) -> list[pathlib.Path]:
        return sorted(self._directory.glob("epoch_*"))
