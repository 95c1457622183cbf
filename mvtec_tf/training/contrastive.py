"""Training an encoder on good images only, by SimCLR or another method of `pretext.METHODS`."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, input_pipeline
from mvtec_tf.errors import UsageError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.networks.fold import with_frozen_folded
from mvtec_tf.networks.pretext import Pretext, build_network
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import distribution, loop
from mvtec_tf.training.callbacks import KeepBestOnline
from mvtec_tf.training.schedules import AdamW, CosineByEpoch, WarmupCosine
from mvtec_tf.training.settings import ContrastiveSettings

LAST, BEST_ONLINE = "last", "best_online"


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is watched while an encoder is trained, and which weights are kept.

    Attributes:
      of: a backbone -> what gives name -> value of it as it is at the moment, the higher the better.
      by: name of the value that decides.
      keep: LAST; BEST_ONLINE, the best of the starting weights and those after each epoch; or the starting ones.
    """

    of: Callable[[Backbone], Callable[[], dict[str, float]]]
    by: str
    keep: str


def train_encoder(
    run: RunDirectory,
    settings: ContrastiveSettings,
    images: np.ndarray,
    strategy: tf.distribute.Strategy | None = None,
    watch: Watch | None = None,
    labels: np.ndarray | None = None,
) -> Backbone | None:
    """Trains, or goes on training, and returns the encoder in float32; None on a machine that is not the chief.

    Args:
      run: checkpoints, logs and facts go there.
      settings: of the training.
      images: uint8 [N, S, S, 3], good ones only, or with labels.
      strategy: what trains together; None: this process alone.
      watch: what is watched; None: nothing, and the last weights are kept.
      labels: int [N], for the method supcon; good and defective images are then drawn equally often.

    Raises:
      UsageError: something is watched where several replicas train together.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if watch is not None and strategy.num_replicas_in_sync > 1:
        raise UsageError("`label_budget`: a pretraining is watched on one device only. Use `strategy`=one.")
    with strategy.scope():
        backbone = _train(run, settings, images, watch, labels)
    if not distribution.is_chief(strategy):
        return None
    return Backbone(in_float32(backbone.model), backbone.stages, backbone.weights)


def _train(
    run: RunDirectory,
    settings: ContrastiveSettings,
    images: np.ndarray,
    watch: Watch | None,
    labels: np.ndarray | None,
) -> Backbone:
    if settings.epochs:
        fitting = input_pipeline.fitting_batch_size(
            len(images), settings.batch_size, settings.passes_per_epoch, replicas.count()
        )
        settings = dataclasses.replace(settings, batch_size=fitting)
    network, backbone, jit = loop.build(run, settings, functools.partial(network_of, settings), len(images))
    model = compiled(network, settings, len(images), jit)
    of_run = functools.partial(batches, images, settings, labels=labels)
    if not run.resumed and settings.epochs:
        view_a, view_b = next(iter(of_run()))[:2]
        loop.log_images(run, {"view_a": view_a.numpy(), "view_b": view_b.numpy()})
    watched = []
    if watch is not None and settings.epochs:
        file, trained = run.checkpoints / "kept.weights.h5", watch.keep == BEST_ONLINE
        watched = [KeepBestOnline(file, network, watch.of(backbone), watch.by, trained)]
    history = loop.run_epochs(run, model, network, of_run, settings, _steps(settings, len(images)), watched)
    run.note(history=history)
    for online in watched:
        epoch = len(history) if watch.keep == LAST else online.best_epoch
        if watch.keep != LAST:
            network.load_weights(online.file)
        asked = watch.keep == BEST_ONLINE
        online.note(run, history, epoch, " No epoch was better: pretraining is not shown to help here." * asked)
    return backbone


def compiled(network: keras.Model, settings: ContrastiveSettings, images: int, jit: bool) -> Pretext:
    """The model that trains the network.

    Args:
      network: of `network_of`.
      settings: of the training; its batch size fits the images.
      images: how many it is trained on.
      jit: whether steps are compiled with XLA.
    """
    steps = _steps(settings, images)
    model = Pretext(with_frozen_folded(network), settings.method, settings.temperature, steps * max(settings.epochs, 1))
    model.compile(
        AdamW(
            _schedule(settings, steps),
            weight_decay=settings.weight_decay,
            global_clipnorm=settings.clip_norm,
        ),
        jit_compile=jit,
    )
    return model


def _steps(settings: ContrastiveSettings, images: int) -> int:
    """Of an epoch; an encoder that is kept as it is takes none, and its schedule is never asked."""
    if not settings.epochs:
        return 1
    return input_pipeline.steps_per_epoch(images, settings.batch_size, settings.passes_per_epoch)


def network_of(settings: ContrastiveSettings) -> tuple[keras.Model, Backbone, dict[str, str]]:
    """The network, the encoder in it, and what is frozen, in words."""
    backbone = loop.backbone_of(settings)
    facts = {}
    if settings.frozen_stages:
        if settings.frozen_stages >= len(backbone.stages):
            raise UsageError(
                f"`frozen_stages`={settings.frozen_stages}: {settings.backbone} has {len(backbone.stages)} stages, and "
                "one at least must be left to train."
            )
        facts = loop.freeze(backbone.model, backbone, len(backbone.stages) - settings.frozen_stages)
    if settings.frozen_batch_norm:
        for layer in backbone.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        facts["batch_norm"] = "batch norm: frozen, as it was at the start."
    network = build_network(
        backbone, settings.method, settings.projection_hidden, settings.projection_dimensions
    )
    return network, backbone, facts


def _schedule(settings: ContrastiveSettings, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    peak, final = settings.learning_rate, settings.final_learning_rate
    if settings.schedule == "cosine_by_epoch":
        return CosineByEpoch(peak, final, steps, max(settings.epochs, 1))
    total = steps * settings.epochs
    return WarmupCosine(peak, round(settings.warmup_share * total), total, final)


def batches(
    images: np.ndarray,
    settings: ContrastiveSettings,
    first_epoch: int = 0,
    first_step: int = 0,
    labels: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Pairs of views, with their labels if there are any, from a step of an epoch to the end of the run, see
    `input_pipeline.training_batches`."""

    def transform(batch: tf.Tensor, known: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        views = augment.two_views(batch, seeds, settings.augmentation)
        return views if labels is None else (*views, known)

    return loop.batches_of(
        images,
        np.zeros(len(images), np.int64) if labels is None else labels,
        settings,
        transform,
        first_epoch=first_epoch,
        first_step=first_step,
        passes_per_epoch=settings.passes_per_epoch,
        balanced=labels is not None,
    )
