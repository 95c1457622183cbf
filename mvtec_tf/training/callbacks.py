"""What happens around the epochs: validation, early stopping, fresh dropout, progress."""

import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.weights import save_weights
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import distribution


class Diverged(UserError):
    """The numbers of a training are no numbers any more."""


class Position(keras.callbacks.Callback):
    """Where a training is, also after a resume within an epoch. Comes first of all callbacks.

    Args:
      epochs: of the whole run.
      steps: per epoch.

    Attributes:
      epoch: the one that is trained, counted from 0.
      step: finished steps of it.
    """

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.epoch = self.step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook. In the epoch of a resume the steps of before count."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook; Keras counts a resumed epoch's batches from 0."""
        self.step += 1

    def in_words(self) -> str:
        """Such as "step 3/40 of epoch 2/7"."""
        return f"step {self.step}/{self.steps} of epoch {self.epoch + 1}/{self.epochs}"


class StopIfDiverged(keras.callbacks.Callback):
    """Ends a training whose loss or weights are no longer finite, before anything of it is kept.

    Comes before the others: none of them sees, averages or writes such numbers.

    Args:
      network: whose weights are trained.
      position: where the training is.
    """

    def __init__(self, network: keras.Model, position: Position) -> None:
        super().__init__()
        self._network = network
        self._position = position
        self._last = ""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        values = {name: float(np.mean(value)) for name, value in (logs or {}).items()}
        self._raise([f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)])
        if self._position.step == self._position.steps:
            self.check_weights()
        named = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._last = f"{named} (step {self._position.step} of epoch {self._position.epoch + 1})"

    def check_weights(self) -> None:
        """Raises Diverged if a weight is not finite: the last step's loss is that of the weights before it."""
        self._raise([f"{weight.path} is not finite" for weight in self._network.weights if not _is_finite(weight)])

    def _raise(self, wrong: list[str]) -> None:
        if wrong:
            raise Diverged(
                f"The training diverged in {self._position.in_words()}: {wrong[0]}. The last finite values: "
                f"{self._last or 'none, it was the first step'}."
            )


def _is_finite(weight: keras.Variable) -> bool:
    return bool(np.all(np.isfinite(keras.ops.convert_to_numpy(weight))))


