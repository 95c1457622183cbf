"""Exports where something is unusual: an empty batch, a folder that TensorFlow takes for a pattern, two at a time."""

import pathlib
import re
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from mvtec_tf.errors import UserError
from mvtec_tf.graphs import loading, saved_model, scoring
from mvtec_tf.jobs import encoders
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.serving import configs
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.export import export_run
from tests.support.small_run import assert_empty_batches_get_empty_answers


def test_an_empty_batch_gets_an_empty_answer(exported):
    assert_empty_batches_get_empty_answers(saved_model.load(exported).signatures)


@pytest.mark.slow
def test_a_run_and_an_export_work_in_a_folder_that_looks_like_a_pattern(small_run, exported, toy_records, tmp_path):
    files = [record.file for record in toy_records[-3:]]
    expected = scoring.score_files(exported, files).score
    folder = tmp_path / "odd [1]\\*?"
    shutil.copytree(small_run[0], folder / "run")
    model = export_run(folder / "run", "small", folder / "saved_models")
    copies = [shutil.copyfile(file, folder / pathlib.Path(file).name) for file in files]
    assert np.array_equal(scoring.score_files(model, list(map(str, copies))).score, expected)


@pytest.mark.parametrize("name", ["a[1]", "back\\slash", "star*", "what?", "[!x]", "{a,b}", "a b,c", "\u00e4:#%20"])
def test_a_model_is_read_from_a_folder_of_any_name(tmp_path, name):
    model = tf.Module()
    model.value = tf.Variable(7.0)
    tf.saved_model.save(model, str(tmp_path / name))
    assert saved_model.load(tmp_path / name).value.numpy() == 7


def test_without_a_plain_folder_for_temporary_files_a_pattern_is_refused_with_a_word(exported, tmp_path, monkeypatch):
    odd = tmp_path / "a[1]"
    shutil.copytree(exported, odd / "1")
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    with pytest.raises(UserError, match="TMPDIR"):
        saved_model.load(odd / "1")


@pytest.mark.parametrize("wrong", ["a[1]", "a*", "a?", "a\\b", "", ".a", "a/b"])
def test_a_name_that_a_server_cannot_find_is_none(wrong):
    assert not configs.is_name(wrong)
    assert configs.is_name("a b-1")


@pytest.mark.parametrize("name", ["caf\udce9", "caf\udce9/below"])
def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_trained_or_written(small_run, tmp_path, name):
    with pytest.raises(UserError, match=r"`run_dir`=.*caf\\udce9.*UTF-8"):
        RunDirectory(tmp_path / name, "train_cnn", {}, {"fingerprint": "0"}, "")
    with pytest.raises(UserError, match=r"`saved_models`=.*caf\\udce9.*UTF-8"):
        export_run(small_run[0], "small", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_where_its_export_is_meant_and_an_unfinished_one_name_the_next_command(tmp_path):
    (tmp_path / "run.json").write_text('{"binary": "train_simclr", "status": "running"}')
    with pytest.raises(UserError, match="It is a run, of which mvtec-tf export makes"):
        saved_model.load(tmp_path)
    with pytest.raises(UserError, match=r"`run`=.*: that run is not finished. Repeat its command"):
        export_run(tmp_path, "m", tmp_path / "saved_models")
    assert not (tmp_path / "saved_models").exists()


def test_a_model_without_its_version_is_the_newest(exported, tmp_path):
    for version in ("2", "10", "9"):
        shutil.copytree(exported, tmp_path / "small" / version)
    (tmp_path / "small" / "11.partial").mkdir()
    for name in ("notes", "012", "\u00b9\u00b9"):
        (tmp_path / "small" / name).mkdir()
    assert saved_model.newest(tmp_path / "small") == tmp_path / "small" / "10"
    assert saved_model.newest(tmp_path / "small" / "2") == tmp_path / "small" / "2"
    assert LocalModel(tmp_path / "small").name == str(tmp_path / "small" / "10")
    # No encoder, but found.
    with pytest.raises(UserError, match="is a classifier"):
        encoders.resolve_encoder(str(tmp_path / "small"))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nothing"))):
        LocalModel(tmp_path / "nothing")


def test_an_op_that_was_stopped_by_the_failure_of_another_is_no_reason():
    stopped = tf.errors.CancelledError(None, None, "Function was cancelled before it was started")
    refused = tf.errors.InvalidArgumentError(None, None, "the file is empty")
    reports = iter([stopped, stopped, refused])

    def signature(image_bytes):
        raise next(reports)

    with pytest.raises(tf.errors.InvalidArgumentError, match="the file is empty"):
        loading.ask(signature, tf.constant([b""]))
    # It ends, even if nothing else is ever reported.
    reports = iter(lambda: stopped, None)
    with pytest.raises(tf.errors.CancelledError):
        loading.ask(signature, tf.constant([b""]))


def test_two_exports_at_once_lose_nothing_of_one_another(tmp_path, monkeypatch):
    for name in ("a/1", "b/1", "b/2"):
        (tmp_path / name).mkdir(parents=True)
    configs.write(tmp_path)
    read, others = configs._read_models, []

    def slow(file):
        found = read(file)
        if not others:
            others.append(threading.Thread(target=configs.write, args=(tmp_path, ("b", 2), ("stable", "canary"))))
            others[0].start()
            # Time enough for the other one to write, if it may; it has to wait.
            others[0].join(0.3)
        return found

    monkeypatch.setattr(configs, "_read_models", slow)
    configs.write(tmp_path, ("a", 1), ("line7",))
    others[0].join()
    config = text_format.Parse((tmp_path / configs.MODELS).read_text(), model_server_config_pb2.ModelServerConfig())
    labels = {entry.name: dict(entry.version_labels) for entry in config.model_config_list.config}
    assert labels == {"a": {"line7": 1, "stable": 1, "canary": 1}, "b": {"stable": 2, "canary": 2}}


def test_the_server_that_is_started_has_a_version(exported):
    assert f"tensorflow/serving:{configs.SERVER_VERSION}}}" in (exported.parents[1] / configs.COMPOSE).read_text()
