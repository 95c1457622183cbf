"""Intervals: whole groups are resampled, every resample's figures are right, and certainty is not feigned."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mvtec_tf.evaluation import intervals, metrics, sample
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling
from mvtec_tf.evaluation.metrics import Confusion, Costs, Metric
from mvtec_tf.evaluation.report import summary
from mvtec_tf.evaluation.sample import Sample
from mvtec_tf.evaluation.table import Predictions, Row

_SOME = Bootstrap(resamples=50, seed=3)


def _images(count, seed=0, categories=2, per_group=1, digits=1):
    """Predictions of `count` images: overlapping, tied scores, with probabilities."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        label = int(rng.random() < 0.6)
        score = float(np.round(rng.normal(label), digits))
        category = f"c{i % categories}"
        group = f"part {i // per_group}" if per_group > 1 else ""
        defect = ("good", f"kind {i % 3}")[label]
        rows.append(Row(f"{i}.png", category, defect, label, "evaluate", score, group, float(rng.random())))
    return Predictions.from_rows(rows)


def _resampling(table, bootstrap=_SOME):
    return Resampling(table.path, table.category, table.group, table.label, bootstrap)


def _weights(table, bootstrap=_SOME):
    return np.concatenate(list(_resampling(table, bootstrap).chunks()))


def test_every_resample_has_as_many_images_of_each_category_and_label_as_the_table():
    table = _images(60, categories=3)
    weights = _weights(table)
    assert weights.shape == (50, 60)
    for category in table.categories():
        for label in (0, 1):
            stratum = (table.category == category) & (table.label == label)
            assert (weights[:, stratum].sum(1) == stratum.sum()).all()
    assert len(np.unique(weights, axis=0)) > 45


def test_images_of_one_group_are_drawn_together():
    table = _images(60, categories=1, per_group=4)
    weights = _weights(table)
    for group in np.unique(table.group):
        assert (np.ptp(weights[:, table.group == group], axis=1) == 0).all()
    assert weights.max() > 1


def test_a_group_named_by_one_of_its_images_holds_that_image_and_categories_do_not_share_groups():
    rows = [
        Row("a.png", "c", "good", 0, "evaluate", 0.0),
        Row("b.png", "c", "good", 0, "evaluate", 0.0, "./a.png"),
        Row("c.png", "d", "good", 0, "evaluate", 0.0, "a.png"),
    ]
    units = _resampling(Predictions.from_rows(rows)).units
    assert units[0] == units[1] != units[2]


def test_an_image_is_drawn_as_often_as_drawing_with_replacement_says():
    table = _images(40, categories=1)
    weights = _weights(table, Bootstrap(4000))
    defective = table.label == 1
    count = defective.sum()
    expected = stats.binom(count, 1 / count).pmf(np.arange(5))
    found = np.bincount(weights[:, defective].astype(int).ravel(), minlength=5)[:5] / weights[:, defective].size
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_same_seed_gives_the_same_resamples_and_another_seed_others():
    table = _images(30, categories=1)
    whole = _weights(table)
    np.testing.assert_array_equal(_weights(table), whole)
    assert (_weights(table, Bootstrap(50, seed=4)) != whole).any()


@pytest.mark.parametrize(("seed", "digits"), [(0, 0), (1, 1), (2, 9)])
def test_each_resamples_figures_are_those_of_a_table_with_its_rows_repeated(seed, digits):
    table = _images(40, seed, digits=digits)
    costs = Costs(3, 0.5)
    prepared = Sample(table.label, table.score, 0.5, table.probability, costs)
    weights = _weights(table)
    found = prepared.figures(weights, prepared.points(weights))
    assert set(found) == {*metrics.NAMES, sample.GAIN}
    for row, counts in enumerate(weights.astype(int)):
        labels, scores = np.repeat(table.label, counts), np.repeat(table.score, counts)
        probabilities = np.repeat(table.probability, counts)
        slow = sample.measure(labels, scores, 0.5, probabilities=probabilities, costs=costs)
        for name in metrics.NAMES:
            expected = np.nan if slow[name].value is None else slow[name].value
            assert found[name][row] == pytest.approx(expected, abs=1e-9, nan_ok=True), name
        assert found["roc_auc"][row] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-9)
        gain = slow["f1"].value - 2 * labels.sum() / (len(labels) + labels.sum())
        assert found[sample.GAIN][row] == pytest.approx(gain, abs=1e-9)


