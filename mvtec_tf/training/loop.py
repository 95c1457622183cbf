"""The loop around any model: compile, resume, fit, log."""

import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import stopping
from mvtec_tf.data import input_pipeline
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import architecture, replicas
from mvtec_tf.networks.backbone import Backbone, build_backbone, freeze_up_to
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import callbacks, distribution, precision
from mvtec_tf.training.checkpoints import Checkpoints, Stateful
from mvtec_tf.training.settings import LoopSettings, TrainingSettings


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and makes TensorFlow's ops repeat to the bit."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def build(
    run: RunDirectory,
    settings: LoopSettings,
    make: Callable[[], tuple[keras.Model, Backbone, dict[str, str]]],
    images: int,
) -> tuple[keras.Model, Backbone, bool]:
    """Makes the network of a run in its number format, and prints and notes what it is.

    Args:
      run: where it is noted.
      settings: of the training.
      make: gives the network, the backbone that it is built on, and more facts about it in words.
      images: how many it is trained on.

    Returns:
      The network, its backbone, and whether its steps are compiled with XLA.
    """
    make_deterministic(settings.seed)
    number_format = precision.resolve_precision(settings.precision)
    # Steps of several replicas are not compiled: what they ask of one another is no part of such a step.
    jit = precision.resolve_jit(settings.jit) and replicas.count() == 1
    with precision.dtype_policy(number_format):
        network, backbone, more = make()
    facts = {
        "weights": backbone.weights.describe() if backbone.weights else f"weights: {settings.weights}.",
        **more,
        "precision": f"precision: {number_format}; XLA: {'on' if jit else 'off'}.",
    }
    if settings.epochs:
        together = f", by {replicas.count()} replicas" if replicas.count() > 1 else ""
        facts["batch"] = f"batch: {settings.batch_size} of {images} images{together}."
    print("\n".join(facts.values()), flush=True)
    _say_other_machine(run, number_format)
    run.note(network=facts, architecture=architecture.describe(network, backbone.stages))
    return network, backbone, jit


def backbone_of(settings: TrainingSettings, **more: Any) -> Backbone:
    """The backbone that the settings name; `more` goes to `build_backbone`."""
    return build_backbone(
        settings.backbone, settings.image_size, settings.weights, weights_partial=settings.weights_partial, **more
    )


def freeze(model: keras.Model, backbone: Backbone, trainable_stages: int) -> dict[str, str]:
    """Freezes as `freeze_up_to`; what is frozen, in words, as `build` prints it."""
    frozen = freeze_up_to(model, backbone, trainable_stages)
    ends = f" ({frozen[0]} ... {frozen[-1]})" if frozen else ""
    return {"frozen": f"frozen: {len(frozen)} layers{ends}."}


def batches_of(
    images: np.ndarray, labels: np.ndarray, settings: LoopSettings, transform: Callable[..., tuple], **more: Any
) -> tf.data.Dataset:
    """This machine's part of a run's batches, see `input_pipeline.training_batches`, which `more` goes to."""
    return input_pipeline.training_batches(
        images,
        labels,
        settings.batch_size,
        settings.seed,
        transform,
        epochs=settings.epochs,
        replicas=replicas.count(),
        mine=distribution.mine(),
        **more,
    )


def _say_other_machine(run: RunDirectory, number_format: str) -> None:
    """Says what a resumed run was begun with, where it is another number format, TensorFlow or Keras now."""
    if "network" not in run.record:
        return
    now = {"precision": number_format} | {name: metadata.version(name) for name in ("tensorflow", "keras")}
    then = run.record["versions"] | {"precision": run.record["network"]["precision"].split(": ")[1].split(";")[0]}
    if differences := [f"{name} {then[name]} (now {now[name]})" for name in now if now[name] != then[name]]:
        print(
            f"Note: this run was begun with {', '.join(differences)}. It goes on, but its end may differ in the last "
            "digits from that of a run without a break.",
            flush=True,
        )


