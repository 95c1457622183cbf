"""Heads agree with scikit-learn, and their exported ops with themselves."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import mahalanobis
from scipy.stats import multivariate_normal, spearmanr
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.heads import fitting
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.distance import Mahalanobis, NearestNeighbours, RbfSvm
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.frozen import FrozenFeatures, inner_folds
from mvtec_tf.heads.gaussian import GoodGaussian
from mvtec_tf.heads.linear import Lda, LinearSvm, Logistic, StudyHead
from mvtec_tf.heads.make import Hybrid, make_head
from mvtec_tf.heads.settings import HEADS, NEED_LABELS, NEED_MAPS, HeadSettings, check_budget


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8)) * np.arange(1, 9) + 5
    labels = (rng.random(60) < 0.3).astype(int)
    features[labels == 1, 2] += 4
    return features.astype(np.float32), labels


def _by_ops(head, features):
    arrays = {name: tf.constant(value) for name, value in head.arrays().items()}
    return tf.function(lambda values: head.score_ops(FrozenFeatures(values), arrays))(tf.constant(features)).numpy()


def test_the_logistic_head_is_scikit_learns(data):
    features, labels = data
    reference = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000))
    expected = reference.fit(features, labels).decision_function(features)
    np.testing.assert_allclose(Logistic().fit(features, labels).decision_function(features), expected, atol=1e-4)


def test_the_mahalanobis_head_is_the_distance_to_the_good_images_alone(data):
    features, labels = data
    good = features[labels == 0].astype(np.float64)
    scaler = StandardScaler().fit(good)
    precision = LedoitWolf().fit(scaler.transform(good)).precision_
    expected = [mahalanobis(row, np.zeros(8), precision) for row in scaler.transform(features.astype(np.float64))]
    np.testing.assert_allclose(Mahalanobis().fit(features, labels).decision_function(features), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [Logistic, LinearSvm, Lda, RbfSvm, Mahalanobis, NearestNeighbours, StudyHead]
)
def test_the_ops_give_the_same_scores_in_a_graph_and_in_batches(data, make):
    features, labels = data
    head = make().fit(features, labels)
    np.testing.assert_allclose(_by_ops(head, features), head.decision_function(features), rtol=1e-5, atol=1e-5)


def test_one_class_only_is_refused_with_a_way_out(data):
    features, labels = data
    with pytest.raises(UserError, match="mahalanobis"):
        Logistic().fit(features, np.zeros_like(labels))


def test_features_that_are_not_numbers_are_refused(data):
    features, labels = data
    features[0, 0] = np.nan
    with pytest.raises(UserError, match="NaN"):
        Mahalanobis().fit(features, labels)


def test_too_few_good_images_for_a_gaussian_are_refused(data):
    features, _ = data
    with pytest.raises(UserError, match="at least two good"):
        Mahalanobis().fit(features[:3], np.array([0, 1, 1]))


def test_what_holding_images_out_leaves_too_few_of_names_the_category_plainly(data):
    records = [Record(str(i), "", "part", "good", 0, "train", str(i)) for i in range(2)]
    with pytest.raises(UserError, match=r"^category 'part', with fold \d of 5 held out .* found 1. Add good images\.$"):
        fit_probe(Mahalanobis, data[0][:2], records, seed=0)


def test_of_more_images_than_a_head_is_fitted_on_so_many_are_drawn_and_said(data, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_IMAGES", 30)
    features, labels = data
    names = np.where(np.arange(60) < 50, "cap", "nut")
    records = [
        Record(str(i), "", str(name), "chip" if bad else "good", int(bad), "test", str(i))
        for i, (name, bad) in enumerate(zip(names, labels, strict=True))
    ]
    defective = [i for i in range(50) if labels[i]]
    assert 5 < len(defective) < 15
    probe = fit_probe(Logistic, features, records, seed=0)
    assert probe.warnings[0] == (
        f"Category 'cap': the head was fitted on 30 of 50 images, drawn at random, {len(defective)} of "
        f"{len(defective)} defective ones among them."
    )
    assert len(probe.calibrate) == 40
    assert {*defective, *range(50, 60)} <= set(probe.calibrate.tolist())
    # Held-out scores are those of the images that they stand beside.
    here = fit_probe(Logistic, features[probe.calibrate], [records[i] for i in probe.calibrate], seed=0)
    np.testing.assert_array_equal(probe.calibrate_scores, here.calibrate_scores)
    # Of many defective ones, as many as the good ones leave room for; of many of both, half.
    turned = [dataclasses.replace(record, label=1 - record.label) for record in records]
    many = 50 - len(defective)
    assert f"{30 - len(defective)} of {many} defective" in fit_probe(Logistic, features, turned, seed=0).warnings[0]
    monkeypatch.setattr(fitting, "MOST_IMAGES", 20)
    assert f"10 of {many} defective" in fit_probe(Logistic, features, turned, seed=0).warnings[0]


def test_the_study_head_takes_its_few_steps_and_repeats_under_a_seed(data):
    features, labels = data
    first, second = (StudyHead(seed=3).fit(features, labels) for _ in range(2))
    np.testing.assert_array_equal(first.weights_, second.weights_)
    start = StudyHead(seed=3, learning_rate=1e-12).fit(features, labels)
    moved = np.abs(first.weights_ - start.weights_).max()
    # Adam moves a weight by at most about its rate a step: 60 steps, cosine from 1e-4, two weights.
    assert 0 < moved < 2 * 60 * 1e-4


def test_each_image_is_judged_by_its_own_categorys_head(data):
    features, labels = data
    both = np.concatenate([features, features[:, ::-1] + 100])
    categories = np.repeat(["cap", "nut"], 60)
    head = PerCategoryHead({"nut": Logistic(), "cap": Logistic()}).fit(both, np.tile(labels, 2), categories)
    parts = zip(("cap", "nut"), np.split(both, 2), strict=True)
    expected = np.concatenate([head.heads[name].decision_function(part) for name, part in parts])
    np.testing.assert_allclose(head.decision_function(both), expected, rtol=1e-4, atol=1e-3)
    alone = Logistic().fit(features, labels).decision_function(features)
    np.testing.assert_allclose(expected[:60], alone, atol=1e-5)


def test_a_category_without_a_class_is_named(data):
    features, labels = data
    categories = np.where(labels == 1, "cap", "nut")
    with pytest.raises(UserError, match="category 'cap'"):
        PerCategoryHead({"cap": Logistic(), "nut": Logistic()}).fit(features, labels, categories)


def test_the_linear_svm_is_scikit_learns_on_standardised_features(data):
    features, labels = data
    reference = make_pipeline(
        StandardScaler(), LinearSVC(class_weight="balanced", dual=True, max_iter=200_000, random_state=0)
    )
    expected = reference.fit(features, labels).decision_function(features)
    np.testing.assert_allclose(LinearSvm().fit(features, labels).decision_function(features), expected, atol=1e-4)


def test_the_kernel_svm_is_scikit_learns_on_standardised_features(data):
    features, labels = data
    reference = make_pipeline(StandardScaler(), SVC(class_weight="balanced"))
    expected = reference.fit(features, labels).decision_function(features)
    np.testing.assert_allclose(RbfSvm().fit(features, labels).decision_function(features), expected, atol=1e-4)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_the_nearest_neighbours_are_found_among_the_good_images_alone(data, neighbours):
    features, labels = data
    scaler = StandardScaler().fit(features[labels == 0])
    scaled, bank = scaler.transform(features), scaler.transform(features[labels == 0])
    expected = [np.sort([np.linalg.norm(row - other) for other in bank])[:neighbours].mean() for row in scaled]
    head = NearestNeighbours(neighbours).fit(features, labels)
    np.testing.assert_allclose(head.decision_function(features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(HEADS) - NEED_MAPS))
def test_more_dimensions_than_images_are_no_obstacle(name):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(24, 200)).astype(np.float32)
    labels = np.repeat([0, 1], [16, 8])
    features[labels == 1, :20] += 2
    head = make_head(HeadSettings(name)).fit(features[::2], labels[::2])
    scores = head.decision_function(features[1::2])
    assert np.mean(scores[labels[1::2] == 1]) > np.mean(scores[labels[1::2] == 0])
    np.testing.assert_allclose(_by_ops(head, features), head.decision_function(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(HEADS) - NEED_MAPS))
def test_features_that_are_all_the_same_are_refused(name):
    features, labels = np.ones((10, 4), np.float32), np.repeat([0, 1], 5)
    with pytest.raises(UserError, match="same numbers"):
        make_head(HeadSettings(name)).fit(features, labels)


@pytest.mark.parametrize("name", sorted(NEED_LABELS))
def test_a_head_that_needs_labels_is_refused_at_budget_zero(name):
    with pytest.raises(UsageError, match=f"`head`={name} needs labels"):
        check_budget(name, 0.0)
    check_budget(name, 0.1)
    check_budget(name, None)


def test_a_head_that_there_is_not_and_numbers_without_sense_are_refused():
    with pytest.raises(UsageError, match="`head`=oracle"):
        HeadSettings("oracle")
    with pytest.raises(UsageError, match="`memory_bank`=0"):
        HeadSettings("patchcore", memory_bank=0)


def test_the_discriminant_is_the_log_odds_of_two_gaussians_with_the_good_images_covariance(data):
    features, labels = data
    scaler = StandardScaler().fit(features[labels == 0].astype(np.float64))
    scaled = scaler.transform(features.astype(np.float64))
    covariance = LedoitWolf().fit(scaled[labels == 0]).covariance_
    gaussians = [multivariate_normal(scaled[labels == label].mean(axis=0), covariance) for label in (0, 1)]
    expected = gaussians[1].logpdf(scaled) - gaussians[0].logpdf(scaled)
    np.testing.assert_allclose(Lda().fit(features, labels).decision_function(features), expected, atol=1e-3)


def _hybrid():
    return Hybrid({"lda": Lda, "mahalanobis": Mahalanobis})


def test_the_hybrid_weighs_heads_on_scores_of_images_that_they_were_not_fitted_on(data):
    features, labels = data
    head = _hybrid().fit(features, labels)
    folds = inner_folds(labels, None, 0)
    columns = np.empty((60, 2))
    for fold in range(3):
        held = folds == fold
        for number, make in enumerate((Lda, Mahalanobis)):
            columns[held, number] = make().fit(features[~held], labels[~held]).decision_function(features[held])
    columns[:, 1] = np.log(columns[:, 1])
    scaler = StandardScaler().fit(columns[labels == 0])
    model = LogisticRegression(class_weight="balanced").fit(scaler.transform(columns), labels)
    whole = [make().fit(features, labels).decision_function(features) for make in (Lda, Mahalanobis)]
    evidence = scaler.transform(np.stack([whole[0], np.log(whole[1])], axis=1))
    np.testing.assert_allclose(head.decision_function(features), model.decision_function(evidence), atol=1e-3)
    np.testing.assert_allclose(_by_ops(head, features), head.decision_function(features), rtol=1e-5, atol=1e-5)


def test_with_a_single_defect_the_hybrid_trusts_only_heads_that_need_no_labels(data):
    features, labels = data
    rows = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:1]])
    head = _hybrid().fit(features[rows], labels[rows])
    assert head.weights_[0] == 0
    assert head.weights_[1] > 0


def test_inner_folds_keep_an_objects_images_together_and_spread_each_class():
    labels = np.array([0] * 12 + [1] * 6)
    groups = np.array([i // 2 for i in range(12)] + [50, 50, 51, 51, 52, 52])
    folds = inner_folds(labels, groups, seed=1)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    for label in (0, 1):
        assert set(folds[labels == label]) == {0, 1, 2}
    alone = inner_folds(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 9, 9]), seed=0)
    assert alone[3:].tolist() == [-1, -1]


def test_a_hybrid_of_nothing_or_of_itself_is_refused():
    for wrong in ((), ("lda", "lda"), ("hybrid",), ("oracle",)):
        with pytest.raises(UsageError, match="`hybrid_of`"):
            HeadSettings("hybrid", hybrid_of=wrong)
    assert HeadSettings("hybrid").needs_maps
    assert not HeadSettings("hybrid", hybrid_of=("lda", "mahalanobis")).needs_maps


def test_the_gaussian_of_few_images_in_many_dimensions_is_ledoit_and_wolfs(data):
    rng = np.random.default_rng(4)
    for count, width in ((12, 40), (60, 5)):
        good, others = rng.normal(size=(count, width)) * 3 + 7, rng.normal(size=(9, width)) * 5
        good[:, 1] = 2.5  # no spread at all
        gaussian = GoodGaussian(good)
        scaler = StandardScaler().fit(good)
        reference = LedoitWolf().fit(scaler.transform(good))
        scaled = scaler.transform(others)
        expected = np.sqrt(np.einsum("ij,jk,ik->i", scaled, reference.precision_, scaled))
        np.testing.assert_allclose(gaussian.distances(others), expected, rtol=1e-8)
        np.testing.assert_allclose(gaussian.solve(scaled[0]), reference.precision_ @ scaled[0], rtol=1e-6, atol=1e-9)


HEADS_ON_GLOBAL_FEATURES = [Logistic, LinearSvm, Lda, RbfSvm, Mahalanobis, NearestNeighbours]


@pytest.mark.parametrize("make", HEADS_ON_GLOBAL_FEATURES)
def test_words_or_other_numbers_for_labels_are_refused_and_do_not_turn_the_scores_round(data, make):
    features, labels = data
    others = (np.array(["good", "defective"])[labels], 2 * labels - 1, labels + 1, labels / 2, labels[:, None])
    for wrong in (*others, np.where(np.arange(60) == 3, np.nan, labels)):
        with pytest.raises(ValueError, match=r"labels must be \[N\], 1 for defective and 0 for good images. Received"):
            make().fit(features, wrong)
    scores = make().fit(features, labels).decision_function(features)
    for same in (labels == 1, labels.tolist(), labels.astype(object), labels.astype(float)):
        np.testing.assert_array_equal(make().fit(features, same).decision_function(features), scores)
    listed = make().fit(features.tolist(), labels).decision_function(features.tolist())
    np.testing.assert_allclose(listed, scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", HEADS_ON_GLOBAL_FEATURES)
def test_a_head_judges_only_what_it_was_fitted_for(data, make):
    features, labels = data
    for ask in ("decision_function", "predict", "predict_proba"):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            getattr(make(), ask)(features)
    head = make().fit(features, labels)
    for wrong in (features[:, :1], features[:, :7], features[0]):
        with pytest.raises(ValueError, match=r"features must be \[N, 8\], as those that the head was fitted on"):
            head.decision_function(wrong)
    large, small = (FrozenFeatures(features, image_size=(side, side)) for side in (96, 48))
    with pytest.raises(ValueError, match=r"features at \(96, 96\) px; the head was fitted on \(48, 48\)"):
        make().fit(small, labels).decision_function(large)
    # NaN reaches no threshold: it would be called good.
    with pytest.raises(UserError, match="NaN or infinite"):
        head.predict(np.where(np.arange(8) == 2, np.nan, features))


def test_the_mean_of_no_neighbour_is_refused(data):
    with pytest.raises(ValueError, match=r"neighbours must be 1 or more\. Received: 0"):
        NearestNeighbours(0).fit(*data)


def test_who_takes_features_in_their_container_for_an_array_is_told_where_it_is(data):
    both = FrozenFeatures(data[0])
    for ask in (np.asarray, list, StandardScaler().fit, lambda features: features[0]):
        with pytest.raises(TypeError, match=r"take `features\.pooled`"):
            ask(both)
    assert both[:1].shape == both[[0]].shape == (1, 8)


def test_what_is_done_to_its_arrays_after_the_fit_moves_no_head(data):
    features, labels = data
    given, told = features.copy(), labels.copy()
    head = Logistic().fit(given, told)
    given[:], told[:] = 0, 1 - labels
    probabilities = Logistic().fit(features, labels).predict_proba(features)
    np.testing.assert_array_equal(head.predict_proba(features), probabilities)


@pytest.mark.parametrize("make", HEADS_ON_GLOBAL_FEATURES)
def test_a_head_is_an_estimator_of_scikit_learn(data, make):
    features, labels = data
    head = make().fit(features, labels)
    again = clone(head)
    assert again.get_params() == head.get_params()
    assert not hasattr(again, "classes_")
    scores = cross_val_score(make(), features, labels, scoring="roc_auc", cv=3)
    assert scores.mean() > 0.6
    both = FrozenFeatures(features, groups=np.arange(60))
    np.testing.assert_array_equal(cross_val_score(make(), both, labels, scoring="roc_auc", cv=3), scores)
    probabilities = head.predict_proba(features)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(head.predict(features), probabilities[:, 1] >= 0.5)
    assert spearmanr(probabilities[:, 1], head.decision_function(features)).statistic == pytest.approx(1, abs=1e-3)


def test_two_held_out_defects_far_below_all_others_leave_calls_and_probabilities_of_use():
    """The head fitted on all parts all; fitted without the two, it took them for the best of good images."""
    labels = np.repeat([0, 1], [60, 12])
    features = np.random.default_rng(0).normal(loc=20 * labels)[:, None]
    head = Logistic().fit(features, labels)
    scores = head.decision_function(features)
    head.held_out_ = np.append(scores[:70], [-78, -65])
    np.testing.assert_array_equal(head.predict(features), labels)
    assert np.ptp(head.predict_proba(features)[:, 1]) > 0.5


def test_where_held_out_defects_score_no_higher_than_good_images_there_is_no_probability():
    labels = np.repeat([0, 1], [36, 4])
    features = np.random.default_rng(0).normal(size=(40, 2))
    head = Mahalanobis().fit(features, labels)
    head.held_out_ = 1.0 - labels
    with pytest.raises(UserError, match="score no higher than good ones"):
        head.predict_proba(features)
    # Calls go by the limit of good images then.
    np.testing.assert_array_equal(head.predict(features), head.decision_function(features) > 1)


def test_without_labels_a_call_stops_about_one_good_image_in_twenty(data):
    rng = np.random.default_rng(2)
    head = Mahalanobis().fit(rng.normal(size=(300, 6)))
    assert 0.02 < head.predict(rng.normal(size=(4000, 6))).mean() < 0.08
    assert head.predict(rng.normal(size=(10, 6)) + 9).all()
    with pytest.raises(UserError, match="no probability"):
        head.predict_proba(rng.normal(size=(3, 6)))
