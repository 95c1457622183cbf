"""The benchmark of the patch memory fits the real head on drawn features and measures that process."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mvtec_tf.features import extract
from mvtec_tf.features.feature_graph import FeatureSettings
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.patch import PatchCore
from mvtec_tf.networks.backbone import build_backbone
from tools import patch_memory
from tools.patch_memory import ChoiceCost, DrawnMaps, MemoryCost


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
    assert greedy.cpu_seconds > 0


def test_both_choices_are_judged_on_the_photographs_of_a_store(toy_records, tmp_path):
    encoder = tmp_path / "encoder"
    backbone = build_backbone("resnet10", 32)
    saved_model.write_encoder(encoder, backbone, {"pretrain_images": []})
    records = [record for record in toy_records if record.category == toy_records[0].category]
    settings = FeatureSettings(backbone.middle_stages, maps=True)
    store = extract.extract(encoder, records, settings, tmp_path / "features")
    worth = list(patch_memory.measure_worth(store, records, 0, lambda text: None))
    assert [one.how for one in worth] == ["greedy", "random"]
    # There are fewer patches than would be kept: both keep all of them.
    assert worth[0].patches == 16 * 8 * 8
    assert worth[0].roc_auc == pytest.approx(worth[1].roc_auc)
    labels = [record.label for record in records if record.split == "test"]
    head = PatchCore().fit(store.of([r for r in records if r.split == "train"]), np.zeros(16, int))
    scores = head.decision_function(store.of([r for r in records if r.split == "test"]))
    assert worth[0].roc_auc == pytest.approx(roc_auc_score(labels, scores))


def test_the_table_has_a_line_for_each_measurement():
    table = patch_memory.text_table([MemoryCost(5000, 12.5, 20.0, 1234.5, 3.25)])
    assert table.splitlines()[0].split()[0] == "images"
    assert table.splitlines()[1].split() == ["5,000", "12.500", "20.000", "1234", "3.250"]
    assert "greedy" in patch_memory.text_table([ChoiceCost("greedy", 1.0, 2.0, 3.0)])
