"""Good evaluated images that are not like those that the threshold rests on: found, measured, and said first."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from mvtec_tf.data.record import Record
from mvtec_tf.evaluation import recorded, shift
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report import summary
from mvtec_tf.evaluation.report.judge import Extras, judge, judge_again
from mvtec_tf.evaluation.table import Predictions, Row, write_predictions
from mvtec_tf.evaluation.thresholds import Rule

QUICK = Bootstrap(200)


def _rows(split, scores, label=0, category="cap", views=1):
    """Good or defective rows, of which so many in a row show one object."""
    name = ("good", "chip")[label]
    group = f"{split} {name}"
    return [
        Row(f"{category}/{group}/{i}", category, name, label, split, float(score), f"{group} {i // views}")
        for i, score in enumerate(scores)
    ]


def _table(held_out, good, defective=(), **more):
    rows = _rows("calibrate", held_out, **more) + _rows("evaluate", good, **more)
    return Predictions.from_rows(rows + _rows("evaluate", defective, 1, **more))


def _summary(table, **more):
    return " ".join(summary.sentences(assess(table, bootstrap=QUICK, **more)))


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_test_and_size_are_those_of_object_medians(seed, views):
    rng = np.random.default_rng(seed)
    held_out, good = np.round(rng.normal(size=60), 1), np.round(rng.normal(0.7, 1.3, 30), 1)
    (found,) = assess(_table(held_out, good, views=views), bootstrap=Bootstrap(0)).shifts.values()
    old, new = (np.median(scores.reshape(-1, views), axis=1) for scores in (held_out, good))
    expected = stats.mannwhitneyu(new, old, alternative="two-sided")
    pairs = np.mean((new[:, None] > old) + 0.5 * (new[:, None] == old))
    assert (found.held_out, found.evaluated) == (len(old), len(new))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.higher == pytest.approx(pairs)
    assert found.size == pytest.approx((np.median(new) - np.median(old)) / np.std(old))


def test_many_views_of_two_objects_show_nothing_that_single_images_would():
    rng = np.random.default_rng(0)
    held_out = rng.normal(size=40)
    good = np.repeat([1.5, 0.8], 20) + rng.normal(0, 0.05, 40)
    table = _table(held_out, good, views=20)
    assert not assess(table, bootstrap=QUICK).shifts["cap"].shown
    assert assess(_table(held_out, good), bootstrap=QUICK).shifts["cap"].shown


def test_without_a_shift_it_is_announced_no_oftener_than_its_level():
    rng = np.random.default_rng(3)
    shown = []
    for _ in range(150):
        two = [Predictions.from_rows(_rows(split, rng.normal(size=25))) for split in ("calibrate", "evaluate")]
        shown.append(shift.compare(*two).shown)
    assert np.mean(shown) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_good_images_under_another_lamp_are_said_in_the_second_sentence_with_size_test_and_what_is_stopped(tmp_path):
    rng = np.random.default_rng(1)
    table = _table(rng.normal(size=60), rng.normal(4, 1, 40), rng.normal(7, 1, 20))
    document = judge(table, tmp_path, bootstrap=QUICK)
    text = document["summary"]
    said = "Good evaluated images score higher than the held-out good ones that the threshold rests on, by +"
    assert said in text
    assert text.index(said) < text.index("That threshold was chosen")
    assert "rank test of 40 against 60 objects: p =" in text
    found = json.loads((tmp_path / "metrics.json").read_text())["shift"]["cap"]
    assert found["shown"]
    assert found["size"] > 3
    assert found["stopped"] > 0.8 > 0.1 > found["stopped_held_out"]
    assert f"it stops {100 * found['stopped']:.1f} % of them" in text
    assert "score higher than the held-out good ones" in (tmp_path / "report.html").read_text()


def test_a_large_shift_of_too_few_objects_for_a_test_is_said_all_the_same():
    table = _table(np.arange(10.0), [2.0, 30.0], np.arange(40.0, 60.0))
    judged = assess(table, bootstrap=QUICK)
    assert (judged.shifts["cap"].shown, judged.shifts["cap"].said) == (False, True)
    text = _summary(table)
    assert "Good evaluated images score higher than the held-out good ones" in text
    assert "which does not show it of so few), so the threshold perhaps was chosen for others" in text


@pytest.mark.parametrize(("held_out", "needed"), [(40, 1), (39, 2), (8, 2), (5, 3), (3, 5), (1, 40)])
def test_of_fewer_objects_than_a_test_could_show_a_shift_of_it_is_said_that_they_are_too_few(held_out, needed):
    old = np.arange(float(held_out))

    def found(count):
        return assess(_table(old, np.arange(count) + 1000.0), bootstrap=Bootstrap(0)).shifts["cap"]

    assert stats.mannwhitneyu(np.arange(needed) + 1000.0, old, method="exact").pvalue < 0.05
    assert found(needed).shown
    if needed > 1:
        few = found(needed - 1)
        assert (few.shown, few.said, few.needed) == (False, False, needed)
        assert f"are too few to tell whether they score unlike the held-out good ones ({needed - 1} " in few.in_words()


def test_of_a_single_held_out_object_neither_a_shift_nor_an_interval_is_claimed():
    table = _table([1.0], [0.1, 0.2, 0.3, 0.4, 0.5], np.arange(2.0, 12.0))
    judged = assess(table, bootstrap=QUICK)
    assert not judged.shifts["cap"].said
    assert "a single object does not scatter" in judged.shifts["cap"].in_words()
    assert (judged.threshold.whole.low, judged.threshold.whole.high) == (None, None)
    assert "would have put it" not in _summary(table)


def test_good_images_that_score_lower_are_said_to_leave_room_for_defects():
    rng = np.random.default_rng(2)
    text = _summary(_table(rng.normal(size=60), rng.normal(-2, 1, 40), rng.normal(1, 1, 20)))
    assert "Good evaluated images score lower than the held-out good ones that the threshold rests on, by -" in text
    assert "higher than they need, and defects may pass for it" in text


def test_alike_images_are_not_announced_but_stand_in_the_report_and_the_record(tmp_path):
    scores = np.arange(50.0)
    document = judge(_table(scores, scores[::2] + 0.5, scores[-10:] + 20), tmp_path, bootstrap=QUICK)
    assert "held-out" not in document["summary"]
    assert not document["shift"]["cap"]["shown"]
    assert "are not shown to score unlike the held-out good ones" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("threshold", [None, 1.5])
def test_a_broken_promise_that_no_rank_test_shows_is_said(threshold):
    rng = np.random.default_rng(4)
    # The median is the same, the spread is not.
    table = _table(rng.normal(0, 0.5, 60), rng.normal(0, 4, 40), rng.normal(7, 1, 20))
    assert not assess(table, bootstrap=QUICK).shifts["cap"].shown
    text = _summary(table, threshold=threshold)
    assert "More good evaluated images are stopped than the held-out good ones let expect: " in text
    assert ("at most 5 % were promised" in text) == (threshold is None)


def test_of_several_categories_those_that_are_shifted_are_named_and_the_level_is_shared():
    rng = np.random.default_rng(5)
    rows = []
    for category, size in (("cap", 0), ("nut", 5), ("screw", 0)):
        rows += _rows("calibrate", rng.normal(size=40), category=category)
        rows += _rows("evaluate", rng.normal(size, 1, 20), category=category)
        rows += _rows("evaluate", rng.normal(9, 1, 10), 1, category=category)
    judged = assess(Predictions.from_rows(rows), bootstrap=QUICK, rule=Rule(per="category"))
    assert {each.level for each in judged.shifts.values()} == {0.05 / 3}
    text = " ".join(summary.sentences(judged))
    assert "In 1 of 3 categories good evaluated images score unlike the held-out good ones" in text
    assert "(nut +" in text


def test_one_threshold_that_one_category_has_lifted_above_the_defects_of_the_others_is_said():
    """As of four products of which one has four good training images: held out, these are far from one another."""
    rng = np.random.default_rng(0)
    held_out = {name: rng.normal(47, 4, size) for name, size in (("bolt", 27), ("nut", 21), ("washer", 21))}

    def text(clip, **more):
        rows = []
        for category, scores in {**held_out, "clip": clip}.items():
            rows += _rows("calibrate", scores, category=category)
            rows += _rows("evaluate", np.mean(scores) + rng.normal(0, 4, 5), category=category)
            rows += _rows("evaluate", rng.normal(120, 9, 5), 1, category=category)
        judged = assess(Predictions.from_rows(rows), bootstrap=QUICK, **more)
        return " ".join(summary.sentences(judged))

    far = [214.8, 299.3, 299.4, 383.5]
    assert "it stops 2 of 4 of clip (50.0 %) and 0 of 69 of the others (0.0 %), so that defects" in text(far)
    assert "one threshold serves all" not in text(far, rule=Rule(per="category"))
    assert "one threshold serves all" not in text([43.0, 46.0, 48.0, 50.0])


@pytest.mark.parametrize(
    ("held_out", "good"),
    [
        *(([1.0], [1.0]), ([1.0], [2.0, 3.0]), ([1.0, 1.0], [1.0]), ([2.0] * 30, [2.0] * 30), ([2.0] * 30, [3.0] * 30)),
        # Its mean is rounded, so that its deviation is not quite 0.
        ([0.1] * 30, [0.2] * 30),
    ],
)
def test_one_good_object_two_and_all_alike_have_a_defined_answer(held_out, good):
    judged = assess(_table(held_out, good, [9.0, 10.0]), bootstrap=QUICK)
    found = judged.shifts["cap"]
    assert 0 < found.p <= 1
    assert (found.size is None) == (held_out[0] != good[0])
    assert "nan" not in " ".join(summary.sentences(judged))
    json.dumps(judged.as_json(), allow_nan=False)


def test_a_shift_of_scores_whose_squares_vanish_is_that_of_larger_ones():
    scores = np.random.default_rng(0).normal(0, 1, (2, 30))
    usual, tiny = (assess(_table(*scores * unit), bootstrap=QUICK).shifts["cap"].size for unit in (1, 1e-300))
    assert usual == pytest.approx(tiny, rel=1e-9)


@pytest.mark.parametrize("missing", ["calibrate", "good evaluated", "good calibrate"])
def test_where_a_side_is_missing_nothing_is_compared(missing):
    rows = [] if missing == "calibrate" else _rows("calibrate", [1.0, 2.0], int(missing == "good calibrate"))
    rows += _rows("evaluate", [5.0, 6.0], 1) + ([] if missing == "good evaluated" else _rows("evaluate", [1.0, 2.0]))
    judged = assess(Predictions.from_rows(rows), bootstrap=QUICK)
    assert not judged.shifts
    assert judged.as_json()["shift"] == {}


def _pretrained(count, others):
    """A table whose first `count` of the good calibrate images were used to pretrain the encoder."""
    calibrate = _rows("calibrate", np.arange(count + others) / 100.0)
    known = [Row(row.path, "cap", "good", 0, "pretrain", 0.0, row.group) for row in calibrate[:count]]
    return Predictions.from_rows(known + calibrate + _rows("evaluate", [0.0, 1.0]) + _rows("evaluate", [5.0], 1))


def test_good_images_that_the_encoder_was_pretrained_on_are_left_out_where_enough_others_are_held_out():
    threshold = assess(_pretrained(40, 19), bootstrap=QUICK).threshold.whole
    assert (threshold.images, threshold.method) == (19, "prediction_limit")
    assert "40 good images that the encoder was pretrained on were left out" in threshold.reason


@pytest.mark.parametrize(("count", "others"), [(40, 0), (40, 18)])
def test_where_there_are_too_few_others_it_is_said_that_new_good_parts_may_score_higher(count, others):
    judged = assess(_pretrained(count, others), bootstrap=QUICK)
    assert judged.threshold.whole.images == count + others
    text = " ".join(summary.sentences(judged))
    assert f"40 of the {count + others} good calibrate images were used to pretrain the encoder" in text


def test_another_view_of_a_pretrained_object_is_no_held_out_one():
    calibrate = _rows("calibrate", np.arange(60) / 100.0, views=2)
    known = [Row("cap/other.png", "cap", "good", 0, "pretrain", 0.0, calibrate[0].group)]
    table = Predictions.from_rows(known + calibrate + _rows("evaluate", [0.0]) + _rows("evaluate", [5.0], 1))
    assert assess(table, bootstrap=QUICK).threshold.whole.images == 58


def _images(train, good, defective=3, category="cap"):
    parts = [("train", "good", train), ("test", "good", good), ("test", "chip", defective)]
    names = [(f"{category}/{split}/{kind}/{i}", kind, split) for split, kind, count in parts for i in range(count)]
    return [Record(path, "", category, kind, int(kind != "good"), split, path) for path, kind, split in names]


def test_training_scores_are_raised_to_where_the_labelled_good_images_lie_and_the_report_says_so():
    images = _images(train=40, good=10)
    scores = np.concatenate([np.arange(40.0), np.arange(10.0) + 60, [99.0] * 3])
    moved, found = shift.on_line(images, scores)
    assert (found["cap"].held_out, found["cap"].evaluated, found["cap"].shown) == (40, 10, True)
    # The medians are 19.5 and 64.5.
    np.testing.assert_array_equal(moved[:40], np.arange(40.0) + 45)
    np.testing.assert_array_equal(moved[40:], scores[40:])
    text = shift.note(found)
    assert text.startswith("Labelled good test images score higher than the held-out good training images, by +")
    assert text.endswith(shift.basis(found))
    assert "The threshold rests on the labelled good test images, because they score higher than" in text


def test_of_one_object_with_many_views_the_median_counts_once():
    images = _images(train=40, good=6, defective=1)
    images[41:46] = [dataclasses.replace(image, group="one") for image in images[41:46]]
    scores = np.concatenate([np.arange(40.0), [200.0], [100.0] * 5, [300.0]])
    # Two objects, at 200 and 100.
    assert shift.on_line(images, scores)[0][0] == 150 - 19.5


def test_a_category_that_is_like_its_training_images_is_left_as_it_is_beside_one_that_is_not():
    images = _images(40, 10) + _images(40, 10, category="nut")
    alike = np.concatenate([np.arange(40.0), np.arange(10.0) * 4, [99.0] * 3])
    moved, found = shift.on_line(images, np.concatenate([alike, alike + 100 * (np.arange(53) >= 40)]))
    np.testing.assert_array_equal(moved[:53], alike)
    assert moved[53] == pytest.approx(found["nut"].difference)
    assert "The threshold rests on the labelled good test images of category nut, because" in shift.basis(found)
    assert "category cap" not in shift.basis(found)


def test_labelled_good_images_that_score_like_defects_when_held_out_raise_nothing_and_the_report_says_why():
    """One image is all that a head knows of a new lamp, and is not in the head that judges it."""
    images = _images(train=40, good=3)
    scores = np.concatenate([np.arange(40.0), [900.0] * 3, [300.0] * 3])
    moved, found = shift.on_line(images, scores)
    np.testing.assert_array_equal(moved, scores)
    assert (found["cap"].shown, shift.basis(found)) == (True, "")
    assert "Held out they score as high as defects" in shift.note(found)


@pytest.mark.parametrize(("good", "raised"), [(4, False), (5, True)])
def test_without_a_labelled_defect_only_some_labelled_good_images_are_believed(good, raised):
    images = _images(train=40, good=good, defective=0)
    moved, _ = shift.on_line(images, np.concatenate([np.arange(40.0), np.full(good, 900.0)]))
    assert (moved[0] > 0) == raised


def test_one_labelled_good_image_that_no_test_tells_from_chance_raises_nothing():
    images = _images(train=20, good=1)
    scores = np.concatenate([np.arange(20.0), [100.0], [300.0] * 3])
    moved, found = shift.on_line(images, scores)
    np.testing.assert_array_equal(moved, scores)
    assert (found["cap"].shown, found["cap"].said) == (False, False)
    assert "Labelled good test images are too few to tell" in shift.note(found)


def test_a_raise_never_lowers_where_the_test_says_higher_and_the_medians_lower():
    images = _images(train=100, good=40)
    training = np.concatenate([np.full(49, -5.0), np.full(51, 1.0)]) + np.arange(100) / 1e4
    scores = np.concatenate([training, np.full(40, 0.9), [99.0] * 3])
    scores[100:118] += 3
    moved, found = shift.on_line(images, scores)
    assert found["cap"].shown
    assert found["cap"].higher > 0.5
    assert found["cap"].difference < 0
    np.testing.assert_array_equal(moved, scores)


def test_for_labelled_good_images_that_score_lower_nothing_is_lowered():
    images = _images(train=40, good=10, defective=0)
    scores = np.concatenate([np.arange(40.0), np.arange(10.0) - 60])
    moved, found = shift.on_line(images, scores)
    np.testing.assert_array_equal(moved, scores)
    assert (found["cap"].shown, shift.basis(found)) == (True, "")
    assert shift.note(found).endswith("The threshold rests on both.")


def test_without_labelled_good_images_there_is_nothing_to_say_or_to_move():
    images = _images(40, 0)
    scores = np.arange(43.0)
    moved, found = shift.on_line(images, scores)
    np.testing.assert_array_equal(moved, scores)
    assert (found, shift.basis(found)) == ({}, "")


def test_a_table_judged_again_says_what_its_threshold_rests_on(tmp_path):
    rng = np.random.default_rng(5)
    table = _table(rng.normal(size=60), rng.normal(0, 1, 40), rng.normal(7, 1, 20))
    write_predictions(tmp_path / recorded.TABLE_FILE, table)
    document = judge(table, tmp_path, bootstrap=QUICK, basis="It rests on ten parts.")
    again = judge_again(tmp_path, Extras(), "again")
    assert document["summary"] == again["summary"]
    assert again["summary"].index("It rests on ten parts.") < again["summary"].index("That threshold was chosen")
    assert recorded.of_document(again, "run").basis == "It rests on ten parts."
