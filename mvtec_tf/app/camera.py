"""Pictures of a camera by its address, or of a film: read by OpenCV, and which of them show a new part."""

import collections
import contextlib
import importlib.util
import os
import socket
import stat
import threading
import time
import urllib.parse
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np

from mvtec_tf.app import store
from mvtec_tf.app.wording import WordedError

# A camera that triggers sends a picture for each part; one that only films shows a part while nothing moves.
EACH, STILL = "each", "still"
SCHEMES = ("http", "https", "rtsp", "rtsps")
_PROTOCOLS = "http,https,tcp,tls,udp,rtp,rtsp,rtsps,crypto"
# Without a picture: a camera that films is lost, of one that triggers the line may stand.
_PATIENCE_MS = {STILL: 5000, EACH: 30_000}
# A connection may lead elsewhere than to the address; then a read that waits for it cannot be broken off.
_LEAVE = 1.0
_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
# Pictures that wait while another one is judged; of more the oldest are left out, counted.
_WAITING = 8
# Sides of the grey picture by which movement is seen, and the levels of 255 by which a cell of it then changes.
_SIDE, _MOVED = 32, 6.0
# So many pictures without movement are a part that stands still.
_LOOKS = 3


class LostError(WordedError):
    """A source that gives nothing now and may again."""


def is_there() -> bool:
    """Whether OpenCV is installed."""
    return importlib.util.find_spec("cv2") is not None


class Chooser:
    """Says of the pictures of a source, one after the other, which is to be judged.

    Args:
      take: `EACH` or `STILL`.
      last: the picture that was judged last, uint8 [H, W, 3]: it is no new part as long as nothing has moved.
    """

    def __init__(self, take: str, last: np.ndarray | None = None) -> None:
        self.take = take
        self._before = None if last is None else _small(last)
        # Whatever is in view at the beginning is a part.
        self._moved, self._looks = last is None, 0

    def __call__(self, picture: np.ndarray) -> bool:
        """Whether this picture, uint8 [H, W, 3], shows a new part."""
        if self.take != STILL:
            return True
        small = _small(picture)
        # A lamp that flickers or dims moves nothing.
        if self._before is not None and np.abs(small - self._before).max() > _MOVED:
            self._moved, self._looks = True, 0
        self._before = small
        self._looks += 1
        if not self._moved or self._looks < _LOOKS:
            return False
        self._moved = False
        return True


def _small(picture: np.ndarray) -> np.ndarray:
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small - small.mean()


def encoded(picture: np.ndarray) -> bytes:
    """A picture as a PNG file, which loses nothing."""
    import cv2

    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def read(file: os.PathLike) -> np.ndarray | None:
    """A picture that was kept, uint8 [H, W, 3]; None if there is none."""
    import cv2

    return cv2.imread(os.fspath(file), cv2.IMREAD_COLOR)


def _opened(place: str, protocols: str, patience_ms: int) -> Any:
    """A capture of OpenCV. Raises LostError: there is nothing, or nothing that it can read, within so long."""
    # What the libraries print names the address, password and all.
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience_ms]
    # Each further one holds a picture back until the next has come.
    limits += [cv2.CAP_PROP_N_THREADS, 1]
    # A playlist of another host leads to no file of this machine. Of UDP a lost packet would be a smear on a part.
    options = f"protocol_whitelist;{protocols}|rtsp_flags;prefer_tcp|fpsprobesize;0"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options
    capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        capture.release()
        raise LostError("no_pictures")
    return capture


def film(place: str, choose: Chooser, known: Container[str], ends: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
    """The parts of a film, (number of the picture, PNG) each, but not those that are known.

    Raises:
      LostError: it cannot be read.
    """
    capture = _opened(place, "file", _PATIENCE_MS[STILL])
    try:
        number = 0
        while not ends():
            there, picture = capture.read()
            if not there:
                return
            number += 1
            name = f"{number:06d}"
            if choose(picture) and name not in known:
                yield name, encoded(picture)
    finally:
        capture.release()


def _addresses(place: str) -> set[tuple[str, int]]:
    """Where a camera's connections lead to, (IP address, port) each."""
    given = urllib.parse.urlsplit(place)
    try:
        found = socket.getaddrinfo(given.hostname, given.port or _PORTS[given.scheme], type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {address[:2] for *_, address in found}


def _hang_up(addresses: Container[tuple[str, int]]) -> None:
    """Ends this process' connections to these addresses: FFmpeg has no call that ends a read which waits for one."""
    for number in map(int, os.listdir("/dev/fd")):
        # Some are closed by now, as that of the listing is, and some not connected.
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as one:
                if one.getpeername()[:2] in addresses:
                    one.shutdown(socket.SHUT_RDWR)


class Stream:
    """A camera that is read without a pause, so that the newest picture is never an old one.

    Args:
      address: of it, see `SCHEMES`.
      choose: which pictures are parts.

    Attributes:
      seen: pictures that came.
      missed: parts of these that came too fast to be judged.
    """

    def __init__(self, address: str, choose: Chooser) -> None:
        self.seen = self.missed = 0
        self._choose = choose
        self._waiting: collections.deque[tuple[str, np.ndarray]] = collections.deque()
        self._come, self._lost, self._ends = threading.Condition(), False, False
        self._addresses: set[tuple[str, int]] = set()
        given = address, _PATIENCE_MS[choose.take]
        self._reader = threading.Thread(target=self._read, args=given, name="camera", daemon=True)
        self._reader.start()

    def _read(self, address: str, patience_ms: int) -> None:
        try:
            self._addresses = _addresses(address)
            capture = _opened(address, _PROTOCOLS, patience_ms)
            there = True
            while there and not self._ends:
                there, picture = capture.read()
                with self._come:
                    self.seen += there
                    if there and self._choose(picture):
                        # Two may come in one moment.
                        self._waiting.append((f"{store.now()} {self.seen}", picture))
                        if len(self._waiting) > _WAITING:
                            self._waiting.popleft()
                            self.missed += 1
                    self._come.notify()
            capture.release()
        except LostError:
            pass  # as one that gives no more
        finally:
            with self._come:
                self._lost = True
                self._come.notify()

    @property
    def waiting(self) -> int:
        """How many parts wait to be judged."""
        return len(self._waiting)

    def next(self, seconds: float) -> tuple[str, bytes] | None:
        """The oldest part that waits, (moment and number of its picture, PNG); None: none came within so many seconds.

        Raises:
          LostError: none waits, and the camera gives no more.
        """
        with self._come:
            end = time.monotonic() + seconds
            while not self._waiting and not self._lost and time.monotonic() < end:
                self._come.wait(end - time.monotonic())
            if self._waiting:
                name, picture = self._waiting.popleft()
                return name, encoded(picture)
            if self._lost:
                raise LostError("no_pictures")
        return None

    def close(self) -> None:
        """Ends it and its connection, whatever it waits for."""
        self._ends = True
        _hang_up(self._addresses)
        self._reader.join(_LEAVE)
