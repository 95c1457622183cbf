"""DINOv2's patch tokens as maps: equal to the formulas in NumPy, exported and fitted on, refused in words."""

import importlib.util
import json
import sys

import keras
import numpy as np
import pytest
from scipy.special import erf

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import FitSettings, PretrainSettings, TrainClassifierSettings
from mvtec_tf.networks import foundation
from mvtec_tf.networks.backbone import build_backbone

needs_hub = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="keras-hub is not installed")
PLAIN, REGISTERS = "dinov2_small", "dinov2_with_registers_small"
SIDE, WIDTH, HEADS = 42, 16, 2


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Networks of three blocks under the names of the small ones."""
    monkeypatch.setitem(foundation.ARCHITECTURES, PLAIN, (3, WIDTH, HEADS, 0))
    monkeypatch.setitem(foundation.ARCHITECTURES, REGISTERS, (3, WIDTH, HEADS, 4))


def _norm(values, layer):
    middle = values - values.mean(axis=-1, keepdims=True)
    return middle / np.sqrt(np.square(middle).mean(axis=-1, keepdims=True) + 1e-6) * _of(layer.gamma) + _of(layer.beta)


def _of(weight):
    return np.asarray(weight, np.float64)


def _attention(values, layer):
    query, key, value = (
        np.einsum("btc,chd->bhtd", values, _of(part.kernel)) + _of(part.bias)[:, None]
        for part in (layer.query_dense, layer.key_dense, layer.value_dense)
    )
    weights = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH // HEADS))
    mixed = weights / weights.sum(axis=-1, keepdims=True) @ value
    return np.einsum("bhtd,hdc->btc", mixed, _of(layer.output_dense.kernel)) + _of(layer.output_dense.bias)


def _by_hand(model, images, registers):
    """block -> patch tokens after the final norm, float64 [B, S / 14, S / 14, C]."""
    embedding = model.get_layer("embeddings")
    values = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    count, side = len(images), SIDE // 14
    cut = values.reshape(count, side, 14, side, 14, 3).transpose(0, 1, 3, 2, 4, 5).reshape(count, side * side, -1)
    projection = embedding.patch_embeddings.projection
    tokens = cut @ _of(projection.kernel).reshape(-1, WIDTH) + _of(projection.bias)
    first = np.broadcast_to(_of(embedding.cls_token), (count, 1, WIDTH))
    tokens = np.concatenate([first, tokens], axis=1) + _of(embedding.interpolated_position_embeddings)
    if registers:
        more = np.broadcast_to(_of(embedding.register_tokens), (count, registers, WIDTH))
        tokens = np.concatenate([tokens[:, :1], more, tokens[:, 1:]], axis=1)
    found = {}
    for number in (1, 2, 3):
        block = model.get_layer(f"layers_{number - 1}")
        attended = _attention(_norm(tokens, block.norm1), block.attention.attention)
        tokens = tokens + attended * _of(block.layer_scale1.lambda1)
        inner = _norm(tokens, block.norm2) @ _of(block.mlp.fc1.kernel) + _of(block.mlp.fc1.bias)
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        inner = inner @ _of(block.mlp.fc2.kernel) + _of(block.mlp.fc2.bias)
        tokens = tokens + inner * _of(block.layer_scale2.lambda1)
        patches = _norm(tokens, model.get_layer("layernorm"))[:, 1 + registers :]
        found[f"block{number}_map"] = patches.reshape(count, side, side, WIDTH)
    return found


@needs_hub
@pytest.mark.parametrize(("name", "registers"), [(PLAIN, 0), (REGISTERS, 4)])
def test_the_maps_are_those_of_the_formulas(name, registers):
    built = build_backbone(name, SIDE)
    rng = np.random.default_rng(0)
    # What starts at one or zero would hide a layer that is left out.
    for weight in built.model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.3)
    images = rng.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    assert built.stages == ("block1_map", "block2_map", "block3_map")
    maps = keras.Model(built.model.inputs, [built.model.get_layer(name).output for name in built.stages])(images)
    for name, found in zip(built.stages, maps, strict=True):
        np.testing.assert_allclose(found, _by_hand(built.model, images, registers)[name], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(built.model(images), maps[-1])


@needs_hub
def test_a_file_of_weights_is_loaded_at_any_size_and_another_networks_is_refused(tmp_path):
    import keras_hub

    def made(width, side=28):
        return keras_hub.models.DINOV2Backbone(
            14, 3, width, HEADS, 4 * width, image_shape=(side, side, 3), position_embedding_shape=(518, 518)
        )

    first, rng = made(WIDTH), np.random.default_rng(0)
    positions = first.embeddings.interpolated_position_embeddings
    for weight in first.weights:
        if weight is not positions:
            weight.assign(rng.normal(size=weight.shape))
    first.save_weights(tmp_path / "own.weights.h5")
    first.save_to_preset(str(tmp_path / "preset"))
    for source in ("own.weights.h5", "preset"):
        built = build_backbone(PLAIN, 56, str(tmp_path / source))
        assert "layers loaded" in built.weights.describe()
        assert [layer.name for layer in built.model.layers if layer.weights][::4] == ["embeddings", "layernorm"]
        embedding = built.model.get_layer("embeddings")
        assert embedding.interpolated_position_embeddings.shape == (1, 17, WIDTH)
        assert np.ptp(embedding.interpolated_position_embeddings) > 0
        for own, weight in zip(built.model.weights, first.weights, strict=True):
            if weight is not positions:
                np.testing.assert_array_equal(own, weight)
    made(8).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    for wrong in ("other.weights.h5", "text.weights.h5"):
        with pytest.raises(UserError, match=f"{wrong}: not the weights of"):
            build_backbone(PLAIN, 28, str(tmp_path / wrong))
    made(8).save_to_preset(str(tmp_path / "another"))
    with pytest.raises(UserError, match="of another network than dinov2_small"):
        build_backbone(PLAIN, 28, str(tmp_path / "another"))


@needs_hub
@pytest.mark.slow
def test_heads_heat_maps_and_the_export_take_its_maps(toy, tmp_path):
    asked = {"data_dir": (str(toy / "denim"),), "backbone": REGISTERS, "weights": "none", "image_size": 56}
    # Scores and maps of the exported graph are compared with the fitted head's in the run itself.
    run = fit(FitSettings(run_dir=str(tmp_path / "run"), head="patchcore", memory_bank=50, heatmaps=True, **asked))
    assert run.finished
    assert json.loads((run.path / "run.json").read_text())["encoder"]["layers"] == ["block1_map", "block2_map"]
    heat = np.load(next((run.path / "heatmaps").rglob("*.npy")))
    assert heat.shape == (56, 56)
    assert np.ptp(heat) > 0


@pytest.mark.parametrize(
    ("size", "weights", "error", "words"),
    [
        (60, "none", UsageError, "`image_size`=60: .* multiple of 14 pixels, such as 56"),
        ((28, 56), "none", UsageError, "`image_size`=28x56: .* sees squares"),
        (28, "imagenet", UserError, "there are none for dinov2_small. Use `weights`=preset"),
        (28, "nowhere.weights.h5", UserError, "nowhere.weights.h5: no such file or folder"),
    ],
)
def test_sizes_and_weights_that_there_are_not_are_refused(size, weights, error, words):
    with pytest.raises(error, match=words):
        build_backbone(PLAIN, size, weights)


@needs_hub
def test_a_preset_that_cannot_be_downloaded_is_said_with_the_way_out(monkeypatch):
    import keras_hub

    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(keras_hub.models.DINOV2Backbone, "from_preset", offline)
    with pytest.raises(UserError, match=r"`weights`=preset: .* cannot be had \(Name or service not known\)"):
        build_backbone(PLAIN, 28, "preset")


def test_without_keras_hub_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match=r"needs KerasHub.*pip install 'mvtec_tf\[hub\]'"):
        build_backbone(PLAIN, 28)


def test_no_other_network_has_a_preset_and_parts_of_it_cannot_be_had():
    with pytest.raises(UsageError, match="`weights`=preset: resnet50 has none"):
        build_backbone("resnet50", 64, "preset")
    with pytest.raises(UsageError, match="is taken whole"):
        build_backbone(PLAIN, 28, cut_after_stage=1)


def test_it_is_not_trained_here():
    where = {"data_dir": ("d",), "run_dir": "r", "backbone": PLAIN, "weights": "none"}
    with pytest.raises(UsageError, match="is not trained here"):
        checks.of_training(TrainClassifierSettings(**where))
    with pytest.raises(UsageError, match="is not trained here"):
        checks.of_pretraining(PretrainSettings(**where))