def test_figures_that_a_resample_does_not_have_are_nan():
    prepared = Sample(np.array([0, 0, 1]), np.array([0.0, 1.0, 1.0]), 0.5, None, Costs())
    weights = np.array([[1.0, 1, 0], [0, 0, 2], [1, 0, 0]])
    found = prepared.figures(weights, prepared.points(weights))
    missing = {name: np.isnan(values).tolist() for name, values in found.items()}
    assert missing["roc_auc"] == missing["balanced_accuracy"] == missing["mcc"] == [True, True, True]
    assert missing["recall"] == missing["f1"] == [True, False, True]
    assert missing["specificity"] == [False, True, False]
    assert missing["precision"] == [False, False, True]


def test_bands_are_of_the_curves_of_the_resamples():
    table = _images(60, categories=1, digits=1)
    prepared = Sample(table.label, table.score, None, None, Costs())
    weights = _weights(table)
    details = prepared.details(weights, prepared.points(weights))
    for row, counts in enumerate(weights.astype(int)):
        labels, scores = np.repeat(table.label, counts), np.repeat(table.score, counts)
        fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
        np.testing.assert_allclose(details["roc"][row], np.interp(sample.GRID, fpr, tpr), atol=1e-6)
        precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
        for wanted, shown in zip(sample.GRID[1:], details["precision_recall"][row, 1:], strict=True):
            reached = np.flatnonzero(recall >= wanted - 1e-9)[-1]  # thresholds rise, so recall falls
            assert shown == pytest.approx(precision[reached], abs=1e-6)


def test_the_interval_of_an_area_is_about_that_of_its_standard_error():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], (300, 300))
    scores = rng.normal(labels * 1.0)
    columns = ([f"{i}" for i in range(600)], ["c"] * 600, ["x"] * 600, labels, ["evaluate"] * 600, scores)
    found = assess(Predictions.from_columns(*columns), None).overall.metrics["roc_auc"]
    # DeLong, DeLong and Clarke-Pearson, Biometrics 1988: variance from the placement values.
    good, defective = scores[:300], scores[300:]
    wins = (defective[:, None] > good[None, :]).mean(1), (defective[:, None] > good[None, :]).mean(0)
    error = np.sqrt(np.var(wins[0], ddof=1) / 300 + np.var(wins[1], ddof=1) / 300)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.12)


def test_images_of_one_object_count_as_one_piece_of_evidence():
    single = _images(300, categories=1)
    # Each image ten times, under ten names, as photographs of one object.
    rows = [
        Row(f"{row.path}/{i}", row.category, row.defect, row.label, row.split, row.score, row.path)
        for row in single.rows()
        for i in range(10)
    ]
    alone = assess(single, 0.5).overall.metrics
    tenfold = assess(Predictions.from_rows(rows), 0.5).overall.metrics
    for name in ("recall", "roc_auc", "f1"):
        assert tenfold[name].value == pytest.approx(alone[name].value)
        assert tenfold[name].high - tenfold[name].low == pytest.approx(alone[name].high - alone[name].low, rel=0.2)


