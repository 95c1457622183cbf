"""Patch heads agree with slow NumPy, their exported ops with them, and heat maps point at the defect."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from mvtec_tf.errors import UserError
from mvtec_tf.heads import memory
from mvtec_tf.heads.base import as_tensors, by_ops
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.patch import Padim, PatchCore
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.networks import patch_maps

SPOT = (6, 1)


@pytest.fixture(scope="module")
def data():
    """40 images of two layers, 8 x 6 and 4 x 3 patches; the last five bear a defect in one patch."""
    rng = np.random.default_rng(0)
    fine = rng.normal(size=(40, 8, 6, 7)) + 3
    coarse = 100 * rng.normal(size=(40, 4, 3, 5))
    labels = (np.arange(40) >= 35).astype(int)
    fine[35:, SPOT[0], SPOT[1]] += 12
    maps = {"fine": fine.astype(np.float32), "coarse": coarse.astype(np.float32)}
    pooled = np.concatenate([value.mean(axis=(1, 2)) for value in maps.values()], axis=1)
    return FrozenFeatures(pooled, maps, image_size=(64, 48)), labels


def _heads():
    return [
        Padim(channels=6),
        PatchCore(memory_bank=50, candidates=300),
        PatchCore(memory_bank=50, candidates=300, neighbours=3),
        make_head(HeadSettings("hybrid", memory_bank=50, coreset_candidates=300)),
    ]


def _names(head):
    return f"{type(head).__name__}-{getattr(head, 'neighbours', '')}"


def _joined(features):
    return patch_maps.join_ops(as_tensors(features).maps).numpy()


def _distances(head, features):
    return by_ops(head.distance_ops, features, head.arrays())


def _constants(head):
    return {name: tf.constant(value) for name, value in head.arrays().items()}


def test_maps_of_two_layers_meet_on_the_finer_grid_as_tensorflow_resizes(data):
    features, _ = data
    joined = _joined(features)
    assert joined.shape == (40, 48, 12)
    np.testing.assert_array_equal(joined[:, :, :7].reshape(40, 8, 6, 7), features.maps["fine"])
    down, across = patch_maps.bilinear_matrix(8, 4), patch_maps.bilinear_matrix(6, 3)
    resized = np.einsum("yh,nhwc,xw->nyxc", down, features.maps["coarse"], across)
    np.testing.assert_allclose(joined[:, :, 7:].reshape(40, 8, 6, 5), resized, rtol=1e-5, atol=1e-4)


def test_neighbours_are_averaged_over_those_that_exist():
    maps = np.random.default_rng(1).normal(size=(2, 4, 5, 3)).astype(np.float32)
    expected = np.empty_like(maps)
    for y in range(4):
        for x in range(5):
            expected[:, y, x] = maps[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean(axis=(1, 2))
    np.testing.assert_allclose(patch_maps.average_neighbours(tf.constant(maps), 3), expected, atol=1e-6)
    np.testing.assert_array_equal(patch_maps.average_neighbours(tf.constant(maps), 1), maps)


def test_a_heat_map_is_the_interpolated_distances_smoothed():
    distances = np.random.default_rng(2).random((3, 7, 5)).astype(np.float32)
    wide = tf.image.resize(distances[..., None], (70, 45)).numpy()[..., 0]
    expected = [gaussian_filter(one, 4.0, mode="nearest") for one in wide]
    np.testing.assert_allclose(patch_maps.heat_map_ops(tf.constant(distances), (70, 45)), expected, atol=1e-5)


def test_the_greedy_choice_is_that_of_a_naive_double_loop():
    points = np.random.default_rng(3).normal(size=(120, 9)).astype(np.float32)
    chosen = [17]
    while len(chosen) < 25:
        gaps = [min(np.linalg.norm(point - points[c]) for c in chosen) for point in points]
        chosen.append(int(np.argmax(gaps)))
    assert memory.farthest_points(points, 25, first=17).tolist() == chosen


def test_a_coreset_never_holds_a_point_twice_also_among_copies():
    points = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    chosen = memory.greedy_coreset(points, 12, seed=0)
    assert len(set(chosen.tolist())) == 12
    assert len({tuple(points[i]) for i in chosen[:4]}) == 4


def test_a_coreset_lies_closer_to_all_points_than_a_random_choice():
    rng = np.random.default_rng(4)
    points = (rng.normal(size=(3000, 300)) * rng.exponential(size=(3000, 1))).astype(np.float32)

    def worst(chosen):
        return max(np.linalg.norm(points[chosen] - point, axis=1).min() for point in points)

    greedy = worst(memory.greedy_coreset(points, 60, seed=0))
    assert greedy < 0.8 * worst(rng.choice(3000, 60, replace=False))


def test_padim_is_a_gaussian_of_its_own_at_every_position(data):
    features, labels = data
    head = Padim(channels=6).fit(features, labels)
    patches = _joined(features)[:, :, head.chosen_].astype(np.float64)
    good = patches[labels == 0]
    scale = good.reshape(-1, 6).std(axis=0)
    found = _distances(head, features).reshape(40, 48)
    for position in range(48):
        covariance = np.cov(good[:, position] / scale, rowvar=False) + 0.01 * np.eye(6)
        centred = (patches[:, position] - good[:, position].mean(axis=0)) / scale
        expected = np.sqrt(np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred))
        # The head takes the total variance from N - 1 instead of N: a thousandth.
        np.testing.assert_allclose(found[:, position], expected, rtol=2e-3)


def test_padim_at_a_single_scale_is_exact(data):
    """With the channels' scale known, not only near: one position, numbers by hand."""
    features, labels = data
    one = dataclasses.replace(features, maps={"fine": features.maps["fine"][:, :1, :1]})
    head = Padim(channels=7).fit(one, labels)
    good = one.maps["fine"][labels == 0, 0, 0].astype(np.float64)
    scale = good.std(axis=0, ddof=1)
    covariance = np.cov(good / scale, rowvar=False) + 0.01 * np.eye(7)
    centred = (one.maps["fine"][:, 0, 0] - good.mean(axis=0)) / scale
    expected = np.sqrt(np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred))
    np.testing.assert_allclose(head.decision_function(one), expected, rtol=1e-5)


