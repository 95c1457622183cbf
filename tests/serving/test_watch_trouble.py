"""A watched folder outlives what is wrong with one file and any bad moment of a server or a disk."""

import csv
import itertools
import os

import grpc
import pytest
import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.serving import client
from mvtec_tf.serving.client import UnavailableError, open_server
from mvtec_tf.serving.watch import PATIENCE
from tests.support.standin_server import Refused, Served, serving
from tests.support.watched_line import WHOLE, Fake, Line, nothing


@pytest.fixture
def line(tmp_path):
    return Line(tmp_path / "box", tmp_path / "judged.csv")


def _a_link_to_nothing(file):
    file.symlink_to("nothing")


def _a_link_to_itself(file):
    file.symlink_to(file.name)


def _a_link_through_a_file(file):
    (file.parent / "a_file").write_bytes(b"")
    file.symlink_to("a_file/photo.png")


def _a_name_too_long(file):
    file.symlink_to("n" * 300)


def _an_empty_file(file):
    file.touch()


@pytest.mark.parametrize(
    "make",
    [_a_link_to_nothing, _a_link_to_itself, _a_link_through_a_file, _a_name_too_long, os.mkfifo, _an_empty_file],
)
def test_a_file_that_cannot_be_had_gets_a_row_at_most_and_the_others_are_judged(line, make):
    make(line.folder / "a.png")
    (line.folder / "b.png").write_bytes(WHOLE)
    later = [nothing] * (PATIENCE + 2)
    line.look(nothing, *later, lambda: (line.folder / "c.png").write_bytes(WHOLE), *later)
    rows = line.rows()
    # A name that is no file may be passed over by who lists the folder; it is never called good or defective.
    assert rows.pop("a.png", "passed over")
    assert rows == {"b.png": "", "c.png": ""}


