"""The one way to look through a folder of photographs, for the scanner, `predict`, a watched folder and TFDS.

Symbolic links are followed, each folder is looked into once, and what other programs leave among people's files is left
out. Nothing is left out without a word: `Walk.notes` says it.
"""

import dataclasses
import os
import pathlib
from collections import Counter

from mvtec_tf.data import words
from mvtec_tf.data.record import IMAGE_SUFFIXES, MASKS, SPLITS
from mvtec_tf.files import PathLike

# Folders and files of network drives, archives, recycle bins, notebooks and file managers; in lower case.
_CLUTTER_FOLDERS = frozenset(
    (
        *("@eadir", "@recycle", "#recycle", "#snapshot", "~snapshot", "$recycle.bin", "recycler", "__macosx"),
        *("@recently-snapshot", "__pycache__", "lost+found", "found.000", "system volume information"),
    )
)
_CLUTTER_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
# Photographs in files that nothing here reads.
OTHER_PHOTOGRAPHS = frozenset(
    (".tif", ".tiff", ".gif", ".webp", ".heic", ".avif", ".jp2", ".pgm", ".ppm", ".dng", ".npy")
)


@dataclasses.dataclass(frozen=True)
class Walk:
    """What lies in a folder and below it; every path begins with the folder as it was given.

    Attributes:
      folder: that was looked through.
      files: all files but clutter, sorted folder by folder.
      clutter: (kind, number) of what other programs left, `@eaDir/`, `._*`.
      dangling: links that lead nowhere.
      repeated: (link, folder) of links to a folder that is looked into under another name, or that it lies in.
      masks: folders of masks that were not looked into.
      strange: what is neither a file nor a folder: sockets, devices.
      unreadable: (folder, reason) of folders that cannot be looked into.
    """

    folder: str
    files: tuple[str, ...]
    clutter: tuple[tuple[str, int], ...]
    dangling: tuple[str, ...]
    repeated: tuple[tuple[str, str], ...]
    masks: tuple[str, ...]
    strange: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]

    @property
    def images(self) -> tuple[str, ...]:
        """The files whose names end as those of images do."""
        return tuple(file for file in self.files if is_image(file))

    def notes(self, counted: bool = True) -> list[str]:
        """What a person should hear of it, one sentence each.

        Args:
          counted: whether to say how many there are; without, a new one of a known kind changes no sentence.
        """
        suffixes = Counter(os.path.splitext(file)[1].lower() for file in self.files)
        others = sorted((suffix, count) for suffix, count in suffixes.items() if suffix in OTHER_PHOTOGRAPHS)
        left_out, unread = (
            [f"{kind} ({count})" if counted else kind for kind, count in kinds] for kinds in (self.clutter, others)
        )
        named = {
            "left out what other programs put there": left_out,
            "photographs in files that are not read": unread,
            "links that lead nowhere": [f"{self._inside(link)} -> {_target(link)}" for link in self.dangling],
            "links to a folder that is looked into already": [
                f"{self._inside(link)} -> {self._inside(target)}" for link, target in self.repeated
            ],
            f"folders of masks elsewhere, or under another name, than {MASKS}; no photographs are looked for in them": [
                self._inside(one) for one in self.masks if os.path.basename(one) != MASKS or _in_a_half(one)
            ],
            "neither a file nor a folder": map(self._inside, self.strange),
            "folders that cannot be read": [f"{self._inside(one)} ({reason})" for one, reason in self.unreadable],
        }
        texts = ((what, list(names)) for what, names in named.items())
        return [f"{self.folder}: {what}: {words.listing(names)}." for what, names in texts if names]

    def _inside(self, path: str) -> str:
        return os.path.relpath(path, self.folder) if path.startswith(self.folder) and path != self.folder else path


def walk(folder: PathLike, deep: bool = True) -> Walk:
    """Looks through a folder and all below it.

    A folder that several links lead to is looked into once, under its own name if it has one below `folder`. A link to
    a folder that it lies in itself is not followed. Errors of the file system are noted, not raised.

    Args:
      folder: to look through; a link to one is followed.
      deep: whether to look into the folders in it.
    """
    return _Walker(os.fspath(folder), deep).walk()


