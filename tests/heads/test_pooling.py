"""Poolings are what their formulas say, and a small defect moves the generalised mean."""

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UsageError
from mvtec_tf.features.feature_graph import FeatureSettings
from mvtec_tf.networks import patch_maps


def _maps():
    rng = np.random.default_rng(0)
    return {"fine": rng.normal(size=(3, 6, 5, 4)).astype(np.float32), "coarse": rng.random((3, 3, 3, 2), np.float32)}


def test_layers_are_joined_within_each_pooling():
    maps = _maps()
    found = patch_maps.pool(maps, ("mean", "gem8")).numpy()
    positive = {name: np.maximum(value, 0).astype(np.float64) for name, value in maps.items()}
    means = [value.mean(axis=(1, 2)) for value in maps.values()]
    powers = [(value**8).mean(axis=(1, 2)) ** (1 / 8) for value in positive.values()]
    np.testing.assert_allclose(found, np.concatenate(means + powers, axis=1), rtol=1e-5, atol=1e-6)


def test_maps_without_a_positive_number_and_huge_ones_give_numbers():
    flat = tf.constant(np.stack([np.full((4, 4, 2), -1.0), np.full((4, 4, 2), 1e30)]).astype(np.float32))
    np.testing.assert_allclose(patch_maps.pool({"layer": flat}, ("gem8",)), [[0, 0], [1e30, 1e30]], rtol=1e-5)


def test_a_defect_of_one_patch_moves_the_generalised_mean_further_than_the_mean():
    good = np.random.default_rng(1).random((200, 16, 16, 1)).astype(np.float32)
    defective = good.copy()
    defective[:, 3, 7] = 2.0

    def shift(name):
        a, b = (patch_maps.pool({"layer": value}, (name,)).numpy()[:, 0] for value in (good, defective))
        return (b - a).mean() / a.std()

    assert shift("gem8") > 3 * shift("mean")


@pytest.mark.parametrize("names", [(), ("max",), ("mean", "mean")])
def test_unknown_poolings_are_wrong_use(names):
    with pytest.raises(UsageError, match="`pooling`"):
        FeatureSettings(("layer",), pooling=names)


def test_exposures_of_one_scene_become_one_image():
    scene = np.random.default_rng(2).integers(60, 120, (8, 8, 3))
    exposures = np.stack([scene, scene + 40, scene + 100]).astype(np.uint8)
    centred = pixels.centre_brightness(tf.constant(exposures)).numpy().astype(int)
    assert np.abs(centred - centred[:1]).max() <= 1
    np.testing.assert_allclose(centred.mean(axis=(1, 2, 3)), 115, atol=0.5)
    np.testing.assert_allclose(centred[0] - centred[0].mean(), scene - scene.mean(), atol=1)


def test_centring_clips_and_does_not_wrap_around():
    white = np.full((1, 4, 4, 3), 255, np.uint8)
    white[0, :3] = 0
    assert pixels.centre_brightness(tf.constant(white)).numpy().max() == 255
