"""A run's record says what its network is made of, and leaves no weight out."""

import json

import keras

from mvtec_tf.graphs import saved_model
from mvtec_tf.networks import architecture
from mvtec_tf.networks.backbone import build_backbone, freeze_up_to
from mvtec_tf.networks.classifier import build_classifier


def test_the_blocks_hold_every_weight_once_and_say_which_are_trained():
    backbone = build_backbone("resnet10", 64)
    network = build_classifier(backbone)
    freeze_up_to(network, backbone, 2)
    blocks = architecture.describe(network, backbone.stages)
    assert sum(block["parameters"] for block in blocks) == network.count_params()
    trained = sum(int(keras.ops.size(weight)) for weight in network.trainable_weights)
    assert sum(block["trained"] for block in blocks) == trained
    stages = [block for block in blocks if block["kind"] == "stage"]
    assert [block["name"] for block in stages] == list(backbone.stages)
    assert [bool(block["trained"]) for block in stages] == [False] * (len(stages) - 2) + [True] * 2
    assert blocks[0] == {"name": "image", "kind": "image", "shape": [64, 64, 3], "parameters": 0, "trained": 0}
    assert (blocks[-1]["kind"], blocks[-1]["shape"]) == ("Dense", [2])
    assert json.loads(json.dumps(blocks)) == blocks


def test_an_encoder_is_written_with_its_blocks_none_of_them_trained(tmp_path):
    backbone = build_backbone("resnet10", 32)
    saved_model.write_encoder(tmp_path / "encoder", backbone, {"run": {}, "pretrain_images": []})
    blocks = saved_model.read_card(tmp_path / "encoder")["architecture"]
    assert sum(block["parameters"] for block in blocks) == backbone.model.count_params()
    assert not any(block["trained"] for block in blocks)
