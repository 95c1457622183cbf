"""Training an encoder on good images only, by SimCLR or another method of `pretext.METHODS`."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, input_pipeline
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas
from mvtec_tf.networks.backbone import Backbone, build_backbone
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.networks.pretext import Pretext, build_network
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import distribution, loop
from mvtec_tf.training.recipes import ContrastiveSettings
from mvtec_tf.training.schedules import AdamW, CosineByEpoch, WarmupCosine


def train_encoder(
    run: RunDirectory,
    settings: ContrastiveSettings,
    images: np.ndarray,
    strategy: tf.distribute.Strategy | None = None,
) -> Backbone | None:
    """Trains, or goes on training, and returns the encoder in float32; None on a machine that is not the chief.

    Args:
      run: checkpoints, logs and facts go there.
      settings: the recipe.
      images: uint8 [N, S, S, 3], good ones only.
      strategy: what trains together; None: this process alone.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        backbone = _train(run, settings, images)
    if not distribution.is_chief(strategy):
        return None
    return Backbone(in_float32(backbone.model), backbone.stages, backbone.weights)


def _train(run: RunDirectory, settings: ContrastiveSettings, images: np.ndarray) -> Backbone:
    if settings.epochs:
        fitting = input_pipeline.fitting_batch_size(
            len(images), settings.batch_size, settings.passes_per_epoch, replicas.count()
        )
        settings = dataclasses.replace(settings, batch_size=fitting)
    network, backbone, jit = loop.build(run, settings, functools.partial(network_of, settings), len(images))
    model = compiled(network, settings, len(images), jit)
    of_run = functools.partial(batches, images, settings)
    if not run.resumed and settings.epochs:
        view_a, view_b = next(iter(of_run()))
        loop.log_images(run, {"view_a": view_a.numpy(), "view_b": view_b.numpy()})
    history = loop.run_epochs(run, model, network, of_run, settings, _steps(settings, len(images)), [])
    run.note(history=history)
    return backbone


def compiled(network: keras.Model, settings: ContrastiveSettings, images: int, jit: bool) -> Pretext:
    """The model that trains the network.

    Args:
      network: of `network_of`.
      settings: the recipe; its batch size fits the images.
      images: how many it is trained on.
      jit: whether steps are compiled with XLA.
    """
    steps = _steps(settings, images)
    model = Pretext(network, settings.method, settings.temperature, steps * max(settings.epochs, 1))
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
    """The network, the encoder in it, and nothing more to be said of it."""
    backbone = _backbone(settings)
    network = build_network(
        backbone, settings.method, settings.projection_hidden, settings.projection_dimensions
    )
    return network, backbone, {}


def _backbone(settings: ContrastiveSettings) -> Backbone:
    return build_backbone(
        settings.backbone, settings.image_size, settings.weights, weights_partial=settings.weights_partial
    )


def _schedule(settings: ContrastiveSettings, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    peak, final = settings.learning_rate, settings.final_learning_rate
    if settings.schedule == "cosine_by_epoch":
        return CosineByEpoch(peak, final, steps, max(settings.epochs, 1))
    total = steps * settings.epochs
    return WarmupCosine(peak, round(settings.warmup_share * total), total, final)


def batches(
    images: np.ndarray, settings: ContrastiveSettings, first_epoch: int = 0, first_step: int = 0
) -> tf.data.Dataset:
    """Pairs of views from a step of an epoch to the end of the run, see `input_pipeline.training_batches`."""

    def transform(batch: tf.Tensor, _: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augment.two_views(batch, seeds, settings.augmentation)

    return input_pipeline.training_batches(
        images,
        np.zeros(len(images), np.int64),
        settings.batch_size,
        settings.seed,
        transform,
        first_epoch=first_epoch,
        first_step=first_step,
        epochs=settings.epochs,
        passes_per_epoch=settings.passes_per_epoch,
        replicas=replicas.count(),
        mine=distribution.mine(),
    )
