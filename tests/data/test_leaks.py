"""What was seen before is not evaluated."""

import dataclasses
import posixpath

import pytest

from mvtec_tf.data.leaks import check_leaks, same_file_key
from mvtec_tf.errors import LeakError


@dataclasses.dataclass
class Use:
    path: str
    split: str
    group: str = ""
    category: str = "bottle"


def test_clean_splits_pass():
    check_leaks([Use("a", "pretrain"), Use("b", "fit", "g"), Use("c", "calibrate", "g"), Use("d", "evaluate", "h")])


def test_out_of_fold_scores_are_no_leak():
    check_leaks([Use("a", "fit"), Use("a", "calibrate"), Use("a", "pretrain"), Use("b", "evaluate")])


@pytest.mark.parametrize("split", ["pretrain", "fit", "calibrate"])
def test_an_evaluated_image_in_another_split_is_named_with_that_split(split):
    rows = [Use("clean.png", "evaluate"), Use("test/leaky.png", "evaluate"), Use("test/leaky.png", split)]
    with pytest.raises(LeakError, match=rf"test/leaky\.png is also in {split}") as e:
        check_leaks(rows, "table.csv")
    assert str(e.value).startswith("table.csv: leak: 1 evaluated image")
    assert "clean.png" not in str(e.value)


def test_all_splits_that_saw_an_image_are_named():
    with pytest.raises(LeakError, match="a is also in pretrain and fit"):
        check_leaks([Use("a", "evaluate"), Use("a", "fit"), Use("a", "pretrain")])


def test_another_photograph_of_an_evaluated_object_is_a_leak():
    with pytest.raises(LeakError, match=r"b\.png shows the same object \(group 'part 7'\) as a\.png in calibrate"):
        check_leaks([Use("a.png", "calibrate", "part 7"), Use("b.png", "evaluate", "part 7")])


def test_a_group_named_by_one_of_its_images_includes_that_image():
    with pytest.raises(LeakError, match="same object"):
        check_leaks([Use("a.png", "fit"), Use("b.png", "evaluate", "a.png")])


def test_groups_of_different_categories_are_different_objects():
    check_leaks([Use("a", "fit", "7", "bottle"), Use("b", "evaluate", "7", "screw")])


def test_a_path_is_one_image_whatever_category_it_claims():
    with pytest.raises(LeakError):
        check_leaks([Use("a", "fit", category="bottle"), Use("a", "evaluate", category="screw")])


@pytest.mark.parametrize("spelling", ["./x/a.png", "x//a.png", "x\\a.png", "x/y/../a.png"])
def test_another_spelling_of_a_path_does_not_hide_a_leak(spelling):
    with pytest.raises(LeakError):
        check_leaks([Use("x/a.png", "evaluate"), Use(spelling, "fit")])


def test_many_leaks_are_counted_and_the_first_ten_named():
    rows = [Use(f"{i:03d}.png", split) for i in range(25) for split in ("fit", "evaluate")]
    with pytest.raises(LeakError) as e:
        check_leaks(rows)
    message = str(e.value)
    assert "25 evaluated" in message
    assert "009.png" in message
    assert "010.png" not in message
    assert "15 more" in message


def test_an_unknown_split_is_not_taken_for_a_clean_one():
    with pytest.raises(ValueError, match="test"):
        check_leaks([Use("a", "fit"), Use("a", "test")])


def test_an_iterator_is_enough():
    with pytest.raises(LeakError):
        check_leaks(iter([Use("a", "fit"), Use("a", "evaluate")]))


@pytest.mark.parametrize(
    "path",
    ["a", "a/b.png", "./a", "a//b", "a/./b", "a/../b", "../a", ".a", "a/.b", "a/b/", "/a", "//a", "", "a..b", "a/.."],
)
def test_the_key_of_a_path_is_its_shortest_spelling(path):
    assert same_file_key(path) == posixpath.normpath(path)
    assert same_file_key(path.replace("/", "\\")) == posixpath.normpath(path)
