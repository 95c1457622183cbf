"""What is usual: the ops say of each image what a double loop over the held-out good ones says."""

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf import drift
from mvtec_tf.errors import UserError
from mvtec_tf.features import reference
from mvtec_tf.features.reference import Reference, Usual
from mvtec_tf.graphs import signatures


def _seen(count, seed=0, dimensions=6):
    rng = np.random.default_rng(seed)
    return {
        "statistics": rng.normal(100, 5, (count, 3)).astype(np.float32),
        "embedding": rng.normal(0, [1, 2, 3, 4, 5, 0], (count, dimensions)).astype(np.float32),
        "score": rng.normal(size=count).astype(np.float32),
        "category": np.zeros(count, np.int64),
    }


def _answer(usual, seen):
    return {name: value.numpy() for name, value in usual(*map(tf.constant, seen.values())).items()}


def test_p_values_are_those_of_a_double_loop_in_which_every_object_counts_once():
    seen, new = _seen(40), _seen(25, seed=1)
    objects = np.arange(40) // 2
    found = Reference.of(**seen, objects=objects)
    answer = _answer(Usual(found), new)
    assert set(answer) == {*drift.COLUMNS, drift.UNLIKE, drift.P_VALUE}
    unlike = np.max([np.abs(answer[name]) for name in drift.COLUMNS[:-1]], axis=0)
    those = np.abs(found.z[:, :-1]).max(axis=1)
    for i in range(25):
        higher = sum(0.5 for score in seen["score"] if score >= new["score"][i])
        assert answer[drift.P_VALUE][i] == pytest.approx((1 + higher) / 21, abs=1e-6)
        further = sum(0.5 for one in those if np.float32(one) >= unlike[i])
        assert answer[drift.UNLIKE][i] == pytest.approx(1 - (1 + further) / 21, abs=1e-6)
    raw = np.column_stack([new["statistics"], new["score"]])
    own = np.column_stack([seen["statistics"], seen["score"]])
    z = np.column_stack([answer[name] for name in drift.COLUMNS if name != "z_distance"])
    np.testing.assert_allclose(z, (raw - own.mean(axis=0)) / own.std(axis=0), rtol=1e-4, atol=1e-4)


def test_new_images_of_the_same_kind_are_as_usual_as_the_held_out_ones():
    means = []
    for seed in range(20):
        found = Reference.of(**_seen(60, seed), objects=np.arange(60))
        means.append(_answer(Usual(found), _seen(200, 100 + seed))["z_distance"].mean())
    # A distance to a centre that the image itself had moved would be smaller than a new one's.
    assert abs(np.mean(means)) < 0.1


def test_a_model_that_tells_categories_apart_has_what_is_usual_of_each():
    seen = _seen(60)
    seen["category"][30:] = 1
    seen["statistics"][30:, 0] += 200
    found = Reference.of(**seen, objects=np.arange(60), categories=2)
    answer = _answer(Usual(found), seen)
    assert np.abs(answer["z_brightness"]).max() < 4
    assert answer["z_brightness"][:30].mean() == pytest.approx(0, abs=1e-3)
    # With too few of one they are taken together.
    merged = Reference.of(**seen, objects=np.arange(60), categories=3)
    assert len(merged.mean) == 1
    assert np.isfinite(_answer(Usual(merged), seen)["z_brightness"]).all()


def test_too_few_objects_say_nothing_and_images_all_alike_say_numbers(tmp_path):
    seen = _seen(18)
    assert Reference.of(**seen, objects=np.arange(18) // 2) is None
    alike = {name: np.repeat(value[:1], 18, axis=0) for name, value in seen.items()}
    found = Reference.of(**alike, objects=np.arange(18))
    answer = _answer(Usual(found), _seen(5, seed=3))
    assert all(np.isfinite(value).all() for value in answer.values())
    assert answer[drift.UNLIKE] == pytest.approx(1 - 1 / 19)
    assert _answer(Usual(found), alike)[drift.UNLIKE] == pytest.approx(0, abs=1e-6)
    found.save(tmp_path / reference.FILE)
    again = Reference.load(tmp_path / reference.FILE)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    (tmp_path / reference.FILE).write_bytes(b"PK")
    with pytest.raises(UserError, match=r"reference\.npz: cannot be read"):
        Reference.load(tmp_path / reference.FILE)


def test_a_lamp_moves_brightness_and_contrast_and_a_lens_sharpness():
    rng = np.random.default_rng(0)
    images = np.kron(rng.integers(60, 200, (4, 16, 16, 1)), np.ones((1, 4, 4, 3))).astype(np.uint8)
    plain = signatures.image_statistics(tf.constant(images)).numpy()
    grey = images @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(plain[:, 0], grey.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(plain[:, 1], grey.std(axis=(1, 2)), rtol=1e-5)
    dimmed = signatures.image_statistics(tf.constant((images * 0.8).round().astype(np.uint8))).numpy()
    np.testing.assert_allclose(dimmed / plain, [[0.8, 0.8, 1.0]] * 4, rtol=0.01)
    blurred = sum(np.roll(images.astype(int), step, axis) for step in (-1, 0, 1) for axis in (1, 2)) // 6
    soft = signatures.image_statistics(tf.constant(blurred.astype(np.uint8))).numpy()
    assert (soft[:, 2] < 0.8 * plain[:, 2]).all()
    np.testing.assert_allclose(soft[:, 0], plain[:, 0], rtol=0.01)
    flat = signatures.image_statistics(tf.fill([1, 8, 8, 3], tf.constant(7, tf.uint8))).numpy()
    np.testing.assert_allclose(flat, [[7, 0, 0]], atol=1e-3)
