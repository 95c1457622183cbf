"""The page on label efficiency says first what counts, proves what it says, and hides nothing."""

import csv
import dataclasses
import json
import re

import pytest

from mvtec_tf.label_efficiency import report as efficiency_report
from mvtec_tf.label_efficiency.findings import find
from mvtec_tf.label_efficiency.grid import LeftOut
from mvtec_tf.label_efficiency.report import answers
from mvtec_tf.label_efficiency.words import long_budget
from tests.support.efficiency_cells import grid, results


def _write(folder, of_grid, cells=None, left_out=None):
    cells = results(of_grid) if cells is None else cells
    left_out = of_grid.left_out if left_out is None else left_out
    return efficiency_report.write(folder, of_grid, cells, left_out, {"settings": {"seeds": 4}})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, _write(folder, grid()).splitlines()


def test_the_first_three_sentences_are_the_answer(written):
    _, (best, trivial, differences, *_) = written
    assert best.startswith("With 10 % of the test images labelled the highest mean ROC-AUC is that of auto on cap (ROC")
    assert "balanced accuracy 0.9" in best
    assert "5 labelled images, 3 of them defective" in best
    assert "calling every image defective by +0.2" in trivial
    assert trivial.endswith("so it beats that.")
    assert "on cap in ROC-AUC and balanced accuracy mahalanobis and logistic are shown to differ" in differences


def test_the_page_stands_alone_and_says_what_intervals_are_of(written):
    folder, sentences = written
    page = (folder / "report.html").read_text()
    # Names of settings are set as code there.
    assert all(re.split("[(`]", sentence)[0] in page for sentence in sentences)
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "<script" not in page
    assert len(page) < 8_000_000
    for words in ("same photographs", "Nadeau and Bengio", "Holm", "always defective", "Peak memory", "Left out"):
        assert words in page
    assert page.count("<figure>") == 6


def test_what_was_left_out_is_counted_and_listed_with_its_reason(written):
    folder, sentences = written
    # logistic at budget 0, two categories, four draws.
    assert sentences[-1].startswith("8 cells could not be computed")
    listed = json.loads((folder / "summary.json").read_text())["left_out"]
    assert {(item["head"], item["budget"]) for item in listed} == {("logistic", "0")}
    assert "the head logistic needs labelled defects" in (folder / "report.html").read_text()


def test_the_summary_has_every_mean_interval_and_difference(written):
    folder, _ = written
    document = json.loads((folder / "summary.json").read_text())
    place = next(p for p in document["places"] if (p["category"], p["budget"]) == ("nut", "10d"))
    assert [each["head"] for each in place["standings"]] == ["auto", "mahalanobis", "logistic"]
    assert place["standings"][0]["labelled_defects"] == 10
    difference = place["differences"][0]
    assert (difference["first"], difference["second"]) == (["start", "auto"], ["start", "mahalanobis"])
    # The draws' noise is common to both: paired, little but the step of 0.02 is left.
    assert difference["value"] == pytest.approx(0.02, abs=5e-3)
    rows = list(csv.DictReader((folder / "summary.csv").open()))
    assert len(rows) == (3 * 2 * 3 - 2) * 7
    assert {row["draws"] for row in rows} == {"4"}


