"""Steps by two replicas, and the same by one, in a process of its own: a CPU is divided before TensorFlow begins.

Prints one JSON object: for each method of pretraining and the supervised network the losses of both, how far the
weights after the steps lie apart, as a share of how far the steps moved them, and what they make of other images.
"""

import json

import numpy as np
import tensorflow as tf

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)

from mvtec_tf.keras_settings import keras  # noqa: E402
from mvtec_tf.networks.backbone import build_backbone  # noqa: E402
from mvtec_tf.networks.classifier import build_classifier  # noqa: E402
from mvtec_tf.networks.losses import WeightedCrossEntropy  # noqa: E402
from mvtec_tf.networks.pretext import METHODS, Pretext, build_network  # noqa: E402
from mvtec_tf.training import distribution  # noqa: E402
from mvtec_tf.training.schedules import AdamW  # noqa: E402
from tests.support.tiny_network import in_place_of_resnet10  # noqa: E402

_BATCH, _SIZE, _STEPS = 8, 32, 2


def _pretext(method):
    network = build_network(build_backbone("resnet10", _SIZE), method, hidden=16, dimensions=8)
    return network, Pretext(network, method, 0.5, 10)


def _classifier():
    network = build_classifier(build_backbone("resnet10", _SIZE))
    return network, keras.Model(network.inputs, network.outputs)


def _steps(strategy, make, batch, optimizer):
    """Losses, the weights before and after, predictions, and whether both replicas have the same weights."""
    keras.utils.set_random_seed(0)
    losses = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: losses.append(float(logs["loss"])))
    with strategy.scope():
        network, model = make()
        model.compile(optimizer(), WeightedCrossEntropy([0.5, 2.0]))
        model.optimizer.build(network.trainable_variables)
        before = network.get_weights()
        of_each = _BATCH // strategy.num_replicas_in_sync
        batches = tf.data.Dataset.from_tensor_slices(batch).batch(of_each, drop_remainder=True).repeat()
        fit = distribution.fitter(model)
        fit(batches, initial_epoch=0, epochs=1, steps_per_epoch=_STEPS, callbacks=[note])
        predicted = distribution.predictor(model)(batch[0][:5], 4)
        copies = [strategy.experimental_local_results(variable.value) for variable in network.weights]
    alike = all(np.array_equal(one.numpy(), ones[0].numpy()) for ones in copies for one in ones)
    return losses, before, network.get_weights(), predicted, alike


def _compare(make, batch, optimizer):
    strategies = tf.distribute.get_strategy(), distribution.opened("mirrored", _BATCH, "auto")
    one, two = (_steps(strategy, make, batch, optimizer) for strategy in strategies)
    return {
        "losses": [one[0], two[0]],
        "moved": _distance(one[1], one[2]),
        "apart": _distance(one[2], two[2]) / _distance(one[1], one[2]),
        "predictions": [one[3].tolist(), two[3].tolist()],
        "alike": two[4],
    }


def _distance(ours, theirs):
    return float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(ours, theirs, strict=True))))


def main():
    images = np.random.default_rng(0).integers(0, 255, (2, _BATCH, _SIZE, _SIZE, 3), np.uint8)
    views, labelled = tuple(images), (images[0], np.arange(_BATCH) % 3 % 2)
    # The plain gradient: Adam would move as far by half of it.
    found = {}
    for name in METHODS:
        batch = (*views, labelled[1]) if name == "supcon" else views
        found[name] = _compare(lambda name=name: _pretext(name), batch, lambda: keras.optimizers.SGD(0.01))
    found["clipped"] = _compare(lambda: _pretext("simclr"), views, lambda: AdamW(1e-3, global_clipnorm=0.1))
    found["classifier"] = _compare(_classifier, labelled, lambda: keras.optimizers.SGD(0.01))
    print(json.dumps(found))


if __name__ == "__main__":
    # Graphs of steps that are taken twice take longer than the steps; those of two processes have a test of their own.
    tf.config.run_functions_eagerly(True)
    with in_place_of_resnet10():
        main()
