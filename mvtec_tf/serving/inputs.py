"""The image files that a command line names: files, folders, patterns, lists."""

import glob
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from mvtec_tf.data.records import IMAGE_SUFFIXES
from mvtec_tf.errors import UserError

_MAGIC = frozenset("*?[")


def expand(paths: Iterable[str]) -> list[str]:
    """The image files of all paths, each once, in the order of the paths and by name below each.

    A file is taken whatever its name; what does not exist is kept, to be listed as one that cannot be judged.
    Below a folder the images by their names' endings are taken, hidden files and the masks of the MVTec layout
    (`ground_truth` beside `test`) are not. A pattern that fits nothing is kept like a missing file.
    """
    found: dict[str, None] = {}
    for path in paths:
        names = [path]
        if not os.path.lexists(path) and _MAGIC & set(path):
            names = sorted(glob.glob(path, recursive=True)) or names
        for name in names:
            found.update(dict.fromkeys(below(name) if os.path.isdir(name) else [name]))
    return list(found)


def below(folder: str) -> Iterator[str]:
    """The image files below a folder, by name."""
    for parent, folders, files in os.walk(folder):
        masks = {"ground_truth"} if "test" in folders else set()
        folders[:] = sorted(name for name in folders if name not in masks and not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(tuple(IMAGE_SUFFIXES)):
                yield os.path.join(parent, name)


def read_list(file: str) -> list[str]:
    """Paths, one a line; `-` reads them from standard input.

    Raises:
      UserError: no such file.
    """
    try:
        content = sys.stdin.buffer.read() if file == "-" else pathlib.Path(file).read_bytes()
    except OSError as error:
        raise UserError(
            f"--list={file}: cannot be read ({error.strerror}). Expected a file with one path a line."
        ) from error
    return [os.fsdecode(line.rstrip(b"\r")) for line in content.split(b"\n") if line.strip()]
