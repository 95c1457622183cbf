"""The recipe's choices are made on other sets than the one that they are reported of."""

import dataclasses

import numpy as np

from mvtec_tf.data.record import Record
from mvtec_tf.heads.evidence import Found, Unlike
from mvtec_tf.heads.frozen import FrozenFeatures
from tools import recipe_search


def test_what_wins_on_one_set_alone_is_chosen_for_all_others_but_not_for_it():
    values = np.array([[0.9, 0.5], [0.6, 0.7], [0.6, 0.7]])
    assert recipe_search.chosen_on_the_others(values).tolist() == [1, 0, 0]


def test_the_recipe_is_among_the_choices_and_its_scores_are_the_heads():
    rng = np.random.default_rng(0)
    found = Found(
        rng.normal(size=40),
        [rng.normal(size=(40, side, side)) for side in (14, 7, 14, 7)],
        rng.normal(size=(40, 2)),
        np.arange(40),
        np.where(np.arange(40) < 30, np.arange(40) % 5, -1),
    )
    train = np.arange(40) < 30
    splits = np.where(train, "train", "test")
    records = [Record(str(row), "", "part", "good", 0, str(split), str(row)) for row, split in enumerate(splits)]
    one = recipe_search.Set("part", records, FrozenFeatures(np.zeros((40, 1))), found)
    unlike = Unlike.fit(found.select(train))
    choice = dataclasses.replace(recipe_search.NOW, weight=0.0)
    assert choice in recipe_search.choices(False)
    assert {recipe_search.NOW, recipe_search.LAST} < set(recipe_search.choices(True))
    scores = recipe_search.unlike(one, recipe_search.evidence_of(one, choice.power), choice)
    np.testing.assert_allclose(scores[~train], unlike.scores(found)[~train], rtol=1e-8)


def test_the_table_names_what_was_chosen_and_ends_with_the_mean():
    names = [str(choice) for choice in recipe_search.choices(False)]
    plain = {name: [0.5, 0.5] for name in names} | {"recipe at first": [0.3, 0.5], "padim": [0.7, 0.7]}
    draws = [plain | {names[k]: [0.9, 0.9]} for k in (0, 0, 1)]
    now, before = (str(dataclasses.replace(one, weight=0.0)) for one in (recipe_search.NOW, recipe_search.LAST))
    draws[0] |= {now: [0.6, 0.8], before: [0.5, 0.5]}
    text = recipe_search.table(["a", "b", "c"], draws, ["padim"], labelled=False)
    assert "| mean | 0.400 | 0.500 | 0.567 | +0.067 |" in text
    # Of two draws, half of the images judged: 0.2 +- 12.7 * 0.14 * sqrt(1/2 + 1).
    assert "| a | 0.400 | 0.500 | 0.700 | +0.200 [-2.001, +2.401] |" in text
    assert f"- c: {names[0]}" in text

