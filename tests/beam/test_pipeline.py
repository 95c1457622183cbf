"""Shards by the workers of a runner: whoever is killed, whatever cannot be reached."""

import functools
import importlib.util
import os
import pathlib
import signal
import socket
import time

import pytest

from mvtec_tf.beam.settings import RunnerSettings
from mvtec_tf.errors import UsageError, UserError

needs_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed")
TWO_PROCESSES = "--direct_num_workers=2 --direct_running_mode=multi_processing"


def _maker(folder, killed):
    """Work that writes its shard with the process that did it; the one of the name `killed` kills its process once."""
    from mvtec_tf.beam import pipeline

    with folder.joinpath(f"process_{os.getpid()}").open("a") as file:
        file.write("loaded ")

    def work(shard):
        name = pathlib.Path(shard).name
        if name == killed and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "stop":
            os.kill(os.getpid(), signal.SIGINT)
            while not (folder / pipeline.STOPPED).exists():
                time.sleep(0.01)
        if name == "bad":
            raise UserError("x.png: no image. Look at it.")
        (folder / name).write_text(str(os.getpid()))
        return {"files": 3, "bad_files": int(name == "2")}

    return work


def _run(folder, shards, killed="", **asked):
    from mvtec_tf.beam import pipeline

    make = functools.partial(_maker, folder, killed)
    return pipeline.run(make, [str(folder / name) for name in shards], RunnerSettings(**asked), folder / "log")


@needs_beam
def test_what_is_there_is_left_alone_and_works_are_counted(tmp_path):
    (tmp_path / "1").write_text("before")
    counts = _run(tmp_path, ["0", "1", "2"], runner="direct")
    assert (counts["files"], counts["bad_files"]) == (6, 1)
    assert (tmp_path / "1").read_text() == "before"
    assert _run(tmp_path, ["0", "1", "2"], runner="direct") == {}


@needs_beam
@pytest.mark.slow
def test_what_a_killed_worker_leaves_is_done_by_others(tmp_path, capsys):
    shards = [str(number) for number in range(12)]
    _run(tmp_path, shards, killed="5", runner="direct", beam_options=TWO_PROCESSES)
    assert "A worker is gone" in capsys.readouterr().out
    assert (tmp_path / "killed").exists()
    assert all((tmp_path / name).exists() for name in shards)
    # What a process loads it loads once: two processes and the two after them, of which one may find no work left.
    loaded = [file.read_text() for file in tmp_path.glob("process_*")]
    assert 2 <= len(loaded) <= 4
    assert set(loaded) == {"loaded "}


@needs_beam
def test_what_a_worker_refuses_is_said_in_its_words_and_the_rest_is_kept(tmp_path):
    with pytest.raises(UserError, match=r"^x\.png: no image\. Look at it\.$"):
        _run(tmp_path, ["0", "bad"], runner="direct")


@needs_beam
def test_a_signal_ends_the_work_after_a_shard_and_the_next_call_goes_on(tmp_path):
    # A shell's background jobs begin with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, ["stop", "1", "2"], runner="direct")
    finally:
        signal.signal(signal.SIGINT, before)
    assert [name for name in ("stop", "1", "2") if (tmp_path / name).exists()] == ["stop"]
    (tmp_path / "stop").touch()
    assert _run(tmp_path, ["stop", "1", "2"], runner="direct")["files"] == 6


@needs_beam
@pytest.mark.slow
def test_a_runner_that_cannot_be_reached_is_named_with_what_to_look_at(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    options = f"--job_endpoint=127.0.0.1:{nobody} --job_server_timeout=1 --environment_type=LOOPBACK"
    with pytest.raises(UserError, match=r"`runner`=portable: cannot be reached.*job server at its job_endpoint"):
        _run(tmp_path, ["0"], runner="portable", beam_options=options)
    jar = pathlib.Path(tmp_path / "none.jar")
    for runner, option in (("flink", "flink_job_server_jar"), ("spark", "spark_job_server_jar")):
        with pytest.raises(UserError, match=f"`runner`={runner}: cannot be reached.*{option}"):
            _run(tmp_path, ["0"], runner=runner, beam_options=f"--{option}={jar} --job_server_timeout=1")


@needs_beam
@pytest.mark.slow
def test_a_portable_runners_job_server_does_the_same(tmp_path):
    from apache_beam.runners.portability import local_job_service

    server = local_job_service.LocalJobServicer(str(tmp_path / "staged"))
    port = server.start_grpc_server(0)
    try:
        options = f"--job_endpoint=localhost:{port} --environment_type=LOOPBACK"
        counts = _run(tmp_path, ["0", "1", "2"], runner="portable", beam_options=options)
    finally:
        server.stop()
    assert (counts["files"], counts["bad_files"]) == (9, 1)


@needs_beam
def test_options_that_beam_does_not_know_are_wrong_use(tmp_path):
    for options, words in (
        ("--direct_num_worker=2", "direct_num_worker"),
        ("--direct_num_workers=two", "invalid int value: 'two'"),
        ('--job_name="x', "cannot be split"),
    ):
        with pytest.raises(UsageError, match=words):
            _run(tmp_path, ["0"], runner="direct", beam_options=options)


def test_options_without_a_runner_are_wrong_use_and_a_missing_package_is_named(monkeypatch):
    with pytest.raises(UsageError, match="`beam_options`"):
        RunnerSettings(beam_options="--x").check_runner()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install apache-beam"):
        RunnerSettings(runner="direct").check_runner()


@needs_beam
@pytest.mark.slow
def test_features_by_workers_are_those_of_one_process(small_encoder, toy_records, tmp_path):
    from mvtec_tf.features import extract
    from mvtec_tf.features.feature_graph import FeatureSettings
    from mvtec_tf.graphs import saved_model

    layers = tuple(saved_model.read_card(small_encoder)["middle_stages"])
    settings, records = FeatureSettings(layers, maps=True), toy_records[::4]
    stores = [
        extract.extract(small_encoder, records, settings, tmp_path / name, 8, runner)
        for name, runner in (("one", None), ("many", RunnerSettings(runner="direct")))
    ]
    files = [sorted(file for file in store.path.rglob("*") if file.is_file()) for store in stores]
    assert len(list((tmp_path / "many").glob("shard_*"))) == 3
    assert [file.relative_to(tmp_path / "one") for file in files[0]] == [
        file.relative_to(tmp_path / "many") for file in files[1]
    ]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
