"""A training or a fit whose numbers are none any more says so, and keeps what it had."""

import json
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from mvtec_tf.data import input_pipeline
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.linear import Logistic, StudyHead
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import callbacks
from mvtec_tf.training.checkpoints import Checkpoints
from mvtec_tf.training.contrastive import train_encoder
from mvtec_tf.training.settings import ContrastiveSettings, SupervisedSettings
from mvtec_tf.training.supervised import train_classifier
from tests.support.tiny_network import in_place_of_resnet10

_SMALL = {"backbone": "resnet10", "image_size": 32, "weights": "none", "precision": "float32"}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


def _run(path):
    return RunDirectory(path, "train", {}, {"fingerprint": ""}, "")


def _images(count):
    return np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), np.uint8)


def _train_classifier(run, **settings):
    images, labels = _images(6), np.array([0, 1] * 3)
    return train_classifier(run, SupervisedSettings(**_SMALL, **settings), (images, labels), (images, labels))


def _train_encoder(run, **settings):
    shape = {"projection_hidden": 8, "projection_dimensions": 8}
    return train_encoder(run, ContrastiveSettings(**_SMALL, **shape, **settings), _images(6))


@pytest.fixture(scope="module", params=[_train_classifier, _train_encoder])
def runs(request, tmp_path_factory):
    """(a training, a run of its that has finished one epoch, with a batch that is larger than its images)."""
    path = tmp_path_factory.mktemp("trained") / "run"
    request.param(_run(path), epochs=1, batch_size=48)
    return request.param, path


def test_both_trainings_take_a_batch_that_fits_few_images_and_note_it(runs):
    record = json.loads((runs[1] / "run.json").read_text())
    assert record["network"]["batch"] == "batch: 6 of 6 images."
    assert len(record["history"]) == 1


def test_a_diverged_training_names_the_step_the_last_finite_values_and_what_is_kept(runs):
    train, path = runs
    with pytest.raises(UserError) as caught:
        train(_run(path), epochs=4, batch_size=2, learning_rate=1e38, weight_decay=1e5)
    message = str(caught.value)
    assert "diverged in step" in message
    assert "/4" in message
    assert "last finite values: " in message
    assert "lower `learning_rate`" in message
    assert "epoch_0001" in message
    assert [found.name for found in (path / "checkpoints").glob("epoch_*")] == ["epoch_0001"]
    for file in (path / "checkpoints").rglob("*.h5"):
        with h5py.File(file) as weights:
            weights.visititems(lambda name, item: _check_finite(item))


def _check_finite(item):
    if isinstance(item, h5py.Dataset) and np.issubdtype(item.dtype, np.floating):
        assert np.all(np.isfinite(item[()]))


def test_a_loss_or_a_weight_that_is_no_number_ends_the_training_at_that_step(tmp_path):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    position = callbacks.Position(epochs=3, steps=2)
    watch = callbacks.StopIfDiverged(network, position)
    position.step = 1
    with pytest.raises(UserError, match=r"step 1/2 of epoch 1/3: loss is nan.*none, it was the first step"):
        watch.on_train_batch_end(0, {"loss": np.nan})
    watch.on_train_batch_end(0, {"loss": 0.25})
    position.step = 2
    with pytest.raises(UserError, match=r"step 2/2.*loss is inf.*loss 0.25 \(step 1 of epoch 1\)"):
        watch.on_train_batch_end(1, {"loss": np.inf})
    network.layers[0].kernel.assign([[1.0], [np.nan]])
    with pytest.raises(UserError, match=r"step 2/2.*kernel is not finite"):
        watch.on_train_batch_end(1, {"loss": 0.25})
    assert "no checkpoint yet" in Checkpoints(tmp_path, network, position, {}).kept()


def test_logits_that_are_no_numbers_are_a_diverged_training_and_no_error_of_a_metric():
    watch = callbacks.ValidationMetrics(_images(2), np.array([0, 1]), np.ones(2), 2)
    watch.set_model(SimpleNamespace(predict=lambda *args, **kwargs: np.array([[0, np.nan], [0, 1]], np.float32)))
    with pytest.raises(callbacks.Diverged, match="epoch 3"):
        watch.on_epoch_end(2, {})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("head", [Logistic, Mahalanobis, StudyHead])
def test_features_of_a_diverged_encoder_are_refused_by_every_head(head, value):
    features = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    features[3, 2] = value
    with pytest.raises(UserError, match="training"):
        head().fit(features, np.array([0, 1] * 4))


def test_a_diverged_fit_of_a_head_is_named_and_calibrates_nothing():
    class Diverging(Logistic):
        def _learn(self, features, labels):
            super()._learn(features, labels)
            self.weights_ = self.weights_ * np.inf

    records = [
        Record(str(i), f"{i}.png", "part", "good" if i % 2 else "chip", 1 - i % 2, "test", str(i)) for i in range(20)
    ]
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    with pytest.raises(UserError, match=r"part.*fit of the head diverged: its weights"):
        fit_probe(Diverging, features, records, seed=0)


def test_a_batch_that_is_larger_than_the_images_shrinks_to_them_and_says_so(capsys):
    assert input_pipeline.fitting_batch_size(43, 48) == 43
    assert "43 training images: `batch_size`=43 is used instead of 48" in capsys.readouterr().out
    assert input_pipeline.fitting_batch_size(43, 48, passes_per_epoch=2) == 48
    assert input_pipeline.fitting_batch_size(48, 48) == 48
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="at least two"):
        input_pipeline.fitting_batch_size(1, 48)


def test_an_encoder_that_is_kept_as_it_is_needs_no_batch(tmp_path):
    run = _run(tmp_path / "run")
    train_encoder(run, ContrastiveSettings(**_SMALL, epochs=0, schedule="cosine_by_epoch"), _images(1))
    assert run.record["history"] == []
