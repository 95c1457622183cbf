"""A watched folder: every file once, none too early, whatever happens to the process."""

import collections
import csv
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from mvtec_tf.graphs import saved_model
from mvtec_tf.serving import inputs
from mvtec_tf.serving.batch import Judge
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.predict import predict
from mvtec_tf.serving.settings import PredictSettings
from mvtec_tf.serving.watch import PATIENCE
from tests.support.standin_server import Served, serving
from tests.support.watched_line import WHOLE, Fake, Line, nothing

_FILES = 200
_KILLS = 5


@pytest.fixture
def line(tmp_path):
    return Line(tmp_path / "box", tmp_path / "judged.csv")


def test_a_file_is_judged_at_the_second_look_that_finds_it_unchanged(line):
    (line.folder / "a.png").write_bytes(WHOLE)
    line.look()
    assert line.rows() == {}
    line.look(nothing)
    assert line.rows() == {"a.png": ""}
    line.look(nothing, nothing, nothing)
    assert line.model.shown == [WHOLE]


def test_a_file_that_is_called_as_a_mask_of_one_beside_it_is_judged_with_a_word(line, capsys):
    (line.folder / "a.png").write_bytes(WHOLE)
    line.look(nothing)
    assert "called as a mask" not in capsys.readouterr().out
    (line.folder / "a_mask.png").write_bytes(WHOLE)
    line.look(nothing, nothing)
    assert capsys.readouterr().out.count("a_mask.png: called as a mask of") == 1
    assert line.rows() == {"a.png": "", "a_mask.png": ""}


def test_a_file_that_is_being_written_is_not_read(line):
    file = line.folder / "a.png"
    parts = [WHOLE[:3], WHOLE[3:6], WHOLE[6:]]

    def grow():
        with file.open("ab") as content:
            content.write(parts.pop(0))

    grow()
    line.look(grow, grow)
    assert line.model.shown == []
    line.look(nothing)
    assert line.model.shown == [WHOLE]


def test_a_writer_that_pauses_loses_nothing(line):
    file = line.folder / "a.png"
    file.write_bytes(WHOLE[:5])
    pauses = [nothing] * (PATIENCE - 2)
    line.look(*pauses, lambda: file.write_bytes(WHOLE), nothing)
    assert line.rows() == {"a.png": ""}


def test_a_file_that_stays_unreadable_is_called_bad_once(line):
    (line.folder / "a.png").write_bytes(b"rubbish")
    line.look(*[nothing] * (PATIENCE - 1))
    assert line.rows() == {}
    line.look(*[nothing] * PATIENCE)
    assert line.rows() == {"a.png": "not a readable image: torn"}
    shown = len(line.model.shown)
    line.look(*[nothing] * 2 * PATIENCE)
    assert len(line.model.shown) == shown


def test_a_file_that_changes_while_it_is_judged_is_judged_again(line):
    file = line.folder / "a.png"
    file.write_bytes(b"first, whole")
    line.model = _Changing(file)
    line.look(nothing, nothing, nothing)
    assert line.rows() == {"a.png": ""}
    assert line.model.shown == [b"first, whole", b"second, whole"]


class _Changing(Fake):
    def __init__(self, file):
        super().__init__()
        self._file = file

    def __call__(self, signature, images):
        answer = super().__call__(signature, images)
        self._file.write_bytes(b"second, whole")
        os.utime(self._file, ns=(0, 0))
        return answer


def test_a_server_that_is_away_stops_nothing(line):
    (line.folder / "a.png").write_bytes(WHOLE)
    line.model.away = True
    line.look(nothing, nothing, lambda: setattr(line.model, "away", False), nothing)
    assert line.rows() == {"a.png": ""}


def test_files_of_a_writer_that_uses_a_dot_and_files_that_are_no_images_are_left_alone(line):
    for name in (".a.png.tmp", ".b.png", "notes.txt"):
        (line.folder / name).write_bytes(WHOLE)
    line.look(nothing, lambda: (line.folder / ".b.png").rename(line.folder / "b.png"), nothing)
    assert line.rows() == {"b.png": ""}


