"""Fine-tuning the last stage that features are made of, from a head's solution, on labels and drawn defects."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, input_pipeline, synthetic
from mvtec_tf.data.decoding import pixels
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.networks.losses import MixedCrossEntropy
from mvtec_tf.networks.tuned import Tuned, build_tuned
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import loop
from mvtec_tf.training.callbacks import KeepBestOnline
from mvtec_tf.training.schedules import AdamW, WarmupCosine
from mvtec_tf.training.settings import FinetuneSettings

# Steps of an epoch at least: of few images an epoch is several passes, since every epoch is looked at.
_STEPS = 20
_WARMUP, _CLIP_NORM = 0.1, 1.0
_STREAM = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Lessons:
    """What the copies of a network are shown.

    Attributes:
      images: uint8 [N, S, S, 3].
      classes: int [N], 0 or 1; both are drawn equally often.
      targets: int [N, K], what each copy is told: 0, 1, or -1 where it must not see the image.
    """

    images: np.ndarray
    classes: np.ndarray
    targets: np.ndarray


def finetune(
    run: RunDirectory,
    settings: FinetuneSettings,
    lessons: Lessons,
    make: Callable[[], Backbone],
    pooling: Sequence[str],
    watch: Callable[[Tuned], Callable[[], dict[str, float]]],
    by: str,
) -> tuple[Backbone, int]:
    """Trains, or goes on training, and keeps the best of the start and the epochs.

    Args:
      run: checkpoints, logs and facts go there.
      settings: of the training.
      lessons: what is shown.
      make: gives the backbone that is started from.
      pooling: how its maps become features, names of `patch_maps.POOLINGS`.
      watch: starts the copies' heads, and gives what says how good the copies are, the higher the better.
      by: name of the value that decides.

    Returns:
      The encoder in float32, and after which epoch it was so, counted from 1; 0: it is the start.
    """
    passes = -(-_STEPS * settings.batch_size // len(lessons.images))
    size = input_pipeline.fitting_batch_size(len(lessons.images), settings.batch_size, passes)
    settings = dataclasses.replace(settings, batch_size=size)
    built: list[Tuned] = []

    def network() -> tuple[keras.Model, Backbone, dict[str, str]]:
        backbone = make()
        built.append(build_tuned(backbone, pooling, lessons.targets.shape[1]))
        trained = ", ".join(layer.name for layer in built[0].stage[-1].layers if layer.trainable_weights)
        return built[0].network, backbone, {"trained": f"trained: {trained}."}

    _, backbone, jit = loop.build(run, settings, network, len(lessons.images))
    (tuned,) = built
    steps = input_pipeline.steps_per_epoch(len(lessons.images), size, passes)
    model = compiled(tuned, settings, steps, jit)
    of_run = functools.partial(_batches, lessons, settings, passes)
    if not run.resumed and settings.epochs:
        loop.log_images(run, {"training_images": next(iter(of_run()))[0].numpy()})
    file = run.checkpoints / "kept.weights.h5"
    best = KeepBestOnline(file, tuned.network, watch(tuned), by, True, settings.patience)
    history = loop.run_epochs(run, model, tuned.network, of_run, settings, steps, [best])
    tuned.network.load_weights(file)
    run.note(history=history)
    best.note(run, history, best.best_epoch, " No epoch was better: fine-tuning is not shown to help here.")
    return Backbone(in_float32(backbone.model), backbone.stages, backbone.weights), best.best_epoch


def compiled(tuned: Tuned, settings: FinetuneSettings, steps: int, jit: bool) -> keras.Model:
    """A model of its own around the network's layers, so that what is saved as the network has no optimizer in it.

    Args:
      tuned: the network.
      settings: of the training.
      steps: per epoch.
      jit: whether steps are compiled with XLA.
    """
    total = steps * settings.epochs
    model = keras.Model(tuned.network.inputs, tuned.network.outputs, name="training")
    rate = WarmupCosine(settings.learning_rate, round(_WARMUP * total), total, 0.0)
    model.compile(
        AdamW(rate, weight_decay=settings.weight_decay, global_clipnorm=_CLIP_NORM),
        MixedCrossEntropy(),
        jit_compile=jit,
    )
    return model


def transform(
    images: tf.Tensor, known: tf.Tensor, seeds: tf.Tensor, settings: FinetuneSettings
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws defects on some good images, changes all a little, and draws how much of its neighbour each is mixed with.

    Args:
      images: uint8 [B, S, S, 3].
      known: int [B, 1 + K], the class, and what each copy is told.
      seeds: int64 [B, 2].
      settings: of the training.

    Returns:
      What the network sees, and what `MixedCrossEntropy` takes.
    """
    classes, targets = known[:, 0], known[:, 1:]
    if settings.synthetic_defects:
        images, now = synthetic.on_some(images, classes, seeds, settings.synthetic_defects)
        # Also on its drawn defect a copy that must not see the image does not look.
        drawn = tf.logical_and((now != classes)[:, None], targets >= 0)
        targets = tf.where(drawn, tf.ones_like(targets), targets)
    images = pixels.centre_brightness(augment.augment_classifier(images, seeds, settings.augmentation))
    share = settings.mixup * augment.uniform(seeds, _STREAM, 1)
    return images, tf.concat([tf.cast(targets, tf.float32), share], axis=1)


def _batches(
    lessons: Lessons, settings: FinetuneSettings, passes: int, first_epoch: int = 0, first_step: int = 0
) -> tf.data.Dataset:
    known = np.concatenate([lessons.classes[:, None], lessons.targets], axis=1)
    return loop.batches_of(
        lessons.images,
        known,
        settings,
        functools.partial(transform, settings=settings),
        first_epoch=first_epoch,
        first_step=first_step,
        passes_per_epoch=passes,
        balanced=True,
    )
