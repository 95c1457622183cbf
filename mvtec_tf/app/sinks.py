"""Where verdicts go: another program's address, a broker, a folder.

Each sink reads what was judged from the store, in a thread of its own, so that judging never waits for it. A verdict is
sent at least once: what was not acknowledged is sent again after a kill, with the same `id`.
"""

import base64
import http.client
import importlib.util
import json
import os
import pathlib
import queue
import sqlite3
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.app import judging, places, store
from mvtec_tf.app.places import NoPlaceError
from mvtec_tf.app.store import Store
from mvtec_tf.data.record import DEFECTIVE
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.predicted import UNSURE

WEBHOOK, MQTT, FOLDER = KINDS = ("webhook", "mqtt", "folder")
ALL, NOT_GOOD = WHICH = ("all", "not_good")
MOST_PER_MINUTE = 6000
_SCHEMES: Mapping[str, tuple[str, ...]] = {WEBHOOK: ("http", "https"), MQTT: ("mqtt", "mqtts")}
# Which judgements wait.
_WAITS = {ALL: "id > ?", NOT_GOOD: f"id > ? AND verdict IN ('{DEFECTIVE}', '{UNSURE}')"}
_NEXT = "SELECT judgements.*, name FROM judgements JOIN images USING (sha256) WHERE {} ORDER BY id LIMIT 1"
_PAUSE, _LONGEST_PAUSE, _PATIENCE = 0.5, 300.0, 10.0
# So often a message is refused before the next one is tried: a receiver that is set up wrongly is mended meanwhile.
_TRIES = 5
# What a receiver answers that may take the same message later.
_LATER = (408, 425, 429)


class RefusedError(Exception):
    """A message that a receiver has understood and does not take."""


def checked(kind: str, place: str, which: str, per_minute: int, folders: Sequence[str]) -> str:
    """The place, a path as a real one, if the page may send there. Raises NoPlaceError if it may not.

    Args:
      kind: one of `KINDS`.
      place: address of a webhook, mqtt://HOST/TOPIC, or a folder.
      which: verdicts, one of `WHICH`.
      per_minute: messages at most.
      folders: below which files may be written.
    """
    if kind not in KINDS or which not in WHICH or not 1 <= per_minute <= MOST_PER_MINUTE or not place.isprintable():
        raise NoPlaceError("incomplete", fields="kind, place, which, per_minute")
    if kind == FOLDER:
        place = places.allowed(place, folders)
        if not os.path.isdir(place):
            raise NoPlaceError("no_such_place", place=place)
        return place
    if kind == MQTT and importlib.util.find_spec("paho") is None:
        raise NoPlaceError("no_paho")
    topic = urllib.parse.urlsplit(place).path.strip("/") if places.is_address(place, _SCHEMES[kind]) else None
    if topic is None or (kind == MQTT and (not topic or "+" in topic or "#" in place)):
        raise NoPlaceError("no_sink_address", schemes=", ".join(_SCHEMES[kind]))
    return place


def shown(kind: str, place: str) -> str:
    """A place without what may be secret in it: of a webhook also the path."""
    if kind == FOLDER:
        return place
    split = urllib.parse.urlsplit(places.shown(place))
    return f"{split.scheme}://{split.netloc}/..." if kind == WEBHOOK else split.geturl()


