"""The benchmark of the patch memory fits the real head on drawn features and measures that process."""

import json

import numpy as np

from mvtec_tf.benchmark import patch_memory
from mvtec_tf.benchmark.patch_memory import ChoiceCost, DrawnMaps, MemoryCost


def test_drawn_maps_are_the_same_each_time_they_are_read_and_never_all_in_memory():
    maps = DrawnMaps(1_000_000, (4, 3, 2), seed=1)
    assert len(maps) == 1_000_000
    first = maps[np.array([5, 999_999])]
    assert first.shape == (2, 4, 3, 2)
    np.testing.assert_array_equal(maps[np.array([999_999])], first[1:])
    assert not np.allclose(maps[np.array([5])], maps[np.array([5 + 16])])


def test_one_process_says_what_its_fit_took(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_memory, "_LAYERS", {"fine": (6, 6, 8)})
    patch_memory.fit_one(40, 0, str(tmp_path / "answer.json"))
    facts = json.loads((tmp_path / "answer.json").read_text())
    assert set(facts) == {"fit_wall_seconds", "fit_cpu_seconds", "ms_per_image"}
    assert all(value > 0 for value in facts.values())


def test_a_greedy_memory_leaves_no_patch_as_far_away_as_a_random_one(monkeypatch):
    for name, value in (("_POINTS", 4000), ("_WIDTH", 64), ("_MEMORY", 200)):
        monkeypatch.setattr(patch_memory, name, value)
    greedy, random = patch_memory.measure_choice(0, lambda text: None)
    assert greedy.farthest < random.farthest
    assert greedy.roc_auc > 0.5


def test_the_table_has_a_line_for_each_measurement():
    table = patch_memory.text_table([MemoryCost(5000, 12.5, 20.0, 1234.5, 3.25)])
    assert table.splitlines()[0].split()[0] == "images"
    assert table.splitlines()[1].split() == ["5,000", "12.500", "20.000", "1234", "3.250"]
    assert "greedy" in patch_memory.text_table([ChoiceCost("greedy", 1.0, 2.0, 0.9, 3.0)])
