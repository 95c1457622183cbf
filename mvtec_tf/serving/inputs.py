"""The image files that a command line names: files, folders, patterns, lists."""

import contextlib
import glob
import os
import pathlib
import sys
from collections.abc import Callable, Iterable

from mvtec_tf.data import csv_table, masks, walk
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
            names = sorted(glob.glob(_pattern(path), recursive=True)) or names
        for name in names:
            found.update(dict.fromkeys(_below(name, say) if os.path.isdir(name) else [name]))
    if called := masks.beside_images(found):
        say(f"{len(called)} of the files are called as masks. {as_photograph(*called[0])}")
    return list(found)


def _pattern(path: str) -> str:
    """The pattern that a path is, in which folders that are there stand for themselves, whatever their names."""
    steps = path.split(os.sep)
    there = next((end for end in range(len(steps) - 1, 0, -1) if os.path.isdir(os.sep.join(steps[:end]))), 0)
    return os.sep.join([*map(glob.escape, steps[:there]), *steps[there:]])


def as_photograph(mask: str, image: str) -> str:
    """What to tell a person of a file that is called as the mask of an image beside it."""
    return f"{mask}: called as a mask of {image} beside it, and judged as a photograph. Leave masks out."


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
    """Paths, one a line, or in the column `path` of a CSV table; `-` reads them from standard input.

    Those of lines are relative to the current folder or else to the list's, those of a table to the list's. Lines may
    end as in Windows, be quoted, have backslashes, or come as `find -print0` writes them; a text is UTF-8, UTF-16 or,
    where that is what the names on the disk need, of any encoding. What is not there is kept as it was written.

    Raises:
      UserError: no such file, or it is no list.
    """
    try:
        content = sys.stdin.buffer.read() if file == "-" else pathlib.Path(file).read_bytes()
    except OSError as error:
        raise UserError(
            f"`list`={file}: cannot be read ({error.strerror}). Expected a file with one path a line."
        ) from error
    source, folder = f"`list`={file}", os.path.dirname(file)
    separator, text = csv_table.split_separator(csv_table.decode(content, source, lines_of_bytes=True))
    ends = next((end for end in ("\0", "\n", "\r") if end in text), "\n")
    lines = [line.removesuffix("\r") for line in text.split(ends) if line.strip()]
    if lines and "path" in csv_table.header_names(lines[0], separator):
        rows = csv_table.CsvTable(pathlib.Path(source), ("path",), content=content)
        return _located([[row["path"]] for _, row in rows if row["path"]], [folder])
    cells = (line.split(separator)[0] if separator else line for line in lines)
    return _located(map(_spellings, cells), ["", folder])


def _spellings(line: str) -> list[str]:
    """What a line may mean, the likeliest first."""
    found = [line, line.strip().strip('"')]
    if not line.isascii():
        with contextlib.suppress(UnicodeDecodeError):
            found.append(os.fsencode(found[1]).decode("cp1252"))
    return found


def _located(written: Iterable[list[str]], folders: list[str]) -> list[str]:
    """The paths of what is there; what is not as it was written."""
    places = {folder: csv_table.Places(folder or os.curdir) for folder in folders}
    return [_one_located(spellings, places) for spellings in written]


def _one_located(spellings: list[str], places: dict[str, csv_table.Places]) -> str:
    for folder in places:
        for spelling in spellings:
            # A name on this machine may hold a backslash; only if none does was the list made on Windows.
            for path in (os.path.join(folder, spelling), os.path.join(folder, spelling.replace("\\", "/"))):
                if os.path.lexists(path):
                    return path.removeprefix("./")
    for folder, place in places.items():
        for spelling in spellings:
            if found := place.find(spelling):
                return os.path.join(folder, os.path.relpath(found, folder or os.curdir))
    return os.path.join(next(iter(places)), spellings[0])
