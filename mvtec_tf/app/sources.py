"""Where parts come from by themselves: a folder, a camera, a film. Each is judged and logged once, kill or not."""

import dataclasses
import io
import os
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mvtec_tf.app import camera, judging, places
from mvtec_tf.app.camera import LostError
from mvtec_tf.app.judging import RefusedError
from mvtec_tf.app.models import Models
from mvtec_tf.app.places import NoPlaceError
from mvtec_tf.app.store import Store
from mvtec_tf.errors import UserError
from mvtec_tf.serving.batch import read_image_file
from mvtec_tf.serving.watch import DropBox

FOLDER, CAMERA, FILM = KINDS = ("folder", "camera", "film")
# What a source does now. A person has stopped it; a film ends; what is in the way of all others is over some time.
RUNS, LOST, ENDED, STOPPED, FAILED = "runs", "lost", "ended", "stopped", "failed"
_SETTING = "source"
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person wants watched.

    Attributes:
      kind: one of `KINDS`.
      place: path or address.
      take: which pictures of a camera or a film are parts, see `camera`.
      collect: whether each part is kept as a good one as long as there is no model.
      who: asked for it.
    """

    kind: str
    place: str
    take: str = camera.EACH
    collect: bool = False
    who: str = ""

    @property
    def shown(self) -> str:
        """The place without what is secret in it."""
        return places.shown(self.place) if self.kind == CAMERA else self.place

    @property
    def name(self) -> str:
        """What its parts are logged under: a film that has changed is another one."""
        if self.kind != FILM:
            return self.shown
        facts = os.stat(self.place)
        return f"{self.place} {facts.st_size} {facts.st_mtime_ns}"


def checked(asked: Asked, folders: Sequence[str]) -> Asked:
    """The same, if the page may watch it; paths are real ones.

    Args:
      asked: by a person.
      folders: below which files may be read.

    Raises:
      NoPlaceError: it may not, or there is no such thing.
    """
    if asked.kind not in KINDS or asked.take not in (camera.EACH, camera.STILL) or not asked.place.isprintable():
        raise NoPlaceError("incomplete", fields="kind, take, place")
    if places.is_any_address(asked.place):
        asked = dataclasses.replace(asked, kind=CAMERA)
    if asked.kind in (CAMERA, FILM) and not camera.is_there():
        raise NoPlaceError("no_opencv")
    if asked.kind == CAMERA:
        if not places.is_address(asked.place, camera.SCHEMES):
            raise NoPlaceError("no_address", schemes=", ".join(camera.SCHEMES))
        return asked
    place = places.allowed(asked.place, folders)
    if not (os.path.isdir if asked.kind == FOLDER else os.path.isfile)(place):
        raise NoPlaceError("no_such_place", place=place)
    return dataclasses.replace(asked, place=place)


class Watching:
    """The source that is watched, one at a time, in a thread of its own. What it was told stays across restarts.

    Args:
      kept: what was judged.
      models: that judge.
      most_bytes: that a file may have.
      collect: is told the SHA-256 of each part that is kept as a good one, and who says so.
      told: an error, in words.

    Attributes:
      asked: what is, or was last, watched; None: nothing.
      state, reason: what it does now, and why.
      judged, refused, missed: parts since then: those that could not be judged, those that came too fast.
      newest: SHA-256 of the newest part.
      collects: whether parts are kept as good ones, and not judged.
    """

    def __init__(
        self,
        kept: Store,
        models: Models,
        most_bytes: int,
        collect: Callable[[str, str], Any],
        told: Callable[[Exception], str] = str,
    ) -> None:
        self.asked: Asked | None = None
        self.state, self.reason = STOPPED, ""
        self.judged = self.refused = self.missed = 0
        self.newest, self.collects = "", False
        self._folders: Sequence[str] = ()
        self._kept, self._models, self._most_bytes, self._collect, self._told = kept, models, most_bytes, collect, told
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._change = threading.Lock()

    def go_on(self, folders: Sequence[str]) -> None:
        """Watches what was watched when the page ended, if it still may: see `checked`.

        Args:
          folders: below which files may be read, from now on.
        """
        self._folders = folders
        before = self._kept.setting(_SETTING)
        if not before:
            return
        asked = Asked(**before)
        try:
            if asked.kind != CAMERA:
                places.allowed(asked.place, folders)
        except NoPlaceError as error:
            self.asked = asked
            self._say(FAILED, "event_lost", error)
        else:
            self._start(asked)

    def begin(self, asked: Asked) -> None:
        """Watches this instead of what was watched; see `checked`."""
        with self._change:
            self.close()
            self._kept.put(_SETTING, dataclasses.asdict(asked))
            self._kept.add_event("event_begun", place=asked.shown, who=asked.who)
            self._start(asked)

    def stop(self, who: str) -> None:
        """Watches nothing any more, also not after a restart."""
        with self._change:
            if self.asked is not None and self.state != STOPPED:
                self._kept.add_event("event_stopped", place=self.asked.shown, who=who)
            self._kept.put(_SETTING, None)
            self.close()
            self.state = STOPPED

    def close(self) -> None:
        """Ends the thread; the part that is being judged is finished."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _start(self, asked: Asked) -> None:
        self.asked, self.state, self.reason, self.newest = asked, RUNS, "", ""
        self.judged = self.refused = self.missed = 0
        self.collects = asked.collect
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(asked,), name="source", daemon=True)
        self._thread.start()

    def _run(self, asked: Asked) -> None:
        watch = {FOLDER: self._folder, CAMERA: self._camera, FILM: self._film}[asked.kind]
        failures = 0
        try:
            while not self._end.is_set():
                begun = time.monotonic()
                try:
                    for judged in watch(asked):
                        if self._end.is_set():
                            return
                        if failures and judged is not None:
                            failures = 0
                            self._say(RUNS, "event_back")
                    if not self._end.is_set():
                        self._say(ENDED, "event_ended")
                        self._kept.put(_SETTING, None)
                    return
                # The line goes on while a camera is away, a disk is full or a model is being replaced.
                except (UserError, OSError, sqlite3.OperationalError) as error:
                    failures += 1
                    if failures == 1:
                        self._say(LOST, "event_lost", error)
                    # What was waited for a picture is part of the pause.
                    pause = places.pause(_PAUSE, failures, _LONGEST_PAUSE) - (time.monotonic() - begun)
                    self._end.wait(max(_PAUSE, pause))
        except Exception as error:
            traceback.print_exc()
            self.state, self.reason = FAILED, f"{type(error).__name__}: {error}"

    def _say(self, state: str, what: str, error: Exception | None = None) -> None:
        reason = self._told(error) if error else ""
        self.state, self.reason = state, reason
        place = self.asked.shown if self.asked else ""
        print(f"{place}: {what.removeprefix('event_')} {reason}".rstrip(), flush=True)
        # What cannot be written down now was printed.
        try:
            self._kept.add_event(what, place=place, reason=reason)
        except sqlite3.OperationalError as full:
            print(f"{self._kept.folder}: {full}", flush=True)

    def _known(self, source: str) -> set[str]:
        return {row["name"] for row in self._kept.ask("SELECT name FROM parts WHERE source = ?", (source,))}

    def _folder(self, asked: Asked) -> Iterator[bool | None]:
        source, known = asked.name, self._known(asked.name)
        box = DropBox(asked.place, lambda file: os.path.relpath(file, asked.place))
        while True:
            if not os.path.isdir(asked.place):
                raise LostError("no_folder")
            for file in box.look(known):
                content, name = self._read(file), os.path.relpath(file, asked.place)
                # A file that is still written is looked at again.
                if not box.settled(file, isinstance(content, bytes)):
                    continue
                try:
                    if self._judge(asked, source, name, content, lambda file=file: box.settled(file, False)):
                        known.add(name)
                except BaseException:
                    box.again([file])
                    raise
                yield True
            # Without anything that waits the folder is there all the same.
            yield True if self.state == LOST and not box.waits else None
            if self._end.wait(_PAUSE):
                return

    def _read(self, file: str) -> bytes | str | NoPlaceError:
        """A file's content, or why it is not read: a link may lead out of what may be read."""
        try:
            return read_image_file(places.allowed(file, self._folders))
        except NoPlaceError as error:
            return error

    def _film(self, asked: Asked) -> Iterator[bool | None]:
        source = asked.name
        known = self._known(source)
        for name, content in camera.film(asked.place, camera.Chooser(asked.take), known, self._end.is_set):
            self._judge(asked, source, name, content)
            known.add(name)
            yield True

    def _camera(self, asked: Asked) -> Iterator[bool | None]:
        stream = camera.Stream(asked.place, camera.Chooser(asked.take, self._last(asked)))
        before = self.missed
        try:
            while True:
                found = stream.next(_PAUSE)
                self.missed = before + stream.missed
                try:
                    if found is not None:
                        self._judge(asked, asked.name, *found)
                except BaseException:
                    # They were in view while a disk was full, or a model was away.
                    before += 1 + stream.waiting
                    self.missed = before + stream.missed
                    raise
                # That it is there again is known before a part comes.
                yield True if stream.seen else None
        finally:
            stream.close()

    def _last(self, asked: Asked) -> Any:
        """The picture that was judged last of a camera: what stands there still is no new part."""
        query = "SELECT file FROM parts JOIN images USING (sha256) WHERE source = ? ORDER BY parts.id DESC LIMIT 1"
        last = self._kept.ask(query, (asked.name,))
        return camera.read(self._kept.folder / last[0]["file"]) if last and asked.take == camera.STILL else None

    def _judge(
        self,
        asked: Asked,
        source: str,
        name: str,
        content: bytes | str | NoPlaceError,
        is_final: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Judges and logs a part; returns whether it is logged: a refusal may not be the last word on a file."""
        exports = self._models.there()
        if exports and self.collects:
            # From its first model on a line is judged, also when that model is away for a while.
            self.collects = False
            self._kept.put(_SETTING, dataclasses.asdict(dataclasses.replace(asked, collect=False)))
        if not (exports or self.collects):
            raise NoPlaceError("no_model")
        try:
            if isinstance(content, NoPlaceError):
                raise RefusedError(name, str(content), **content.values)
            if isinstance(content, str):
                raise RefusedError(name, "unreadable", reason=content)
            file = io.BytesIO(content)
            digest, _ = judging.take(self._kept, self._models, exports, file, name, self._most_bytes)
        except RefusedError as error:
            if not is_final():
                return False
            self._kept.add_part(source, name, "", self._told(error))
            self.refused += 1
            return True
        if self.collects:
            self._collect(digest, asked.who)
        self._kept.add_part(source, name, digest)
        self.newest = digest
        self.judged += 1
        return True
