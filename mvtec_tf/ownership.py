"""One process at a time writes a folder; a second one learns at once who the first is."""

import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from typing import TextIO

from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Owned:
    """A folder that is this process' own until `release`, or until the process ends, however it ends.

    The kernel's lock (flock) on a file `.lock` says whether somebody owns it, the file's text who. So
    what a killed process leaves behind binds nobody.

    Args:
      folder: the folder; made if it is not there, and removed by `release` if it is still empty then.
      name: how the folder is called in a message, such as "`run_dir`".
      new: whether the folder comes to be in one step later, and is not made here; the lock lies beside it.

    Raises:
      UserError: another process owns it, or it cannot be written.
    """

    def __init__(self, folder: PathLike, name: str = "", new: bool = False) -> None:
        self.path = pathlib.Path(folder)
        self._place = self.path.with_name(f".{self.path.name}{LOCK_FILE}") if new else self.path / LOCK_FILE
        self._words = f"{name}={self.path}" if name else str(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self._words}: a file of this name is in the way. Choose another directory.")
        self._made = [path for path in self._place.parents if not path.exists()]
        self._file: TextIO | None = None
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._lock()
        except OSError as error:
            self.release()
            raise UserError(f"{self._words}: cannot be written ({error}). Choose another directory.") from error

    def __enter__(self) -> "Owned":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets others in."""
        self.release()

    def release(self) -> None:
        """Lets others in; a second call does nothing."""
        if self._file is not None:
            # Removed before it is unlocked: nobody locks a file that is on its way out, see `_lock`.
            self._place.unlink(missing_ok=True)
            self._file.close()
            self._file = None
        for path in self._made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        self._made = []

    def _lock(self) -> None:
        place = self._place
        while True:
            file = place.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._refuse(file, error)
                return
            # Its owner may have removed the file between the two calls: then this lock is on nothing.
            if place.exists() and os.path.samestat(os.fstat(file.fileno()), place.stat()):
                self._file = file
                file.truncate(0)
                since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
                file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
                file.flush()
                return
            file.close()

    def _refuse(self, file: TextIO, error: OSError) -> None:
        """Raises UserError if another process owns the folder; says so where the file system cannot tell."""
        if error.errno in _NO_LOCKS:
            print(f"Note: {self.path} lies where files cannot be locked; only one process may write there.", flush=True)
            self._file = file
            return
        if not isinstance(error, BlockingIOError):
            raise error
        file.seek(0)
        words = _owner(file.read())
        file.close()
        self._made = []
        raise UserError(
            f"{self._words}: {words}. Wait until it has ended or stop it, or choose another directory."
        ) from error


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
    except json.JSONDecodeError:  # it has just got the lock and not yet said who it is
        return "another process has just begun to write there"
    return f"process {owner['pid']} on {owner['host']} has been writing there since {owner['since']}"
