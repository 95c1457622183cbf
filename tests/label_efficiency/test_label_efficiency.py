"""`label_efficiency` at the command line: its cells are fit_probe's figures; wrong use is refused before any work."""

import csv
import json

import pytest

from mvtec_tf.data import protocol
from mvtec_tf.features.recipe import RECIPES
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

FEATURES = ("--backbone=resnet10", "--weights=none", "--image_size=64")


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with in_place_of_resnet10():
        yield


@pytest.fixture(scope="module")
def flags(toy, tmp_path_factory):
    data = sorted(path for path in toy.iterdir() if path.is_dir())[0]
    run_dir = tmp_path_factory.mktemp("efficiency") / "run"
    asked = ("--heads=mahalanobis,logistic", "--budgets=0.25,1d,0", "--seeds=2", "--recipe_image_size=64")
    return run_dir, (f"--data_dir={data}", f"--run_dir={run_dir}", *FEATURES, *asked)


@pytest.fixture(scope="module")
def done(flags):
    """(run directory, what was printed)."""
    return flags[0], run_binary("label_efficiency", *flags[1]).stdout


def _cells(run_dir):
    with (run_dir / "cells.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_grid_is_whole_sorted_and_has_the_recipe_beside_the_heads(done):
    run_dir, printed = done
    cells = _cells(run_dir)
    places = [(cell["head"], protocol.parse_budget(cell["budget"]), cell["seed"]) for cell in cells]
    assert {cell["encoder"] for cell in cells} == {"start"}
    budgets = {"few_labels": 3, "logistic": 2, "mahalanobis": 3}
    assert [(head, seed) for head, _, seed in places] == [
        (head, seed) for head, count in budgets.items() for _ in range(count) for seed in "01"
    ]
    assert all(cell["labelled_images"] == cell["labelled_defects"] == "1" for cell in cells if cell["budget"] == "1d")
    assert printed.splitlines()[-1] == str(run_dir)
    assert "2 cells could not be computed" in printed
    record = json.loads((run_dir / "run.json").read_text())
    assert (record["status"], record["cells"], record["cells_left_out"]) == ("finished", 16, 2)
    assert "--recipe_image_size=64" in (run_dir / "flags.txt").read_text()
    assert "What labels are worth" in (run_dir / "report.html").read_text()


@pytest.mark.slow
def test_a_cell_has_the_figures_of_fit_probe_with_its_seed_budget_head_features_and_threshold(done, flags, tmp_path):
    run_dir, _ = done
    data = flags[1][0]
    # The features lie there already, and are of the encoder beside them.
    features = run_dir / "features" / "start_few_labels"
    source = (f"--encoder={run_dir / 'encoders' / 'start_64'}", f"--features={features}")
    recipe = RECIPES["few_labels"]
    asked = (f"--head={recipe.head}", f"--threshold_method={recipe.threshold}", "--label_budget=0.25", "--seed=1")
    run_binary("fit_probe", data, *source, *asked, f"--run_dir={tmp_path / 'probe'}")
    judged = json.loads((tmp_path / "probe" / "metrics.json").read_text())
    (cell,) = [
        cell for cell in _cells(run_dir) if (cell["head"], cell["budget"], cell["seed"]) == ("few_labels", "0.25", "1")
    ]
    for name in ("roc_auc", "pr_auc", "balanced_accuracy", "f1", "recall", "specificity"):
        assert float(cell[name]) == judged["overall"][name]["value"], name
    assert float(cell["threshold"]) == judged["threshold"]["value"]
    folder = run_dir / "cells" / cell["category"] / "start"
    methods = [
        json.loads((folder / f"{head}_0.25_1.json").read_text())["threshold_method"]
        for head in ("few_labels", "logistic")
    ]
    # Only the recipe brings a rule of its own.
    assert methods == [recipe.threshold, "youden"]
    assert int(cell["labelled_images"]) == json.loads((tmp_path / "probe" / "run.json").read_text())["labels_used"]


@pytest.mark.slow
def test_a_repeated_command_computes_what_is_missing_and_another_recipe_is_refused(done, flags):
    run_dir, _ = done
    before = _cells(run_dir)
    victim = run_dir / "cells" / before[0]["category"] / "start" / "few_labels_0.25_1.json"
    victim.unlink()
    (run_dir / "report.html").unlink()
    printed = run_binary("label_efficiency", *flags[1]).stdout
    assert printed.count("\ncell ") == 1
    assert "few_labels, budget 0.25, seed 1" in printed
    assert (run_dir / "report.html").exists()
    for cell, same in zip(_cells(run_dir), before, strict=True):
        assert cell | {"fit_seconds": 0, "peak_mb": 0} == same | {"fit_seconds": 0, "peak_mb": 0}
    other = run_binary("label_efficiency", *flags[1], "--head_c=2", check=False)
    assert other.returncode == 1
    assert "belongs to another run. --head_c: 1.0 there, 2.0 here" in other.stderr


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--heads=oracle",), "--heads=oracle: unknown: oracle"),
        (("--heads=lda,lda",), "stands there twice"),
        (("--heads=few_labels",), "are those of --recipe=few_labels"),
        (("--heads=", "--recipe=none"), "nothing to compute"),
        (("--budgets=0.6",), "--budgets=0.6"),
        (("--budgets=0.1,0.10",), "0.1 stands there twice"),
        (("--budgets=0d",), "--budgets=0d"),
        (("--good_budgets=0,all",), "--good_budgets=0,all: expected different numbers"),
        (("--weights=none", "--heads=lda", "--recipe=none", "--good_budgets=1"), "every head here needs some (lda)"),
        (("--seeds=0",), "--seeds"),
        (("--tiles=2by2",), "--tiles=2by2"),
        (("--encoders=start,start",), "two are called start"),
        (("--encoders=start",), "--weights is missing"),
        (("--weights=none", "--heads=lda", "--recipe=none", "--budgets=0"), "the head lda needs labelled defects"),
    ],
)
def test_flags_that_make_no_sense_are_status_2_and_leave_nothing_behind(wrong, words, toy, tmp_path):
    done = run_binary("label_efficiency", f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}", *wrong, check=False)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_is_none_is_named(toy, tmp_path):
    where = (f"--data_dir={toy}", f"--run_dir={tmp_path / 'run'}", f"--encoders={tmp_path / 'nowhere'}")
    done = run_binary("label_efficiency", *where, check=False)
    assert done.returncode == 1
    assert f"--encoders={tmp_path / 'nowhere'}: no run directory and no SavedModel there" in done.stderr


@pytest.mark.slow
def test_few_good_images_are_measured_and_a_single_one_only_ranks(flags, tmp_path):
    asked = ("--heads=patchcore", "--budgets=0.25", "--seeds=2", "--recipe_image_size=32", "--good_budgets=1,4,all")
    features = (*FEATURES[:2], "--image_size=32")
    printed = run_binary("label_efficiency", flags[1][0], f"--run_dir={tmp_path / 'run'}", *features, *asked).stdout
    cells = {(cell["head"], cell["budget"], cell["good"], cell["seed"]): cell for cell in _cells(tmp_path / "run")}
    unlabelled = sorted({(head, good) for head, budget, good, _ in cells if budget == "0"})
    assert unlabelled == [
        *(("few_labels", good) for good in ("4", "all", "half")),
        *(("patchcore", good) for good in ("1", "4", "all", "half")),
    ]
    single = cells["patchcore", "0", "1", "0"]
    assert 0 < float(single["roc_auc"]) <= 1
    assert single["threshold"] == single["balanced_accuracy"] == ""
    assert "Are the good images of" in printed
    page = (tmp_path / "run" / "report.html").read_text()
    assert "needs good images of at least 3 objects" in page
    assert "A single object leaves none to hold out" in page