def test_an_alarm_of_drift_is_told_as_it_rises_kept_beside_the_table_and_known_again(exported, toy, tmp_path, capsys):
    box, out = tmp_path / "box", tmp_path / "t.csv"
    box.mkdir()
    for number, file in enumerate(sorted(pathlib.Path(toy).glob("*/train/good/*.png"))):
        shutil.copyfile(file, box / f"{number:03d}.png")
        Image.open(file).point(lambda value: value // 3).save(box / f"{100 + number}.png")

    def watched(until):
        """What is printed until the table has so many lines."""

        kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def stop():
            # Not before the watch listens to the signal, which would end the tests.
            while signal.getsignal(signal.SIGTERM) is kept[signal.SIGTERM]:
                time.sleep(0.05)
            while len(out.read_text().splitlines()) < until:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=stop).start()
        try:
            predict(PredictSettings(model=str(exported), out=str(out), watch=str(box), poll_seconds=0.01))
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)
        return capsys.readouterr().out

    said = watched(65)
    told = [line for line in said.splitlines() if line.startswith("DRIFT: ")]
    assert any("brightness -" in line for line in told)
    with (tmp_path / "t.drift.csv").open() as content:
        alarms = list(csv.DictReader(content))
    assert len(alarms) == sum(line.count(" since part ") for line in told)
    assert "brightness" in {alarm["statistic"] for alarm in alarms}
    # A watch that is started again tells it at once, and judges nothing anew.
    again = watched(65)
    assert [line.split()[1] for line in again.splitlines() if line.startswith("DRIFT")] == [told[0].split()[1]]
    assert len(out.read_text().splitlines()) == 65


def test_two_hundred_files_and_five_kills_give_two_hundred_verdicts(exported, toy, tmp_path):
    """The binary itself, killed in the middle of requests while files keep coming, against a served model.

    Half of the files are moved in whole; the others are written in two pieces, with time for many looks between them.
    After three of the kills the table ends in a torn row.
    """
    sources = inputs.expand([str(toy)])
    box, out, staging = tmp_path / "box", tmp_path / "judged.csv", tmp_path / "staging"
    box.mkdir()
    staging.mkdir()
    served = Served(saved_model.load(exported))
    # A kill after so many images have reached the server: spread over the whole of it, all in mid-request.
    kill_at = [(number + 1) * _FILES // (_KILLS + 2) for number in range(_KILLS)]
    dropper = _Dropper(sources, box, staging)
    with serving(served) as (_, port):
        command = [sys.executable, "-m", "mvtec_tf.bin.predict", f"--server=http://127.0.0.1:{port}/small"]
        command += [f"--watch={box}", f"--out={out}", "--batch_size=3", "--poll_seconds=0.01"]
        command.append("--patience=1000000")
        finished = threading.Event()

        def before():
            dropper.drop(served.images + 12)
            if kill_at and served.images >= kill_at[0]:
                kill_at.pop(0)
                process.kill()

        def tend(process):
            """Not at a line of output: the last verdict may be written after the last line."""
            while process.poll() is None:
                dropper.drop(_count(out) + 12)
                if _count(out) == _FILES:
                    finished.set()
                    process.send_signal(signal.SIGTERM)
                    return
                time.sleep(0.1)

        served.before = before
        dropper.drop(12)
        deaths = []
        while not finished.is_set():
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                tender = threading.Thread(target=tend, args=(process,))
                tender.start()
                errors = process.communicate()[1]
                tender.join()
            deaths.append(process.returncode)
            assert deaths[-1] in (0, -signal.SIGKILL), errors
            if deaths[-1] and len(deaths) % 2:
                _tear(out)
    assert deaths == [-signal.SIGKILL] * _KILLS + [0]
    with out.open(newline="") as content:
        rows = list(csv.DictReader(content))
    assert collections.Counter(row["path"] for row in rows) == {str(path): 1 for path in box.iterdir()}
    assert len(rows) == _FILES
    judge = Judge(LocalModel(exported))
    expected = {row["path"]: row["score"] for row in judge([str(path) for path in box.iterdir()])}
    for row in rows:
        assert row["error"] == ""
        assert float(row["score"]) == pytest.approx(expected[row["path"]], abs=1e-5)


class _Dropper:
    """Drops files into a folder: moved in whole, or in two pieces."""

    def __init__(self, sources, box, staging):
        self._sources, self._box, self._staging = sources, box, staging
        self._dropped = 0
        self._half: list[tuple[pathlib.Path, bytes]] = []
        self._lock = threading.Lock()

    def drop(self, up_to):
        with self._lock:
            while self._half:
                file, rest = self._half.pop()
                with file.open("ab") as content:
                    content.write(rest)
            while self._dropped < min(up_to, _FILES):
                source = self._sources[self._dropped % len(self._sources)]
                file = self._box / f"{self._dropped:03d}.png"
                if self._dropped % 2:
                    shutil.copyfile(source, self._staging / file.name)
                    (self._staging / file.name).rename(file)
                else:
                    content = pathlib.Path(source).read_bytes()
                    file.write_bytes(content[: len(content) // 2])
                    self._half.append((file, content[len(content) // 2 :]))
                self._dropped += 1


def _count(out):
    return max(out.read_bytes().count(b"\n") - 1, 0) if out.exists() else 0


def _tear(out):
    """What a kill in the middle of an append leaves behind."""
    with out.open("ab") as content:
        content.write(b'/some/path.png,,,,,"0.1')