def test_a_file_whose_state_cannot_be_asked_for_gets_a_row_with_the_reason(line, monkeypatch):
    for name in ("a.png", "b.png"):
        (line.folder / name).write_bytes(WHOLE)
    stat = os.stat

    def refuse(path, **more):
        if str(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied")
        return stat(path, **more)

    monkeypatch.setattr("mvtec_tf.serving.batch.os.stat", refuse)
    line.look(*[nothing] * (PATIENCE + 1))
    assert line.rows() == {"a.png": "cannot be read: Permission denied", "b.png": ""}


def test_an_overlay_that_cannot_be_written_costs_a_reason_and_no_verdict(line, tmp_path):
    line.overlays = tmp_path / "overlays"
    names = ["a.png", "n" * 250 + ".png", "b.png"]
    for name in names:
        (line.folder / name).write_bytes(WHOLE)
    at = line.overlays / str(line.folder)[1:]
    (at / "a.png.png").mkdir(parents=True)
    line.look(nothing, lambda: (line.folder / "c.png").write_bytes(WHOLE), nothing)
    rows = line.rows()
    assert rows.pop("a.png") == "the overlay cannot be written: Is a directory"
    assert rows.pop(names[1]) == "the overlay cannot be written: File name too long"
    assert rows == {"b.png": "", "c.png": ""}
    with line.out.open(newline="") as content:
        assert {row["verdict"] for row in csv.DictReader(content)} == {"defective"}


class _Moody:
    """A served model that refuses as it is told to, then answers."""

    def __init__(self):
        self.refusals: list[Refused] = []
        self.poison = b""
        self.signatures = {"serving_default": self._answer}

    def _answer(self, image_bytes):
        if self.poison and self.poison in image_bytes.numpy().tolist():
            raise Refused(grpc.StatusCode.INTERNAL, 500, "out of its mind")
        size = len(image_bytes)
        scores = {name: tf.fill([size], 0.5) for name in ("anomaly_score", "threshold")}
        return scores | {"label": tf.ones([size], tf.int64)}

    def refuse(self):
        if self.refusals:
            raise self.refusals.pop(0)


@pytest.fixture(scope="module")
def moody_ports():
    model = _Moody()
    served = Served(model)
    served.before = model.refuse
    with serving(served) as ports:
        yield model, dict(zip(("grpc", "http"), ports, strict=True))


@pytest.fixture
def moody(moody_ports, monkeypatch):
    monkeypatch.setattr(client, "_TRY_AGAIN_AFTER_SECONDS", ())
    model, ports = moody_ports
    model.refusals, model.poison = [], b""
    return model, ports


_BAD_MOMENTS = [("http", status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 529)]
_PASSING = "UNAVAILABLE DEADLINE_EXCEEDED RESOURCE_EXHAUSTED INTERNAL UNKNOWN ABORTED CANCELLED"
_BAD_MOMENTS += [("grpc", grpc.StatusCode[name]) for name in _PASSING.split()]
_WRONG_USE = [("http", status) for status in (301, 401, 403, 404, 405, 501)]
_WRONG_USE += [("grpc", grpc.StatusCode[name]) for name in ("NOT_FOUND", "UNIMPLEMENTED", "PERMISSION_DENIED")]


def _refusal(scheme, code):
    return Refused(*((code, 500) if scheme == "grpc" else (None, code)), "a bad moment")


@pytest.mark.parametrize(("scheme", "code"), _BAD_MOMENTS)
def test_any_bad_moment_of_a_server_is_waited_out_and_said_once(line, moody, capsys, scheme, code):
    model, ports = moody
    line.model = open_server(f"{scheme}://127.0.0.1:{ports[scheme]}/small")
    (line.folder / "a.png").write_bytes(WHOLE)
    model.refusals = [_refusal(scheme, code) for _ in range(6)]
    line.look(*[nothing] * 12)
    assert line.rows() == {"a.png": ""}
    assert capsys.readouterr().out.count("a bad moment") == 1


@pytest.mark.parametrize(("scheme", "code"), _WRONG_USE)
def test_what_can_only_be_wrong_use_ends_the_watch_unless_it_has_worked_before(line, moody, scheme, code):
    model, ports = moody
    line.model = open_server(f"{scheme}://127.0.0.1:{ports[scheme]}/small")
    (line.folder / "a.png").write_bytes(WHOLE)
    model.refusals = [_refusal(scheme, code)]
    with pytest.raises(UserError):
        line.look(nothing)
    assert line.rows() == {}

    def again():
        (line.folder / "b.png").write_bytes(WHOLE)
        model.refusals = [_refusal(scheme, code)]

    line.look(nothing, again, *[nothing] * 4)
    assert line.rows() == {"a.png": "", "b.png": ""}


def test_pauses_grow_while_the_server_is_away(line):
    (line.folder / "a.png").write_bytes(WHOLE)
    tries = []

    class Away(Fake):
        def __call__(self, signature, images):
            tries.append(len(looks))
            raise UnavailableError("away")

    line.model, looks = Away(), []
    line.look(*[lambda: looks.append(1)] * 250)
    # Each try also asks whether the server is there at all.
    distinct = sorted(set(tries))
    assert [later - earlier for earlier, later in itertools.pairwise(distinct)] == [1, 2, 4, 8, 16, 32, 64, 64]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_one_image_that_a_server_cannot_answer_gets_a_row_and_the_others_are_judged(line, moody, scheme):
    model, ports = moody
    line.model = open_server(f"{scheme}://127.0.0.1:{ports[scheme]}/small")
    for name in "abc":
        (line.folder / f"{name}.png").write_bytes(WHOLE + name.encode())
    model.poison = WHOLE + b"b"
    line.look(*[nothing] * (PATIENCE + 1))
    rows = line.rows()
    assert "not this one" in rows.pop("b.png")
    assert rows == {"a.png": "", "c.png": ""}


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_image_that_was_refused_for_another_clients_sake_is_judged(line, moody, scheme):
    model, ports = moody
    line.model = open_server(f"{scheme}://127.0.0.1:{ports[scheme]}/small")
    (line.folder / "a.png").write_bytes(WHOLE)
    model.refusals = [Refused(grpc.StatusCode.INVALID_ARGUMENT, 400, "another client's image is torn")]
    line.look(*[nothing] * 3)
    assert line.rows() == {"a.png": ""}


def test_a_disk_that_is_full_for_a_while_loses_no_row_and_leaves_no_half_one(line, monkeypatch):
    (line.folder / "a.png").write_bytes(WHOLE)
    line.look(nothing)
    (line.folder / "b.png").write_bytes(WHOLE)
    refusals, fsync = [1, 2, 3], os.fsync

    def refuse(handle):
        if refusals:
            refusals.pop()
            raise OSError(28, "No space left on device")
        return fsync(handle)

    monkeypatch.setattr("mvtec_tf.serving.journal.os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        line.look(nothing)
    assert line.rows() == {"a.png": ""}
    refusals.clear()
    line.look(
        lambda: (line.folder / "c.png").write_bytes(WHOLE), lambda: refusals.extend((1, 2)), *[nothing] * 6
    )
    assert line.rows() == {"a.png": "", "b.png": "", "c.png": ""}


@pytest.mark.parametrize("take", [os.remove, lambda file: os.rename(file, f"{file}.1")])
def test_a_table_that_is_moved_or_removed_meanwhile_is_begun_anew_and_no_row_is_lost(line, capsys, take):
    def add(name):
        (line.folder / name).write_bytes(WHOLE)

    line.look(lambda: add("a.png"), nothing, nothing, lambda: take(line.out), lambda: add("b.png"), nothing, nothing)
    assert line.rows() == {"b.png": ""}
    assert capsys.readouterr().out.count(f"{line.out} was moved or removed: a new table is begun there") == 1
