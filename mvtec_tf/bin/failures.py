"""What the machine refuses, in words: a full disk, a file too large, a folder that may not be written.

Python, h5py and TensorFlow report these in three ways, some without the file's name; all become
one message that names the flag and the folder. Whatever is none of these keeps its traceback.
"""

import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from absl import flags

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_TOO_LARGE = (errno.EFBIG,)
# A file where a folder should be is reported as ENOTDIR or EEXIST, depending on how deep below it one wants to go.
_NOT_ALLOWED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)
_KNOWN = _NO_ROOM + _TOO_LARGE + _NOT_ALLOWED
# Flags that say where results go, for errors that do not say which file they are about.
_OUTPUT_FLAGS = ("run_dir", "out", "cache", "saved_models")


def describe(error: BaseException, values: flags.FlagValues) -> str | None:
    """The message for an error of reading or writing files, None if it is another kind of error.

    Args:
      error: as it was raised; what it was raised from is looked at too.
      values: the flags of the program.
    """
    for one in _chain(error):
        number = _errno(one)
        if number is not None:
            return _message(number, _path(one), values)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # Closing a file that could not be written raises again, sometimes as another type.
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in _KNOWN:
        return error.errno
    kind = type(error).__module__
    if kind.startswith("tensorflow"):  # "FILE; File too large [Op:SaveV2]"
        return next((number for number in _KNOWN if f"; {os.strerror(number)}" in str(error)), None)
    if isinstance(error, (OSError, RuntimeError)):  # h5py: "... errno = 27, error message = ..."
        found = re.search(r"\berrno = (\d+)", str(error))
        return int(found[1]) if found and int(found[1]) in _KNOWN else None
    return None


def _path(error: BaseException) -> pathlib.Path | None:
    named = getattr(error, "filename", None)
    if not isinstance(named, (str, os.PathLike)):
        text = re.sub(r"\{\{.*?\}\}", "", str(error))  # TensorFlow puts the name of the operation before the file's
        found = re.search(r"filename = '([^']+)'", text) or re.match(r"(?:.*: )?(.+?); ", text.strip())
        named = found[1] if found else None
    return pathlib.Path(named) if named else None


def _message(number: int, path: pathlib.Path | None, values: flags.FlagValues) -> str:
    where = _flags_of(path, values) or _flags_for_output(values)
    reason = os.strerror(number)
    if number in _NOT_ALLOWED:
        about = f" {path} cannot be used" if path else " it cannot be used"
        return f"{_joined(where, path)}:{about} ({reason}). Name a place that you may read and write."
    folder = _existing_folder(path or (pathlib.Path(where[0].split("=", 1)[1]) if where else pathlib.Path()))
    done = "What was half-written is removed. The same command goes on where it stopped, if this job can resume."
    if number in _TOO_LARGE:
        what = f"a file in {folder} is larger than the system allows ({reason}; see ulimit -f)."
    else:
        free = shutil.disk_usage(folder).free / 2**20
        what = f"no room for a file in {folder} ({reason}; {free:,.0f} MiB are free). Make room."
    return f"{_joined(where, path)}: {what} {done}"


def _joined(where: list[str], path: pathlib.Path | None) -> str:
    return ", ".join(where) or str(path or "the current folder")


def _flags_of(path: pathlib.Path | None, values: flags.FlagValues) -> list[str]:
    """The flags, as they were given, whose value is `path` or a folder that it lies in; the deepest one."""
    if path is None:
        return []
    whole = pathlib.PurePath(os.path.abspath(path))
    found = []
    for name in values:
        given = values[name].value
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, str) and value and whole.is_relative_to(os.path.abspath(value)):
                found.append((len(os.path.abspath(value)), f"--{name}={value}"))
    return [max(found)[1]] if found else []


def _flags_for_output(values: flags.FlagValues) -> list[str]:
    given = ((name, values[name].value) for name in _OUTPUT_FLAGS if name in values)
    return [f"--{name}={value}" for name, value in given if value and value != "memory"]


def _existing_folder(path: pathlib.Path) -> pathlib.Path:
    # The folder that was being written may be removed by now.
    path = pathlib.Path(os.path.abspath(path))
    return next(parent for parent in (path, *path.parents) if parent.is_dir())
