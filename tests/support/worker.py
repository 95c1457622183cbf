"""Both trainings of toy parts by a tiny network; as one of several workers where TF_CONFIG says so.

  python -m tests.support.worker DATA FOLDER TRAININGS

TRAININGS says in JSON of each training one after the other, and of each of its workers, its environment and after how
many steps of the supervised training, which is the first, it kills itself, or 0. One process loads TensorFlow, and all
workers are its children. It prints how each ended; what worker 1 of training 0 said is in FOLDER/0_1.said.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
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
    """Supervised training and pretraining, 20 steps each, one an epoch; the runs come into the folder, and the weights
    at the end into NAME_JOB.npz there."""

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


def _begin(data, folder, name, environment, killed_at):
    """Forks a worker, which begins with what a new process has, and returns its number."""
    if number := os.fork():
        return number
    os.environ.update(environment)
    tempfile.tempdir = None
    with open(os.path.join(folder, f"{name}.said"), "wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    status = 1
    try:
        train(data, folder, name.split("_")[1], killed_at)
        status = 0
    except UserError as error:
        print(f"ERROR: {error}")
    except BaseException:
        traceback.print_exc()
    finally:
        # Never on with what its parent does.
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    ends = []
    for count, workers in enumerate(json.loads(sys.argv[3])):
        begun = [_begin(*sys.argv[1:3], f"{count}_{index}", *worker) for index, worker in enumerate(workers)]
        ends.append([os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in begun])
    print(json.dumps(ends))
