"""Thresholds that promise a share of new objects: the order statistic, its coverage, and what is said of too few."""

import numpy as np
import pytest
from scipy import stats

from mvtec_tf import conformal
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.evaluation.thresholds import Rule, choose, choose_threshold


def _good(scores, **more):
    return choose_threshold(np.zeros(len(scores), int), np.asarray(scores, float), **more)


def _slow(scores, objects, share):
    """The lowest score t with sum over objects of (share of its images up to t) / (K + 1) >= 1 - share, else inf."""
    names = sorted(set(objects))
    for cut in sorted(set(scores)):
        inside = 0.0
        for name in names:
            own = [score for score, one in zip(scores, objects, strict=True) if one == name]
            inside += sum(score <= cut for score in own) / len(own) / (len(names) + 1)
        if inside >= 1 - share - 1e-12:
            return cut
    return np.inf


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3])
def test_the_order_statistic_is_that_of_the_definition(seed, share):
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 25, 60)
    scores = np.round(rng.normal(size=60), 1)
    found = conformal.order_statistic(scores, conformal.masses(objects), share)
    assert found == min(_slow(scores.tolist(), objects.tolist(), share), scores.max())


@pytest.mark.parametrize("count", [19, 20, 38, 39, 99, 100, 250])
def test_with_one_image_an_object_it_is_the_ceil_of_n_plus_1_times_the_share_th_lowest(count):
    scores = np.random.default_rng(count).permutation(count).astype(float)
    found = conformal.order_statistic(scores, conformal.masses(np.arange(count)), 0.05)
    assert found == np.ceil((count + 1) * 0.95 - 1e-9) - 1
    assert _good(scores).value > found
    # Of many images it is the quantile that it replaces.
    assert found == pytest.approx(np.quantile(scores, 0.95, method="inverted_cdf"), abs=1)


@pytest.mark.parametrize("count", [20, 50, 100])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_of_new_good_objects_no_more_are_stopped_than_promised_where_the_quantile_stops_more(count, share):
    rng = np.random.default_rng(0)
    draws = rng.standard_t(3, (4000, count + 1))
    held_out, new = draws[:, :-1], draws[:, -1]
    mass = np.ones(count)
    cuts = np.array([conformal.order_statistic(row, mass, share) for row in held_out])
    stopped = np.mean(new > cuts)
    exact = np.floor((count + 1) * share + 1e-9) / (count + 1)
    assert stopped == pytest.approx(exact, abs=4 * np.sqrt(exact / 4000))
    assert stopped <= share + 3 * np.sqrt(share / 4000)
    assert np.mean(new > np.quantile(held_out, 1 - share, axis=1)) > stopped


def test_views_of_one_object_count_once_where_single_images_would_break_the_promise():
    rng = np.random.default_rng(1)
    by_objects, by_images = [], []
    for _ in range(2000):
        # One part in five is photographed forty times, and such parts score low; a new part is any of them.
        many = rng.random(26) < 0.2
        level = np.where(many, -3.0, 0.0) + rng.normal(size=26)
        objects = np.repeat(np.arange(25), np.where(many[:25], 40, 1))
        scores = level[objects] + rng.normal(0, 0.1, len(objects))
        new = level[25] + rng.normal(0, 0.1)
        by_objects.append(new > conformal.order_statistic(scores, conformal.masses(objects), 0.1))
        by_images.append(new > conformal.order_statistic(scores, np.ones(len(scores)), 0.1))
    assert np.mean(by_objects) <= 0.1 + 3 * np.sqrt(0.09 / 2000)
    assert np.mean(by_images) > 0.13


@pytest.mark.parametrize(("share", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (1 - 0.95, 19), (0.0, None)])
def test_what_a_promise_needs_is_the_fewest_objects_that_keep_it(share, needed):
    assert conformal.objects_needed(share) == needed
    if needed:
        rule = Rule("target_specificity", target=1 - share)
        assert "you need" not in _good(np.arange(float(needed)), rule=rule).reason
        if needed > 1:
            few = _good(np.arange(needed - 1.0), rule=rule)
            assert f"for {100 * share:.3g} % you need at least {needed} good objects" in few.reason
            assert few.promised == pytest.approx(1 / needed)


def test_how_far_one_draw_may_be_off_is_what_simulated_draws_say():
    draws = np.sort(np.random.default_rng(2).random((20000, 24)), axis=1)
    above = 1 - draws[:, int(np.ceil(25 * 0.95 - 1e-9)) - 1]
    assert conformal.worst_of_draws(24, 0.05) == pytest.approx(np.quantile(above, 0.95), abs=0.005)
    assert conformal.worst_of_draws(24, 0.05) == pytest.approx(stats.beta(1, 24).ppf(0.95))


