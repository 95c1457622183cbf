"""Several replicas train to the end that one would have come to, and who is left alone says so."""

import json
import socket
import subprocess
import sys
import types

import numpy as np
import pytest

from mvtec_tf.data import input_pipeline
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import PretrainSettings
from mvtec_tf.networks.pretext import METHODS
from mvtec_tf.training import cluster, distribution
from tests.support import worker

_KILLED_AT = 12


def _config(index=0, task="worker", **jobs):
    jobs = jobs or {"worker": ["one:1", "two:2"]}
    return json.dumps({"cluster": jobs, "task": {"type": task, "index": index}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "TF_CONFIG: not readable as JSON"),
        ("[]", 'expected {"cluster"'),
        ('{"cluster": {"worker": "one:1"}, "task": {}}', 'expected {"cluster"'),
        (_config(index=2), "the task is worker 2, and the cluster has worker 0, worker 1"),
        (_config(task="ps", worker=["one:1"], ps=["two:2"]), "the cluster has ps, which"),
        (_config(worker=["one", "two:2"]), "Expected HOST:PORT"),
        (_config(worker=["one:1", "one:1"]), "each another one"),
    ],
)
def test_a_cluster_that_cannot_be_read_is_refused_before_anything_is_done(text, said, monkeypatch):
    monkeypatch.setenv(cluster.VARIABLE, text)
    with pytest.raises(UsageError, match="TF_CONFIG") as refused:
        checks.of_pretraining(PretrainSettings(data_dir=("none",), run_dir="none"))
    assert said in str(refused.value)
    checks.of_pretraining(PretrainSettings(data_dir=("none",), run_dir="none", strategy="one"))


@pytest.mark.parametrize(("text", "said"), [(None, "is not set"), (_config(worker=["one:1"]), "names one:1 alone")])
def test_several_workers_that_are_not_named_are_asked_for(text, said, monkeypatch):
    monkeypatch.setenv(cluster.VARIABLE, text or "")
    with pytest.raises(UsageError, match=said):
        checks.of_pretraining(PretrainSettings(data_dir=("none",), run_dir="none", strategy="multi_worker"))
    checks.of_pretraining(PretrainSettings(data_dir=("none",), run_dir="none"))


def test_a_chief_that_is_called_so_is_the_first_worker(monkeypatch):
    jobs = {"worker": ["two:2"], "chief": ["one:1"]}
    monkeypatch.setenv(cluster.VARIABLE, _config(**jobs))
    assert cluster.asked_for("auto") == cluster.Cluster(("one:1", "two:2"), 1)
    monkeypatch.setenv(cluster.VARIABLE, _config(task="chief", **jobs))
    assert cluster.asked_for("multi_worker").is_chief
    assert cluster.asked_for("one") is None


def test_one_device_is_not_mirrored():
    with pytest.raises(UsageError, match=r"`strategy`=mirrored: TensorFlow sees 0 GPUs here.*`strategy`=one"):
        distribution.opened("mirrored", 8, "auto")


@pytest.mark.parametrize(
    ("batch", "jit", "said"),
    [
        (7, "auto", "`batch_size`=7: 3 replicas do not divide it. Use 6 or 9."),
        (2, "auto", "Use 3."),
        (6, "on", "`jit`=on: the steps of 3 replicas are not compiled"),
    ],
)
def test_a_batch_that_replicas_do_not_divide_and_steps_that_are_not_compiled_are_refused(batch, jit, said, monkeypatch):
    monkeypatch.setattr(distribution, "_strategy", lambda _: types.SimpleNamespace(num_replicas_in_sync=3))
    with pytest.raises(UsageError) as refused:
        distribution.opened("auto", batch, jit)
    assert said in str(refused.value)


def test_fewer_images_than_the_batch_are_divided_too(capsys):
    assert input_pipeline.fitting_batch_size(43, 48, replicas=2) == 42
    assert "`batch_size`=42 is used instead of 48" in capsys.readouterr().out
    with pytest.raises(UserError, match="2 training images for 3 replicas"):
        input_pipeline.fitting_batch_size(2, 3, replicas=3)