def run_epochs(
    run: RunDirectory,
    model: keras.Model,
    network: keras.Model,
    batches: Callable[[int, int], tf.data.Dataset],
    settings: LoopSettings,
    steps: int,
    extra: list[keras.callbacks.Callback],
) -> list[dict[str, float]]:
    """Trains, from the newest checkpoint if there is one.

    Args:
      run: where checkpoints and logs go.
      model: compiled; `fit` is called on it.
      network: the functional network inside (or `model` itself), whose weights are all that a checkpoint keeps: what
        else is trained or averaged must lie inside it.
      batches: first epoch, first step in it -> dataset of all batches from there to the end of the run.
      settings: of the training; its seed is that of dropout here, order and augmentation have it already.
      steps: per epoch.
      extra: callbacks that run before the logs are written; those with a `state` are remembered,
        and so is the `file` of one that has a file.

    Returns:
      The logs of every epoch.

    Raises:
      Diverged: a loss, a weight or a validation score is not finite any more.
      Stopped: a signal asked for it; the step was finished and saved.
      UserError: the checkpoints are damaged, or another run's.
    """
    history, position = callbacks.History(), callbacks.Position(settings.epochs, steps)
    watch = callbacks.StopIfDiverged(network, position)
    stateful: dict[str, Stateful] = {"history": history}
    stateful |= {type(item).__name__: item for item in extra if hasattr(item, "restore")}
    with stopping.noted("the step is finished and saved.") as asked:
        checkpoints = Checkpoints(
            run.checkpoints,
            network,
            position,
            stateful,
            beside=tuple(item.file for item in extra if hasattr(item, "file")),
            belongs_to=run.record["settings"] | {"images": run.record["data"]["fingerprint"]},
            every=settings.checkpoint_every,
            minutes=settings.checkpoint_minutes,
            keep=settings.keep_checkpoints,
            check=watch.check_weights,
            asked=lambda: distribution.by_any(asked()),
        )
        if checkpoints.resume(model.optimizer):
            after = position.in_words() if position.step else f"epoch {position.epoch}"
            print(f"Resumed from the checkpoint after {after}.", flush=True)
        around = [
            position,
            watch,
            callbacks.FreshDropout(network, settings.seed, position),
            *extra,
            history,
            callbacks.Progress(position),
            _TensorBoard(str(run.tensorboard)),
            checkpoints,
        ]
        try:
            if not any(getattr(item, "stopped", False) for item in extra):
                _fit(model, batches, position, around)
        except callbacks.Diverged as error:
            raise callbacks.Diverged(
                f"{error} {checkpoints.kept()} Repeat it in a new `run_dir` with a lower `learning_rate`."
            ) from error
    return history.epochs


def _fit(
    model: keras.Model,
    batches: Callable[[int, int], tf.data.Dataset],
    position: callbacks.Position,
    around: list[keras.callbacks.Callback],
) -> None:
    """Trains from a position to the end; the rest of an epoch that was begun is a call of its own."""
    started, first, step, fit = time.monotonic(), position.epoch, position.step, distribution.fitter(model)
    parts = [(first, first + 1, step), (first + 1, position.epochs, 0)] if step else [(first, position.epochs, 0)]
    for start, end, done in parts:
        if start >= end or model.stop_training:
            break
        fit(
            batches(start, done),
            initial_epoch=start,
            epochs=end,
            steps_per_epoch=position.steps - done,
            callbacks=around,
        )
    if first < position.epochs:
        print(f"Trained epochs {first + 1} to {position.epoch + 1} in {time.monotonic() - started:.0f} s.")


def log_images(run: RunDirectory, images: dict[str, np.ndarray]) -> None:
    """Puts batches of uint8 images [N, S, S, 3] into TensorBoard, so that a person sees what the network sees."""
    with tf.summary.create_file_writer(str(run.tensorboard)).as_default():
        for name, batch in images.items():
            tf.summary.image(name, batch, step=0, max_outputs=16)


class _TensorBoard(keras.callbacks.Callback):
    """The logs of every epoch and the learning rate as scalars `curves/NAME`.

    Keras' own writes training and validation to two folders, which TensorBoard shows as two runs.

    Args:
      directory: folder of the run of TensorBoard.
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(directory)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        with self._writer.as_default(step=epoch + 1):
            for name, value in ((logs or {}) | {"learning_rate": rate}).items():
                tf.summary.scalar(f"curves/{name}", float(np.mean(value)))
        # So that a curve is seen while it grows.
        self._writer.flush()
