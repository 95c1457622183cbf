"""Both trainings of toy parts by a tiny network; as one of several workers where TF_CONFIG says so.

  python -m tests.support.worker DATA FOLDER NAME [STEP]

The runs come into FOLDER, and the weights at the end into FOLDER/NAME_JOB.npz. After so many steps of the supervised
training, which is the first, the process kills itself.
"""

import os
import signal
import sys
from unittest import mock

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment
from mvtec_tf.errors import UserError
from mvtec_tf.jobs import train_classifier
from mvtec_tf.jobs.pretrain import pretrain
from mvtec_tf.jobs.settings import PretrainSettings, TrainClassifierSettings
from mvtec_tf.keras_settings import keras
from mvtec_tf.training import loop
from tests.support.tiny_network import in_place_of_resnet10

_STEPS = 20
_run_epochs = loop.run_epochs


def _darker(batch, seeds, _):
    """Views that depend on the draw, and whose graph is made in no time."""
    return batch - tf.minimum(batch, tf.cast(seeds[:, 1] % 60, tf.uint8)[:, None, None, None])


def _two_views(batch, seeds, config):
    return _darker(batch, seeds, config), _darker(batch[:, :, ::-1], seeds + 7, config)


def train(data, folder, name, killed_at=0):
    """Supervised training and pretraining, 20 steps each, one an epoch."""

    def run_epochs(run, model, network, batches, settings, steps, extra):
        job, step = run.record["binary"], keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, _: killed_at and epoch == killed_at and os.kill(os.getpid(), signal.SIGKILL)
        )
        assert steps == 1
        history = _run_epochs(run, model, network, batches, settings, steps, [*extra, step] if extra else extra)
        np.savez(os.path.join(folder, f"{name}_{job}.npz"), *network.get_weights())
        return history

    common = {"data_dir": (str(data),), "backbone": "resnet10", "image_size": 32, "weights": "none", "batch_size": 32}
    common |= {"precision": "float32", "epochs": _STEPS, "keep_checkpoints": 1}
    shape = {"projection_hidden": 16, "projection_dimensions": 8, "temperature": 0.5}
    patient = {"trainable_stages": 5, "patience": _STEPS, "label_budget": "all"}
    # The chief's report takes as long as the training, and is that of any run.
    unjudged = mock.patch.object(train_classifier, "_judge")
    views = mock.patch.multiple(augment, augment_classifier=_darker, two_views=_two_views)
    with in_place_of_resnet10(), mock.patch.object(loop, "run_epochs", run_epochs), unjudged, views:
        said = TrainClassifierSettings(**common, **patient, learning_rate=1e-3, run_dir=os.path.join(folder, "cnn"))
        train_classifier.train_classifier(said)
        pretrain(PretrainSettings(**common, **shape, learning_rate=1e-4, run_dir=os.path.join(folder, "simclr")))


if __name__ == "__main__":
    try:
        train(*sys.argv[1:4], int(sys.argv[4]) if sys.argv[4:] else 0)
    except UserError as error:
        sys.exit(f"ERROR: {error}")
