"""The recipe's choices are made on other sets than the one that they are reported of."""

import numpy as np

from mvtec_tf.data.record import Record
from mvtec_tf.heads.evidence import Found, Unlike
from mvtec_tf.heads.frozen import FrozenFeatures
from tools import recipe_search
from tools.recipe_search import Choice


def test_what_wins_on_one_set_alone_is_chosen_for_all_others_but_not_for_it():
    values = np.array([[0.9, 0.5], [0.6, 0.7], [0.6, 0.7]])
    assert recipe_search.chosen_on_the_others(values).tolist() == [1, 0, 0]


def test_the_recipe_is_among_the_choices_and_its_scores_are_the_heads():
    rng = np.random.default_rng(0)
    found = Found(
        rng.normal(size=40), [rng.normal(size=(40, 14, 14)), rng.normal(size=(40, 7, 7))], rng.normal(size=(40, 2)),
        np.arange(40),
    )
    train = np.arange(40) < 30
    splits = np.where(train, "train", "test")
    records = [Record(str(row), "", "part", "good", 0, str(split), str(row)) for row, split in enumerate(splits)]
    one = recipe_search.Set("part", records, FrozenFeatures(np.zeros((40, 1))), found)
    unlike = Unlike.fit(found.select(train))
    choice = Choice("all", "fisher", "as explained")
    assert choice in recipe_search.choices(False)
    scores = recipe_search.unlike(one, found.evidence(unlike.usual), choice)
    np.testing.assert_allclose(scores, unlike.scores(found), rtol=1e-8)


def test_the_table_names_what_was_chosen_and_ends_with_the_mean():
    names = [str(choice) for choice in recipe_search.choices(False)]
    figures = [dict.fromkeys(names, 0.5) | {names[k]: 0.9, "recipe before": 0.4, "padim": 0.7} for k in (0, 0, 1)]
    text = recipe_search.table(["a", "b", "c"], figures, ["padim"], labelled=False)
    assert "| mean | 0.400 | 0.500 |" in text
    assert f"- c: {names[0]}" in text

