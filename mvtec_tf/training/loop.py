"""The loop around any model: compile, resume, fit, log."""

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import architecture
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import callbacks, precision
from mvtec_tf.training.checkpoints import Checkpoints, Stateful
from mvtec_tf.training.recipes import TrainingSettings


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and makes TensorFlow's ops repeat to the bit."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def build(
    run: RunDirectory,
    settings: TrainingSettings,
    make: Callable[[], tuple[keras.Model, Backbone, dict[str, str]]],
    images: int,
) -> tuple[keras.Model, Backbone, bool]:
    """Makes the network of a run in its number format, and prints and notes what it is.

    Args:
      run: where it is noted.
      settings: the recipe.
      make: gives the network, the backbone that it is built on, and more facts about it in words.
      images: how many it is trained on.

    Returns:
      The network, its backbone, and whether its steps are compiled with XLA.
    """
    make_deterministic(settings.seed)
    number_format, jit = precision.resolve_precision(settings.precision), precision.resolve_jit(settings.jit)
    with precision.dtype_policy(number_format):
        network, backbone, more = make()
    facts = {
        "weights": backbone.weights.describe() if backbone.weights else f"weights: {settings.weights}.",
        **more,
        "precision": f"precision: {number_format}; XLA: {'on' if jit else 'off'}.",
    }
    if settings.epochs:
        facts["batch"] = f"batch: {settings.batch_size} of {images} images."
    print("\n".join(facts.values()), flush=True)
    run.note(network=facts, architecture=architecture.describe(network, backbone.stages))
    return network, backbone, jit


def run_epochs(
    run: RunDirectory,
    model: keras.Model,
    network: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    settings: TrainingSettings,
    steps: int,
    extra: list[keras.callbacks.Callback],
) -> list[dict[str, float]]:
    """Trains, from the newest checkpoint if there is one.

    Args:
      run: where checkpoints and logs go.
      model: compiled; `fit` is called on it.
      network: the functional network inside (or `model` itself), whose weights are all that a checkpoint keeps: what
        else is trained or averaged must lie inside it.
      batches: first epoch -> dataset of all batches from there to the end of the run.
      settings: the recipe; its seed is that of dropout here, order and augmentation have it already.
      steps: per epoch.
      extra: callbacks that run before the logs are written; those with a `state` are remembered.

    Returns:
      The logs of every epoch.

    Raises:
      Diverged: a loss, a weight or a validation score is not finite any more.
    """
    history = callbacks.History()
    stateful: dict[str, Stateful] = {"history": history}
    stateful |= {type(item).__name__: item for item in extra if hasattr(item, "restore")}
    checkpoints = Checkpoints(run.checkpoints, network, stateful, settings.checkpoint_every, settings.epochs)
    first_epoch = checkpoints.resume(model.optimizer)
    stopped = any(getattr(item, "stopped", False) for item in extra)
    if first_epoch:
        print(f"Resumed from the checkpoint after epoch {first_epoch}.", flush=True)
    if first_epoch < settings.epochs and not stopped:
        started = time.monotonic()
        around = [
            callbacks.StopIfDiverged(network, settings.epochs, steps),
            callbacks.FreshDropout(network, settings.seed),
            *extra,
            history,
            callbacks.Progress(settings.epochs, steps),
            _TensorBoard(str(run.tensorboard)),
            checkpoints,
        ]
        try:
            model.fit(
                batches(first_epoch),
                initial_epoch=first_epoch,
                epochs=settings.epochs,
                steps_per_epoch=steps,
                shuffle=False,  # the dataset is shuffled already
                verbose=0,
                callbacks=around,
            )
        except callbacks.Diverged as error:
            raise callbacks.Diverged(
                f"{error} {checkpoints.kept()} Repeat it in a new `run_dir` with a lower `learning_rate`."
            ) from error
        print(f"Trained epochs {first_epoch + 1} to {len(history.epochs)} in {time.monotonic() - started:.0f} s.")
    return history.epochs


def log_images(run: RunDirectory, images: dict[str, np.ndarray], limit: int = 16) -> None:
    """Puts batches of uint8 images [N, S, S, 3] into TensorBoard, so that a person sees what the network sees."""
    with tf.summary.create_file_writer(str(run.tensorboard)).as_default():
        for name, batch in images.items():
            tf.summary.image(name, batch, step=0, max_outputs=limit)


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

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Keras' hook."""
        self._writer.close()