def is_image(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's photographs."""
    return name.startswith(".") or name.lower() in _CLUTTER_FILES | _CLUTTER_FOLDERS


def identity(file: str) -> str | tuple[int, int]:
    """The same of two names of one file, also where they are hard links to it."""
    found = os.stat(file)
    # Some file systems of networks number no files.
    return (found.st_dev, found.st_ino) if found.st_nlink > 1 and found.st_ino else os.path.realpath(file)


class _Walker:
    def __init__(self, folder: str, deep: bool) -> None:
        self._folder = folder
        self._deep = deep
        self._files: list[str] = []
        self._clutter: Counter = Counter()
        # What else a `Walk` says, by the names of its attributes.
        self._others: dict[str, list] = {
            name: [] for name in ("dangling", "repeated", "masks", "strange", "unreadable")
        }
        # Links wait until all that lies below `folder` itself is known by its own name.
        self._links: list[str] = []
        self._names: dict[str, str] = {}
        self._roots: list[str] = []

    def walk(self) -> Walk:
        self._tree(self._folder)
        while self._links and self._deep:
            # Found by different ways, always followed in the same order.
            self._links.sort(key=_parts)
            self._tree(self._links.pop(0))
        return Walk(
            folder=self._folder,
            files=tuple(sorted(self._files, key=_parts)),
            clutter=tuple(sorted(self._clutter.items())),
            **{name: tuple(sorted(found)) for name, found in self._others.items()},
        )

    def _tree(self, top: str) -> None:
        """All below `top` but what links there lead to."""
        real = os.path.realpath(top)
        # A folder above one that is being looked through would bring in all that lies beside it.
        if any(pathlib.PurePath(real) in pathlib.PurePath(root).parents for root in self._roots):
            self._others["repeated"].append((top, real))
            return
        self._roots.append(real)
        pending = [(top, real)]
        while pending:
            here, real = pending.pop()
            if real in self._names:
                self._others["repeated"].append((here, self._names[real]))
                continue
            self._names[real] = here
            below = self._look(here)
            pending += [(os.path.join(here, name), os.path.join(real, name)) for name in below if self._deep]

    def _look(self, here: str) -> list[str]:
        """Notes what lies in one folder; returns the names of its own folders."""
        try:
            with os.scandir(here) as found:
                entries = list(found)
        except OSError as error:
            self._others["unreadable"].append((here, error.strerror or str(error)))
            return []
        # Beside the parts of a category a folder of masks holds no photographs.
        parts = {words.part_of(entry.name) for entry in entries} - {"", MASKS}
        folders = []
        for entry in entries:
            what = kind(entry)
            if is_clutter(entry.name):
                self._clutter[_clutter_kind(entry.name, what)] += 1
            elif what == "folder" and parts and words.is_masks(entry.name):
                self._others["masks"].append(entry.path)
            elif what == "folder" and entry.is_symlink():
                self._links.append(entry.path)
            elif what == "folder":
                folders.append(entry.name)
            elif what == "file":
                self._files.append(entry.path)
            else:
                self._others[what].append(entry.path)
        return folders


def kind(entry: os.DirEntry) -> str:
    """What an entry is, behind a link too: "file", "folder", "dangling" (a link to nothing) or "strange"."""
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError:  # a link to itself, or through a folder that may not be searched
        return "dangling"
    return "dangling" if entry.is_symlink() else "strange"


def _clutter_kind(name: str, what: str) -> str:
    if what == "folder":
        return f"{name}/"
    if name.startswith("._"):
        return "._*"
    return ".*" if name.startswith(".") else name.strip()


def _in_a_half(folder: str) -> bool:
    return words.part_of(os.path.basename(os.path.dirname(folder))) in SPLITS


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # it is gone by now
        return "?"


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split(os.sep))