def test_the_parts_of_all_replicas_are_the_batch_of_one_also_in_the_middle_of_an_epoch():
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)

    def batches(**more):
        drawn = input_pipeline.training_batches(
            images, np.zeros(12, int), 6, 0, lambda *all_of_it: all_of_it, epochs=3, first_epoch=1, first_step=1, **more
        )
        return [tuple(item.numpy() for item in one) for one in drawn]

    whole = batches()
    first, second = batches(replicas=3, mine=[0]), batches(replicas=3, mine=[1, 2])
    assert [len(part) for part in (whole, first, second)] == [3, 3, 6]
    for step, expected in enumerate(whole):
        parts = zip(first[step], *second[2 * step : 2 * step + 2], strict=True)
        for ours, theirs in zip(map(np.concatenate, parts), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def steps():
    """What `support/two_replicas.py` prints."""
    return _python("tests.support.two_replicas")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, "clipped", "classifier"])
def test_two_replicas_take_the_step_of_one(name, steps):
    """A gather of embeddings whose gradient is wrong, statistics of half the batch, the same dropout on both halves, or
    gradients that are clipped before they are summed: each would move the weights elsewhere."""
    found = steps[name]
    assert found["moved"] > 1e-3
    assert found["apart"] < 1e-3
    np.testing.assert_allclose(*found["losses"], rtol=1e-5)
    np.testing.assert_allclose(*found["predictions"], rtol=1e-3, atol=1e-5)
    assert found["alike"]


@pytest.mark.slow
def test_two_machines_train_as_one_and_go_on_after_one_was_killed(toy, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("killed")
    killed, ended = _by_two_workers(toy, tmp_path, (elsewhere, [0, _KILLED_AT]), (tmp_path, [0, 0]))
    assert killed[1][0] < 0
    status, said = killed[0]
    assert status == 1, said
    assert "ERROR: Another worker has ended" in said
    assert "Start the same command on all workers again" in said

    assert [status for status, _ in ended] == [0, 0], ended
    assert all(f"Resumed from the checkpoint after epoch {_KILLED_AT}." in said for _, said in ended)
    # The other one leaves nothing, wherever it worked.
    assert {path.parent.name for path in tmp_path.rglob("run.json")} == {"cnn", "simclr"}

    alone = tmp_path / "alone"
    alone.mkdir()
    worker.train(toy, alone, "alone")
    for job, name in (("simclr", "train_simclr"), ("cnn", "train_cnn")):
        ours, theirs = (json.loads((path / job / "run.json").read_text()) for path in (tmp_path, alone))
        assert ours["status"] == theirs["status"] == "finished"
        losses = [[epoch["loss"] for epoch in run["history"]] for run in (ours, theirs)]
        assert len(losses[1]) == 20
        assert np.ptp(losses[1]) > 0.01
        np.testing.assert_allclose(*losses, atol=1e-4)
        weights = [np.load(tmp_path / f"{index}_{name}.npz") for index in (0, 1)]
        for number in weights[0].files:
            np.testing.assert_array_equal(weights[0][number], weights[1][number])


def _by_two_workers(data, folder, *trainings):
    """Of each training, which has a folder for temporary files and its workers' last steps: (status, what it said) of
    both."""
    asked = []
    for own, killed_at in trainings:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("localhost", 0))
            second.bind(("localhost", 0))
            addresses = [f"localhost:{one.getsockname()[1]}" for one in (first, second)]
        environments = [{cluster.VARIABLE: _config(index, worker=addresses), "TMPDIR": str(own)} for index in (0, 1)]
        asked.append(list(zip(environments, killed_at, strict=True)))
    return [
        [(status, (folder / f"{count}_{index}.said").read_text()) for index, status in enumerate(statuses)]
        for count, statuses in enumerate(_python("tests.support.worker", data, folder, json.dumps(asked)))
    ]


def _python(module, *arguments):
    """What the last line that a process says is in JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])
