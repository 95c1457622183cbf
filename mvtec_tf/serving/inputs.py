"""The image files that a command line names: files, folders, patterns, lists."""

import glob
import os
import pathlib
import sys
from collections.abc import Callable, Iterable

from mvtec_tf.data import walk
from mvtec_tf.errors import UserError

_MAGIC = frozenset("*?[")


def expand(paths: Iterable[str], say: Callable[[str], None] = lambda sentence: None) -> list[str]:
    """The image files of all paths, each once, in the order of the paths and by name below each.

    A file is taken whatever its name; what does not exist is kept, to be listed as one that cannot be judged.
    Below a folder the images by their names' endings are taken, links are followed, and what other programs leave
    there and folders of masks beside the images are not looked at (`data/walk.py`). A pattern that fits nothing is
    kept like a missing file.

    Args:
      paths: files, folders and patterns.
      say: called with a sentence for everything that is left out.
    """
    found: dict[str, None] = {}
    for path in paths:
        names = [path]
        if not os.path.lexists(path) and _MAGIC & set(path):
            names = sorted(glob.glob(path, recursive=True)) or names
        for name in names:
            found.update(dict.fromkeys(_below(name, say) if os.path.isdir(name) else [name]))
    return list(found)


def candidates(walked: walk.Walk) -> list[str]:
    """The files of a folder that are to be judged, by name; also links that lead nowhere."""
    return sorted([*walked.images, *filter(walk.is_image, walked.dangling + walked.strange)])


def _below(folder: str, say: Callable[[str], None]) -> list[str]:
    walked = walk.walk(folder)
    for note in walked.notes():
        say(note)
    # A folder that cannot be read is listed, so that a table says what it lacks.
    return candidates(walked) + [path for path, _ in walked.unreadable]


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
