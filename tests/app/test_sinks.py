"""Where verdicts go: each is sent, in order, by whatever road, and no receiver holds up the judging."""

import contextlib
import dataclasses
import http.server
import json
import re
import socket
import socketserver
import struct
import threading

import pytest

from mvtec_tf.app import places, sinks
from mvtec_tf.app.places import NoPlaceError
from mvtec_tf.app.sinks import Sinks
from mvtec_tf.app.store import Store
from tests.app.conftest import until

ROW = {"score": 1.0, "threshold": 0.5, "probability": None}
VERDICTS = ("good", "defective", "unsure", "good")


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(sinks, "_PAUSE", 0.01)
    monkeypatch.setattr(sinks, "_PATIENCE", 1.0)


@pytest.fixture
def kept(tmp_path):
    kept = Store(tmp_path / "page")
    yield kept
    kept.close()


@contextlib.contextmanager
def sending(kept):
    """Sinks that are ended before the store is."""
    found = Sinks(kept)
    found.go_on()
    try:
        yield found
    finally:
        found.close()


def judge(kept, verdicts=VERDICTS):
    first = len(kept.latest(-1))
    for number, verdict in enumerate(verdicts, first):
        kept.add_image(str(number), f"images/{number}", f"part {number}.png", (1, 1))
        kept.add_judgement(ROW | {"sha256": str(number), "model": "m", "verdict": verdict}, {})


