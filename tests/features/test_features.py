"""Features are computed once, lie in shards, and are what the served graph computes."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.features import extract, store
from mvtec_tf.features.feature_graph import FeatureGraph, FeatureSettings, as_kept
from mvtec_tf.features.probe_graph import Probe, write_probe
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.graphs import heat_maps, saved_model
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.file import load_head, save_head
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.probability import Platt
from mvtec_tf.heads.settings import NEED_MAPS, HeadSettings
from mvtec_tf.jobs.extract import extract_features
from mvtec_tf.jobs.probe_features import find_source
from mvtec_tf.jobs.settings import ExtractSettings
from mvtec_tf.networks.backbone import build_backbone
from tests.support.small_run import assert_empty_batches_get_empty_answers

SIDE = 64


@pytest.fixture(scope="module")
def backbone():
    return build_backbone("resnet10", SIDE)


@pytest.fixture(scope="module")
def encoder(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder"
    saved_model.write_encoder(path, backbone, {"pretrain_images": []}, layers=["conv2_block1_out"])
    return path


@pytest.fixture(scope="module")
def layers(backbone):
    return backbone.middle_stages


@pytest.fixture(scope="module")
def records(toy_records):
    """20 images: good and defective ones of both categories."""
    chosen = []
    for category in sorted({record.category for record in toy_records}):
        own = [record for record in toy_records if record.category == category]
        chosen += [record for record in own if record.split == "train"][:6] + [r for r in own if r.label][:4]
    return tuple(chosen)


@pytest.fixture(scope="module")
def kept(encoder, records, layers, tmp_path_factory):
    """A finished store with maps, seven images a shard."""
    out = tmp_path_factory.mktemp("store") / "features"
    return extract.extract(encoder, records, FeatureSettings(layers, maps=True), out, per_shard=7, end=True)


def _images(records, size=SIDE):
    return np.stack([pixels.decode_and_resize(tf.io.read_file(record.file), size) for record in records])


def _maps(backbone, images, layer):
    import keras

    return keras.Model(backbone.model.inputs, backbone.model.get_layer(layer).output)(images, training=False).numpy()


def test_an_encoder_gives_the_maps_whose_averages_it_gives(encoder, backbone, records):
    signatures = saved_model.load(encoder).signatures
    given = tf.stack([tf.io.read_file(record.file) for record in records[:3]])
    averages, maps = signatures["embed"](image_bytes=given), signatures["embed_maps"](image_bytes=given)
    assert set(averages) == set(maps) == {*backbone.stages, "embedding", "conv2_block1_out"}
    from_pixels = signatures["embed_pixels"](images=_images(records[:3]))
    for name, value in maps.items():
        np.testing.assert_allclose(tf.reduce_mean(value, axis=[1, 2]), averages[name], atol=1e-5)
        np.testing.assert_allclose(from_pixels[name], value, atol=1e-5)
        assert value.shape[1:] == backbone.model.get_layer(name).output.shape[1:] if name != "embedding" else True


def test_a_layer_that_the_network_has_not_is_named(backbone, tmp_path):
    with pytest.raises(UsageError, match="conv99"):
        saved_model.write_encoder(tmp_path / "e", backbone, {}, layers=["conv99"])
    assert not (tmp_path / "e").exists()


def test_stored_features_are_the_networks(kept, backbone, records, layers):
    features = kept.of(records)
    maps = [_maps(backbone, _images(records), layer) for layer in layers]
    np.testing.assert_allclose(features.pooled, np.concatenate([m.mean(axis=(1, 2)) for m in maps], axis=1), atol=1e-5)
    assert features.tiled is None
    assert features.image_size == (SIDE, SIDE)
    for layer, own in zip(layers, maps, strict=True):
        averaged = tf.nn.avg_pool2d(own, 3, 1, "SAME").numpy()
        # Kept as float16.
        np.testing.assert_allclose(features.maps[layer][np.arange(len(records))], averaged, rtol=1e-3, atol=1e-5)
    end = backbone.model(_images(records), training=False).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(kept.embeddings_of(records), end, atol=1e-5)


def test_rows_are_read_in_any_order_across_shards(kept, records, layers):
    order = np.array([15, 0, 7, 6, 13, 14, 0])
    wanted = [records[i] for i in order[:-1]]
    whole, some = kept.of(records), kept.of(wanted)
    np.testing.assert_array_equal(some.pooled, whole.pooled[order[:-1]])
    source = whole.select(order).maps[layers[0]]
    assert source.shape == (7, *whole.maps[layers[0]].shape[1:])
    np.testing.assert_array_equal(source[np.array([6, 2])], whole.maps[layers[0]][np.array([0, 7])])
    batches = list(some.batches(4))
    assert [len(batch) for batch in batches] == [4, 2]
    np.testing.assert_array_equal(batches[1].maps[layers[1]], whole.maps[layers[1]][order[4:6]])


def test_shards_hold_arrays_without_pickle_and_no_file_stays_mapped(kept, records, layers):
    files = sorted(kept.path.glob("shard_*/*.npy"))
    assert len(files) == 3 * 4
    assert [len(np.load(file, allow_pickle=False)) for file in files[::4]] == [7, 7, 6]
    kept.of(records).maps[layers[0]][np.arange(20)]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(kept.path) not in maps.read()


def test_maps_are_kept_as_float16_and_the_graph_rounds_as_the_store_does(kept, encoder, records, layers):
    graph = FeatureGraph(encoder, FeatureSettings(layers, maps=True))
    served = graph.features(pixels.decode_batch(tf.constant([pathlib.Path(records[3].file).read_bytes()]), 64)).maps
    for number, name in enumerate(layers):
        there = np.load(kept.path / "shard_00000" / f"map_{number}.npy")
        assert there.dtype == np.float16
        np.testing.assert_allclose(there[3].astype(np.float32), served[name][0], rtol=1e-3, atol=1e-6)
        assert np.mean(there[3] == served[name][0].numpy()) > 0.99
        np.testing.assert_array_equal(served[name].numpy().astype(np.float16), served[name])
    huge = as_kept(tf.constant([1e9, -1e9, 0.1]))
    assert np.isfinite(huge).all()


def test_an_interrupted_extraction_goes_on_with_the_missing_shard(kept, encoder, records, layers, tmp_path):
    out = tmp_path / "features"
    shutil.copytree(kept.path, out)
    shutil.rmtree(out / "shard_00001")
    with pytest.raises(UserError, match="1 of 3 shards are missing"):
        FeatureStore(out)
    untouched = (out / "shard_00000" / "pooled.npy").stat().st_mtime_ns
    again = extract.extract(encoder, records, FeatureSettings(layers, maps=True), out, per_shard=7)
    assert (out / "shard_00000" / "pooled.npy").stat().st_mtime_ns == untouched
    for name in ("pooled", "map_0", "map_1"):
        there = np.load(out / "shard_00001" / f"{name}.npy")
        # Another batch may round to the next number of float16.
        np.testing.assert_allclose(there, np.load(kept.path / "shard_00001" / f"{name}.npy"), rtol=1e-3, atol=1e-6)
    assert len(again.of(records)) == 20
    with pytest.raises(UserError, match="original study's head needs"):
        again.embeddings_of(records)


def test_a_folder_of_other_features_is_refused(kept, encoder, records, layers, tmp_path):
    with pytest.raises(UserError, match="images are not the same"):
        store.begin(kept.path, kept.key, records[:-1], per_shard=7)
    with pytest.raises(UserError, match=r"tiles: \[1, 1\] there, \[2, 2\] here"):
        store.begin(kept.path, dataclasses.replace(kept.key, tiles=(2, 2)), records, per_shard=7)
    other = dataclasses.replace(kept.key, encoder="f00d", image_size=(32, 32))
    with pytest.raises(UserError, match=r"encoder: .*f00d here; image_size: \[64, 64\] there, \[32, 32\] here"):
        store.begin(kept.path, other, records, per_shard=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        extract.extract(encoder, records, FeatureSettings(layers), tmp_path / "full")


def test_an_image_that_has_changed_or_is_not_there_is_refused(kept, records, tmp_path):
    changed = tmp_path / "changed.png"
    changed.write_bytes(b"other pixels")
    with pytest.raises(UserError, match="has changed since"):
        kept.of([dataclasses.replace(records[0], file=str(changed))])
    with pytest.raises(UserError, match=r"no features of cap/test/good/000\.png"):
        kept.of([dataclasses.replace(records[0], path="cap/test/good/000.png")])


def test_a_layer_that_the_encoder_has_not_is_a_wrong_flag(encoder, records, tmp_path):
    with pytest.raises(UsageError, match="no conv99; it has"):
        extract.extract(encoder, records, FeatureSettings(("conv99",)), tmp_path / "features")


def test_an_unreadable_image_is_named_and_no_half_shard_is_left(encoder, records, layers, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    broken = (*records[:2], dataclasses.replace(records[2], file=str(bad)))
    with pytest.raises(UserError, match=r"bad\.png"):
        extract.extract(encoder, broken, FeatureSettings(layers), tmp_path / "features", per_shard=2)
    assert sorted(path.name for path in (tmp_path / "features").glob("*shard*")) == ["shard_00000"]


@pytest.mark.slow
def test_a_refused_extraction_leaves_nothing_in_a_folder_of_the_users(records, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    asked = ExtractSettings(data_dir=(), out=str(tmp_path), weights="none", backbone="resnet10", image_size=32)
    with pytest.raises(UserError, match="holds no features"):
        extract_features(asked, records)
    assert [child.name for child in tmp_path.iterdir()] == ["notes.txt"]


def test_what_killed_calls_left_half_written_is_gone_when_the_features_are_there(records, tmp_path):
    for name in (".encoder.partial.x", "shard_00000/.1.partial.pooled.npy"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shard_00000").rename(tmp_path / ".shard_00000.partial.y")
    asked = ExtractSettings(data_dir=(), out=str(tmp_path), weights="none", backbone="resnet10", image_size=32)
    extract_features(asked, records[:2])
    names = {child.name for child in tmp_path.iterdir()}
    assert names == {"encoder", "features.json", "records.csv", "shard_00000"}


def test_tiles_are_seen_one_by_one_and_their_maps_stitched(encoder, backbone, records, layers, tmp_path):
    settings = FeatureSettings(layers, maps=True, neighbourhood=1, tiles=(2, 3))
    features = extract.extract(encoder, records[:2], settings, tmp_path / "tiled").of(records[:2])
    images = _images(records[:2], (2 * SIDE, 3 * SIDE))
    assert features.image_size == (2 * SIDE, 3 * SIDE)
    for number in range(6):
        top, left = number // 3 * SIDE, number % 3 * SIDE
        tile = images[:, top : top + SIDE, left : left + SIDE]
        own = _maps(backbone, tile, layers[0])
        np.testing.assert_allclose(features.tiled[:, number, : own.shape[-1]], own.mean(axis=(1, 2)), atol=1e-5)
        h, w = own.shape[1:3]
        y, x = number // 3 * h, number % 3 * w
        stitched = features.maps[layers[0]][np.arange(2)][:, y : y + h, x : x + w]
        np.testing.assert_allclose(stitched, own, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(features.pooled, features.tiled.mean(axis=1), atol=1e-6)


def _fitted(name, features, records, tiled=False):
    settings = HeadSettings(name, memory_bank=60, padim_channels=12)
    labels = np.array([record.label for record in records])
    categories = np.array([record.category for record in records])
    heads = {category: make_head(settings, tiled) for category in np.unique(categories)}
    head = PerCategoryHead(heads).fit(features, labels, categories)
    head.calibrate({category: Platt(0.5, -1.0) for category in heads})
    return head, settings


@pytest.mark.parametrize("name", ["padim", "patchcore", "fused"])
def test_a_served_probe_answers_what_the_fitted_head_says(name, kept, encoder, records, layers, tmp_path):
    features = kept.of(records)
    head, _ = _fitted(name, features, records)
    probe = Probe(encoder, FeatureSettings(layers, maps=name in NEED_MAPS), head)
    write_probe(tmp_path / "probe", probe, {})
    signatures = saved_model.load(tmp_path / "probe").signatures
    given = tf.stack([tf.io.read_file(record.file) for record in records])
    answer = signatures["serving_default"](image_bytes=given)
    expected = head.decision_function(features)
    np.testing.assert_allclose(answer["anomaly_score"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(answer["probability"], 1 / (1 + np.exp(1 - 0.5 * expected)), atol=1e-5)
    card = saved_model.read_card(tmp_path / "probe")
    named = [card["categories"][number] for number in answer["category"].numpy()]
    assert np.mean([a == record.category for a, record in zip(named, records, strict=True)]) > 0.9
    explained = signatures["explain"](image_bytes=given)
    np.testing.assert_allclose(explained["anomaly_score"], expected, rtol=1e-5, atol=1e-5)
    maps = explained["heat_map"].numpy()
    assert maps.shape == (20, SIDE, SIDE)
    if name in NEED_MAPS:
        np.testing.assert_allclose(maps, head.heat_maps(features), rtol=1e-4, atol=1e-4)
    decoded = [pixels.decode(one).numpy() for one in given[:3]]
    for i, image in enumerate(decoded):
        by_pixels = signatures["predict_images"](images=image[None])
        np.testing.assert_allclose(by_pixels["anomaly_score"], expected[i : i + 1], rtol=1e-5, atol=1e-5)
    embedding = signatures["embed"](image_bytes=given)["embedding"]
    np.testing.assert_allclose(embedding, features.pooled, rtol=1e-5, atol=1e-5)
    assert_empty_batches_get_empty_answers(signatures)


def test_an_empty_batch_gets_empty_features(encoder):
    assert_empty_batches_get_empty_answers(saved_model.load(encoder).signatures)


def test_a_linear_heads_heat_map_adds_up_to_its_score(encoder, records, kept, layers):
    """Before negative values are cut off: the mean of every layer's map, and the head's bias."""
    features = kept.of(records)
    head, _ = _fitted("logistic", features, records)
    probe = Probe(encoder, FeatureSettings(layers), head)
    images = _images(records, (SIDE, SIDE))
    maps = probe._graph.maps(images)
    score, parts = heat_maps.contributions(
        maps, lambda values: head.score_ops(probe._graph.features_of(values), probe._arrays)
    )
    heads = list(head.heads.values())
    bias = np.array([heads[number].bias_ for number in probe.judge(images)["category"].numpy()])
    total = sum(part.numpy().mean(axis=(1, 2), dtype=np.float64) for part in parts) + bias
    np.testing.assert_allclose(total, score, rtol=1e-4, atol=1e-4)
    weights = heads[0].weights_
    by_hand = np.concatenate([values.numpy().mean(axis=(1, 2)) for values in maps], axis=1) @ weights + heads[0].bias_
    first = probe.judge(images)["category"].numpy() == 0
    assert first.any()
    np.testing.assert_allclose(total[first], by_hand[first], rtol=1e-3, atol=1e-3)


def test_a_distance_of_zero_explains_nothing_and_is_no_nan(encoder, records, kept, layers):
    features = kept.of(records)
    head, _ = _fitted("nearest_neighbours", features, records)
    _, maps = Probe(encoder, FeatureSettings(layers), head).explain(_images(records, (SIDE, SIDE)))
    assert np.isfinite(maps).all()


def test_a_probe_on_tiles_answers_what_the_fitted_head_says(encoder, records, layers, tmp_path):
    settings = FeatureSettings(layers, maps=True, tiles=(1, 2))
    features = extract.extract(encoder, records, settings, tmp_path / "features").of(records)
    images = _images(records, (SIDE, 2 * SIDE))
    for name in ("logistic", "mahalanobis", "patchcore"):
        head, _ = _fitted(name, features, records, tiled=True)
        probe = Probe(encoder, settings, head)
        score = probe.judge(images)["anomaly_score"]
        np.testing.assert_allclose(score, head.decision_function(features), rtol=1e-5, atol=1e-5)
    assert probe.explain(images)[1].shape == (20, SIDE, 2 * SIDE)
    write_probe(tmp_path / "probe", probe, {})
    assert saved_model.read_card(tmp_path / "probe")["image_size"] == [SIDE, 2 * SIDE]


@pytest.mark.parametrize("name", ["rbf_svm", "padim", "patchcore"])
def test_a_head_is_saved_without_pickle_and_read_back_as_it_was(name, kept, records, tmp_path):
    features = kept.of(records)
    head, settings = _fitted(name, features, records)
    save_head(tmp_path / "head.npz", head, settings, kept.key.as_json())
    with np.load(tmp_path / "head.npz", allow_pickle=False) as file:
        assert all(file[entry].dtype != object for entry in file.files)
    again = load_head(tmp_path / "head.npz", kept.key.as_json())
    scores = head.decision_function(features)
    np.testing.assert_array_equal(again.decision_function(features), scores)
    categories = np.array([record.category for record in records])
    np.testing.assert_allclose(again.probability_of(scores, categories), head.probability_of(scores, categories))


def test_a_head_refuses_features_of_another_encoder_or_image_size(kept, records, tmp_path):
    head, settings = _fitted("mahalanobis", kept.of(records), records)
    save_head(tmp_path / "head.npz", head, settings, kept.key.as_json())
    other = dataclasses.replace(kept.key, encoder="f00d", image_size=(448, 448))
    with pytest.raises(UserError, match=r"(?s)encoder: .* f00d here; image_size: \[64, 64\] when .* \[448, 448\] here"):
        load_head(tmp_path / "head.npz", other.as_json())
    with pytest.raises(UserError, match="no head there"):
        load_head(tmp_path / "nothing.npz", kept.key.as_json())
    (tmp_path / "text.npz").write_text("not a head")
    with pytest.raises(UserError, match="no head written by this program"):
        load_head(tmp_path / "text.npz", kept.key.as_json())


def test_features_of_another_encoder_than_the_named_one_are_a_clear_message(kept, encoder, tmp_path):
    other = tmp_path / "other"
    saved_model.write_encoder(other, build_backbone("resnet10", SIDE), {"pretrain_images": []})
    assert find_source(encoder, str(kept.path), maps=True)[1].key == kept.key
    with pytest.raises(UserError, match=f"`features`={kept.path}: these are features of another encoder than {other}"):
        find_source(other, str(kept.path), maps=False)


def test_a_store_is_opened_only_if_it_is_one(tmp_path, kept):
    with pytest.raises(UserError, match="no features there"):
        FeatureStore(tmp_path)
    description = json.loads((kept.path / store.DESCRIPTION).read_text())
    (tmp_path / store.DESCRIPTION).write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(UserError, match="format 99, expected 2"):
        FeatureStore(tmp_path)


def test_pooling_and_brightness_of_the_fit_are_those_of_the_served_graph(encoder, records, layers, tmp_path):
    settings = FeatureSettings(layers, pooling=("mean", "gem8"), centre_brightness=True)
    found = extract.extract(encoder, records, settings, tmp_path / "features")
    features, plain = found.of(records), FeatureSettings(layers)
    brighter = np.minimum(_images(records[:4]).astype(int) + 30, 255).astype(np.uint8)
    assert features.pooled.shape[1] == 2 * FeatureGraph(encoder, plain).features(brighter).pooled.shape[1]
    head, _ = _fitted("mahalanobis", features, records)
    probe = Probe(encoder, settings, head)
    scores = probe.judge(_images(records))["anomaly_score"]
    np.testing.assert_allclose(scores, head.decision_function(features), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match=r"pooling: .*mean"):
        extract.extract(encoder, records, plain, tmp_path / "features")
