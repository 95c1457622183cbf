"""The recommended head: its evidences are what they say, borders are no defects, labels help and cannot spoil it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist
from scipy.stats import norm, spearmanr
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score

from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.heads import join, residual
from mvtec_tf.heads.base import by_ops
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.file import load_head, save_head
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.fused import Fused, Like, balanced_ridge
from mvtec_tf.heads.gaussian import TINY, GoodGaussian
from mvtec_tf.heads.probability import Platt
from mvtec_tf.heads.settings import HeadSettings

GRIDS = {"fine": (14, 10, 12), "coarse": (7, 5, 20)}


def _images(seed, good, defective, size=1.5, border=1.0, views=1, grids=GRIDS):
    """Patches vary along a few directions; a defect is one patch of each map that leaves them. Groups of `views`."""
    rng = np.random.default_rng(seed)
    objects = good + defective
    labels = np.repeat(np.arange(objects) >= good, views).astype(int)
    maps = {}
    for number, (name, (rows, columns, depth)) in enumerate(grids.items()):
        known = np.random.default_rng(number).normal(size=(4, depth))
        values = rng.normal(size=(objects, rows, columns, 4)) @ known + 5
        noise = 0.3 * rng.normal(size=values.shape)
        # As zeros beside the photograph do: the outermost patches are unlike all others.
        noise[:, [0, -1]] *= border
        noise[:, 1:-1, [0, -1]] *= border
        values = np.repeat(values + noise, views, axis=0)
        values += 0.01 * rng.normal(size=values.shape)
        places = np.repeat(rng.integers((2, 2), (rows - 2, columns - 2), size=(objects, 2)), views, axis=0)
        for image in np.flatnonzero(labels):
            values[image, places[image][0], places[image][1]] += size * np.linspace(-1, 1, depth)
        maps[name] = values.astype(np.float32)
    pooled = np.concatenate([value.mean(axis=(1, 2)) for value in maps.values()], axis=1)
    groups = np.repeat(np.arange(objects), views)
    return FrozenFeatures(pooled, maps, image_size=(56, 40), groups=groups), labels


@pytest.fixture(scope="module")
def fitted():
    features, labels = _images(0, 40, 8)
    return Fused().fit(features, labels), features, labels


def _by_hand(head, features):
    """The score in double precision, by scikit-learn and SciPy where they have it."""
    arrays = head.arrays()
    columns = [np.log(np.maximum(head.gaussian_.distances(features.pooled), TINY))]
    residuals, distances = [], []
    for number, values in enumerate(features.maps.values()):
        basis = arrays[f"{number}/basis"].astype(float)
        centred = values.astype(float) - arrays[f"{number}/mean"]
        residuals.append(np.linalg.norm(centred - centred @ basis @ basis.T, axis=-1))
        bank = arrays[f"{number}/bank"].astype(float)
        nearest = cdist((centred @ basis).reshape(-1, basis.shape[1]), bank).min(axis=1)
        distances.append(nearest.reshape(len(values), -1))
    for number, lengths in enumerate(residuals + distances):
        usual = np.exp(arrays[f"usual/{number}"])
        ratios = np.sort(lengths.reshape(len(lengths), -1) / usual.ravel(), axis=1)
        columns.append(np.log(ratios[:, -max(1, ratios.shape[1] // 100) :].mean(axis=1)))
    one = head.unlike_.join
    places = np.clip((features.pooled - head.gaussian_.mean) @ head.main_, -2, 2)
    standard = (np.stack(columns, axis=1) - places @ one.slopes - one.mean) / one.scale
    fisher = np.log(-norm.logsf(np.maximum(standard, -4)).sum(axis=1))
    score = (fisher - one.joined_mean) / one.joined_scale
    return score + (features.pooled - head.gaussian_.mean) @ arrays["direction"].astype(float) + arrays["offset"]


def test_exported_ops_give_the_scores_of_the_parts_in_double_precision(fitted):
    head, features, labels = fitted
    np.testing.assert_allclose(head.decision_function(features), _by_hand(head, features), rtol=1e-5, atol=1e-5)
    alone = Fused().fit(features.select(labels == 0))
    np.testing.assert_allclose(alone.decision_function(features), _by_hand(alone, features), rtol=1e-5, atol=1e-5)


def test_an_image_has_one_score_whatever_images_are_judged_with_it(fitted):
    head, features, _ = fitted
    together = head.decision_function(features)
    alone = [head.decision_function(features.select(np.array([row])))[0] for row in range(5)]
    np.testing.assert_allclose(together[:5], alone, rtol=1e-5, atol=1e-5)


def test_the_subspace_is_that_of_scikit_learns_principal_components():
    features, labels = _images(1, 12, 0)
    whole, *without = residual.subspaces(features, np.arange(12) % 3)
    for number, values in enumerate(features.maps.values()):
        for state, kept in [(whole, labels == 0), (without[1], np.arange(12) % 3 != 1)]:
            model = PCA(residual.VARIANCE, svd_solver="full").fit(values[kept].reshape(-1, values.shape[-1]))
            basis = state[f"{number}/basis"]
            np.testing.assert_allclose(basis @ basis.T, model.components_.T @ model.components_, atol=1e-4)
            np.testing.assert_allclose(state[f"{number}/mean"], model.mean_, rtol=1e-5)


def test_the_surprise_of_a_deviation_is_the_logarithm_of_the_normal_tail_however_far():
    values = np.concatenate([np.linspace(-4, 12, 400), [20, 50, 1000]])
    found = join.surprise(tf.constant(values, tf.float32)).numpy()
    np.testing.assert_allclose(found, -norm.logsf(values.astype(np.float32).astype(float)), rtol=2e-6)


def test_a_border_that_is_unlike_the_rest_in_every_image_hides_no_defect_within():
    grids = {"fine": (28, 20, 12), "coarse": (14, 10, 20)}
    features, labels = _images(2, 60, 0, border=2.0, grids=grids)
    new, truth = _images(3, 40, 40, size=2.0, border=2.0, grids=grids)
    head = Fused().fit(features, labels)
    plain = by_ops(lambda own, state: residual.log_deviations(own, state)[0], new, head.arrays())
    assert roc_auc_score(truth, residual.worst_patches(plain)) < 0.7
    assert roc_auc_score(truth, head.decision_function(new)) > 0.95

    def within(maps):
        """Share of the defective images whose hottest pixel lies no cell of the fine map from the border."""
        _, height, width = maps.shape
        rows, columns = np.unravel_index(maps[truth == 1].reshape(40, -1).argmax(axis=1), (height, width))
        cell = height // 28
        return np.mean((rows >= cell) & (rows < height - cell) & (columns >= cell) & (columns < width - cell))

    assert within(plain) < 0.2
    # Eight pixels a cell, as in use: between a cell's centre and the next one a peak is blurred, at a corner it is not.
    assert within(head.heat_maps(dataclasses.replace(new, image_size=(224, 160)))) > 0.85


@pytest.mark.parametrize("shape", [(6, 102), (102, 6), (2, 34)])
def test_the_ends_of_a_strip_are_set_against_what_is_usual_at_its_ends(shape):
    rng = np.random.default_rng(0)
    logarithms = 0.1 * rng.normal(size=(12, *shape))
    ends = np.zeros(shape, bool)
    ends[(slice(None), [0, -1]) if shape[1] > shape[0] else [0, -1]] = True
    logarithms[:, ends] += 1
    usual = residual.usual_at_place(logarithms)
    # What the very places add is believed by half of so few images.
    assert usual[ends].mean() - np.median(usual[~ends]) > 0.9


def test_the_heat_map_is_hottest_at_the_defect_and_below_one_where_all_is_as_usual(fitted):
    head, _, _ = fitted
    new, truth = _images(4, 30, 30, size=3.0)
    maps = head.heat_maps(new)
    assert maps.shape == (60, 56, 40)
    assert 0.5 < np.median(maps[truth == 0]) < 1
    assert np.mean(maps[truth == 0] < 1.1) > 0.99
    assert roc_auc_score(truth, maps.max(axis=(1, 2))) > 0.95


def test_a_patch_of_known_directions_that_no_good_one_is_like_is_found():
    features, labels = _images(21, 60, 0)
    new, truth = _images(22, 60, 60, size=0.0)
    for number, (name, (_, _, depth)) in enumerate(GRIDS.items()):
        known = np.random.default_rng(number).normal(size=(4, depth))
        # Within the subspace: its residual is as small as any.
        new.maps[name][truth == 1, 3, 3] = (np.full(4, 6.0) @ known + 5).astype(np.float32)
    head = Fused().fit(features, labels)
    plain = by_ops(lambda own, state: residual.log_deviations(own, state)[0], new, head.arrays())
    assert roc_auc_score(truth, residual.worst_patches(plain)) < 0.7
    assert roc_auc_score(truth, head.decision_function(new)) > 0.99


def test_held_out_images_are_set_against_no_patch_of_their_own():
    features, _ = _images(23, 12, 0)
    whole, *without = residual.subspaces(features, np.arange(12) % 3)
    for number, values in enumerate(features.maps.values()):
        for fold, state in enumerate(without):
            patches = np.concatenate(values[np.arange(12) % 3 == fold]).reshape(-1, values.shape[-1])
            distances = cdist((patches - state[f"{number}/mean"]) @ state[f"{number}/basis"], state[f"{number}/bank"])
            assert distances.min() > 1e-3
        # What is remembered of all images was seen in one of them.
        patches = values.reshape(-1, values.shape[-1]) - whole[f"{number}/mean"]
        assert cdist(whole[f"{number}/bank"], patches @ whole[f"{number}/basis"]).min(axis=1).max() < 1e-3


def test_held_out_scores_are_those_of_new_good_images():
    features, labels = _images(5, 60, 0)
    new, _ = _images(6, 200, 0)
    head = Fused().fit(features, labels)
    scores = head.decision_function(new)
    assert np.isfinite(head.held_out_).all()
    # In standard deviations of one such image; the parts of the last fit saw a quarter more images.
    assert abs(head.held_out_.mean() - scores.mean()) < 0.5
    assert 0.7 < scores.std() / head.held_out_.std() < 1.4


def _aligned(count, seed):
    """Good images in which every place looks like itself in all, and like no other place."""
    rng, place = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(16, 16, 16))
    values = place + 0.1 * rng.normal(size=(count, 1, 1, 16)) + 0.3 * rng.normal(size=(count, 16, 16, 16))
    return FrozenFeatures(values.mean(axis=(1, 2)), {"map": values.astype(np.float32)}, image_size=(64, 64))


def test_new_good_images_of_aligned_parts_score_like_held_out_ones():
    head = Fused().fit(_aligned(40, 1))
    scores = head.decision_function(_aligned(60, 2))
    assert abs(head.held_out_.mean() - scores.mean()) < 0.5
    assert 0.7 < scores.std() / head.held_out_.std() < 1.4


def test_the_head_is_an_estimator_of_scikit_learn(fitted):
    head, features, labels = fitted
    assert clone(head).get_params() == head.get_params()
    assert cross_val_score(Fused(), features, labels, scoring="roc_auc", cv=3).mean() > 0.9
    probabilities = head.predict_proba(features)[:, 1]
    np.testing.assert_array_equal(head.predict(features), probabilities >= 0.5)


def test_views_of_one_object_are_held_out_together():
    features, labels = _images(7, 20, 0, views=4)
    apart = dataclasses.replace(features, groups=None)
    # By itself each view is explained by the other views of its object.
    together, each = (Fused().fit(one, labels) for one in (features, apart))
    assert together.gaussian_.distances(features.pooled).mean() == each.gaussian_.distances(features.pooled).mean()
    new, _ = _images(8, 100, 0)
    new_scores = [head.decision_function(new).mean() for head in (together, each)]
    assert abs(new_scores[0]) < 1
    assert new_scores[1] > new_scores[0] + 1


def _exposures(seed, good, defective, reach=1.0):
    """The first features are the exposure; a long one brings noise to all others. A defect is half again as much."""
    rng = np.random.default_rng(seed)
    exposure = reach * rng.uniform(-1, 1, good + defective)
    pooled = rng.normal(size=(good + defective, 20)) * np.exp(1.2 * exposure)[:, None]
    pooled[:, :4] = 30 * exposure[:, None] + rng.normal(size=(good + defective, 4)) * 0.1
    labels = (np.arange(good + defective) >= good).astype(int)
    pooled[labels == 1, 4:] *= 1.6
    gaussian = GoodGaussian(pooled[labels == 0]) if seed == 0 else None
    return pooled, labels, gaussian


def _slopes(evidence, places):
    """Of least squares, which a join that is wholly trusted follows."""
    design = np.column_stack([np.ones(len(places)), join.clipped(places)])
    return np.linalg.lstsq(design, evidence, rcond=None)[0][1:]


def test_a_distance_that_is_usual_for_the_exposure_is_no_defect():
    pooled, _, gaussian = _exposures(0, 300, 0)
    new, truth, _ = _exposures(1, 400, 400)
    main = gaussian.main_directions(2)

    def found(values):
        return np.log(gaussian.distances(values))[:, None], (values - gaussian.mean) @ main

    one = join.Join.fit(*found(pooled), np.arange(300))
    np.testing.assert_allclose(one.slopes, _slopes(*found(pooled)))
    distance, places = found(new)
    assert roc_auc_score(truth, one.scores(distance, places)) > roc_auc_score(truth, distance) + 0.1


def test_what_explains_no_left_out_object_is_not_followed():
    rng = np.random.default_rng(0)
    # Six objects of ten views: place and evidence are the object's own, and have nothing to do with each other.
    objects = np.repeat(np.arange(6), 10)
    places = rng.normal(size=(6, 2))[objects] + 0.05 * rng.normal(size=(60, 2))
    evidence = rng.normal(size=(6, 3))[objects] + 0.05 * rng.normal(size=(60, 3))
    assert not join.Join.fit(evidence, places, objects).slopes.any()
    np.testing.assert_allclose(join.Join.fit(evidence, places, np.arange(60)).slopes, _slopes(evidence, places))


def test_labels_lift_what_the_evidences_alone_find():
    features, labels = _images(9, 60, 12, size=0.0)
    new, truth = _images(10, 100, 100, size=0.0)
    # A defect that only the labels tell: on the side where good images vary most.
    for one, own in ((features, labels), (new, truth)):
        one.pooled[own == 1, 0] += 2 * features.pooled[labels == 0, 0].std()
    alone = Fused().fit(features.select(labels == 0)).decision_function(new)
    fused = Fused().fit(features, labels).decision_function(new)
    assert roc_auc_score(truth, fused) > roc_auc_score(truth, alone) + 0.02


def test_labels_that_say_nothing_of_held_out_defects_hardly_count_and_more_of_those_that_do_count_more():
    rng = np.random.default_rng(0)

    def weight(defects, lift):
        labels = (np.arange(60 + defects) >= 60).astype(int)
        held_out = rng.normal(size=len(labels)) * 0.5
        held_out -= held_out[labels == 0].mean()
        held_out[labels == 1] = lift * held_out[labels == 0].std()
        like = Like(np.zeros(3), 0.0, held_out, labels, np.arange(len(labels)))
        return like.scale(2.0 * labels)[1] * held_out[labels == 0].std()

    assert weight(10, 0.0) == pytest.approx(0.05)
    assert weight(10, -5.0) == 0
    assert weight(10, 1.0) == pytest.approx(0.3)
    assert weight(30, 1.0) == pytest.approx(0.4)
    assert weight(30, 100.0) == 1


@pytest.mark.parametrize(("count", "width"), [(40, 6), (12, 50)])
def test_the_ridge_weighs_both_classes_alike_and_its_penalty_knows_no_number_of_features(count, width):
    rng = np.random.default_rng(count)
    features, labels = rng.normal(size=(count, width)), (np.arange(count) < 4).astype(int)
    features[labels == 1] += 0.7
    model = balanced_ridge(features, labels)
    more = balanced_ridge(np.concatenate([features, features[labels == 0]]), np.r_[labels, labels[labels == 0]])
    assert spearmanr(model.predict(features), more.predict(features)).statistic > 0.9
    twice = balanced_ridge(np.tile(features, 2), labels)
    np.testing.assert_allclose(twice.predict(np.tile(features, 2)), model.predict(features), atol=1e-8)


def test_the_only_defective_object_is_scored_out_of_fold_by_nobody():
    features, labels = _images(11, 20, 1, views=3)
    head = Fused().fit(features, labels)
    assert np.isnan(head.held_out_[labels == 1]).all()
    assert np.isfinite(head.held_out_[labels == 0]).all()
    assert np.isfinite(head.decision_function(features)).all()


@pytest.mark.parametrize(("good", "views", "words"), [(1, 1, "1 of 1"), (2, 1, "2 of 2"), (2, 5, "10 of 2")])
def test_good_images_of_fewer_than_three_objects_are_refused_with_a_way_out(good, views, words):
    features, labels = _images(12, good, 0, views=views)
    with pytest.raises(UserError, match=rf"3 objects, found .*{words}.*`head`=patchcore"):
        Fused().fit(features, labels)


def test_good_images_of_three_objects_are_enough():
    features, labels = _images(13, 3, 2, views=2)
    head = Fused().fit(features, labels)
    assert np.isfinite(head.decision_function(_images(14, 5, 5)[0])).all()
    assert np.isfinite(head.held_out_).all()


def test_good_images_that_are_copies_are_refused_and_nearly_alike_ones_are_judged():
    features, labels = _images(15, 6, 0)
    row = np.zeros(6, int)
    with pytest.raises(UserError, match="copies of one"):
        Fused().fit(dataclasses.replace(features.select(row), groups=None), labels)
    # Copies in pairs, under names of their own: what is held out has a copy in the fit.
    pairs = dataclasses.replace(features.select(np.arange(12) % 6), groups=None)
    scores = Fused().fit(pairs, np.zeros(12, int)).decision_function(_images(16, 4, 4)[0])
    assert np.isfinite(scores).all()


def test_a_map_without_any_variance_is_no_evidence():
    features, labels = _images(17, 10, 0)
    flat = features.maps | {"coarse": np.ones_like(features.maps["coarse"])}
    head = Fused().fit(dataclasses.replace(features, maps=flat), labels)
    new, truth = _images(18, 30, 30, size=3.0)
    new = dataclasses.replace(new, maps=new.maps | {"coarse": np.ones_like(new.maps["coarse"])})
    assert roc_auc_score(truth, head.decision_function(new)) > 0.9


def test_the_probe_calibrates_on_the_scores_that_the_head_held_out(fitted):
    _, features, labels = fitted
    kinds = np.where(labels == 1, "chip", "good")
    records = [Record(str(i), "", "part", str(one), int(one != "good"), "test", str(i)) for i, one in enumerate(kinds)]
    probe = fit_probe(Fused, features, records, seed=0)
    own = probe.head.heads[records[0].category]
    np.testing.assert_allclose(probe.calibrate_scores, own.held_out_[probe.calibrate], rtol=1e-6)
    assert probe.head.gives_probability


def test_it_finds_more_than_the_distance_of_the_whole():
    features, labels = _images(19, 60, 0)
    new, truth = _images(20, 60, 60, size=1.0)
    plain = Mahalanobis().fit(features.pooled, labels).decision_function(new.pooled)
    fused = Fused().fit(features, labels).decision_function(new)
    assert roc_auc_score(truth, fused) > roc_auc_score(truth, plain) + 0.2


def test_the_head_of_a_former_name_is_refused_with_the_one_to_use():
    with pytest.raises(UsageError, match=r"`head`=auto: .*Use fused"):
        HeadSettings("auto")


def test_a_file_of_the_former_head_is_refused(fitted, tmp_path):
    head, features, _ = fitted
    whole = PerCategoryHead.of_one(head, features.pooled.shape[1], Platt(1.0, 0.0))
    save_head(tmp_path / "head.npz", whole, HeadSettings("fused"), {})
    scores = load_head(tmp_path / "head.npz", {}).decision_function(features)
    np.testing.assert_array_equal(scores, head.decision_function(features))
    former = PerCategoryHead.restored({"part": Mahalanobis()}, {"0/mean": np.zeros(3)})
    save_head(tmp_path / "former.npz", former, HeadSettings("fused"), {})
    with pytest.raises(UserError, match="older version"):
        load_head(tmp_path / "former.npz", {})


def test_the_head_is_not_stacked_once_more():
    with pytest.raises(UsageError, match="hybrid_of"):
        HeadSettings("hybrid", hybrid_of=("fused", "lda"))
