"""The recipe's choices are made on other sets than the one that they are reported of."""

import dataclasses

import numpy as np
import pytest

from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.fused import Found, Unlike
from tools import kept_promises, recipe_search


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



def test_of_few_objects_the_order_statistic_stops_what_it_says_and_the_limit_what_is_expected():
    objects = np.repeat(np.arange(300), 2)
    scores = np.random.default_rng(0).normal(size=300)[objects]
    found = kept_promises.of_few(scores, objects)
    for few, (order, limit) in found.items():
        assert order == pytest.approx(1 - 1 / (few + 1), abs=0.02)
        assert limit == pytest.approx(0.95, abs=0.02)
    text = kept_promises.table_of_few(["a", "b"], [found, {}])
    assert "| b | - | - | - | - |" in text
    assert f"{found[5][0]:.3f}, {found[5][1]:.3f}" in text


def _draw(rng, moved, labelled):
    """60 good training images; 40 good and 30 defective test images, `moved` standard deviations up, half evaluated."""
    names = [("train", "good")] * 60 + [("test", "good")] * 40 + [("test", "chip")] * 30
    records = [
        Record(f"part/{split}/{kind}/{i}", "", "part", kind, int(kind != "good"), split, str(i))
        for i, (split, kind) in enumerate(names)
    ]
    scores = rng.normal(size=130) + moved * (np.arange(130) >= 60) + 4 * (np.arange(130) >= 100)
    pool = (*records[60:80], *records[100:115])
    cut = Cut(tuple(records[:60]), pool[16:28] if labelled else (), (*records[80:100], *records[115:]))
    rows = [records.index(record) for record in cut.fit]
    return kept_promises.Draw(cut, records[60:], scores[60:], cut.fit, scores[rows], 0)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_threshold_that_rests_on_the_line_stops_fewer_good_images_and_the_shift_is_announced(labelled):
    rng = np.random.default_rng(0)
    draws = [_draw(rng, 0.0, labelled).figures() for _ in range(20)]
    means = {name: np.mean([draw[name] for draw in draws]) for name in draws[0]}
    assert means["lamp specificity before"] < means["lamp specificity now"] - 0.05
    assert means["lamp specificity now"] > 0.9
    assert means["specificity now"] > 0.9
    assert means["lamp announced before"] > 0.9
    assert means["lamp raised"] > 0.9
    assert means["raised"] < 0.4


def test_raised_scores_are_two_standard_deviations_of_the_training_images_higher():
    rng = np.random.default_rng(1)
    plain = _draw(rng, 0.0, True)
    by = 2.0 * plain.held_out_scores[:60].std()
    line = plain.held_out_scores + by * (np.arange(len(plain.held_out)) >= 60)
    lamp = dataclasses.replace(plain, scores=plain.scores + by, held_out_scores=line)
    expected = {f"lamp {name}": value for name, value in lamp.figures().items() if not name.startswith("lamp ")}
    assert expected.items() <= plain.figures().items()


def test_the_table_of_thresholds_has_every_set_as_it_is_and_raised_and_their_mean():
    names = [name.format(prefix) for prefix in ("", "lamp ") for name in kept_promises._COLUMNS[True].values()]
    sets = [[dict.fromkeys(names, value), dict.fromkeys(names, value + 0.2)] for value in (0.1, 0.5)]
    lines = kept_promises.table(["a", "b"], sets, labelled=True).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["a", "b", "mean"]
    assert lines[4].split("|")[2:-1] == [" 0.400 "] * 6
    assert lines[5].startswith("| a, another lamp | 0.200 |")
