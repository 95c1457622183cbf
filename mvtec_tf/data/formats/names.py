"""What a photograph is called in every table: the same name, whoever names it and wherever the list of it lies."""

import collections
import functools
import os
from collections.abc import Sequence

from mvtec_tf.data.formats import layout
from mvtec_tf.data.words import composed
from mvtec_tf.errors import UserError

# Outside of a category's folder, an image's own folder and its file name.
_SHORTEST = 2


def text(path: str) -> str:
    """A file's name as it is written into tables: macOS's two code points of an umlaut become one.

    Raises:
      UserError: the name is not UTF-8, so no table can hold it.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{printable(path)}: this name is not UTF-8, so no table can hold it. Rename it; of a whole folder, "
            "`convmv -f latin1 -t utf8 -r --notest FOLDER` renames all that are Latin-1."
        ) from error
    return composed(path)


def printable(path: str) -> str:
    """A file's name for a message: bytes that are not UTF-8 as `\\xf6`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def within_category(files: Sequence[str]) -> list[str]:
    """Names of the images of one category within it, which depend on their places only.

    Below a category's folder (`layout`) the name is relative to it, as it is if the folder itself is read. Elsewhere
    it is the image's own folder and file name, `monday/0001.png`. Of images whose names would be the same, each gets
    as many more of the folders above as it takes to tell them apart.

    Args:
      files: N absolute paths, all different.

    Returns:
      N names, all different, with "/".
    """
    steps = [file.strip(os.sep).split(os.sep) for file in files]
    category_of = functools.cache(layout.category_of)

    def depth(file: str) -> int:
        category = category_of(os.path.dirname(file))
        return len(os.path.relpath(file, category).split(os.sep)) if category else _SHORTEST

    depths = [min(depth(file), len(one)) for file, one in zip(files, steps, strict=True)]
    while True:
        found = ["/".join(one[-depth:]) for one, depth in zip(steps, depths, strict=True)]
        count = collections.Counter(found)
        grown = [
            min(depth + (count[name] > 1), len(one)) for name, one, depth in zip(found, steps, depths, strict=True)
        ]
        if grown == depths:
            return found
        depths = grown
