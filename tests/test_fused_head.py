"""The recommended head: its parts are what they say, labels help it and few labels cannot spoil it."""


import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.fused import DEFAULT_WEIGHT, WEIGHTS, Fused
from mvtec_tf.heads.make import Mahalanobis, make_head
from mvtec_tf.heads.ridge import balanced_ridge
from mvtec_tf.heads.settings import HeadSettings


def _images(seed, good, defective, shift=2.5, width=30, views=1):
    """Defects shift two features that good images hardly vary in; each object has `views` alike views."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(good + defective) >= good, views).astype(int)
    pooled = np.repeat(rng.normal(size=(good + defective, width)), views, axis=0) * np.linspace(0.2, 5, width)
    pooled += rng.normal(size=pooled.shape) * 0.05
    pooled[labels == 1, :2] += shift * np.array([0.2, 0.35])
    groups = np.repeat(np.arange(good + defective), views)
    return FrozenFeatures(pooled.astype(np.float32), groups=groups), labels


@pytest.mark.parametrize(("count", "width"), [(40, 6), (12, 50)])
def test_the_ridge_is_scikit_learns_with_both_classes_weighted_alike(count, width):
    rng = np.random.default_rng(count)
    features, labels = rng.normal(size=(count, width)), (np.arange(count) < 4).astype(int)
    features[labels == 1] += 0.7
    weights, offset = balanced_ridge(features, labels, 0.3)
    shares = np.where(labels == 1, 0.5 / 4, 0.5 / (count - 4))
    centred = features - shares @ features
    strength = 0.3 * (shares @ (centred**2).sum(axis=1)) / count
    reference = Ridge(alpha=strength).fit(features, 2 * labels - 1, sample_weight=shares)
    np.testing.assert_allclose(weights, reference.coef_, rtol=1e-8)
    np.testing.assert_allclose(offset, reference.intercept_, rtol=1e-8)


def test_labels_lift_what_the_distance_alone_finds():
    features, labels = _images(0, 80, 10)
    new, truth = _images(1, 200, 200)
    alone = Fused().fit(features, np.zeros_like(labels)).decision_function(new)
    fused = Fused().fit(features, labels).decision_function(new)
    assert roc_auc_score(truth, fused) > roc_auc_score(truth, alone) + 0.02


def test_without_a_defect_the_score_is_in_units_of_held_out_good_images_distances():
    features, labels = _images(2, 150, 0)
    new, _ = _images(3, 200, 0)
    scores = Fused().fit(features, labels).decision_function(new)
    # The parts of the last fit saw a half more images than those that set the scale.
    assert abs(scores.mean()) < 0.6
    assert 0.7 < scores.std() < 1.4
    distances = Mahalanobis().fit(features, labels).decision_function(new)
    assert spearmanr(scores, distances).statistic > 0.8


def _exposures(seed, good, defective):
    """The first feature is the exposure; a long one brings noise to all others. A defect is ten times the least."""
    rng = np.random.default_rng(seed)
    exposure = rng.uniform(-1, 1, good + defective)
    pooled = rng.normal(size=(good + defective, 20)) * np.exp(1.2 * exposure)[:, None]
    pooled[:, :4] = 30 * exposure[:, None] + rng.normal(size=(good + defective, 4)) * 0.1
    labels = (np.arange(good + defective) >= good).astype(int)
    pooled[labels == 1, 4:] *= 1.6
    return pooled.astype(np.float32), labels


def test_a_distance_that_is_usual_for_the_exposure_is_no_defect():
    features, labels = _exposures(0, 300, 0)
    new, truth = _exposures(1, 400, 400)
    plain = Mahalanobis().fit(features, labels).decision_function(new)
    fused = Fused().fit(features, labels).decision_function(new)
    assert roc_auc_score(truth, fused) > roc_auc_score(truth, plain) + 0.1


@pytest.mark.parametrize("labelled", [0, 1, 8])
@pytest.mark.parametrize("name", ["fused", "auto"])
def test_exported_ops_give_the_scores_of_the_parts_in_double_precision(name, labelled):
    features, labels = _images(4, 40, labelled)
    head = make_head(HeadSettings(name)).fit(features, labels)
    pooled = features.pooled.astype(np.float64)
    evidence = head.parts_.evidence(pooled)
    evidence[:, 0] -= pooled @ head.usual_ + head.usual_offset_
    expected = (evidence - head.mean_) / head.scale_ @ np.array([1, head.weight_])
    np.testing.assert_allclose(head.decision_function(features), expected, rtol=1e-5, atol=1e-5)


def test_the_choice_leaves_the_default_for_a_gain_only_that_is_beyond_chance():
    plain, labels = _images(5, 60, 40, shift=0.0)
    assert Fused(weight=None).fit(plain, labels).weight_ == DEFAULT_WEIGHT
    # Where the defects lie on the side where good images vary most, the distance is blind and the labels are not.
    features, labels = _images(6, 150, 60, shift=0.0)
    features.pooled[labels == 1, 27:] += 8
    assert Fused(weight=None).fit(features, labels).weight_ == max(WEIGHTS)


def test_views_of_one_defective_object_are_one_piece_of_evidence_and_are_never_held_out_alone():
    features, labels = _images(7, 40, 1, views=5)
    head = Fused(weight=None).fit(features, labels)
    assert head.weight_ == DEFAULT_WEIGHT
    assert np.isfinite(head.decision_function(features)).all()


def test_good_images_of_a_single_object_are_refused():
    features, labels = _images(8, 1, 0, views=6)
    with pytest.raises(UserError, match="one object"):
        Fused().fit(features, labels)


def test_the_fused_heads_are_not_stacked_once_more():
    with pytest.raises(UsageError, match="hybrid_of"):
        HeadSettings("hybrid", hybrid_of=("fused", "lda"))