@pytest.mark.parametrize("scores", [[2.5], [2.5, 2.5], [-1.0, 4.0], [3.0] * 40])
def test_one_good_object_two_and_all_alike_have_a_threshold_above_them_and_say_what_it_promises(scores):
    found = _good(scores)
    assert max(scores) < found.value < max(scores) + 1e-6
    assert found.promised == (0.05 if len(scores) >= 19 else 1 / (len(scores) + 1))
    if len(scores) < 19:
        assert "for 5 % you need at least 19 good objects" in found.reason
        assert f"at most {100 / (len(scores) + 1):.3g} %" in found.reason


def _rows(good, defective=(), group=None):
    rows = [("good", 0, score) for score in good] + [("chip", 1, score) for score in defective]
    return Predictions.from_rows(
        Row(f"{i}.png", "cap", name, label, "calibrate", float(score), "" if group is None else group(i))
        for i, (name, label, score) in enumerate(rows)
    )


PROMISED = Rule("target_specificity", target=0.95)


def _chosen(table, rule=None):
    return choose(table, ("cap",), rule or Rule(), Costs(), Bootstrap(50)).whole


def test_a_table_s_groups_count_once_and_the_words_say_so():
    chosen = _chosen(_rows(np.arange(40.0), group=lambda i: f"part {i // 4}"), PROMISED)
    assert "40 good calibrate images of 10 objects, each counted once" in chosen.reason
    assert chosen.promised == pytest.approx(1 / 11)
    assert "10 good objects, which is too few to promise 5 % false alarms" in chosen.warning
    assert chosen.low <= chosen.value <= chosen.high


def test_the_promise_its_source_and_the_uncertainty_of_few_objects_are_said():
    chosen = _chosen(_rows(np.arange(25.0)), PROMISED)
    assert chosen.reason.startswith("it promises to stop at most 5 % of new good parts like these")
    assert "Vovk et al. 2005; Lei et al. 2018" in chosen.reason
    assert "may be up to" in chosen.warning
    assert _chosen(_rows(np.arange(39.0))).warning == ""
    assert chosen.as_json()["promised"] == pytest.approx(0.05)


@pytest.mark.parametrize("target", [0.9, 0.95])
def test_a_wanted_share_is_promised_of_new_objects_of_its_kind_also_with_labels(target):
    good, defective = np.arange(50.0), np.arange(30.0, 70.0)
    found = _chosen(_rows(good, defective), Rule("target_specificity", target=target))
    place = int(np.ceil(51 * target - 1e-9)) - 1
    assert good[place] < found.value < good[place] + 1e-3
    assert found.method == "target_specificity"
    found = _chosen(_rows(good, defective), Rule("target_recall", target=target))
    # Of 40 defective objects the floor(41 (1 - target))-th lowest is still found.
    assert found.value == defective[int(np.floor(41 * (1 - target) + 1e-9)) - 1]
    assert (found.promised, "miss at most" in found.reason) == (None, True)


def _limit(draws):
    """float [D, N] -> [D], the limit of the definition."""
    count = draws.shape[1]
    spread = draws.std(axis=1, ddof=1) * np.sqrt(1 + 1 / count)
    return draws.mean(axis=1) + stats.t(count - 1).ppf(0.95) * spread


@pytest.mark.parametrize("count", [3, 10, 38])
def test_few_good_objects_without_a_target_have_the_limit_of_what_is_expected(count):
    draws = np.random.default_rng(count).normal(size=(20000, count + 1))
    held_out, new = draws[:, :-1], draws[:, -1]
    assert np.mean(new > _limit(held_out)) == pytest.approx(0.05, abs=0.006)
    found = _good(held_out[0])
    assert found.value == pytest.approx(_limit(held_out[:1])[0])
    assert (found.method, found.promised) == ("prediction_limit", None)
    # Of one set of objects more may be stopped, and the warning says how many.
    worst = conformal.worst_of_limits(count, 0.05)
    assert np.mean(stats.norm.sf(_limit(held_out)) < worst) == pytest.approx(0.95, abs=0.006)
    assert f"may be up to {100 * worst:.3g} %" in _chosen(_rows(held_out[0])).warning
    # Each object counts once, however often it was photographed.
    objects = np.repeat(np.arange(count), 1 + np.arange(count))
    assert _good(held_out[0][objects], objects=objects).value == pytest.approx(found.value)


def test_one_odd_good_part_of_thirty_does_not_hide_every_defect_and_of_39_parts_all_is_promised():
    scores = np.append(np.random.default_rng(0).normal(size=30), 9.0)
    found = _chosen(_rows(scores))
    assert scores[:-1].max() < found.value < 5
    assert found.reason.startswith("about 5 % of new good parts like these are expected to be stopped")
    assert "31 good objects, which is too few to promise 5 %" in found.warning
    assert "from 39 objects on" in found.warning
    assert _chosen(_rows(scores), PROMISED).value > 9
    assert _good(np.arange(39.0)).method == "conformal"


def test_every_share_promised_of_all_objects_is_said_to_be_out_of_reach():
    found = _chosen(_rows(np.arange(50.0), np.arange(50.0)), Rule("target_specificity", target=1.0))
    assert found.value > 49
    assert "no number of objects is enough to promise 0 %" in found.warning
