"""The grid holds what can be computed, names what cannot, and survives being stopped."""

import csv
import dataclasses
import functools
import itertools
import pathlib

import numpy as np
import pytest

from mvtec_tf.errors import LeakError, UsageError, UserError
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.label_efficiency import enough, findings
from mvtec_tf.label_efficiency import report as efficiency_report
from mvtec_tf.label_efficiency.cell import Method, PeakMemory
from mvtec_tf.label_efficiency.grid import BUDGETS, make_grid, parse_budgets, parse_good_budgets
from mvtec_tf.label_efficiency.run import COLUMNS, Runner
from mvtec_tf.run_directory import RunDirectory
from tests.support.efficiency_cells import records

_WRONG = ((["0.1", "0.10"], "0.1 stands there twice"), ([], "there is none"), (["0.7"], "`budgets`=0.7"))
METHODS = (("start", "logistic"), ("start", "mahalanobis"))


@dataclasses.dataclass
class _Store:
    """Features that a defect moves, of images without files."""

    path: pathlib.Path = pathlib.Path("store")

    def of(self, images):
        rng = np.random.default_rng(0)
        pooled = rng.normal(size=(len(images), 12)).astype(np.float32)
        pooled[[record.label == 1 for record in images], :4] += 1.5
        return FrozenFeatures(pooled)


def _make(name, seed):
    return make_head(HeadSettings(name, seed=seed))


def _runner(folder, grid, images, say=lambda line: None, **broken):
    """All heads; those that are named give an error when they are fitted."""
    run = RunDirectory(folder, "label_efficiency", {}, {"fingerprint": "f"}, "")
    methods = {}
    for _, name in METHODS:
        if name in broken:
            methods["start", name] = Method(_Store(), lambda seed, error=broken[name]: _Broken(error), Rule())
        else:
            make = functools.partial(_make, name)
            methods["start", name] = Method(_Store(), make, Rule())
    return Runner(grid, methods, images, run, Costs(), say)


@pytest.fixture(scope="module")
def images():
    return records("cap", good=12, defective=16)


@pytest.fixture(scope="module")
def grid(images):
    return make_grid(images, METHODS, ("0.25", "0", "2d"), range(2), {})


@pytest.fixture(scope="module")
def whole(grid, images, tmp_path_factory):
    """(folder, lines said) of a run without a break."""
    folder, lines = tmp_path_factory.mktemp("whole") / "run", []
    assert list(_runner(folder, grid, images, lines.append).run()) == [0, 1]
    return folder, lines


def test_budgets_are_read_in_their_shortest_spelling_and_ordered():
    assert parse_budgets(["0.10", "all", "10d", "0"]) == ("0.1", "all", "10d", "0")
    assert parse_budgets(BUDGETS) == BUDGETS
    for wrong, words in _WRONG:
        with pytest.raises(UsageError, match=words):
            parse_budgets(wrong)


def test_cells_that_cannot_be_are_left_out_by_reason_and_early_cells_span_all_heads(grid):
    assert [(item.cell.head, item.cell.budget) for item in grid.left_out] == [("logistic", "0")] * 2
    first = [cell for cell in grid.cells if cell.seed == 0]
    assert list(grid.cells[: len(first)]) == first
    assert [cell.budget for cell in first] == ["0", "0.25", "0.25", "2d", "2d"]


def test_a_budget_that_buys_nothing_is_left_out_for_its_category_and_refused_if_it_is_all(images):
    both = [*images, *records("nut", good=90, defective=40)]
    # 1 % of 28 images is none; of 130 it is one.
    grid = make_grid(both, METHODS, ("0.01",), [0], {})
    assert {cell.category for cell in grid.cells} == {"nut"}
    assert {item.cell.category for item in grid.left_out} == {"cap"}
    assert "0 of the 28 test images of category 'cap' may be labelled" in grid.left_out[0].reason
    with pytest.raises(UsageError, match=r"`budgets`=0.01: nothing can be computed .* 0 of the 28"):
        make_grid(images, METHODS, ("0.01",), [0], {})
    with pytest.raises(UsageError, match="the head logistic needs labelled defects"):
        make_grid(images, METHODS[:1], ("0",), [0], {})
    with pytest.raises(UsageError, match="holds 8 defective objects"):
        make_grid(images, METHODS, ("9d",), [0], {})