def test_the_same_cells_give_the_same_bytes_in_whatever_order(written, tmp_path):
    folder, _ = written
    of_grid = grid()
    _write(tmp_path, of_grid, dict(reversed(results(of_grid).items())))
    for name in ("report.html", "summary.json", "summary.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_single_draw_proves_nothing_and_says_so(tmp_path):
    text = _write(tmp_path, grid(seeds=range(3, 4)))
    assert "A single draw has no interval, and no difference can be called real." in text
    assert "are not shown to differ" in text
    assert "so it is not shown to beat that" in text
    assert "Bars are 95 % intervals" not in (tmp_path / "report.html").read_text()


def test_only_complete_draws_are_summed_up():
    of_grid = grid()
    cells = results(of_grid)
    missing = next(cell for cell in cells if cell.seed == 2)
    del cells[missing]
    found = find(of_grid, cells, of_grid.left_out)
    assert found.seeds == (0, 1, 3)
    assert "3 draws (seeds 0, 1, 3) so far, of 4 that were asked for" in " ".join(answers(found))
    # A cell that cannot be does not keep its draw open; the pair is compared on the draws that both have.
    found = find(of_grid, cells, [*of_grid.left_out, LeftOut(missing, "it burnt")])
    assert found.seeds == (0, 1, 2, 3)
    place = found.place(missing.category, missing.budget)
    assert sorted(len(standing.results) for standing in place.standings)[:2] == [3, 4]
    assert min(pair.difference.draws for pair in place.pairs) == 3


def test_several_encoders_are_named_with_their_heads_and_numbers_of_defects_lead_if_nothing_else_is_there(tmp_path):
    text = _write(tmp_path, grid(("cap",), ("1d", "10d"), encoders=("start", "simclr")))
    assert text.startswith("With 10 labelled defective objects and no labelled good test image the highest mean ROC")
    assert "start, auto on cap" in text or "simclr, auto on cap" in text
    assert long_budget("all") == "with the whole pool (half of the test images) labelled"


def _next(of_grid, change=lambda result: result):
    cells = {cell: change(result) for cell, result in results(of_grid).items()}
    return next(text for text in answers(find(of_grid, cells, of_grid.left_out)) if text.startswith("What to do next"))


def _changed(result, **metrics):
    return dataclasses.replace(result, metrics=result.metrics | metrics)


def _by_labels(gain):
    """Balanced accuracies that rise by so much with each larger share, and differ a little from draw to draw."""

    def change(result):
        step = ["0", "0.1", "0.25", "all"].index(result.cell.budget)
        base = 0.6 + 0.002 * (result.cell.seed % 3) + 0.0005 * ((7 * result.cell.seed + 3 * step) % 5)
        labelled = [0, 5, 12, 25][step]
        return dataclasses.replace(_changed(result, balanced_accuracy=base + gain * step), labelled_images=labelled)

    return change


_SHARES = ("0", "0.1", "0.25", "all")


def test_it_is_said_how_many_labels_more_are_worth_their_while():
    text = _next(grid(("cap",), _SHARES, range(10)), _by_labels(0.1))
    assert text.startswith("What to do next for cap: take auto; label 20 more test images (`label_budget`=all")
    assert "balanced accuracy +0.2" in text
    assert "no more photographs are needed" in text


def test_where_more_labels_do_not_help_that_is_said_and_they_are_not_asked_for():
    text = _next(grid(("cap",), _SHARES, range(10)), _by_labels(0.0))
    assert "more labels are not shown to help" in text
    assert not re.search(r"label \d+ more", text)


def test_a_figure_that_is_known_too_little_asks_for_photographs_by_the_root_of_their_number():
    def change(result):
        return _changed(result, balanced_accuracy=0.75 + (0.2 if result.cell.seed % 2 else -0.2))

    text = _next(grid(("cap",), _SHARES, range(10)), change)
    number, reach = re.search(r"photograph about ([\d,]+) more test images.* instead of (\d\.\d\d)", text).groups()
    # 50 test images are there.
    assert int(number.replace(",", "")) == pytest.approx(50 * ((float(reach) / 0.05) ** 2 - 1), rel=0.1)


@pytest.mark.parametrize("budgets", [("0", "0.1"), ("1d", "10d")])
def test_what_was_not_asked_is_named_as_the_next_thing_to_ask(budgets):
    assert "add larger shares to `budgets`" in _next(grid(("cap",), budgets))
    assert "repeat it with `seeds`=10" in _next(grid(("cap",), _SHARES, range(1)))


def test_the_recommended_recipe_is_taken_unless_another_is_shown_to_be_better():
    def better(gap):
        def change(result):
            other = result.cell.head == "mahalanobis"
            noise = 0.01 * ((3 * result.cell.seed + other) % 4)
            return _changed(result, roc_auc=0.8 + noise + gap * other, balanced_accuracy=0.7 + noise + gap * other)

        return change

    of_grid = grid(("cap",), _SHARES, range(10))
    assert "take auto" in _next(of_grid, better(0.001))
    assert "take mahalanobis" in _next(of_grid, better(0.15))


def test_no_difference_leaves_its_range(tmp_path):
    """F1 and balanced accuracy that jump from 0 to 1: a t-interval of their differences would reach beyond."""

    def change(result):
        up = float((result.cell.seed + (result.cell.head == "auto")) % 2)
        return _changed(result, f1=up, balanced_accuracy=up, roc_auc=up)

    of_grid = grid(seeds=range(3))
    cells = {cell: change(result) for cell, result in results(of_grid).items()}
    found = find(of_grid, cells, of_grid.left_out)
    estimates = [pair.difference for place in found.places for pair in place.pairs]
    estimates += [one for place in found.places for each in place.standings for one in each.estimates.values()]
    limits = [end for one in estimates for end in (one.metric.low, one.metric.high) if end is not None]
    assert len(limits) > 20
    assert -1 <= min(limits) <= max(limits) <= 1
    assert 1.0 in limits
