"""A camera's drop box: each file that comes into a folder is judged once, also across restarts.

What has been judged stands in the journal and nowhere else. A file is read when its size and time of change are the
same at two looks in a row and still after it was read; a camera that writes elsewhere and moves the whole file in, or
writes to a name that starts with a dot, needs no such luck. Nothing that one file, a server or a disk does for a while
ends the watch: the file gets a row with the reason, the others wait.
"""

import dataclasses
import os
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from mvtec_tf.data import masks, walk
from mvtec_tf.errors import UserError
from mvtec_tf.serving.client import UnavailableError
from mvtec_tf.serving.inputs import as_photograph, candidates
from mvtec_tf.serving.journal import Journal

# A file that cannot be decoded may be one whose writer has paused: it is called bad after so many looks without change.
PATIENCE = 10
# While a server is away, the pauses between two tries grow to so many looks.
_LONGEST_PAUSE = 64


@dataclasses.dataclass
class _Candidate:
    """A file that has not been judged.

    Attributes:
      state: see `_state`.
      looks: how often it has been the same since.
    """

    state: tuple[int, int, int]
    looks: int = 0


class DropBox:
    """The files of a folder that are to be judged.

    Args:
      folder: also with folders in it.
      name: of a file in the journal.
      patience: looks without change after which an unreadable file is called bad.
    """

    def __init__(self, folder: str, name: Callable[[str], str], patience: int = PATIENCE) -> None:
        self._folder = folder
        self._name = name
        self._patience = patience
        self._candidates: dict[str, _Candidate] = {}
        self._said: set[str] = set()

    @property
    def waits(self) -> bool:
        """Whether a file was there at the last look that is not judged."""
        return bool(self._candidates)

    def look(self, judged: Container[str]) -> list[str]:
        """Looks once; returns the files that have not changed since the look before, by name.

        Args:
          judged: names in the journal.
        """
        walked = walk.walk(self._folder)
        self._say_once(walked.notes(counted=False))
        seen = {file for file in candidates(walked) if self._name(file) not in judged}
        for gone in self._candidates.keys() - seen:
            del self._candidates[gone]
        called = masks.beside_images(seen - self._candidates.keys(), walked.images)
        self._say_once(as_photograph(*pair) for pair in called)
        ready = []
        for file in sorted(seen):
            state = _state(file)
            candidate = self._candidates.get(file)
            if candidate is None or candidate.state != state:
                self._candidates[file] = _Candidate(state)
                continue
            candidate.looks += 1
            # An unreadable file is read again only when its patience is at an end, or it has changed.
            if candidate.looks in (1, self._patience):
                ready.append(file)
        return ready

    def _say_once(self, sentences: Iterable[str]) -> None:
        # At every look the same is left out.
        for sentence in sentences:
            if sentence not in self._said:
                self._said.add(sentence)
                print(sentence, flush=True)

    def again(self, files: Iterable[str]) -> None:
        """Has these files judged at the next look, if they are still the same."""
        for file in files:
            self._candidates[file].looks = 0

    def settled(self, file: str, readable: bool) -> bool:
        """Whether a verdict counts: the file has not changed meanwhile, and if it is unreadable, for long."""
        candidate = self._candidates[file]
        if _state(file) != candidate.state:
            candidate.looks = 0
            return False
        return readable or candidate.looks >= self._patience


def watch(
    box: DropBox,
    judge: Callable[[list[str]], list[dict[str, Any]]],
    journal: Journal,
    batch_size: int,
    pause: Callable[[], bool],
    note: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> None:
    """Judges what comes until `pause` says to stop.

    Args:
      box: the folder.
      judge: files -> one row each.
      journal: what has been judged; takes the rows.
      batch_size: files in one request.
      pause: waits until the next look; False: stop.
      note: is told the rows that are in the journal.
    """
    trouble = _Trouble()
    while trouble.wait(pause):
        ready = box.look(journal.names)
        for start in range(0, len(ready), batch_size):
            files = ready[start : start + batch_size]
            try:
                settled = _judged(box, judge, journal, files)
            except (UserError, OSError) as error:
                # The files stay where they are; a line does not stop because a server is restarted or a disk is full.
                trouble.note(error)
                box.again(ready[start:])
                break
            trouble.over()
            for row in settled:
                print(": ".join(filter(None, (row["path"], row["verdict"], row["error"]))), flush=True)
            note(settled)


def _judged(
    box: DropBox, judge: Callable[[list[str]], list[dict[str, Any]]], journal: Journal, files: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of the files whose verdicts count, when they are in the journal."""
    rows = judge(list(files))
    # A file that was judged is readable, whatever else went wrong with it.
    readable = [bool(row["verdict"]) for row in rows]
    settled = [row for file, row, good in zip(files, rows, readable, strict=True) if box.settled(file, good)]
    journal.append(settled)
    return settled


class _Trouble:
    """What keeps the watch from judging for a while: it is said once, and the tries become rarer."""

    def __init__(self) -> None:
        self._failures = 0
        self._answered = False

    def note(self, error: Exception) -> None:
        """Remembers a failure; raises it if it can only mean wrong use: nothing has been judged before."""
        if not (self._answered or isinstance(error, UnavailableError)):
            raise error
        self._failures += 1
        if self._failures == 1:
            print(f"{error} Trying again, with growing pauses.", flush=True)

    def over(self) -> None:
        """Remembers that files were judged."""
        if self._failures:
            print("Judging goes on.", flush=True)
        self._failures, self._answered = 0, True

    def wait(self, pause: Callable[[], bool]) -> bool:
        """Waits until the next try; False: stop."""
        looks = min(2 ** max(self._failures - 1, 0), _LONGEST_PAUSE)
        return all(pause() for _ in range(looks))


def _state(file: str) -> tuple[int, int, int]:
    """A file's size, time of change and inode; (-1, number of the error, 0) where they cannot be had."""
    try:
        facts = os.stat(file)
    except OSError as error:
        return -1, error.errno or 0, 0
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
