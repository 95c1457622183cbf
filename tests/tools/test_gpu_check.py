"""The check of a machine with a GPU, where there is none."""

import pytest
import tensorflow as tf

from mvtec_tf.errors import UserError
from tools import gpu_check


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_without_a_gpu_nothing_is_drawn_or_trained(tmp_path):
    with pytest.raises(UserError, match="sees no GPU"):
        gpu_check.main(gpu_check.CheckSettings(out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_another_processors_scores_are_set_against_the_spread_of_the_cpus(tmp_path, monkeypatch):
    scores = {"here": {"a": 1.0, "b": 3.1}, "cpu": {"a": 1.0, "b": 3.0}}
    monkeypatch.setattr(gpu_check, "_train", lambda asked, out: tmp_path / "model")
    monkeypatch.setattr(gpu_check, "_scores", lambda model, data, table, environment: scores[table.stem])
    assert gpu_check._train_and_compare(gpu_check.CheckSettings(out=str(tmp_path)), tmp_path) == pytest.approx(0.1)