@pytest.mark.parametrize("units", [1, 2, 8, 50])
def test_all_or_none_of_the_images_and_a_few_of_them_have_the_exact_binomial_interval(units):
    """By resampling at most 25 % of defects would pass where 1 of 12 did, and 26.5 % where none did."""
    for count in {0, 1, min(units, 4), units - 1, units}:
        found = intervals.with_interval(Metric(count / units), np.full(100, count / units), units)
        exact = stats.binomtest(count, units).proportion_ci(0.95, "exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_perfect_model_on_few_images_is_not_said_to_be_certain():
    rows = [Row(f"{i}", "c", ("good", "bad")[i % 2], i % 2, "evaluate", float(i % 2)) for i in range(4)]
    judged = assess(Predictions.from_rows(rows), 0.5)
    found = judged.overall.metrics
    assert found["recall"].low < 0.2
    assert found["balanced_accuracy"].low == pytest.approx((found["recall"].low + found["specificity"].low) / 2)
    # As of a share of two.
    assert (found["roc_auc"].low, found["roc_auc"].high) == (found["recall"].low, 1.0)
    assert found["pr_auc"].low is None
    assert intervals.TOO_FEW in found["pr_auc"].note
    assert judged.overall.verdict == "unproven"
    # Of the PR-AUC too, whose sum is rounded otherwise in each resample.
    rows = [Row(f"{i}", "c", ("good", "bad")[i % 2], i % 2, "evaluate", float(i % 2) + i / 99) for i in range(25)]
    judged = assess(Predictions.from_rows(rows), 0.8)
    assert "ROC-AUC is 1.000 [all resamples alike]" in " ".join(summary.sentences(judged))
    assert "[1.0000 to 1.0000]" not in summary.text_table(judged.as_json())


@pytest.mark.parametrize(("recall", "specificity"), [(0.6, 0.8), (0.9, 0.95), (0.4, 0.99)])
def test_limits_of_f1_balanced_accuracy_and_cost_hold_of_three_defects(recall, specificity):
    """Over all that three defective and thirty good images can come to."""
    held, costs = Counter(), Costs()
    truth = metrics.of_counts(Confusion(30 * specificity, 30 * (1 - specificity), 3 * (1 - recall), 3 * recall), costs)
    for tp, tn in itertools.product(range(4), range(31)):
        found = metrics.of_counts(Confusion(tn, 30 - tn, 3 - tp, tp), costs)
        for name, share, units in (("recall", tp / 3, 3), ("specificity", tn / 30, 30)):
            found[name] = Metric(share, **intervals.exact(share, units))
        chance = stats.binom.pmf(tp, 3, recall) * stats.binom.pmf(tn, 30, specificity)
        for name, one in intervals.from_ends(found, {"recall": 3, "specificity": 30}, (3, 30), costs).items():
            assert one.low <= one.value <= one.high
            held[name] += chance * (one.low <= truth[name].value <= one.high)
    assert set(held) == {"f1", "balanced_accuracy", "mcc", "cost"}
    assert min(held.values()) > 0.9


def test_of_three_defects_a_model_has_limits_that_hold_or_none():
    rng = np.random.default_rng(0)
    rows = [Row(f"{i}", "c", "bad", 1, "evaluate", 2 + 0.1 * i) for i in range(3)]
    rows += [Row(f"g{i}", "c", "good", 0, "evaluate", float(rng.normal())) for i in range(40)]
    judged = assess(Predictions.from_rows(rows), 2.05, bootstrap=_SOME).overall
    found = judged.metrics
    assert found["f1"].low < 0.3
    assert judged.gains["f1"].low == pytest.approx(found["f1"].low - judged.always_defective["f1"].value)
    assert found["roc_auc"].low < 0.4
    assert intervals.TOO_FEW in found["recall_at_95_specificity"].note
    # That three defects are few says nothing of forty good images.
    assert found["specificity"].high - found["specificity"].low < 0.2
    assert judged.bands == {}


def test_an_interval_holds_its_figure_and_says_how_many_resamples_have_it():
    half = np.where(np.arange(100) % 2, np.nan, np.linspace(0.4, 0.6, 100))
    found = intervals.with_interval(Metric(0.7, note="first"), half)
    assert (found.low, found.high) == (pytest.approx(0.405, abs=0.002), 0.7)
    assert found.note == "first; the interval is of the 50 % of resamples that have the figure"
    assert "no resample" in intervals.with_interval(Metric(0.7), np.full(5, np.nan)).note
    assert intervals.with_interval(Metric(None, "none"), half) == Metric(None, "none")


def test_without_resamples_there_are_figures_and_no_intervals():
    judged = assess(_images(40), 0.5, bootstrap=Bootstrap(0))
    document = judged.as_json()
    for block in (document["overall"], document["mean_over_categories"], *document["categories"].values()):
        assert all(metric["low"] is None and metric["high"] is None for metric in block.values())
    assert judged.overall.verdict in ("better", "mixed", "no_better")
    assert judged.overall.bands == {}


def test_the_interval_of_a_mean_over_categories_is_that_of_the_means_of_resamples():
    table = _images(80, categories=3)
    judged = assess(table, 0.5, bootstrap=Bootstrap(60))
    each = []
    for counts in _weights(table, Bootstrap(60)).astype(int):
        means = []
        for category in table.categories():
            of = np.repeat(np.arange(80), np.where(table.category == category, counts, 0))
            means.append(sklearn_metrics.roc_auc_score(table.label[of], table.score[of]))
        each.append(np.mean(means))
    found = judged.mean["roc_auc"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])), abs=1e-9)


