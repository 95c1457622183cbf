"""SIGTERM and Ctrl-C: who is asked to end does so with what it has kept, and who is asked twice ends at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2


class Stopped(KeyboardInterrupt):
    """The end of a job that a signal asked for, as KeyboardInterrupt is the end by Ctrl-C.

    Args:
      number: the signal.
      kept: what was kept, one or more sentences; "": nothing more is known than that the signal came.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(kept)
        self.number = number


class Listener:
    """Hears the first SIGTERM or Ctrl-C within a `with` block; the next one ends the process, whatever it is doing.

    A signal that was ignored before (a shell's background jobs ignore Ctrl-C) stays ignored. Outside the main thread
    no signal is heard, because Python gives them to that one alone.

    Args:
      heard: called in the main thread with the number of the signal.

    Attributes:
      number: that of the signal; None: none has come.
    """

    def __init__(self, heard: Callable[[int], object]) -> None:
        self.number: int | None = None
        self._heard = heard
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Listener":
        """Itself, listening."""
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            # None: somebody's handler that is none of Python's, and could not be put back.
            self._before = {one: found for one, found in handlers.items() if found not in (signal.SIG_IGN, None)}
        self.listen()
        return self

    def listen(self) -> None:
        """Listens again after a signal."""
        for number in self._before:
            signal.signal(number, self._hear)

    def _hear(self, number: int, _: object) -> None:
        for one in self._before:
            signal.signal(one, signal.SIG_DFL)
        self.number = number
        self._heard(number)

    def __exit__(self, *_: object) -> None:
        """Whoever listened before does so again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def stop(number: int) -> NoReturn:
    """Raises Stopped, for a Listener."""
    raise Stopped(number)


@contextlib.contextmanager
def noted(answer: str) -> Iterator[Callable[[], int | None]]:
    """Yields a function that says which signal has come, for who can only end at certain points.

    Args:
      answer: what is said at once to who sent it.

    Raises:
      Stopped: at the end of the block, if a signal has come and nobody did anything about it.
    """

    def say(number: int) -> None:
        # Not `print`, which may be what the signal has come into.
        os.write(_STDERR, f"{signal.Signals(number).name}: {answer} A second signal ends at once.\n".encode())

    with Listener(say) as listener:
        yield lambda: listener.number
    if listener.number:
        stop(listener.number)
