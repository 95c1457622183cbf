"""Training the supervised classifier: weighted loss, AdamW, one-cycle, early stopping on validation F1."""

import dataclasses
import functools
import pathlib

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, defect_patches, input_pipeline, synthetic
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.networks.classifier import build_classifier
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.networks.fold import with_frozen_folded
from mvtec_tf.networks.losses import WeightedCrossEntropy, balanced_class_weights
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import distribution, loop
from mvtec_tf.training.callbacks import KeepBest, ValidationMetrics
from mvtec_tf.training.schedules import OneCycleAdamW
from mvtec_tf.training.settings import SupervisedSettings


def train_classifier(
    run: RunDirectory,
    settings: SupervisedSettings,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    strategy: tf.distribute.Strategy | None = None,
) -> keras.Model | None:
    """Trains, or goes on training, and returns the best network of the run in float32.

    Args:
      run: checkpoints, logs and facts go there.
      settings: of the training.
      train: (images uint8 [N, S, S, 3], labels int64 [N]).
      validation: the same, for early stopping.
      strategy: what trains together; None: this process alone.

    Returns:
      uint8 [B, S, S, 3] -> float32 logits [B, 2]; None on a machine that is not the chief.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        network, best_file = _train(run, settings, train, validation)
    if not distribution.is_chief(strategy):
        return None
    network.load_weights(best_file)
    return in_float32(network)


def _train(
    run: RunDirectory,
    settings: SupervisedSettings,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
) -> tuple[keras.Model, pathlib.Path]:
    """The network as it ended, and the file of its best weights."""
    images, labels = train
    fitting = input_pipeline.fitting_batch_size(len(images), settings.batch_size, replicas=replicas.count())
    settings = dataclasses.replace(settings, batch_size=fitting)
    network, _, jit = loop.build(run, settings, functools.partial(network_of, settings), len(images))
    weights, steps = _class_weights(labels, settings), input_pipeline.steps_per_epoch(len(images), settings.batch_size)
    model = compiled(network, settings, labels, jit)
    of_run = functools.partial(batches, images, labels, settings)
    if not run.resumed:
        augmented, _ = next(iter(of_run()))
        loop.log_images(run, {"augmented_training_batch": augmented.numpy(), "training_images": images[:16]})
    best = KeepBest(run.checkpoints / "best.weights.h5", network, settings.patience)
    watch = ValidationMetrics(*_with_defects(*validation, settings), weights, settings.batch_size)
    history = loop.run_epochs(run, model, network, of_run, settings, steps, [watch, best])
    run.note(history=history, best_epoch=best.best_epoch)
    print(f"Best validation F1 {best.best[0]:.4f} in epoch {best.best_epoch} of {len(history)}.", flush=True)
    return network, best.file


def compiled(network: keras.Model, settings: SupervisedSettings, labels: np.ndarray, jit: bool) -> keras.Model:
    """A model of its own around the network's layers, so that what is saved as the network has no optimizer in it.

    Args:
      network: of `network_of`.
      settings: of the training; its batch size fits the images.
      labels: int [N], of the training images.
      jit: whether steps are compiled with XLA.
    """
    steps = input_pipeline.steps_per_epoch(len(labels), settings.batch_size) * settings.epochs
    trained = with_frozen_folded(network)
    model = keras.Model(trained.inputs, trained.outputs, name="training")
    model.compile(
        OneCycleAdamW(settings.learning_rate, steps, weight_decay=settings.weight_decay),
        WeightedCrossEntropy(_class_weights(labels, settings)),
        jit_compile=jit,
    )
    return model


def network_of(settings: SupervisedSettings) -> tuple[keras.Model, Backbone, dict[str, str]]:
    """The network, its backbone, and what is frozen, in words."""
    backbone = loop.backbone_of(settings, cut_after_stage=settings.backbone_stages)
    network = build_classifier(backbone)
    return network, backbone, loop.freeze(network, backbone, settings.trainable_stages)


def batches(
    images: np.ndarray, labels: np.ndarray, settings: SupervisedSettings, first_epoch: int = 0, first_step: int = 0
) -> tf.data.Dataset:
    """Augmented batches from a step of an epoch to the end of the run, see `input_pipeline.training_batches`."""
    bank = _bank(settings)

    def transform(batch: tf.Tensor, batch_labels: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if settings.synthetic_defects:
            share, kinds = settings.synthetic_defects, settings.synthetic_kinds
            batch, batch_labels = synthetic.on_some(batch, batch_labels, seeds, share, kinds, bank)
        return augment.augment_classifier(batch, seeds, settings.augmentation), batch_labels

    more = {"first_epoch": first_epoch, "first_step": first_step, "balanced": settings.balanced_sampling}
    return loop.batches_of(images, labels, settings, transform, **more)


def _bank(settings: SupervisedSettings) -> defect_patches.Bank | None:
    return defect_patches.read(settings.defect_patches) if settings.defect_patches else None


def _class_weights(labels: np.ndarray, settings: SupervisedSettings) -> np.ndarray:
    return np.ones(2) if settings.balanced_sampling else balanced_class_weights(labels, settings.synthetic_defects)


def _with_defects(
    images: np.ndarray, labels: np.ndarray, settings: SupervisedSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Validation images and labels; where none is defective, with a drawn defect on a copy of each."""
    if labels.any() or not settings.synthetic_defects:
        return images, labels
    seeds = np.stack([np.arange(len(images)), np.full(len(images), settings.seed)], axis=1)
    draw = tf.function(synthetic.with_defects, autograph=False)
    drawn, _ = draw(tf.constant(images), tf.constant(seeds), settings.synthetic_kinds, None, _bank(settings))
    print(f"No validation image is defective: training stops by a drawn defect on each of {len(images)}.", flush=True)
    return np.concatenate([images, drawn]), np.concatenate([labels, np.ones_like(labels)])
