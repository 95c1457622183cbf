"""`groups.csv` of a category: which photographs show the same object. It is never passed over in silence."""

import pathlib
from collections.abc import Iterable, Sequence

from mvtec_tf.data import walk, words
from mvtec_tf.data.csv_table import CsvTable, header_names, plain_path
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError

FILE = "groups.csv"
_WORD = "group"
# What people save tables as.
_TEXTS = (".csv", ".tsv", ".txt")
_SUFFIXES = (*_TEXTS, ".xls", ".xlsx", ".ods")
# In bytes; what has a longer first line is no table of two columns.
_LONGEST_HEADER = 1000


class Groups:
    """The objects of a category's images.

    Args:
      folder: of the category; paths in the file are relative to it.
      files: in and below that folder.
      folders: names of those in that folder.

    Attributes:
      sentences: what a person should hear of it.

    Raises:
      UserError: the file lacks a column or a value, names a path twice, or there is none but one that lies deeper or
        has nearly the right name.
    """

    def __init__(self, folder: pathlib.Path, files: Iterable[str], folders: Iterable[str] = ()) -> None:
        # A folder of this name is refused as any file that is no table.
        places = [*map(pathlib.Path, files), *(folder / name for name in folders if name.casefold() == FILE)]
        alike = [file for file in places if _is_nearly(file) or _says_groups(file, folder)]
        found = [file for file in alike if file.name.casefold() == FILE and file.parent == folder]
        if alike and not found:
            _refuse(alike[0], f"{folder / FILE}")
        if len(found) > 1:
            names = " and ".join(sorted(file.name for file in found))
            raise UserError(f"{folder}: {names}, of which only one can be meant. Keep one, named {FILE}.")
        self.sentences = [f"{file}: read as {FILE}." for file in found if file.name != FILE]
        self.sentences += [f"{file}: not read, since {FILE} is there." for file in alike if file not in found]
        self._file = found[0] if found else folder / FILE
        self._unused = _read(self._file) if found else {}

    def of(self, key: str) -> str:
        """The object on the image `key`; the image's own name if the file does not say."""
        return self._unused.pop(key, key)

    def check_all_used(self) -> None:
        """Raises a `UserError` if the file names an image that is not there: then something is misspelt."""
        if self._unused:
            raise UserError(
                f"{self._file}: {len(self._unused)} of its paths are no images of this category, the first is "
                f"{next(iter(self._unused))!r}. Paths are relative to {self._file.parent}."
            )


def refuse_among_categories(folder: pathlib.Path) -> None:
    """Raises a `UserError` if there is such a file in a folder of categories: it would be about none of them."""
    for file in _beside(folder):
        _refuse(file, f"the folder of its category, {folder}/CATEGORY/{FILE}, with paths relative to it")


def refuse_beside(table: pathlib.Path) -> None:
    """Raises a `UserError` if there is such a file beside a list of images that says nothing of groups."""
    for file in _beside(table.parent):
        if file.name == table.name:
            continue
        raise UserError(
            f"{table}: beside it lies {file.name}, but a list says itself which images show one object: in a column "
            "'group'. Add the column, which may be empty, or put the file elsewhere."
        )


def _beside(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(filter(_is_nearly, folder.iterdir()))


def one_object(records: Sequence[Record]) -> str:
    """What to tell a person where all good images of a category show one object, "" elsewhere."""
    good = [record for record in records if not record.label]
    if len(good) < 2 or len({record.group for record in good}) > 1:
        return ""
    category = good[0].category
    group = good[0].group.removeprefix(f"{category}/")
    return (
        f"{category}: {FILE}, or the column {_WORD} of the list, says that all {len(good)} good images show one "
        f"object, {group!r}, so none can be for training while others are for testing. Give each object a name of "
        "its own, and none to images whose object is not known."
    )


def _is_nearly(file: pathlib.Path) -> bool:
    name = file.name.lower()
    if _WORD not in name or not name.endswith(_SUFFIXES) or walk.is_clutter(name):
        return False
    # A list of images may have any other name.
    return name == FILE or not {"path", "label"} <= _columns(file)


def _says_groups(file: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a table right in the category's folder has the columns of groups, whatever its name."""
    if file.parent != folder or file.suffix.lower() not in (*_TEXTS, "") or walk.is_clutter(file.name):
        return False
    return {"path", _WORD} <= _columns(file)


def _columns(file: pathlib.Path) -> set[str]:
    """Of a table, in lower case; of what is no text, nothing that anyone asks for."""
    if not file.is_file():
        return set()
    with file.open("rb") as content:
        return header_names(content.readline(_LONGEST_HEADER).decode("utf-8-sig", "ignore"))


def _refuse(file: pathlib.Path, place: str) -> None:
    raise UserError(
        f"{file}: is this the table of groups? Then it belongs in {place}. If it is not, give it another name."
    )


def _read(path: pathlib.Path) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line, row in CsvTable(path, ("path", "group")):
        if not row["path"] or not row["group"]:
            raise UserError(f"{path}, line {line}: path and group must both be given, found {row}.")
        key = plain_path(row["path"])
        if words.is_no_object(row["group"]):
            raise UserError(
                f"{path}, line {line}: the group {row['group']!r} is no object, but would join all that have it. "
                "Leave such lines out; a number that a spreadsheet has shortened has to be entered again, as text."
            )
        if key in groups:
            raise UserError(f"{path}, line {line}: {row['path']!r} stands there twice.")
        groups[key] = row["group"]
    return groups