def test_recall_by_defect_type_counts_the_images_of_each_type():
    table = _images(90, categories=2)
    judged = assess(table, 0.5)
    for name, scope in judged.categories.items():
        assert [part.name for part in scope.parts] == ["kind 0", "kind 1", "kind 2"]
        for part in scope.parts:
            scores = table.score[(table.category == name) & (table.defect == part.name)]
            assert (part.images, part.found) == (len(scores), (scores >= 0.5).sum())
            assert part.recall.value == part.found / part.images
            assert part.recall.low <= part.recall.value <= part.recall.high
            assert part.recall.low < part.recall.high


def test_a_single_image_has_figures_with_honest_limits():
    table = Predictions.from_rows([Row("a", "c", "bad", 1, "evaluate", 1.0)])
    found = assess(table, 0.5).overall.metrics
    assert (found["recall"].value, found["recall"].low, found["recall"].high) == (1.0, pytest.approx(0.025), 1.0)
    assert found["specificity"].value is None
    assert found["specificity"].low is None


def test_a_model_better_by_luck_alone_is_unproven_and_one_as_good_on_many_images_is_not():
    def judged(times):
        calls = [(0, 0.0), (0, 0.0), (0, 1.0), (1, 1.0), (1, 1.0), (1, 1.0), (1, 0.0)] * times
        rows = [Row(f"{i}", "c", ("good", "bad")[y], y, "evaluate", s) for i, (y, s) in enumerate(calls)]
        return assess(Predictions.from_rows(rows), 0.5).overall

    assert judged(1).metrics["balanced_accuracy"].value == judged(300).metrics["balanced_accuracy"].value
    assert judged(1).verdict == "unproven"
    assert judged(300).verdict == "better"


@pytest.mark.parametrize("settings", [{"resamples": -1}, {"seed": -1}])
def test_bootstraps_that_are_none_are_refused(settings):
    with pytest.raises(ValueError, match="Received"):
        Bootstrap(**settings)


@pytest.mark.parametrize("alone", ["one lot", "categories"])
def test_images_that_leave_nothing_to_resample_have_no_interval_and_show_nothing(alone):
    table = _images(40, per_group=40, categories=1) if alone == "one lot" else _images(40, categories=40)
    judged = assess(table, threshold=0.5, bootstrap=_SOME).overall
    assert judged.metrics["roc_auc"].value is not None
    assert (judged.metrics["roc_auc"].low, judged.metrics["balanced_accuracy"].low) == (None, None)
    assert intervals.NO_INTERVAL in judged.metrics["roc_auc"].note
    assert judged.verdict == "unproven"
