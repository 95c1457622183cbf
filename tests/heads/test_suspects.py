"""Wrong labels are told by the other images, whole objects at a time, with good images alone too."""

import numpy as np
import pytest

from mvtec_tf.heads.suspects import suspicion


def _images(seed=0, good=60, defective=20, views=1, lift=5.0):
    """Features of objects with `views` photographs each; a defect moves a few of them."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(good + defective) >= good, views).astype(int)
    pooled = np.repeat(rng.normal(size=(good + defective, 80)), views, axis=0) * 3 + 5
    pooled += 0.3 * rng.normal(size=pooled.shape)
    pooled[labels == 1, :8] += 3 * lift
    return pooled, labels, np.repeat(np.arange(good + defective), views)


def _first(score, count):
    return set(np.argsort(-score)[:count].tolist())


@pytest.mark.parametrize("seed", range(3))
def test_turned_labels_of_both_kinds_come_first(seed):
    pooled, labels, groups = _images(seed)
    wrong = {3, 7, 65, 66}
    given = np.where(np.isin(np.arange(80), list(wrong)), 1 - labels, labels)
    said = suspicion(pooled, given, groups)
    assert said.by_labels
    assert _first(said.score, 4) == wrong
    assert (said.score[list(wrong)] > 0).all()
    suspects = np.flatnonzero(said.score > 0)
    assert (given[said.neighbour[suspects]] != given[suspects]).all()
    assert (np.delete(said.neighbour, suspects) == -1).all()


def test_photographs_of_one_object_do_not_vouch_for_each_other():
    pooled, labels, groups = _images(views=3)
    given = labels.copy()
    given[groups == 70] = 0
    said = suspicion(pooled, given, groups)
    assert _first(said.score, 3) == set(np.flatnonzero(groups == 70).tolist())
    suspects = said.neighbour >= 0
    assert (groups[said.neighbour[suspects]] != groups[suspects]).all()
    # As objects of their own each has two like it that say "good".
    alone = suspicion(pooled, given, np.arange(len(groups)))
    assert said.score[groups == 70].min() > alone.score[groups == 70].max()


def test_among_good_images_alone_a_hidden_defect_stands_out_beside_a_good_neighbour():
    pooled, labels, groups = _images(defective=1)
    said = suspicion(pooled, np.zeros_like(labels), groups)
    assert not said.by_labels
    assert said.score.argmax() == 60
    assert said.score[60] > 0
    assert said.neighbour[60] != 60


def test_a_single_defect_cannot_be_held_out_and_leaves_good_images_to_be_looked_at():
    pooled, labels, groups = _images(defective=1)
    said = suspicion(pooled, labels, groups)
    assert not said.by_labels
    assert np.isnan(said.score[60])
    assert np.isfinite(said.score[:60]).all()


@pytest.mark.parametrize("good", [0, 1, 2])
def test_too_few_good_objects_say_nothing(good):
    pooled, labels, groups = _images(good=good, defective=4)
    assert np.isnan(suspicion(pooled, labels, groups).score).all()


def test_copies_give_numbers():
    said = suspicion(np.ones((30, 6)), np.repeat([0, 1], 15), np.arange(30))
    assert np.isfinite(said.score).all()
