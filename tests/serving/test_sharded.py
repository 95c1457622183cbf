"""The table of `predict` by a runner's workers is that of one process, and grows by what is missing."""

import csv
import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil

import pytest

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.serving.predict import predict
from mvtec_tf.serving.settings import PredictSettings
from tests.conftest import run_binary

needs_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed")


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    """Photographs of one folder without a layout, two bad files among them."""
    folder = tmp_path_factory.mktemp("line") / "new"
    folder.mkdir()
    for number, file in enumerate(sorted(pathlib.Path(toy).rglob("*.png"))[:40]):
        shutil.copy(file, folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"")
    (folder / "20.png").write_bytes(b"<html></html>")
    return folder


def _settings(exported, out, *paths, **more):
    more = {"runner": "direct", "images_per_shard": 20} | more
    return PredictSettings(model=str(exported), out=str(out), paths=tuple(map(str, paths)), **more)


def _shards(out):
    return {file.name: file.stat().st_mtime_ns for file in (out.with_name(f"{out.name}.shards") / "rows").iterdir()}


@needs_beam
@pytest.mark.slow
@pytest.mark.parametrize("form", [".csv", ".jsonl"])
def test_the_table_is_that_of_one_process(exported, folder, tmp_path, capsys, form):
    one, many = tmp_path / f"one{form}", tmp_path / f"many{form}"
    with pytest.raises(UserError, match="2 of 40 images could not be judged"):
        predict(_settings(exported, one, folder, runner=None, images_per_shard=512))
    said = capsys.readouterr().out.splitlines()
    with pytest.raises(UserError, match="2 of 40 images could not be judged"):
        predict(_settings(exported, many, folder))
    assert many.read_bytes() == one.read_bytes()
    told = capsys.readouterr().out
    # 16 images a shard: whole batches of 8.
    assert "3 shards by the runner direct, whose workers counted 40 files, 2 of them bad" in told
    # What is said of drift.
    assert said[1] in told
    with (tmp_path / f"many{form}.shards" / "bad_files.csv").open(newline="") as file:
        assert [pathlib.Path(row["path"]).name for row in csv.DictReader(file)] == ["05.png", "20.png"]


@needs_beam
@pytest.mark.slow
def test_a_second_call_does_what_is_missing_or_has_changed(exported, folder, tmp_path, capsys):
    own, out = tmp_path / "own", tmp_path / "t.csv"
    shutil.copytree(folder, own)
    for name in ("05.png", "20.png"):
        (own / name).unlink()
    settings = _settings(exported, out, own, batch_size=4, images_per_shard=10)
    predict(settings)
    content, shards = out.read_bytes(), _shards(out)
    assert len(shards) == 5
    removed = sorted(shards)[2]
    (tmp_path / "t.csv.shards" / "rows" / removed).unlink()
    capsys.readouterr()
    predict(settings)
    assert "4 of 5 shards are there already." in capsys.readouterr().out
    assert out.read_bytes() == content
    again = _shards(out)
    assert {name for name in shards if shards[name] != again[name]} == {removed}
    # Another photograph under an old name, of the same size.
    os.utime(own / "00.png", ns=(1, 1))
    predict(settings)
    assert len(set(_shards(out)) - set(shards)) == 1
    assert len(_shards(out)) == 5
    assert out.read_bytes() == content
    capsys.readouterr()
    predict(settings)
    assert "Nothing was left to judge." in capsys.readouterr().out


@needs_beam
def test_what_a_data_set_says_of_its_images_is_in_the_rows(exported, toy, tmp_path):
    listed = tmp_path / "list.csv"
    files = [os.path.relpath(file, tmp_path) for file in sorted(pathlib.Path(toy).glob("flange/t*/*/*.png"))]
    rows = "".join(f"{file},{int('good' not in file)},part\n" for file in files)
    listed.write_text(f"path,label,category\n{rows}")
    outs = tmp_path / "one.csv", tmp_path / "many.csv"
    for out, more in zip(outs, ({"runner": None, "images_per_shard": 512}, {}), strict=True):
        predict(_settings(exported, out, list=str(listed), data_dir=(str(listed),), **more))
    assert outs[0].read_bytes() == outs[1].read_bytes()
    with outs[1].open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["category"] for row in found} == {"part"}
    assert len(found) == len(files)


@needs_beam
def test_a_table_of_another_model_or_of_no_runner_is_refused(exported, folder, tmp_path):
    out = tmp_path / "t.csv"
    settings = _settings(exported, out, folder / "00.png")
    predict(settings)
    other = shutil.copytree(exported, tmp_path / "other" / "1")
    with pytest.raises(UserError, match=r"of the model small/1 .*, not other/1 .*Give another `out`"):
        predict(dataclasses.replace(settings, model=str(other)))
    manifest = json.loads((tmp_path / "t.csv.shards" / "manifest.json").read_text())
    assert manifest["images"] == 1
    (tmp_path / "by_hand.csv").write_text("path,score\n")
    with pytest.raises(UserError, match="not written by a runner"):
        predict(_settings(exported, tmp_path / "by_hand.csv", folder / "00.png"))
    assert (tmp_path / "by_hand.csv").read_text() == "path,score\n"
    with pytest.raises(UserError, match="no SavedModel"):
        predict(_settings(folder, tmp_path / "new.csv", folder / "00.png"))


def test_settings_that_do_not_go_with_a_runner_are_wrong_use(tmp_path):
    for words, more in (
        ("`concurrency`=2", {"concurrency": 2}),
        ("`watch`.*`runner`", {"watch": str(tmp_path)}),
        ("`images_per_shard`=20.*`runner` is not given", {"runner": None}),
    ):
        paths = () if "watch" in more else (tmp_path,)
        with pytest.raises(UsageError, match=words):
            predict(_settings("saved_models/small", tmp_path / "t.csv", *paths, **more))
    done = run_binary("predict", "--model=saved_models/small", "--out=t.csv", "--runner=cloud", tmp_path, check=False)
    assert done.returncode == 2
    assert "direct" in done.stderr
