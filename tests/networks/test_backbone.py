"""A backbone is one flat graph with its preprocessing inside, and says what became of a weights file."""

import dataclasses

import h5py
import keras
import numpy as np
import pytest

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs import encoders
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.networks import backbone as backbone_lib
from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.networks.classifier import build_classifier
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.networks.weights import load_weights_file
from mvtec_tf.training import precision


def _write_legacy_file(path, model, leave_out=(), change=None):
    """The HDF5 form of the keras.applications weights, written independently of Keras."""
    layers = [layer for layer in model.layers if layer.weights and layer.name not in leave_out]
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{i}".encode() for i in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for name, weight in zip(names, layer.weights, strict=True):
                shape = tuple(weight.shape) if layer.name != change else (*weight.shape, 2)
                group[name.decode()] = rng.uniform(0.5, 1.5, shape).astype(np.float16)
    return str(path)


@pytest.fixture(scope="module")
def small():
    return build_backbone("resnet10", 32)


def test_the_graph_is_flat_and_takes_raw_pixels(small):
    assert not any(isinstance(layer, keras.Model) for layer in small.model.layers)
    assert small.model.inputs[0].dtype == "uint8"
    assert small.stages == ("conv2_block1_out", "conv3_block1_out", "conv4_block1_out", "conv5_block1_out")
    assert small.middle_stages == ("conv3_block1_out", "conv4_block1_out")


def test_preprocessing_is_the_networks_own():
    model = build_backbone("resnet50", 64).model
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    padded = keras.Model(model.inputs, model.get_layer("conv1_pad").output).predict(images, verbose=0)
    # Keras' ResNet-50 was trained on BGR minus the ImageNet mean.
    expected = images[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    np.testing.assert_allclose(padded[:, 3:-3, 3:-3], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenetv2", "densenet121"])
def test_any_network_of_keras_applications_is_built_by_name(name):
    built = build_backbone(name, 64)
    channels = [built.model.get_layer(stage).output.shape[1] for stage in built.stages]
    assert channels == sorted(channels, reverse=True)
    assert len(built.stages) >= 4


def test_a_mobilenets_width_stands_behind_its_name():
    narrow = build_backbone("MobileNetV2-0.35", 32).model
    assert (narrow.name, narrow.count_params()) == ("mobilenetv2-0.35", 410_208)
    with pytest.raises(UsageError, match="one width only"):
        build_backbone("resnet50-0.5", 32)
    with pytest.raises(UsageError, match=r"`backbone`=mobilenetv2-wide: expected a width"):
        build_backbone("mobilenetv2-wide", 32)


def test_a_cut_backbone_ends_at_that_stage():
    cut = build_backbone("resnet10", 32, cut_after_stage=3)
    assert cut.stages[-1] == "conv4_block1_out"
    assert cut.model.output.shape[-1] == 128
    with pytest.raises(UsageError, match="`backbone_stages`=9"):
        build_backbone("resnet10", 32, cut_after_stage=9)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mobilenet_v2", r"Did you mean mobilenetv2\? .*mobilenetv2-0\.35"),
        ("efficientnet-b0", r"Did you mean efficientnetb0\?"),
        ("resnet99", r"Did you mean resnet50\?"),
        ("lenet", "Known are .*resnet50"),
    ],
)
def test_an_unknown_backbone_is_answered_with_the_nearest_or_all(name, hint):
    with pytest.raises(UsageError, match=f"`backbone`={name}: unknown. {hint}"):
        build_backbone(name, 64)


def test_imagenet_without_a_network_ends_with_a_message_not_with_random_weights(monkeypatch):
    def no_network(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org: None -- Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(UserError, match="`weights`=FILE"):
        build_backbone("resnet50", 64, "imagenet")


def test_there_are_no_imagenet_weights_of_resnet10():
    with pytest.raises(UserError, match="resnet10"):
        build_backbone("resnet10", 32, "imagenet")


def test_a_whole_file_is_loaded_to_the_number(small, tmp_path):
    path = _write_legacy_file(tmp_path / "w.h5", small.model)
    built = build_backbone("resnet10", 32, path)
    assert built.weights.random == built.weights.unused == ()
    with h5py.File(path) as file:
        expected = file["conv1_conv/conv1_conv/0"][:].astype(np.float32)
    np.testing.assert_array_equal(built.model.get_layer("conv1_conv").get_weights()[0], expected)


@pytest.mark.parametrize("name", ["w.weights.h5", "w.keras"])
def test_weights_as_keras_saves_them_now_are_loaded_to_the_number(small, tmp_path, name):
    path = str(tmp_path / name)
    small.model.save_weights(path) if name.endswith("h5") else small.model.save(path)
    built = build_backbone("resnet10", 32, path)
    assert built.weights.random == built.weights.unused == ()
    for own, expected in zip(built.model.get_weights(), small.model.get_weights(), strict=True):
        np.testing.assert_array_equal(own, expected)
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs)).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="another network"):
        build_backbone("resnet10", 32, str(tmp_path / "other.keras"))
    (tmp_path / "cut.keras").write_bytes((tmp_path / "other.keras").read_bytes()[:-30])
    with pytest.raises(UserError, match="not an HDF5 file"):
        build_backbone("resnet10", 32, str(tmp_path / "cut.keras"))


def test_a_file_of_the_first_stages_is_loaded_and_the_rest_is_said_to_be_random(small, tmp_path):
    late = [layer.name for layer in small.model.layers if layer.name.startswith("conv5")]
    path = _write_legacy_file(tmp_path / "w.h5", small.model, leave_out=late)
    report = build_backbone("resnet10", 32, path).weights
    assert report.random
    assert set(report.random) <= set(late)
    assert "RANDOM" in report.describe()
    assert "conv5_block1" in report.describe()


