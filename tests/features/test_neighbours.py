"""The good images that a new one is shown beside: the nearest by a double loop, one of each object."""

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.report import photographs
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.features import neighbours
from mvtec_tf.features.neighbours import Neighbours
from mvtec_tf.graphs import heat_maps


@pytest.fixture
def found(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    embedding = np.random.default_rng(0).normal(5, [1, 3, 0], (12, 3))
    objects = np.array([f"part {number // 2}" for number in range(12)])
    return Neighbours.of(embedding, list(map(str, files)), objects), embedding


def test_the_nearest_are_those_of_a_double_loop_one_of_each_object(found, tmp_path):
    known, embedding = found
    new = np.random.default_rng(1).normal(5, [1, 3, 0], 3)
    spread = embedding.std(axis=0)
    width = np.maximum(spread, spread.mean())

    def distance(one, other):
        return np.sqrt(np.mean(((one - other) / width) ** 2))

    others = {i: [embedding[j] for j in range(12) if j // 2 != i // 2] for i in range(12)}
    usual = np.median([min(distance(embedding[i], other) for other in others[i]) for i in range(12)])
    assert known.usual == pytest.approx(usual, rel=0.01)
    apart = {number: min((distance(new, embedding[i]), i) for i in (2 * number, 2 * number + 1)) for number in range(6)}
    expected = [(i, far / usual) for far, i in sorted(apart.values())[:3]]
    answer = known.nearest(new, 3)
    assert [row for row, _ in answer] == [row for row, _ in expected]
    assert [times for _, times in answer] == pytest.approx([times for _, times in expected], rel=0.02)
    first = answer[0][0]
    assert known.nearest(new, 12, without=known.sha256[first])[0][0] != first
    known.save(tmp_path / neighbours.FILE)
    again = Neighbours.load(tmp_path / neighbours.FILE)
    assert again.nearest(new, 3) == answer
    assert Neighbours.load(tmp_path / "none.npz") is None
    (tmp_path / neighbours.FILE).write_bytes(b"PK")
    with pytest.raises(UserError, match=r"neighbours\.npz: cannot be read"):
        Neighbours.load(tmp_path / neighbours.FILE)


def test_the_heat_of_a_picture_is_one_in_graph_and_report():
    good = [Row(f"g{n}.png", "a", "good", 0, "calibrate", 1.0 + n) for n in range(3)]
    scores, limits = [0.0, 2.0, 3.5, 5.0, 9.0], np.array([5.0, 5.0, 5.0, 5.0, 1.0])
    shown, defects = (
        Predictions.from_rows([Row(f"{n}.png", "a", "x", label, "evaluate", one) for n, one in enumerate(scores)])
        for label in (0, 1)
    )
    levels = photographs.levels(shown, limits, Predictions.from_rows(good))
    assert levels.tolist() == [0, 0, 0.5, 1, 1]
    # Of a missed defect a report shows where its map is highest.
    assert photographs.levels(defects, limits, Predictions.from_rows(good)).tolist() == [0.7, 0.7, 0.7, 1, 1]
    ops = heat_maps.level(*(tf.constant(one, tf.float32) for one in (scores, limits, [2.0] * 5)))
    assert ops.numpy().tolist() == levels.tolist()
    assert photographs.levels(shown, None, Predictions.from_rows(good)) is None
