"""What is called a real difference is one: against independent references, and on draws that share their images."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from mvtec_tf.label_efficiency.statistics import NO_INTERVAL, NO_SPREAD, estimate, holm


def test_without_correction_it_is_the_usual_t_test():
    values = np.random.default_rng(0).normal(0.3, 1, 8)
    found = estimate(values.tolist(), ratio=0)
    reference = stats.ttest_1samp(values, 0)
    interval = reference.confidence_interval(0.95)
    np.testing.assert_allclose(found.p_value, reference.pvalue, rtol=1e-9)
    np.testing.assert_allclose([found.metric.low, found.metric.high], [interval.low, interval.high], rtol=1e-9)
    assert found.metric.value == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(values.std(ddof=1))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 9.0])
def test_the_corrected_test_is_the_papers_formula_with_students_density_integrated(ratio):
    values = [0.02, 0.05, -0.01, 0.04, 0.03]
    mean = sum(values) / 5
    variance = sum((value - mean) ** 2 for value in values) / 4
    statistic = mean / math.sqrt((1 / 5 + ratio) * variance)

    def density(x):
        return math.gamma(2.5) / (math.sqrt(4 * math.pi) * math.gamma(2)) * (1 + x * x / 4) ** -2.5

    tail, _ = integrate.quad(density, statistic, math.inf)
    found = estimate(values, ratio)
    assert found.p_value == pytest.approx(2 * tail, rel=1e-7)
    reach = (found.metric.high - mean) / math.sqrt((1 / 5 + ratio) * variance)
    inside, _ = integrate.quad(density, -reach, reach)
    assert inside == pytest.approx(0.95, rel=1e-7)


def test_equal_heads_judged_on_halves_of_the_same_photographs_are_seldom_told_apart():
    """The uncorrected test calls far more than one in twenty such differences real."""
    rng = np.random.default_rng(1)
    trials, images, draws = 600, 60, 10
    found = {0.0: 0, 1.0: 0}
    for _ in range(trials):
        difference = rng.normal(size=images)
        halves = [difference[rng.permutation(images)[: images // 2]].mean() for _ in range(draws)]
        for ratio in found:
            found[ratio] += estimate(halves, ratio).p_value < 0.05
    assert found[1.0] / trials < 0.05
    assert found[0.0] / trials > 0.3


def test_holm_is_the_closed_test_of_bonferroni():
    """An independent definition: the largest Bonferroni p-value of all sets of hypotheses that hold the hypothesis."""
    rng = np.random.default_rng(2)
    for count in (1, 2, 5):
        p_values = rng.uniform(0, 0.3, count).tolist()
        sets = [each for size in range(1, count + 1) for each in itertools.combinations(range(count), size)]
        expected = [
            max(min(1.0, len(each) * min(p_values[i] for i in each)) for each in sets if place in each)
            for place in range(count)
        ]
        np.testing.assert_allclose(holm(p_values), expected)
    assert holm([]) == []


def test_a_single_draw_has_no_interval_and_no_test():
    found = estimate([0.9], 1.0)
    assert (found.metric.value, found.metric.low, found.p_value, found.deviation) == (0.9, None, None, None)
    assert found.metric.note == NO_INTERVAL


def test_draws_that_all_agree_prove_nothing_and_draws_without_the_figure_are_counted():
    same = estimate([0.05, 0.05, 0.05], 1.0)
    assert (same.p_value, same.metric.low, same.metric.note) == (1.0, None, NO_SPREAD)
    some = estimate([None, 0.5, 0.7], 1.0, (0.0, 1.0))
    assert some.draws == 2
    assert "2 of 3 draws" in some.metric.note
    assert (some.metric.low, some.metric.high) == (0.0, 1.0)
    nothing = estimate([None, None], 1.0)
    assert nothing.metric.value is None
    assert nothing.metric.reason
