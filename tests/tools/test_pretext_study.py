"""Encoders are set beside what they started from draw by draw, and a study that was killed loses one cell."""

import json

import numpy as np
import pytest

from mvtec_tf.errors import UsageError
from tests.support.tiny_network import in_place_of_resnet10
from tools import paired_cells, pretext_study
from tools.pretext_study import StudySettings


def _cell(name, way, seed, values, cuts=2):
    return {"set": name, "way": way, "seed": seed, "ratio": 1.0, "cuts": cuts, "figures": {"head": values}}


def test_differences_are_paired_by_draw_and_means_over_seeds(tmp_path):
    file = tmp_path / "cells.jsonl"
    lines = [
        _cell("a", "start", 0, [0.5, 0.7]),
        _cell("a", "byol", 0, [0.6, 0.8]),
        _cell("a", "byol", 1, [0.8, 0.8]),
        _cell("b", "start", 0, [0.9, 0.9]),
        _cell("b", "byol", 0, [0.8, 0.8]),
        _cell("a", "random", 0, [0.4, 0.4]),
        _cell("a", "random_densecl", 0, [0.5, 0.4]),
    ]
    # The last line is what a kill leaves of one.
    file.write_text("\n".join(map(json.dumps, lines)) + '\n{"set": "b", "way": "rand')
    cells = paired_cells.read_cells(file)
    assert len(cells) == 7
    text = paired_cells.table(cells, "head", pretext_study.WAYS, pretext_study.start_of)
    # a: 0.2 and 0.1, so 0.15 +- 12.706 * 0.0707 * sqrt(1/2 + 1); b has no spread; over both 0.025 +- 12.706 * 0.125.
    assert text.splitlines()[2:] == [
        "| start | 0.600 | 0.900 |  |",
        "| byol | 0.750, +0.150 [-0.950, +1.250] | 0.800, -0.100 | +0.025 [-1.563, +1.613] |",
        "| random | 0.400 | - |  |",
        "| random_densecl | 0.450, +0.050 [-1.050, +1.150] | - | +0.050 |",
    ]


def test_a_cell_behind_what_a_kill_left_is_read_and_another_studys_cells_are_refused(tmp_path):
    file = tmp_path / "cells.jsonl"
    paired_cells.append(file, _cell("a", "start", 0, [0.5]))
    with file.open("a") as lines:
        lines.write('{"set": "b", "way": "rand')
    paired_cells.append(file, _cell("b", "start", 0, [0.5]))
    assert [name for name, _, _ in paired_cells.read_cells(file)] == ["a", "b"]
    paired_cells.check_same(tmp_path / "settings.json", {"image_size": 128})
    paired_cells.check_same(tmp_path / "settings.json", {"image_size": 128})
    with pytest.raises(UsageError, match=r"another image_size 128 \(now 64\)"):
        paired_cells.check_same(tmp_path / "settings.json", {"image_size": 64})


def test_a_difference_that_holds_after_the_correction_has_a_star():
    draws = np.array([0.5, 0.52, 0.5, 0.51, 0.49])
    gains = {"start": 0, "byol": [0.3, 0.301, 0.299, 0.3, 0.3], "vicreg": [0.1, -0.1, 0.1, 0, 0]}
    cells = {("a", way, 0): _cell("a", way, 0, draws + gain) for way, gain in gains.items()}
    text = paired_cells.table(cells, "head", pretext_study.WAYS, pretext_study.start_of)
    assert [line.count("*") for line in text.splitlines()[2:]] == [0, 1, 0]


def test_an_encoder_is_kept_only_where_held_out_scores_are_better_by_it():
    def cell(way, held_out, values):
        return _cell("a", way, 0, []) | {"held out": held_out, "figures": {"fused, labels": values}}

    cells = {
        ("a", "start", 0): cell("start", [0.8, 0.8, None], [0.1, 0.2, 0.3]),
        ("a", "byol", 0): cell("byol", [0.9, 0.8, None], [0.4, 0.5, 0.6]),
        ("b", "byol", 0): cell("byol", [0.9, 0.8, None], [0.4, 0.5, 0.6]),
    }
    found = {place: list(one["figures"].values()) for place, one in pretext_study.kept(cells).items()}
    assert found == {("a", "start", 0): [[0.1, 0.2, 0.3]], ("a", "byol", 0): [[0.4, 0.2, 0.3]]}


def test_draws_that_all_judge_the_same_images_have_no_interval():
    cells = {
        ("a", "start", 0): _cell("a", "start", 0, [0.5, 0.5], cuts=1),
        ("a", "byol", 0): _cell("a", "byol", 0, [0.6, 0.61], cuts=1),
    }
    text = paired_cells.table(cells, "head", pretext_study.WAYS, pretext_study.start_of)
    assert text.splitlines()[-1] == "| byol | 0.605, +0.105 | +0.105 |"


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_and_judges_every_encoder_on_the_same_draws(toy, tmp_path, capsys):
    asked = StudySettings(
        out=str(tmp_path), data_dir=(str(toy / "flange"),), weights="none", backbone="resnet10", image_size=32,
        ways=("start", "simclr_0.2_drawn", "drawn_network"), draws=2, label_budget=("0.3",), steps=2,
        batch_size=8,
    )  # fmt: skip
    with in_place_of_resnet10():
        pretext_study.main(asked)
        cells = paired_cells.read_cells(tmp_path / "cells.jsonl")
        pretext_study.main(asked)
    assert paired_cells.read_cells(tmp_path / "cells.jsonl") == cells
    figures = {way: cell["figures"] for (_, way, _), cell in cells.items()}
    assert {"fused, drawn defects", "logistic, drawn defects"} < set(figures["start"])
    assert "network, drawn defects" in figures["drawn_network"]
    assert all(len(values) == 2 for own in figures.values() for values in own.values())
    assert figures["start"]["fused, no labels"] != figures["simclr_0.2_drawn"]["fused, no labels"]
    assert "| simclr_0.2_drawn |" in capsys.readouterr().out