def test_the_columns_are_those_of_the_interface(whole):
    folder, _ = whole
    lines = (folder / "cells.csv").read_text().splitlines()
    assert lines[0] == (
        "encoder,head,category,budget,seed,labelled_images,labelled_defects,roc_auc,pr_auc,balanced_accuracy,f1,recall,"
        "specificity,threshold,fit_seconds,peak_mb,good"
    )
    assert tuple(lines[0].split(",")) == COLUMNS
    assert [line.split(",")[:7] for line in lines[1:]] == [
        ["start", "logistic", "cap", *rest]
        for rest in (["0.25", "0", "7", "4"], ["0.25", "1", "7", "4"], ["2d", "0", "2", "2"], ["2d", "1", "2", "2"])
    ] + [
        ["start", "mahalanobis", "cap", budget, str(seed), images, defects]
        for budget, images, defects in (("0", "0", "0"), ("0.25", "7", "4"), ("2d", "2", "2"))
        for seed in (0, 1)
    ]


def test_every_cell_is_announced_with_the_time_left(whole):
    _, lines = whole
    assert len(lines) == 10
    assert lines[0].startswith("cell 1 of 10: cap, start, mahalanobis, budget 0, seed 0: ROC-AUC ")
    assert all("minutes left" in line for line in lines)


def test_a_stopped_run_goes_on_with_the_missing_cells_alone_and_ends_alike(whole, grid, images, tmp_path):
    folder, said = tmp_path / "run", []

    def stop_in_the_fourth(line):
        said.append(line)
        if len(said) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(_runner(folder, grid, images, stop_in_the_fourth).run())
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("cells/**/*.*")}
    assert len(written) == 8
    said.clear()
    assert list(_runner(folder, grid, images, said.append).run()) == [0, 1]
    assert said[0] == "4 of 10 cells are there already."
    assert len(said) == 7
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())

    def figures(of):
        return [line.split(",")[:14] for line in (of / "cells.csv").read_text().splitlines()]

    assert figures(folder) == figures(whole[0])


def test_a_removed_cell_is_computed_again_and_a_damaged_one_is_named(whole, grid, images):
    folder, _ = whole
    before = (folder / "cells.csv").read_text()
    victim = sorted(folder.rglob("cells/**/*.json"))[0]
    victim.unlink()
    said = []
    list(_runner(folder, grid, images, said.append).run())
    assert len(said) == 2
    assert [line.split(",")[:14] for line in (folder / "cells.csv").read_text().splitlines()] == [
        line.split(",")[:14] for line in before.splitlines()
    ]
    content = victim.read_text()
    victim.write_text("{}")
    with pytest.raises(UserError, match=f"{victim.name}: no figures of a cell"):
        list(_runner(folder, grid, images).run())
    victim.write_text(content)


def test_the_predictions_of_a_cell_can_be_judged_by_evaluate_again(whole):
    import json

    from mvtec_tf.evaluation.assessment import assess
    from mvtec_tf.evaluation.intervals import Bootstrap
    from mvtec_tf.evaluation.table import read_predictions

    folder, _ = whole
    for file in folder.rglob("cells/**/*.json"):
        cell = json.loads(file.read_text())
        judged = assess(read_predictions(file.with_suffix(".csv")), bootstrap=Bootstrap(0))
        assert judged.overall.metrics["f1"].value == cell["metrics"]["f1"]
        assert judged.threshold.whole.value == cell["threshold"]
        assert cell["evaluated_images"] == cell["pool_images"] == 14


class _Broken:
    needs_labels = needs_maps = gives_heat_maps = False

    def __init__(self, error):
        self.error = error

    def fit(self, features, labels):
        raise self.error


