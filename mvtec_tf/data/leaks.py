"""The leak check: nothing that is evaluated may have been seen before, by name or by object."""

import dataclasses
import posixpath
from collections.abc import Iterable, Sequence
from typing import Protocol

from mvtec_tf.errors import LeakError

PRETRAIN = "pretrain"
FIT = "fit"
CALIBRATE = "calibrate"
EVALUATE = "evaluate"
SPLITS = (PRETRAIN, FIT, CALIBRATE, EVALUATE)

# So many leaks are listed one by one; more of them drown the message they are meant to carry.
_LISTED = 10


class ImageUse(Protocol):
    """One use of one image: any object with these attributes can be checked.

    `group` is the physical object on the image; "" says that the image shows one of its own.
    """

    @property
    def path(self) -> str: ...  # noqa: D102

    @property
    def group(self) -> str: ...  # noqa: D102

    @property
    def category(self) -> str: ...  # noqa: D102

    @property
    def split(self) -> str: ...  # noqa: D102


def same_file_key(path: str) -> str:
    """One key for all spellings of one relative path: `./a/b.png`, `a//b.png` and `a\\b.png`."""
    path = path.replace("\\", "/")
    # Nearly all paths are in their shortest spelling already, and tables have very many of them.
    if path and "//" not in path and "/." not in path and path[0] not in "./" and path[-1] != "/":
        return path
    return posixpath.normpath(path)


@dataclasses.dataclass(frozen=True)
class Leak:
    """An evaluated image that was seen before.

    Attributes:
      path: the image.
      splits: the other splits that it is in, in the order of `SPLITS`.
      same_object: if it is in none of them: in words, which other image of its object is.
    """

    path: str
    splits: tuple[str, ...]
    same_object: str = ""

    def __str__(self) -> str:
        """What is wrong with the image, in words."""
        return f"{self.path} is also in {' and '.join(self.splits)}" if self.splits else self.same_object


def check_leaks(rows: Iterable[ImageUse], source: str = "the splits") -> None:
    """Raises if an evaluated image, or another image of its object, is in another split too.

    Args:
      rows: uses of images.
      source: file or flag that the rows came from, the beginning of the message.

    Raises:
      LeakError: names the evaluated images (all, or the first ten and how many there are) and
        the split in which each was seen.
      ValueError: a split is none of `SPLITS`.
    """
    if leaks := find_leaks(rows, source):
        raise LeakError(_message(leaks, source))


def find_leaks(rows: Iterable[ImageUse], source: str = "the splits") -> list[Leak]:
    """The evaluated images that are in another split too, or another image of their object is; in their order.

    The same image in two of the other splits is no leak: an out-of-fold score makes one image
    both `fit` and `calibrate`. Time and memory are linear in the number of rows.

    Args:
      rows: uses of images. Groups are compared within a category only.
      source: file or flag that the rows came from, for the error.

    Raises:
      ValueError: a split is none of `SPLITS`.
    """
    rows = list(rows)
    unknown = {row.split for row in rows} - set(SPLITS)
    if unknown:
        raise ValueError(f"{source}: expected the splits {SPLITS}. Received: {sorted(unknown)}")
    evaluated = [row for row in rows if row.split == EVALUATE]
    paths = {same_file_key(row.path) for row in evaluated}
    groups = {_object(row) for row in evaluated}
    # Only rows that collide are kept: in the usual case, none.
    seen_paths: dict[str, set[str]] = {}
    seen_groups: dict[tuple[str, str], ImageUse] = {}
    for row in rows:
        if row.split == EVALUATE:
            continue
        if (key := same_file_key(row.path)) in paths:
            seen_paths.setdefault(key, set()).add(row.split)
        if (key := _object(row)) in groups:
            seen_groups.setdefault(key, row)
    return [leak for row in evaluated if (leak := _leak(row, seen_paths, seen_groups))]


def _object(row: ImageUse) -> tuple[str, str]:
    """(category, group). A group is often named by one of its images, so both share one space of keys."""
    return row.category, same_file_key(row.group or row.path)


def _leak(row: ImageUse, seen_paths: dict[str, set[str]], seen_groups: dict[tuple[str, str], ImageUse]) -> Leak | None:
    """What is wrong with an evaluated row, None if nothing is."""
    if splits := seen_paths.get(same_file_key(row.path)):
        return Leak(row.path, tuple(sorted(splits, key=SPLITS.index)))
    if other := seen_groups.get(_object(row)):
        text = f"{row.path} shows the same object (group {row.group or row.path!r}) as {other.path} in {other.split}"
        return Leak(row.path, (), text)
    return None


def _message(leaks: Sequence[Leak], source: str) -> str:
    lines = [f"{source}: leak: {len(leaks)} evaluated image(s) were seen before, so their scores prove nothing:"]
    lines += [f"  {leak}" for leak in leaks[:_LISTED]]
    if len(leaks) > _LISTED:
        lines.append(f"  ... and {len(leaks) - _LISTED} more.")
    lines.append("Keep each image, and all images of one object, either in evaluate or in the other splits.")
    return "\n".join(lines)