class Receiver:
    """A program at an address, which answers one status after the other and then 200."""

    def __init__(self, *statuses):
        self.statuses, self.taken, self.asked = list(statuses), [], []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.asked.append((self.path, self.headers["Authorization"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status == 200:
                    receiver.taken.append(body)
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://eva:pa%20ss@127.0.0.1:{self.server.server_address[1]}/hook?key=secret"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_verdicts_are_posted_in_order_and_what_fails_is_tried_again_counted_and_said(kept, capfd):
    judge(kept)
    with Receiver(503, 429, 200, *[302] * 5, *[404] * 5) as receiver, sending(kept) as found:
        number = found.add("webhook", receiver.address, "all", 6000, "Eva")
        judge(kept, ["defective"] * 4)
        until(lambda: found.told()[0]["waiting"] == 0)
        # What was judged before belongs to nobody; the first of the others was tried three times, two were refused five
        # times each.
        assert [body["id"] for body in receiver.taken] == [5, 8]
        assert receiver.taken[0] == kept.latest(9)[3]["row"] | {
            "id": 5,
            "name": "part 4.png",
            "at": kept.latest(9)[3]["at"],
        }
        assert receiver.asked[0] == ("/hook?key=secret", "Basic ZXZhOnBhIHNz")
        (told,) = found.told()
        assert (told["sent"], told["failed"], told["refused"], told["reason"]) == (2, 10, 2, "")
        assert re.fullmatch(r"http://127.0.0.1:\d+/\.\.\.", told["place"])
        whats = [event["what"] for event in kept.events(9)]
        assert whats == ["event_sink_back", "event_sink_lost"] * 2 + ["event_sink_added"]
        assert found.test(number) == ""
        assert receiver.taken[-1]["test"] is True
        found.remove(number, "Eva")
        assert found.told() == []
    said = "".join(capfd.readouterr()) + json.dumps(kept.events(99))
    assert "secret" not in said
    assert "pa%20ss" not in said


def test_a_receiver_that_is_away_holds_up_nothing_and_gets_everything_after_a_restart(kept):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with sending(kept) as found:
            number = found.add("webhook", f"http://127.0.0.1:{port}/", "not_good", 6000, "Eva")
            judge(kept)
            until(lambda: found.told()[0]["failed"] > 0)
            (told,) = found.told()
            assert (told["waiting"], told["sent"], "timed out" in told["reason"]) == (2, 0, True)
            assert "timed out" in found.test(number)
    with Receiver() as receiver:
        kept.change("UPDATE sinks SET place = ?", (receiver.address,))
        with sending(kept) as found:
            until(lambda: found.told()[0]["sent"] == 2)
            assert [body["verdict"] for body in receiver.taken] == ["defective", "unsure"]


def test_a_folder_gets_a_file_for_each_and_no_more_a_minute_than_was_said(kept, tmp_path, monkeypatch):
    pauses = []
    (tmp_path / "out").mkdir()
    with sending(kept) as found:
        wait = found._end.wait
        monkeypatch.setattr(found._end, "wait", lambda seconds: pauses.append(seconds) or wait(min(seconds, 0.01)))
        found.add("folder", str(tmp_path / "out"), "all", 20, "Eva")
        judge(kept)
        until(lambda: found.told()[0]["sent"] == 4)
    assert [json.loads((tmp_path / "out" / f"{n}.json").read_text())["verdict"] for n in range(1, 5)] == list(VERDICTS)
    assert pauses.count(3.0) == 4


class Broker(socketserver.ThreadingTCPServer):
    """What of MQTT 3.1.1 a client needs that publishes once: CONNACK and PUBACK."""

    daemon_threads = True

    def __init__(self, code):
        self.code, self.taken, self.clients = code, [], []
        super().__init__(("127.0.0.1", 0), _Talk)


class _Talk(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.rfile.read(1):
            length, shift = 0, 0
            while True:
                (byte,) = self.rfile.read(1)
                length, shift = length | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            body = self.rfile.read(length)
            if head[0] >> 4 == 1:
                self.server.clients.append(body)
                self.wfile.write(bytes([0x20, 2, 0, self.server.code]))
            elif head[0] >> 4 == 3:
                (size,) = struct.unpack(">H", body[:2])
                self.server.taken.append((body[2 : 2 + size].decode(), json.loads(body[4 + size :])))
                self.wfile.write(b"\x40\x02" + body[2 + size : 4 + size])


@pytest.mark.parametrize("code", [0, 5])
def test_a_broker_publishes_what_it_acknowledges_and_its_refusal_is_said(kept, code):
    pytest.importorskip("paho")
    with Broker(code) as broker:
        threading.Thread(target=broker.serve_forever, daemon=True).start()
        place = f"mqtt://eva:word@127.0.0.1:{broker.server_address[1]}/line/verdicts"
        with sending(kept) as found:
            found.add("mqtt", place, "not_good", 6000, "Eva")
            judge(kept)
            until(lambda: found.told()[0]["failed" if code else "sent"] == 1 + (not code))
            (told,) = found.told()
        broker.shutdown()
    assert told["place"] == f"mqtt://127.0.0.1:{broker.server_address[1]}/line/verdicts"
    assert b"word" in broker.clients[0]
    if code:
        assert "authorized" in told["reason"].lower()
        assert broker.taken == []
    else:
        assert [(topic, body["verdict"]) for topic, body in broker.taken] == [
            ("line/verdicts", "defective"),
            ("line/verdicts", "unsure"),
        ]


def test_only_a_person_names_a_sink_and_none_outside_of_what_the_page_may_write(page, settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for kind, place, told in (
        ("folder", tmp_path, "place_not_allowed"),
        ("folder", out / "none", "no_such_place"),
        ("webhook", "file:///etc/passwd", "no_sink_address"),
        ("webhook", str(out), "no_sink_address"),
        ("mqtt", "mqtt://host", "no_sink_address"),
        ("mqtt", "mqtt://host/a/#", "no_sink_address"),
        ("mail", "eva", "incomplete"),
    ):
        with pytest.raises(NoPlaceError, match=told):
            sinks.checked(kind, str(place), "all", 60, [str(out)])
    with pytest.raises(NoPlaceError, match="incomplete"):
        sinks.checked("folder", str(out), "all", 0, [str(out)])
    assert places.allowed(f"{out}/../out", [str(out)]) == str(out)
    page.site.settings = dataclasses.replace(settings, folders=(str(out),))
    told = {"kind": "folder", "place": str(out), "which": "all", "per_minute": "60", "who": "Eva"}
    assert page.post("/sinks", data=told, headers={"x-mvtec-tf": "1"}).status_code == 403
    for wrong in ({"who": ""}, {"place": "/etc"}, {"per_minute": "many"}, {"kind": "mail"}):
        assert page.form("/sinks", told | wrong).status_code == 422, wrong
    assert page.get("/api/sinks").json() == []
    assert page.form("/sinks", told).status_code == 303
    assert "The test was taken." in page.form("/sinks/1/test").text
    assert json.loads((out / "test-1.json").read_text())["test"] is True
    out.rename(tmp_path / "away")
    assert "the folder is not there" in page.form("/sinks/1/test").text
    assert page.form("/sinks/2/test").status_code == page.form("/sinks/1/other").status_code == 404
    assert 'mvtec_tf_sink_sent_total{sink="1",kind="folder"} 0' in page.get("/metrics").text
    assert page.form("/sinks/1/remove").status_code == 303
    assert page.get("/api/sinks").json() == []
    assert "Eva had verdicts sent to" in page.get("/watch").text
