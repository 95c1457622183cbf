"""The tools that measure drift and doubt: what they change, and the rules that they set beside ours."""

import itertools

import numpy as np
from PIL import Image

from mvtec_tf.evaluation.metrics import Costs
from tools import doubt_search, drift_benchmark


def test_changes_are_what_they_are_called():
    rng = np.random.default_rng(0)
    image = Image.fromarray(np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8))
    changed = {name: np.asarray(change(image), float) for name, change in drift_benchmark.CHANGES.items()}
    plain = np.asarray(image, float)
    assert (changed["none"] == plain).all()
    assert np.abs(changed["lamp dimmed by 20 %"] - 0.8 * plain).max() <= 0.5
    turned = changed["part turned by 5 degrees"]
    assert turned.shape == plain.shape
    # No black corners: they would be noticed instead of the part.
    assert abs(turned.mean() - plain.mean()) < 5
    assert np.abs(turned - plain).mean() > 5


def test_the_counted_rule_is_the_best_of_all_pairs():
    rng = np.random.default_rng(1)
    scores, costs = rng.normal(size=30), Costs(5, 1, 0.3)
    defective = rng.random(30) < 0.4
    scores[defective] += 1

    def cost(zone):
        called = zone.called(scores)
        mistakes = 5 * (defective & (called == 0)).sum() + (~defective & (called == 1)).sum()
        return mistakes + 0.3 * (called == 2).sum()

    cuts = [-9.0, *(np.sort(scores) + 1e-9), 9.0]
    best = min(cost(doubt_search.Zone(*pair)) for pair in itertools.combinations_with_replacement(cuts, 2))
    assert abs(cost(doubt_search.counted(scores, defective, costs)) - best) < 1e-9
    # The logistic curve's rule asks nobody who costs more than a mistake.
    zone = doubt_search.of_curve(scores, defective, Costs(5, 1, 3))
    assert zone.low == zone.high
