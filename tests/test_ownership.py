"""A folder that somebody writes has one owner; a second process refuses at once and names the first."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest

from mvtec_tf import ownership
from mvtec_tf.errors import UserError
from mvtec_tf.ownership import LOCK_FILE, Owned
from tests.conftest import run_binary

_OWN = (
    "import sys; from mvtec_tf.ownership import Owned; owned = Owned(sys.argv[1]); print('mine', flush=True); input()"
)


def test_a_second_owner_is_refused_and_told_who_the_first_is_and_since_when(tmp_path):
    first = Owned(tmp_path / "run")
    with pytest.raises(UserError) as refused:
        Owned(tmp_path / "run", "--run_dir")
    words = f"--run_dir={tmp_path / 'run'}: process {os.getpid()} on {socket.gethostname()} has been writing there"
    assert str(refused.value).startswith(words)
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", str(refused.value))
    first.release()
    Owned(tmp_path / "run").release()


def test_what_a_killed_process_left_binds_nobody(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", _OWN, tmp_path], stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(UserError, match=f"process {process.pid} on"):
        Owned(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK_FILE).exists()
    Owned(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_what_an_owner_made_and_did_not_use_is_gone_after_it(tmp_path):
    Owned(tmp_path / "a" / "b").release()
    assert list(tmp_path.iterdir()) == []
    used = Owned(tmp_path / "a" / "b")
    (tmp_path / "a" / "report.html").touch()
    used.release()
    used.release()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]


def test_a_folder_that_comes_to_be_in_one_step_is_owned_beforehand(tmp_path):
    first = Owned(tmp_path / "toy", new=True)
    assert not (tmp_path / "toy").exists()
    with pytest.raises(UserError, match="has been writing there"):
        Owned(tmp_path / "toy", new=True)
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_let_go_between_two_looks_is_no_lock(tmp_path, monkeypatch):
    real = ownership.fcntl.flock
    taken = []

    def let_go_meanwhile(file, how):
        real(file, how)
        if not taken:  # as if its owner had ended just now
            taken.append((tmp_path / LOCK_FILE).unlink())

    monkeypatch.setattr(ownership.fcntl, "flock", let_go_meanwhile)
    owned = Owned(tmp_path)
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    owned.release()


@pytest.mark.parametrize("number", ownership._NO_LOCKS)
def test_where_files_cannot_be_locked_it_is_said_and_the_work_goes_on(tmp_path, monkeypatch, capsys, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ownership.fcntl, "flock", flock)
    Owned(tmp_path).release()
    assert f"Note: {tmp_path} lies where files cannot be locked" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ownership.json, "dumps", full)
    with pytest.raises(UserError, match=r"`out`=.*cannot be written .*No space left"):
        Owned(tmp_path / "out", "`out`")
    assert list(tmp_path.iterdir()) == []


TABLE = "path,category,defect,label,split,score\n" + "".join(
    f"{split}{i}.png,cap,{('good', 'chip')[i % 2]},{i % 2},{split},{i}\n"
    for split in ("evaluate", "calibrate")
    for i in range(8)
)


@pytest.mark.parametrize(
    ("name", "flag", "more"),
    [
        ("fit_baseline", "run_dir", ["--data_dir={toy}"]),
        ("quickstart", "run_dir", []),
        ("evaluate", "out", ["--predictions={tmp}/a.csv"]),
        ("compare", "out", ["--runs={tmp}/a.csv,{tmp}/b.csv"]),
        ("drift", "out", ["--table={tmp}/a.csv"]),
        ("explore_data", "out", ["--data_dir={toy}"]),
        ("make_toy", "out", []),
        ("fetch_mvtec", "out", []),
        ("extract_features", "out", ["--data_dir={toy}", "--weights=none"]),
    ],
)
def test_every_binary_that_writes_a_folder_refuses_one_that_is_being_written(name, flag, more, toy, tmp_path):
    for table in ("a", "b"):
        (tmp_path / f"{table}.csv").write_text(TABLE)
    place = tmp_path / "out"
    new = name in ("make_toy", "fetch_mvtec")
    first = Owned(place, new=new)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    flags = [text.format(toy=toy, tmp=tmp_path) for text in more]
    done = run_binary(name, f"--{flag}={place}", *flags, check=False)
    assert done.returncode == 1, done.stderr
    assert f"--{flag}={place}: process {os.getpid()} on" in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    first.release()


def test_a_binary_lets_go_of_its_folder_however_it_ends(toy, tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    flags = (f"--predictions={tmp_path / 'a.csv'}", f"--out={tmp_path / 'out'}", "--resamples=10")
    run_binary("evaluate", *flags)
    assert not (tmp_path / "out" / LOCK_FILE).exists()
    refused = run_binary("evaluate", *flags, f"--heatmaps={tmp_path / 'nowhere'}", f"--data_dir={toy}", check=False)
    assert refused.returncode == 1
    assert not (tmp_path / "out" / LOCK_FILE).exists()
