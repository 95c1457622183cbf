"""Writes that are whole or not there at all, also when the process is killed in the middle."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mvtec_tf.errors import UserError

# TensorFlow takes a checkpoint's path for a pattern: in a folder `a[1]` it is not found, nor in one with a backslash.
PATTERN = re.compile(r"[][\\*?]")
PathLike = str | os.PathLike[str]
# As a folder of SavedModels names them.
_VERSION = re.compile("0|[1-9][0-9]*", re.ASCII)
_SPEAK_EVERY_SECONDS = 10
# Of a name to which some bytes are added; file systems take 255.
_LONGEST = 200
_DIGESTS: dict[tuple[str | int, ...], str] = {}


def check_text(path: PathLike, what: str) -> None:
    """Raises UserError if a path is not UTF-8: TensorFlow writes no model there, which would show after the training.

    Args:
      path: of a folder that TensorFlow will write into.
      what: who gave it, the beginning of the message.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        named = whole.encode("utf-8", "backslashreplace").decode()
        raise UserError(f"{what}{named}: this name is not UTF-8. Name another folder, or rename this one.") from error


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on success it is moved there in one step.

    The temporary name keeps the suffixes of `path` (writers such as Keras and matplotlib look
    at them) and starts with a dot, so that no reader takes a half-written file for a whole one.
    On any exception the temporary file is removed and `path` is left as it was.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same process number may be another process on another machine.
    temporary = path.with_name(f".{os.getpid()}{secrets.randbelow(10**9):09d}.partial.{_tail(path.name)}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _tail(name: str) -> str:
    """A name to which something can be added, for file systems that take 255 bytes; its suffixes are kept."""
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST:
        return name
    return f"{hashlib.sha256(whole).hexdigest()[:16]}.{whole[-_LONGEST // 2 :].decode('utf-8', 'ignore')}"


@contextlib.contextmanager
def new_directory(path: PathLike, durable: bool = False) -> Iterator[pathlib.Path]:
    """Yields an empty temporary directory beside `path`; on success it becomes `path`.

    Args:
      path: the directory.
      durable: whether it is waited until it would outlive a power failure, which takes a busy disk some time.

    Raises:
      FileExistsError: `path` exists; a directory that others may be reading is never replaced.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.partial.", dir=path.parent))
    try:
        yield temporary
        # mkdtemp makes the directory private to this user; a server often runs as another one.
        temporary.chmod(0o755)
        if durable:
            for item in (*temporary.rglob("*"), temporary):
                to_the_disk(item)
        os.rename(temporary, path)
        if durable:
            to_the_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_partial(folder: PathLike) -> None:
    """Removes what processes that were killed within `replacing` or `new_directory` have left below a folder, which
    nobody else may be writing."""
    for leftover in pathlib.Path(folder).rglob(".*partial*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def to_the_disk(path: pathlib.Path) -> None:
    """Waits until a file's contents, or a folder's names, would outlive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot be asked for this.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone_in(folder: PathLike) -> Iterator[None]:
    """Waits until no other process is in such a block with this folder, which is made if it is missing.

    For who reads a file, changes it and writes it back: what another one writes meanwhile would be lost. A folder that
    was made for nothing, since the block ended in an error, is taken away.
    """
    made = not os.path.exists(folder)
    handle = _locked(folder)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if made:
                os.rmdir(folder)
        raise
    finally:
        os.close(handle)


def _locked(folder: PathLike) -> int:
    """A handle of a folder that this process has alone; who had it before may have taken it away."""
    while True:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                return handle
        os.close(handle)


def sha256(path: PathLike) -> str:
    """SHA-256 (hex) of a file's contents, read once for as long as the process lives and the file is as it was.

    Raises:
      UserError: the file is gone or cannot be read.
    """
    try:
        found = os.stat(path)
        # The time of change (ctime) too: the time of modification can be set back.
        key = (os.fspath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if key not in _DIGESTS:
            with open(path, "rb") as file:
                _DIGESTS[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: cannot be read ({error.strerror}). Is it still there?") from error
    return _DIGESTS[key]


def versions(model: PathLike) -> list[int]:
    """The whole versions in a model's folder, ascending; none of what is no folder, or of a number written as `01`."""
    model = pathlib.Path(model)
    if not model.is_dir():
        return []
    return sorted(int(child.name) for child in model.iterdir() if _VERSION.fullmatch(child.name) and child.is_dir())


def read_json(file: PathLike, missing: str = "", advice: str = "") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
      file: to read.
      missing: what to say where there is no such file, if not that it cannot be read.
      advice: what to do about a file that cannot be read, a sentence.

    Raises:
      UserError: it cannot be read, or is none.
    """
    try:
        found = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # What was named as a folder may be a file.
        if missing and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise UserError(missing) from error
        raise UserError(f"{file}: not readable as JSON ({error}). {advice}".rstrip()) from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(found).__name__}.")
    return found


def csv_text(columns: Sequence[str] | None, rows: Iterable[Iterable[Any]]) -> str:
    """The text of a CSV file: a header, unless `columns` is None, and a line for each row; None is an empty cell."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    if columns is not None:
        writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: PathLike, text: str) -> None:
    """Writes `text` as UTF-8, all or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_csv(path: PathLike, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table in CSV, all or nothing, see `csv_text`."""
    write_text(path, csv_text(columns, rows))


def write_json(path: PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, all or nothing. NaN is an error: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def speaker() -> Callable[[str], None]:
    """Prints what it is told of a long work's progress, but not more often than every ten seconds."""
    spoke = time.monotonic()

    def speak(text: str) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > _SPEAK_EVERY_SECONDS:
            print(text, flush=True)
            spoke = time.monotonic()

    return speak
