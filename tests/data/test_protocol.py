"""Who may see which image: the same evaluation part for all, budgets kept, objects never on both sides."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from mvtec_tf.data import protocol
from mvtec_tf.data.protocol import BudgetError
from mvtec_tf.data.record import Record
from mvtec_tf.errors import LeakError, UsageError, UserError


def _records(category="cap", good=20, defects=(12, 9, 7), train=10, group_size=1):
    def record(split, defect, number):
        path = f"{category}/{split}/{defect}/{number:03d}.png"
        label = int(defect != "good")
        group = path if split == "train" else f"{category}/{defect}{number // group_size}"
        return Record(path, path, category, defect, label, split, group)

    kinds = [("test", "good", good), *(("test", f"d{i}", count) for i, count in enumerate(defects))]
    found = [record("train", "good", number) for number in range(train)]
    return found + [record(split, defect, number) for split, defect, count in kinds for number in range(count)]


def _paths(records):
    return {record.path for record in records}


def test_the_evaluation_part_is_the_same_for_every_budget():
    records = _records()
    parts = [_paths(protocol.clean(records, budget, 3).evaluate) for budget in (0.0, 0.1, 0.25, None)]
    assert all(part == parts[0] for part in parts)


def test_a_category_is_cut_alike_whichever_others_are_there():
    alone = protocol.clean(_records("cap"), 0.1, 0)
    together = protocol.clean(_records("cap") + _records("nut"), 0.1, 0)
    assert _paths(alone.evaluate) == {path for path in _paths(together.evaluate) if path.startswith("cap/")}
    assert _paths(alone.labelled) == {path for path in _paths(together.labelled) if path.startswith("cap/")}


def test_another_seed_cuts_otherwise():
    records = _records()
    assert _paths(protocol.clean(records, 0.1, 0).evaluate) != _paths(protocol.clean(records, 0.1, 1).evaluate)


def test_pool_and_evaluation_share_each_defect_type_evenly():
    cut = protocol.clean(_records(), None, 0)
    for part in (cut.labelled, cut.evaluate):
        counts = Counter(record.defect for record in part)
        assert counts["good"] == 10
        assert counts["d0"] == 6
        assert counts["d1"] in (4, 5)
        assert counts["d2"] in (3, 4)
    assert len(cut.labelled) + len(cut.evaluate) == 48
    assert not _paths(cut.labelled) & _paths(cut.evaluate)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [0.1, 0.25, 0.5])
def test_a_budget_is_never_exceeded_and_nearly_used(seed, budget):
    records = _records(group_size=3)
    cut = protocol.clean(records, budget, seed)
    wanted = round(budget * 48)
    assert wanted - 3 < len(cut.labelled) <= wanted


@pytest.mark.parametrize("seed", range(10))
def test_the_smallest_budget_buys_a_defect(seed):
    (bought,) = protocol.clean(_records(good=60), 1 / 88, seed).labelled
    assert bought.label == 1


def test_a_budget_of_zero_buys_nothing():
    cut = protocol.clean(_records(), 0.0, 0)
    assert cut.labelled == ()
    assert len(cut.train_good) == 10


def test_train_good_is_open_and_never_evaluated():
    cut = protocol.clean(_records(), 0.1, 0)
    assert {record.split for record in cut.train_good} == {"train"}
    assert {record.split for record in cut.evaluate} == {"test"}


@pytest.mark.parametrize("seed", range(5))
def test_photographs_of_one_object_stay_on_one_side(seed):
    cut = protocol.clean(_records(group_size=4), None, seed)
    sides = [{record.group for record in part} for part in (cut.labelled, cut.evaluate)]
    assert not sides[0] & sides[1]
    assert abs(len(cut.labelled) - len(cut.evaluate)) <= 4


def test_an_object_in_train_and_test_is_a_leak_that_names_the_image():
    records = _records()
    guilty = next(record for record in protocol.clean(records, 0.1, 0).evaluate)
    twin = Record("cap/train/good/twin.png", "", "cap", "good", 0, "train", guilty.group)
    with pytest.raises(LeakError, match=guilty.path):
        protocol.clean([*records, twin], 0.1, 0)


def test_a_budget_that_buys_no_defect_says_so():
    with pytest.raises(UserError, match="no defective one is among them"):
        protocol.clean(_records(), 0.005, 0)


def test_too_few_test_images_are_refused():
    with pytest.raises(UserError, match="no good test image"):
        protocol.clean(_records(good=1), 0.1, 0)
    with pytest.raises(UserError, match="no defective test image"):
        protocol.clean(_records(defects=(1,)), 0.1, 0)


@pytest.mark.parametrize("text", ["0.6", "-0.1", "half", "nan", "0d", "-1d", "1.5d", "d"])
def test_a_budget_out_of_range_is_wrong_use(text):
    with pytest.raises(UsageError, match="`label_budget`"):
        protocol.parse_budget(text)


def test_budgets_are_parsed():
    assert protocol.parse_budget("all") is None
    assert protocol.parse_budget("0.1") == 0.1
    assert protocol.parse_budget("10d") == protocol.DefectCount(10)
    assert str(protocol.parse_budget("10d")) == "10d"


@pytest.mark.parametrize("seed", range(5))
def test_a_number_of_defects_buys_so_many_objects_and_no_good_image(seed):
    records = _records(group_size=3)
    # A good photograph of a defective object is not labelled either.
    mixed = next(record for record in records if record.defect == "d0")
    records.append(dataclasses.replace(mixed, path="cap/test/good/other_side.png", defect="good", label=0))
    parts = [protocol.clean(records, protocol.DefectCount(count), seed) for count in (1, 3, 4)]
    for count, cut in zip((1, 3, 4), parts, strict=True):
        assert all(record.label for record in cut.labelled)
        assert len({record.group for record in cut.labelled}) == count
        pool = _paths(protocol.clean(records, None, seed).labelled)
        assert _paths(cut.labelled) <= pool
        # All defective images of each object.
        groups = {record.group for record in cut.labelled}
        assert _paths(cut.labelled) == {r.path for r in records if r.group in groups and r.label}
    assert _paths(parts[0].labelled) < _paths(parts[1].labelled) < _paths(parts[2].labelled)
    assert len({_paths(part.evaluate) == _paths(parts[0].evaluate) for part in parts}) == 1


def test_numbers_of_defects_hold_every_type_in_its_share():
    drawn = protocol.clean(_records(defects=(24, 12, 12)), protocol.DefectCount(12), 0).labelled
    assert Counter(record.defect for record in drawn) == {"d0": 6, "d1": 3, "d2": 3}


def test_more_defects_than_the_pool_holds_are_refused_with_what_it_holds():
    with pytest.raises(BudgetError, match=r"`label_budget`=15d: the pool of category 'cap' .* holds 14 defective"):
        protocol.clean(_records(), protocol.DefectCount(15), 0)


def test_hold_out_gives_each_defect_type_to_both_sides():
    kept, held = protocol.hold_out(_records(defects=(2, 3, 12)), 0.2, 0)
    assert {record.defect for record in kept} == {record.defect for record in held} == {"good", "d0", "d1", "d2"}
    assert not {record.group for record in kept} & {record.group for record in held}


def test_two_defects_of_two_types_are_still_on_both_sides():
    kept, held = protocol.hold_out(_records(defects=(1, 1)), 0.2, 0)
    assert {record.label for record in kept} == {record.label for record in held} == {0, 1}


def test_a_single_defect_cannot_be_learned_and_watched():
    with pytest.raises(UserError, match="Raise `label_budget`"):
        protocol.hold_out(_records(defects=(1,)), 0.2, 0)


def test_where_no_defect_is_needed_a_single_good_object_is_refused_without_a_word_of_defects():
    with pytest.raises(UserError, match=r"found 1 good object in all\. Add good images\.$"):
        protocol.hold_out(_records(good=1, defects=(), train=0), 0.2, 0, frozenset((0,)))


@pytest.mark.parametrize("seed", range(4))
def test_no_fold_takes_all_defects_of_a_category_away(seed):
    records = [*_records("cap", good=3, defects=(1, 1, 1)), *_records("nut", good=2, defects=(2,), group_size=1)]
    folds = protocol.folds(records, 5, seed)
    for category in ("cap", "nut"):
        for fold in range(5):
            left = [r for r, f in zip(records, folds, strict=True) if r.category == category and f != fold]
            assert {record.label for record in left} == {0, 1}


def test_the_only_defect_is_never_held_out():
    records = _records(defects=(1,))
    folds = protocol.folds(records, 5, 0)
    assert [f for r, f in zip(records, folds, strict=True) if r.label] == [-1]


def test_folds_are_even_and_keep_objects_whole():
    records = _records(group_size=2)
    folds = protocol.folds(records, 5, 0)
    assert np.ptp(np.bincount(folds, minlength=5)) <= 4
    by_group = {}
    for record, fold in zip(records, folds, strict=True):
        assert by_group.setdefault(record.group, fold) == fold
