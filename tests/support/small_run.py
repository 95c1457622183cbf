"""A finished run of a very small classifier, made without training, for tests of what comes after."""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from mvtec_tf.data import known_images
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, rows, write_predictions
from mvtec_tf.features import reference
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.networks.classifier import POOLED

SIZE = 32


# Of the first dozen, the one whose scores lie around 0 and whose heat maps are partly 0.
SEED = 9


def small_classifier(seed=SEED):
    """Two convolutions with batch norm that is not the identity, and a head as of the real network."""
    inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    x = keras.ops.cast(inputs, "float32") / 127.5 - 1.0
    for number, width in enumerate((8, 16)):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=bool(number), name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.GlobalAveragePooling2D(name=POOLED)(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(8, activation="relu", name="dense")(x)
    x = layers.BatchNormalization(name="head_bn")(x)
    x = layers.Dropout(0.3)(x)
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    set_weights_at_random(model, seed)
    return model


def set_weights_at_random(model, seed=0):
    """Every weight, so that no batch norm is the identity; variances are positive."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        norm = isinstance(layer, keras.layers.BatchNormalization)
        shapes = [weight.shape for weight in layer.get_weights()]
        values = [
            rng.uniform(0.5, 1.5, shape) if norm else rng.normal(0, 1.5 / np.sqrt(max(np.prod(shape[:-1]), 8)), shape)
            for shape in shapes
        ]
        if norm:
            values[-2] = rng.normal(0, 0.5, shapes[-2])  # the moving mean; the variance is last
        layer.set_weights(values)


def assert_empty_batches_get_empty_answers(signatures):
    """Of each signature: the outputs of one image, but none of them."""
    for name, signature in signatures.items():
        ((argument, takes),) = signature.structured_input_signature[1].items()
        shape = [0, *(8 if side is None else side for side in takes.shape[1:])]
        for output, value in signature(**{argument: tf.zeros(shape, takes.dtype)}).items():
            assert value.shape[0] == 0, (name, output)


def write_small_run(run_dir: pathlib.Path, records, seed=SEED):
    """run.json, flags.txt, saved_model/, predictions.csv and metrics.json, as a training binary leaves them."""
    network = small_classifier(seed)
    saved_model.write_classifier(run_dir / "saved_model", network, {"run": {}})
    test = [record for record in records if record.split == "test"]
    parts = {"fit": test[::3], "calibrate": test[1::3], "evaluate": test[2::3]}
    table = []
    for split, part in parts.items():
        scores = scoring.score_files(run_dir / "saved_model", [record.file for record in part])
        table += rows(part, split, scores.score, scores.probability)
    predictions = Predictions.from_rows(table)
    write_predictions(run_dir / "predictions.csv", predictions)
    judge(predictions, run_dir, title="small")
    # None of these was used, so their scores are held out.
    good = [record for record in records if record.split == "train"]
    scores = scoring.score_files(run_dir / "saved_model", [record.file for record in good]).score
    objects = np.array([record.path for record in good])
    reference.keep(run_dir, [record.file for record in good], scores, objects)
    record = {
        "binary": "train_cnn",
        "status": "finished",
        "settings": {"weights": "none", "protocol": "clean", "label_budget": "all", "seed": 0},
        "data": {"fingerprint": "0" * 64, "images": len(records), "categories": sorted({r.category for r in records})},
        "labels_used": len(parts["fit"]) + len(parts["calibrate"]),
        "network": {"weights": "weights: none."},
        "versions": {"mvtec_tf": "0"},
    }
    (run_dir / "run.json").write_text(json.dumps(record))
    known_images.write(run_dir / known_images.FILE, records)
    (run_dir / "flags.txt").write_text("--data_dir=DATA\n--seed=0\n")
    return network