def test_patchcore_measures_to_the_nearest_patches_in_memory(data):
    features, labels = data
    for neighbours in (1, 3):
        head = PatchCore(memory_bank=50, candidates=300, neighbours=neighbours).fit(features, labels)
        assert head.bank_.shape == (50, 12)
        patches = (_joined(features) - head.mean_) / head.scale_
        gaps = np.linalg.norm(patches[:3, :, None] - head.bank_, axis=3)
        expected = np.sort(gaps, axis=2)[:, :, :neighbours].mean(axis=2)
        np.testing.assert_allclose(_distances(head, features)[:3].reshape(3, 48), expected, rtol=1e-4)


def test_the_memory_holds_patches_of_good_images_at_each_layers_own_scale(data):
    features, labels = data
    head = PatchCore(memory_bank=10_000, candidates=10_000).fit(features, labels)
    patches = _joined(next(features.select(labels == 0).batches(99))).reshape(-1, 12)
    assert len(head.bank_) == len(patches) == 35 * 48
    np.testing.assert_allclose(
        np.sort(head.bank_ * head.scale_ + head.mean_, axis=0), np.sort(patches, axis=0), atol=1e-3
    )
    np.testing.assert_allclose(
        [head.bank_[:, :7].var(axis=0).mean(), head.bank_[:, 7:].var(axis=0).mean()], 1, rtol=1e-4
    )


@pytest.mark.parametrize("head", _heads(), ids=_names)
def test_a_whole_batch_in_one_graph_gives_the_scores_and_heat_maps_of_small_batches(data, head):
    features, labels = data
    head.fit(features, labels)
    tensors, arrays = as_tensors(features), _constants(head)
    scores = tf.function(head.score_ops)(tensors, arrays)
    np.testing.assert_allclose(scores, head.decision_function(features), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head.heat_map_ops(tensors, arrays), head.heat_maps(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", _heads()[:3], ids=_names)
def test_the_heat_map_peaks_where_the_defect_is(data, head):
    features, labels = data
    head.fit(features, labels)
    found = head.heat_maps(features.select(labels == 1))
    assert found.shape == (5, 64, 48)
    for one in found:
        y, x = np.unravel_index(np.argmax(one), one.shape)
        assert (y // 8, x // 8) == SPOT
    assert head.decision_function(features)[35:].min() > head.decision_function(features)[:35].max()


def test_heat_maps_of_two_categories_come_from_the_head_of_the_nearest(data):
    features, labels = data
    shifted = {name: value[:, ::-1] + 500 for name, value in features.maps.items()}
    both = FrozenFeatures(
        np.concatenate([features.pooled, features.pooled + 500]),
        {name: np.concatenate([value, shifted[name]]) for name, value in features.maps.items()},
        image_size=(64, 48),
    )
    categories = np.repeat(["cap", "nut"], 40)
    head = PerCategoryHead({"nut": PatchCore(40), "cap": PatchCore(40)}).fit(
        both, np.tile(labels, 2), categories
    )
    parts = [head.heads[name].decision_function(both.select(categories == name)) for name in ("cap", "nut")]
    np.testing.assert_allclose(head.decision_function(both), np.concatenate(parts), rtol=1e-5)
    alone = PatchCore(40).fit(features, labels)
    np.testing.assert_allclose(head.heat_maps(both)[:40], alone.heat_maps(features), atol=1e-4)
    assert head.heat_maps(both.select(np.array([79])))[0].shape == (64, 48)


@pytest.mark.parametrize("head", [Padim(), PatchCore()], ids=_names)
def test_what_a_patch_head_cannot_be_fitted_on_is_said(data, head):
    features, labels = data
    least = "two good images" if isinstance(head, Padim) else "one good image"
    with pytest.raises(UserError, match=f"at least {least}, found 0"):
        head.fit(features.select(np.array([38, 39])), labels[[38, 39]])
    with pytest.raises(UserError, match="global averages only"):
        head.fit(FrozenFeatures(features.pooled), labels)
    same = FrozenFeatures(np.ones((5, 3)), {"fine": np.ones((5, 2, 2, 3))}, image_size=(4, 4))
    with pytest.raises(UserError, match="same numbers"):
        head.fit(same, np.zeros(5, int))


def test_the_memory_of_a_single_image_ranks_others_by_their_farthest_patch(data):
    features, labels = data
    head = PatchCore(40).fit(features.select(np.array([0])))
    assert head.decision_function(features.select(np.array([0])))[0] < head.decision_function(features)[1:].min()
    assert roc_auc_score(labels[1:], head.decision_function(features)[1:]) > 0.9
    with pytest.raises(UserError, match="two good images, found 1"):
        Padim().fit(features.select(np.array([0])))
