"""Every family of keras.applications goes the whole way: both trainings, export, scores, and the network rebuilt."""

import contextlib
import dataclasses
import inspect
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import efficientnet, resnet

from mvtec_tf.graphs import rebuild, saved_model
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training.contrastive import train_encoder
from mvtec_tf.training.settings import ContrastiveSettings, SupervisedSettings
from mvtec_tf.training.supervised import train_classifier

# The smallest member of each family at the smallest size it takes.
_FAMILIES = {
    "convnext": ("convnexttiny", 32),
    "densenet": ("densenet121", 32),
    "efficientnet": ("efficientnetb0", 32),
    "efficientnet_v2": ("efficientnetv2b0", 32),
    "inception_resnet_v2": ("inceptionresnetv2", 75),
    "inception_v3": ("inceptionv3", 75),
    "mobilenet": ("mobilenet", 32),
    "mobilenet_v2": ("mobilenetv2", 32),
    "mobilenet_v3": ("mobilenetv3small", 32),
    "nasnet": ("nasnetmobile", 32),
    "resnet": ("resnet50", 32),
    "resnet50": ("resnet50", 32),
    "resnet_v2": ("resnet50v2", 32),
    "vgg16": ("vgg16", 32),
    "vgg19": ("vgg19", 32),
    "xception": ("xception", 71),
}
# Half a minute or more each: tried where somebody asks for them.
_ASKED_FOR = (
    *("convnext", "densenet", "efficientnet_v2", "inception_resnet_v2", "inception_v3", "mobilenet", "mobilenet_v2"),
    *("nasnet", "resnet_v2", "vgg16", "vgg19", "xception"),
)
_ALL = "MVTEC_TF_ALL_FAMILIES"


def _each_family():
    asked = pytest.mark.skipif(_ALL not in os.environ, reason=f"{_ALL} is not set")
    return [
        pytest.param(*member, id=family, marks=[asked] if family in _ASKED_FOR else [])
        for family, member in _FAMILIES.items()
        if family != "resnet50"  # another name of the same family
    ]


@pytest.fixture
def fewer_repeats(monkeypatch):
    """One block repeats another of its kind in one stage, in no other; all do where all families are tried."""
    if _ALL in os.environ:
        return
    stack = resnet.stack_residual_blocks_v1
    once = [block | {"repeats": 1 + (number == 1)} for number, block in enumerate(efficientnet.DEFAULT_BLOCKS_ARGS)]
    monkeypatch.setattr(efficientnet, "DEFAULT_BLOCKS_ARGS", once)
    monkeypatch.setattr(
        resnet, "stack_residual_blocks_v1", lambda x, width, _, **more: stack(x, width, 1 + (width == 64), **more)
    )


@contextlib.contextmanager
def _one_op_after_the_other():
    """Steps that are taken once are not worth a graph, which takes half a minute to make of a large network."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def test_every_family_of_keras_applications_is_tried_here():
    modules = inspect.getmembers(keras.applications, inspect.ismodule)
    assert {name for name, module in modules if hasattr(module, "preprocess_input")} == {*_FAMILIES, "imagenet_utils"}


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_repeats")
@pytest.mark.parametrize(("name", "size"), _each_family())
def test_one_member_of_every_family_trains_a_step_exports_and_scores(name, size, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (4, size, size, 3), np.uint8), np.array([0, 1, 0, 1])
    png = tf.stack([tf.io.encode_png(image) for image in images])
    common = {"backbone": name, "image_size": size, "weights": "none", "batch_size": 2, "epochs": 1}
    common["precision"] = "mixed_bfloat16"  # the copy in float32 is then another network than the trained one

    settings = SupervisedSettings(**common, trainable_stages=1)
    run = RunDirectory(tmp_path / "cnn", "train_cnn", {}, {"fingerprint": ""}, "")
    with _one_op_after_the_other():
        network = train_classifier(run, settings, (images, labels), (images, labels))
    logits = np.asarray(network(images))
    stages = [block["name"] for block in run.record["architecture"] if block["kind"] == "stage"]
    saved_model.write_classifier(run.saved_model, network, {"run": dataclasses.asdict(settings)})
    answer = saved_model.load(run.saved_model).signatures["serving_default"](image_bytes=png)
    scale = np.abs(logits).max() + 1e-6
    np.testing.assert_allclose(answer["anomaly_score"], logits[:, 1] - logits[:, 0], atol=1e-3 * scale)
    # A heat map needs the network again, by the names of the export's variables.
    again = rebuild.rebuild_classifier(run.saved_model, dataclasses.asdict(settings))
    np.testing.assert_allclose(again.score(again.run(images)), answer["anomaly_score"], atol=1e-3 * scale)

    run = RunDirectory(tmp_path / "simclr", "train_simclr", {}, {"fingerprint": ""}, "")
    contrastive = ContrastiveSettings(**common, projection_hidden=8, projection_dimensions=8)
    with _one_op_after_the_other():
        encoder = train_encoder(run, contrastive, images)
    saved_model.write_encoder(run.saved_model, encoder, {"run": common})
    embedding = saved_model.load(run.saved_model).signatures["embed"](image_bytes=png)["embedding"]
    average = np.asarray(encoder.model(images)).mean(axis=(1, 2))
    np.testing.assert_allclose(embedding, average, atol=1e-3 * (np.abs(average).max() + 1e-6))
    assert list(encoder.stages) == stages
    assert len(stages) >= 4
