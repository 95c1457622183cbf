"""Which folder is a category, and what its parts are for: `train`, `test`, `good`, `defective`, whatever their names.

A part may be spelt in any case, and good and defective by the words that are common on a line (OK and NG, pass and
fail). Whatever stands under another name than that of docs/your-data.md is taken with a word, never in silence.
"""

import os

from mvtec_tf.data import walk, words
from mvtec_tf.data.record import DEFECTIVE, GOOD, MASKS, SPLITS, TEST, TRAIN
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike

MVTEC, PLAIN = "MVTec layout", "plain layout"
# A photograph's category is no further up: CATEGORY/test/DEFECT/IMAGE, CATEGORY/good/SHIFT/IMAGE.
_DEEPEST = 6


def parts(folder: PathLike) -> dict[str, list[str]]:
    """What the folders in a folder are for: part -> their names; those that are no part are left out."""
    found: dict[str, list[str]] = {}
    for name in folder_names(folder):
        if part := words.part_of(name):
            found.setdefault(part, []).append(name)
    return found


def folder_names(folder: PathLike) -> list[str]:
    """The folders in a folder by name, without what other programs left there."""
    try:
        with os.scandir(folder) as children:
            folders = [child.name for child in children if walk.kind(child) == "folder"]
    except OSError:  # no folder, or one that may not be read
        return []
    return sorted(name for name in folders if not walk.is_clutter(name))


def kinds(folder: PathLike) -> tuple[str, ...]:
    """The layouts that a folder has: none, one, or by mistake both.

    `good` or `defective` alone make a plain category; other words for them only together, since they are words for
    other things too.
    """
    found = parts(folder)
    names = {name.casefold() for part in (GOOD, DEFECTIVE) for name in found.get(part, ())}
    mvtec = (MVTEC,) if TRAIN in found or TEST in found else ()
    return (*mvtec, PLAIN) if names & {GOOD, DEFECTIVE} or {GOOD, DEFECTIVE} <= set(found) else mvtec


def category_of(folder: str) -> str:
    """The category folder that what lies in a folder belongs to, "" if to none.

    Args:
      folder: absolute.
    """
    steps = [*folder.split(os.sep), ""]
    for depth in range(1, min(_DEEPEST, len(steps) - 1) + 1):
        folder, part = os.sep.join(steps[:-depth]) or os.sep, words.part_of(steps[-depth])
        # A split of a category of the MVTec layout looks like a plain one.
        split = words.part_of(os.path.basename(folder)) in SPLITS
        if not split and _is_whole(folder, part):
            return folder
    return ""


def single(folder: PathLike, part: str, names: list[str]) -> str:
    """The one folder that is this part; the part's own name where there is none.

    Raises:
      UserError: there are several.
    """
    if len(names) > 1:
        raise UserError(
            f"{folder}: the folders {' and '.join(names)} both say {part!r}. Put their images into one, {part}/."
        )
    return names[0] if names else part


def _is_whole(folder: str, part: str) -> bool:
    """Whether a folder is a category beyond doubt, and `part` one of its own."""
    if part == MASKS:
        return _is_whole(folder, GOOD) or _is_whole(folder, TEST)
    if part in (GOOD, DEFECTIVE):
        return PLAIN in kinds(folder)
    if part in SPLITS:
        splits = [name for split in SPLITS for name in parts(folder).get(split, ())]
        return any(GOOD in parts(os.path.join(folder, split)) for split in splits)
    return False