def test_a_cell_that_a_head_refuses_is_listed_and_the_others_go_on(grid, images, tmp_path):
    said = []
    error = UserError("no two good images")
    runner = _runner(tmp_path / "run", grid, images, said.append, logistic=error)
    assert list(runner.run()) == [0, 1]
    assert len(runner.results) == 6
    refused = [item for item in runner.left_out if "no two good images" in item.reason]
    assert {item.cell.head for item in refused} == {"logistic"}
    assert len(refused) == 4
    assert "left out: category 'cap': no two good images" in said[1]
    with pytest.raises(UserError, match="Not one of 10 cells"):
        list(_runner(tmp_path / "none", grid, images, logistic=error, mahalanobis=error).run())
    with pytest.raises(LeakError, match="seen"):
        list(_runner(tmp_path / "leak", grid, images, mahalanobis=LeakError("seen")).run())


def test_the_peak_is_of_the_work_and_not_of_what_was_before():
    block = np.ones(40_000_000)
    del block
    memory = PeakMemory()
    before = memory.megabytes()
    block = np.ones(20_000_000)
    block += 1
    assert 130 < memory.megabytes() - before < 230


def test_fewer_good_objects_are_among_the_more_and_judged_on_the_same_images(images):
    grid = make_grid(images, METHODS, ("0.25",), range(2), {}, parse_good_budgets(["4", "1", "99"]))
    cuts = {good: grid.cuts["cap", "0", 1, good] for good in ("1", "4", "half", "all")}
    assert [len(cut.train_good) for cut in cuts.values()] == [1, 4, 6, 12]
    for fewer, more in itertools.pairwise(cuts.values()):
        assert set(fewer.train_good) < set(more.train_good)
        assert fewer.evaluate == more.evaluate
        assert not fewer.labelled
    assert cuts["4"].train_good != grid.cuts["cap", "0", 0, "4"].train_good
    (reason,) = {item.reason for item in grid.left_out if item.cell.good == "99"}
    assert "12 good training objects: 99" in reason
    assert {cell.good for cell in grid.cells if cell.budget == "0.25"} == {"all"}


def test_views_of_one_object_are_one_good_object():
    pairs = [
        dataclasses.replace(one, group=f"cap/{number // 2}") if one.split == "train" else one
        for number, one in enumerate(records("cap", good=12, defective=16))
    ]
    cut = make_grid(pairs, METHODS, ("0",), (0,), {}, parse_good_budgets(["2"])).cuts["cap", "0", 0, "2"]
    assert [one.group for one in cut.train_good[::2]] == [one.group for one in cut.train_good[1::2]]
    assert len(cut.train_good) == 4


@pytest.mark.parametrize("wrong", [["0"], ["2", "2"], ["many"], ["-1"], ["1.5"], [""], []])
def test_numbers_of_good_objects_that_make_no_sense_are_named(wrong):
    with pytest.raises(UsageError, match=r"`good_budgets`=.*expected different numbers"):
        parse_good_budgets(wrong)


def test_a_head_that_refuses_one_image_leaves_an_empty_cell_with_its_reason(images, tmp_path):
    grid = make_grid(images, METHODS[1:], ("0",), range(2), {}, parse_good_budgets(["1", "6"]))
    runner = _runner(tmp_path, grid, images)
    assert list(runner.run()) == [0, 1]
    assert {(item.cell.good, "at least two good images" in item.reason) for item in runner.left_out} == {("1", True)}
    found = findings.find(grid, runner.results, runner.left_out)
    (curve,) = enough.find(grid, runner.results, found)
    # Half of twelve is six, drawn alike.
    assert [(good, objects) for good, (objects, _) in curve.points.items()] == [("6", 6), ("half", 6), ("all", 12)]
    page = efficiency_report.write(tmp_path, grid, runner.results, runner.left_out, {})
    assert "Are the good images of cap enough? With 12 good objects instead of 6" in page
    assert "at most 1 % of new good parts are stopped needs 99 good objects, one of at most 0.1 % 999" in page
    rows = list(csv.DictReader((tmp_path / "cells.csv").open()))
    assert sorted(row["good"] for row in rows) == sorted(2 * ["6", "half", "all"])