def send(kind: str, place: str, message: Mapping[str, Any]) -> None:
    """Sends a message, and waits until it was taken.

    Raises:
      RefusedError: it is not, and hardly will be.
      OSError: it is not now.
    """
    {WEBHOOK: _to_webhook, MQTT: _to_broker, FOLDER: _to_folder}[kind](place, message)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What was sent to an address goes to no other one."""

    def redirect_request(self, *_: Any) -> None:
        """None: it is an error."""


def _to_webhook(place: str, message: Mapping[str, Any]) -> None:
    split = urllib.parse.urlsplit(place)
    headers = {"Content-Type": "application/json", "User-Agent": "mvtec_tf"}
    user, _, host = split.netloc.rpartition("@")
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote(user).encode()).decode()
    url = urllib.parse.urlunsplit((split.scheme, host, split.path or "/", split.query, ""))
    request = urllib.request.Request(url, json.dumps(message).encode(), headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        text = f"HTTP {error.code}"
        error.close()
        if 300 <= error.code < 500 and error.code not in _LATER:
            raise RefusedError(text) from None
        raise OSError(text) from None
    # Their texts may hold the address.
    except (urllib.error.URLError, http.client.HTTPException) as error:
        raise OSError(_short(getattr(error, "reason", error))) from None


def _to_broker(place: str, message: Mapping[str, Any]) -> None:
    import paho.mqtt.client as mqtt

    split = urllib.parse.urlsplit(place)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *given: answers.put(given[3])
    client.connect_timeout = _PATIENCE
    if split.username:
        client.username_pw_set(*(one and urllib.parse.unquote(one) for one in (split.username, split.password)))
    if split.scheme == "mqtts":
        client.tls_set()
    client.connect(split.hostname, split.port or (8883 if split.scheme == "mqtts" else 1883))
    client.loop_start()
    try:
        said = answers.get(timeout=_PATIENCE)
        if said.is_failure:
            raise OSError(str(said))
        sent = client.publish(split.path.strip("/"), json.dumps(message), qos=1)
        sent.wait_for_publish(_PATIENCE)
        if not sent.is_published():
            raise OSError("no answer")
    except queue.Empty:
        raise OSError("no answer") from None
    finally:
        client.disconnect()
        client.loop_stop()


def _to_folder(place: str, message: Mapping[str, Any]) -> None:
    if not os.path.isdir(place):
        raise FileNotFoundError("the folder is not there")
    files.write_json(pathlib.Path(place) / f"{message['id']}.json", dict(message))


def _short(error: Any) -> str:
    if isinstance(error, (OSError, RefusedError, str)):
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return type(error).__name__


class Sinks:
    """All sinks of a page. What is to be sent, and what was, stands in the store.

    Args:
      kept: what was judged.
    """

    def __init__(self, kept: Store) -> None:
        self._kept = kept
        self._end = threading.Event()
        self._threads: dict[int, threading.Thread] = {}

    def go_on(self, folders: Sequence[str] = ()) -> None:
        """Sends what was not sent when the page ended; into a folder only if it is still below one of the folders."""
        for sink in self._kept.ask("SELECT * FROM sinks"):
            try:
                if sink["kind"] == FOLDER:
                    places.allowed(sink["place"], folders)
            except NoPlaceError:
                query = "UPDATE sinks SET reason = ? WHERE id = ?"
                self._kept.change(query, ("the page was started without this folder", sink["id"]))
            else:
                self._start(sink["id"])

    def add(self, kind: str, place: str, which: str, per_minute: int, who: str) -> int:
        """Sends what is judged from now on to a place, see `checked`; returns the number of the sink."""
        query = (
            "INSERT INTO sinks (kind, place, which, per_minute, after) "
            "VALUES (?, ?, ?, ?, (SELECT coalesce(max(id), 0) FROM judgements))"
        )
        number = self._kept.change(query, (kind, place, which, per_minute))
        self._kept.add_event("event_sink_added", place=shown(kind, place), who=who)
        self._start(number)
        return number

    def remove(self, number: int, who: str) -> None:
        """Sends nothing more to a sink. Raises UserError if there is none."""
        sink = self._of(number)
        self._kept.change("DELETE FROM sinks WHERE id = ?", (number,))
        self._kept.add_event("event_sink_removed", place=shown(sink["kind"], sink["place"]), who=who)

    def test(self, number: int) -> str:
        """Sends a message that says it is a test; returns why it was not taken, "" if it was."""
        sink = self._of(number)
        try:
            send(sink["kind"], sink["place"], {"id": f"test-{number}", "at": store.now(), "test": True})
        except Exception as error:
            return _short(error)
        return ""

    def told(self) -> list[dict[str, Any]]:
        """All of them, without what is secret, with how many messages were sent, failed, were refused, and wait."""
        found = []
        for sink in self._kept.ask("SELECT * FROM sinks ORDER BY id"):
            query = f"SELECT count(*) AS n FROM judgements WHERE {_WAITS[sink['which']]}"
            waiting = self._kept.ask(query, (sink["after"],))[0]["n"]
            found.append(sink | {"place": shown(sink["kind"], sink["place"]), "waiting": waiting})
        return found

    def close(self) -> None:
        """Ends all threads, each when its message was taken or has failed."""
        self._end.set()
        for thread in self._threads.values():
            thread.join()

    def _of(self, number: int) -> dict[str, Any]:
        found = self._kept.ask("SELECT * FROM sinks WHERE id = ?", (number,))
        if not found:
            raise UserError("not_found")
        return found[0]

    def _start(self, number: int) -> None:
        thread = threading.Thread(target=self._run, args=(number,), name=f"sink {number}", daemon=True)
        self._threads[number] = thread
        thread.start()

    def _run(self, number: int) -> None:
        failures, pause = 0, 0.0
        while not self._end.wait(pause):
            try:
                sink = next(iter(self._kept.ask("SELECT * FROM sinks WHERE id = ?", (number,))), None)
                if sink is None:
                    return
                rows = self._kept.ask(_NEXT.format(_WAITS[sink["which"]]), (sink["after"],))
                pause = 60 / sink["per_minute"] if rows else _PAUSE
                if rows and not self._sent(sink, rows[0], failures):
                    failures += 1
                    pause = max(pause, places.pause(_PAUSE, failures, _LONGEST_PAUSE))
                elif rows:
                    failures = 0
            except sqlite3.OperationalError as error:
                # The disk is full; what was sent is sent again.
                print(f"{self._kept.folder}: {error}", flush=True)
                pause = _LONGEST_PAUSE

    def _sent(self, sink: Mapping[str, Any], row: Mapping[str, Any], failures: int) -> bool:
        """Sends the verdict of a row; returns whether the next one is to be sent."""
        place, column, reason = shown(sink["kind"], sink["place"]), "sent", ""
        try:
            send(sink["kind"], sink["place"], judging.told(row))
        except RefusedError as error:
            column, reason = "refused" if failures + 1 >= _TRIES else "failed", str(error)
        # Libraries raise what they like, and their texts may hold the address.
        except Exception as error:
            column, reason = "failed", _short(error)
        after = sink["after"] if column == "failed" else row["id"]
        query = f"UPDATE sinks SET {column} = {column} + 1, reason = ?, after = ? WHERE id = ?"
        with self._kept.all_or_nothing():
            self._kept.change(query, (reason, after, sink["id"]))
            if bool(reason) != bool(sink["reason"]):
                self._kept.add_event("event_sink_lost" if reason else "event_sink_back", place=place, reason=reason)
        return column != "failed"
