"""Turned labels are as many as are said, and a method's precision is what a hand count gives."""

import numpy as np

from tools import suspects_search


def test_defects_are_hidden_among_good_images_and_test_images_turned():
    labels = np.repeat([0, 0, 1], [100, 20, 30])
    train = np.arange(150) < 100
    one = suspects_search.turned(np.zeros((150, 2)), labels, train, np.arange(150), 0.03, seed=0)
    assert one.wrong.sum() == 3 + 2
    assert not one.wrong[:100].any()
    hidden = suspects_search.turned(np.zeros((150, 2)), labels, train, np.arange(150), 0.5, seed=0)
    # A third of the defects at most are hidden; half of the test images are turned besides.
    assert hidden.wrong.sum() == 10 + 25


def test_precision_is_of_the_first_ten_and_of_as_many_as_are_wrong():
    score, wrong = np.arange(20.0), np.zeros(20, bool)
    wrong[[19, 17, 2]] = True
    score[0] = np.nan
    assert suspects_search.precision(score, wrong) == (0.2, 2 / 3)


def test_every_method_finds_labels_that_are_plainly_wrong():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 20])
    pooled = rng.normal(size=(80, 30))
    pooled[labels == 1, :6] += 8
    one = suspects_search.turned(pooled, labels, np.arange(80) < 40, np.arange(80), 0.05, seed=1)
    for name, method in suspects_search.METHODS.items():
        assert suspects_search.precision(method(one), one.wrong)[1] >= 0.75, name