def test_what_is_random_beyond_a_cut_or_the_layers_of_the_features_is_not_reported(small, tmp_path):
    late = [layer.name for layer in small.model.layers if layer.name.startswith("conv5")]
    path = _write_legacy_file(tmp_path / "w.h5", small.model, leave_out=late)
    assert build_backbone("resnet10", 32, path).weights.random
    assert "RANDOM" not in build_backbone("resnet10", 32, path, cut_after_stage=3).weights.describe()
    settings = FitSettings(data_dir=(), run_dir="", weights=str(path), backbone="resnet10")
    assert "RANDOM" not in encoders.write_start(tmp_path / "middle", settings, 32, 32, seed=0)
    assert "RANDOM" not in encoders.write_start(tmp_path / "middle", settings, 32, 32, seed=0)  # as its card says
    for name, value in {"weights": "none", "precision": "bfloat16"}.items():
        with pytest.raises(UserError, match=rf"middle: .* made otherwise \({name}: .* there, {value} here"):
            encoders.write_start(tmp_path / "middle", dataclasses.replace(settings, **{name: value}), 32, 32, seed=0)
    last = encoders.write_start(
        tmp_path / "last", dataclasses.replace(settings, feature_layers=("embedding",)), 32, 32, seed=0
    )
    assert "RANDOM" in last
    assert saved_model.read_card(tmp_path / "last")["weights"] == last


def test_a_file_whose_layers_are_numbered_otherwise_is_loaded_in_its_order(tmp_path):
    def network(first):
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(3, 1, use_bias=False, name=f"conv2d_{first}")(inputs)
        return keras.Model(inputs, keras.layers.Conv2D(3, 1, use_bias=False, name=f"conv2d_{first + 1}")(x))

    # The first layer's name is the second one's in the file, and their shapes are the same.
    path = _write_legacy_file(tmp_path / "w.h5", network(1))
    model = network(2)
    report = load_weights_file(model, path)
    assert (report.random, report.unused) == ((), ())
    with h5py.File(path) as file:
        stored = [file[f"conv2d_{number}/conv2d_{number}/0"][:].astype(np.float32) for number in (1, 2)]
    for layer, expected in zip(model.layers[1:], stored, strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], expected)


def test_layers_have_the_same_names_and_weights_in_every_copy_of_a_network_of_one_process():
    keras.utils.set_random_seed(0)
    first, second = (build_backbone("mobilenetv3small", 32) for _ in range(2))
    assert [layer.name for layer in first.model.layers] == [layer.name for layer in second.model.layers]
    assert first.stages == second.stages
    with precision.dtype_policy("mixed_bfloat16"):
        trained = build_backbone("mobilenetv3small", 32).model
    copy = in_float32(trained)
    assert [weight.path for weight in copy.weights] == [weight.path for weight in trained.weights]
    assert {layer.compute_dtype for layer in copy.layers[1:]} == {"float32"}
    for a, b in zip(copy.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_networks_file_is_refused_unless_partial_is_asked_for(small, tmp_path):
    path = _write_legacy_file(tmp_path / "w.h5", small.model, change="conv3_block1_1_conv")
    with pytest.raises(UserError, match="`weights_partial`"):
        build_backbone("resnet10", 32, path)
    report = build_backbone("resnet10", 32, path, weights_partial=True).weights
    assert report.unused == report.random == ("conv3_block1_1_conv",)


def test_a_layer_missing_in_the_middle_means_another_network(small, tmp_path):
    path = _write_legacy_file(tmp_path / "w.h5", small.model, leave_out=["conv3_block1_1_conv"])
    with pytest.raises(UserError, match="does not fit"):
        build_backbone("resnet10", 32, path)


def test_a_file_without_one_fitting_layer_is_refused_even_if_partial(small, tmp_path):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="elsewhere")])
    path = _write_legacy_file(tmp_path / "w.h5", other)
    with pytest.raises(UserError, match="does not fit"):
        load_weights_file(small.model, path, partial=True)


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), (b"text", "not an HDF5 file")])
def test_a_file_that_is_no_weights_file_is_named(tmp_path, content, message):
    path = tmp_path / "weights.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        build_backbone("resnet10", 32, str(path))
    assert str(path) in str(caught.value)


def test_weights_that_are_not_numbers_are_refused(small, tmp_path):
    path = _write_legacy_file(tmp_path / "w.h5", small.model)
    with h5py.File(path, "a") as file:
        file["conv1_conv/conv1_conv/0"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="NaN"):
        build_backbone("resnet10", 32, path)


def test_freezing_leaves_the_last_stages_and_the_head_trainable(small):
    built = build_backbone("resnet10", 32)
    network = build_classifier(built)
    frozen = backbone_lib.freeze_up_to(network, built, 2)
    trainable = {weight.path.split("/")[0] for weight in network.trainable_weights}
    assert {name.split("_")[0] for name in frozen} == {"conv1", "conv2", "conv3"}
    assert {name.split("_")[0] for name in trainable} == {"conv4", "conv5", "head", "logits"}
    assert backbone_lib.freeze_up_to(build_classifier(small), small, 4) == []


def test_real_weights_reach_conv4_and_densenets_are_refused(real_weights):
    resnet = real_weights / "resnet50_imagenet_conv1_to_conv4_fp16.h5"
    report = build_backbone("resnet50", 64, str(resnet)).weights
    assert report.unused == ()
    assert all(name.startswith("conv5") for name in report.random)
    densenet = real_weights / "densenet169_imagenet_notop_fp16.h5"
    with pytest.raises(UserError, match="another network"):
        build_backbone("resnet50", 64, str(densenet))
    whole = build_backbone("densenet169", 64, str(densenet)).weights
    assert whole.unused == whole.random == ()