class ValidationMetrics(keras.callbacks.Callback):
    """Adds `val_loss`, `val_f1`, `val_specificity` and `val_roc_auc` to the logs of every epoch.

    F1 and specificity are taken where defective is the likelier class, as the study did; the
    threshold of the finished model is chosen later, from the same images.

    Args:
      images: uint8 [N, S, S, 3].
      labels: int [N].
      class_weights: [2], those of the training loss.
      batch_size: of the forward passes.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_weights: np.ndarray, batch_size: int) -> None:
        super().__init__()
        self._images = images
        self._labels = labels
        self._weights = np.asarray(class_weights)[labels]
        self._batch_size = batch_size

    def set_model(self, model: keras.Model) -> None:
        """Keras' hook."""
        super().set_model(model)
        self._predict = distribution.predictor(model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook; callbacks that come later in the list see the added logs."""
        logits = self._predict(self._images, self._batch_size).astype(np.float64)
        scores = logits[:, 1] - logits[:, 0]
        if not np.all(np.isfinite(scores)):
            raise Diverged(f"The training diverged in epoch {epoch + 1}: the validation images' logits are not finite.")
        # log(1 + exp(-x)) of the right class's log-odds is the two-class cross-entropy.
        losses = np.logaddexp(0.0, np.where(self._labels, -scores, scores))
        calls = scores >= 0
        good = self._labels == 0
        logs["val_loss"] = float(np.average(losses, weights=self._weights))
        logs["val_f1"] = float(metrics.f1_score(self._labels, calls, zero_division=0))
        logs["val_specificity"] = float(np.mean(~calls[good]))
        logs["val_roc_auc"] = float(metrics.roc_auc_score(self._labels, scores))


class KeepBest(keras.callbacks.Callback):
    """Early stopping on validation F1, ties broken by validation loss; keeps the best weights in a file.

    Unlike Keras' own, its memory survives a resume. On few validation images F1 takes few values,
    so that most epochs tie; the loss then says which of them is surer.

    Args:
      file: where the best weights are written.
      network: whose weights.
      patience: epochs without a better one before the run stops.
    """

    def __init__(self, file: pathlib.Path, network: keras.Model, patience: float) -> None:
        super().__init__()
        self.file = file
        self._network = network
        self._patience = patience
        self.best = (-math.inf, -math.inf)
        self.best_epoch = 0
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        self._take((logs["val_f1"], -logs["val_loss"]), epoch)

    def _take(self, value: Any, epoch: int) -> None:
        """Keeps the weights if the value is the best so far, and stops after too long without one."""
        if value > self.best:
            self.best, self.best_epoch = value, epoch + 1
            self._keep()
        elif epoch + 1 - self.best_epoch >= self._patience:
            self.stopped = self.model.stop_training = True

    def _keep(self) -> None:
        with files.replacing(self.file) as temporary:
            save_weights(self._network, temporary)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        best = list(self.best) if self.best_epoch else None
        return {"best": best, "best_epoch": self.best_epoch, "stopped": self.stopped}

    def restore(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.best = tuple(state["best"]) if state["best"] else (-math.inf, -math.inf)
        self.best_epoch, self.stopped = state["best_epoch"], state["stopped"]


class KeepBestOnline(KeepBest):
    """Says after every epoch what heads make of the network's features, and keeps the best weights in a file.

    The starting weights take part: where no epoch is better, they are the best.

    Args:
      file: where the weights are written.
      network: whose weights.
      watch: gives name -> value, the higher the better, of the network as it is now.
      by: name of the value that decides.
      trained: whether weights of an epoch may be kept; otherwise the starting ones are.
      patience: epochs without a better one before the run stops.

    Attributes:
      start: what `watch` gave before the first epoch.
      best_epoch: whose weights are in the file, counted from 1; 0: the starting ones.
      stopped: whether patience ended the run.
    """

    def __init__(
        self,
        file: pathlib.Path,
        network: keras.Model,
        watch: Callable[[], dict[str, float]],
        by: str,
        trained: bool,
        patience: float = math.inf,
    ) -> None:
        super().__init__(file, network, patience)
        self._watch = watch
        self._by = by
        self._trained = trained
        self.start: dict[str, float] = {}
        self.best = -math.inf

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keras' hook. A resumed training knows what it started from."""
        if not self.start:
            self.start = self._watch()
            self.best = self.start[self._by]
            print("start  " + "  ".join(f"{name} {value:.4f}" for name, value in self.start.items()), flush=True)
            self._keep()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook; callbacks that come later in the list see the added logs."""
        values = self._watch()
        logs |= values | {f"{name}_above_start": value - self.start[name] for name, value in values.items()}
        self._take(values[self._by] if self._trained else -math.inf, epoch)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"start": self.start, "best": self.best, "best_epoch": self.best_epoch, "stopped": self.stopped}

    def restore(self, state: dict[str, Any]) -> None:
        """From the checkpoint, also of a version that stopped none."""
        self.start, self.best, self.best_epoch = state["start"], state["best"], state["best_epoch"]
        self.stopped = state.get("stopped", False)

    def note(self, run: RunDirectory, history: Sequence[dict[str, float]], epoch: int, in_vain: str) -> None:
        """Says and notes which encoder is kept.

        Args:
          run: where it is noted.
          history: the logs of every epoch.
          epoch: whose weights are kept; 0: the starting ones.
          in_vain: what is added where these are kept.
        """
        words = f"the encoder after epoch {epoch} of {len(history)}" if epoch else "the encoder that it started from"
        reached = history[epoch - 1][self._by] if epoch else self.start[self._by]
        words = f"Kept: {words} ({self._by} {reached:.4f}, at the start {self.start[self._by]:.4f})."
        words += "" if epoch else in_vain
        print(words, flush=True)
        run.note(online={"start": self.start, "kept_epoch": epoch, "words": words})


class FreshDropout(keras.callbacks.Callback):
    """Makes each step's dropout a function of (seed, epoch, step), because Keras does not save its generators.

    Args:
      network: whose dropout.
      seed: random seed.
      position: where the training is.
    """

    def __init__(self, network: keras.Model, seed: int, position: Position) -> None:
        super().__init__()
        layers = network._flatten_layers(include_self=False, recursive=True)
        self._generators = [layer.seed_generator for layer in layers if hasattr(layer, "seed_generator")]
        self._seed = seed
        self._position = position

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        # A million steps an epoch keep clear of the next.
        count = self._position.epoch * 2**20 + self._position.step
        for number, generator in enumerate(self._generators):
            # The generator's state is two uint32.
            generator.state.assign(np.array([self._seed * 1000 + number, count]) % 2**32)


class History(keras.callbacks.Callback):
    """The logs of every epoch, those before a resume among them."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        self.epochs.append({name: float(np.mean(value)) for name, value in (logs or {}).items()})

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"epochs": self.epochs}

    def restore(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.epochs = state["epochs"]


class Progress(keras.callbacks.Callback):
    """One line an epoch, and one every ten seconds within a long one, with the time left."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self._position = position

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        self._start = self._spoke = time.monotonic()
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        self._done += 1
        step, steps = self._position.step, self._position.steps
        if time.monotonic() - self._spoke > 10 and step < steps:
            self._say(f"step {step}/{steps}", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        self._say("done", logs)

    def _say(self, what: str, logs: dict[str, float] | None) -> None:
        self._spoke = time.monotonic()
        at = self._position
        steps_left = (at.epochs - at.epoch) * at.steps - at.step
        left = (self._spoke - self._start) / self._done * steps_left
        values = "  ".join(f"{name} {float(np.mean(value)):.4g}" for name, value in (logs or {}).items())
        most = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        print(f"epoch {at.epoch + 1}/{at.epochs} {what}  {values}  at most {most} left", flush=True)
