"""The one reader of lists and tables that people write by hand or save from a spreadsheet, and of the paths in them.

Errors name the file and the line.
"""

import csv
import difflib
import io
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator

from mvtec_tf.data.words import composed
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike

# Spreadsheets of countries with a decimal comma separate by semicolons.
_DELIMITERS = (",", ";", "\t")
# What Excel reads itself in a first line of its own.
_SEPARATOR_LINE = re.compile(r'\A"?sep=(.)"?\r?(\n|\Z)', re.IGNORECASE)
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# First bytes of what is saved instead of a text, and its name.
_NO_TEXT = {b"PK\x03\x04": "an Excel or OpenDocument workbook", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}
# A word in a column's name -> what it is called here.
_OTHER_WORDS = {
    **dict.fromkeys(("set", "subset", "partition"), "split"),
    **dict.fromkeys(("object", "serial", "specimen"), "group"),
    **dict.fromkeys(("image", "file", "filename", "filepath", "bild", "datei"), "path"),
    **dict.fromkeys(("class", "verdict", "target"), "label"),
}
# At most so many bytes show whether every second one is 0.
_LOOKED_AT = 1000


class CsvTable:
    """The rows of a CSV file with a header.

    UTF-8 or UTF-16, with or without a byte order mark; cells are separated by commas, semicolons or tabs,
    whichever the header has or a first line `sep=;` says. Columns may be written in any case.

    Args:
      path: of the file.
      required: columns that must be there.
      optional: those that may be. One of any other name that is nearly one of these is refused.
      strip: whether spaces around cells are removed.
      content: of the file, if it has been read already.

    Attributes:
      columns: of the header, in its order, without surrounding spaces; known ones as they are spelt in
        `required` and `optional`.

    Raises:
      UserError: the file cannot be read, is no text, is empty, lacks a column, has one twice or one that is nearly a
        known one.
    """

    def __init__(
        self,
        path: pathlib.Path,
        required: Collection[str],
        optional: Collection[str] = (),
        strip: bool = True,
        content: bytes | None = None,
    ) -> None:
        self._path = path
        self._strip = strip
        # One name in one form, whatever system wrote it; `Places` finds the file under either.
        text = composed(decode(_content(path) if content is None else content, path))
        separator, text = split_separator(text)
        self._lines_before = int(bool(separator))
        header = next(iter(text.splitlines()), "")
        delimiter = separator or max(_DELIMITERS, key=header.count)
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        known = {name.casefold(): name for name in (*required, *optional)}
        header = [name.strip() for name in self._next() or ()]
        self.columns = [known.get(name.casefold(), name) for name in header]
        missing = [name for name in required if name not in self.columns]
        if missing:
            found = f"no column {', '.join(missing)}; found {','.join(header)}" if header else "the file is empty"
            meant = {name: _meant(name) & set(missing) for name in header}
            advice = "".join(f" Rename {name} to {min(near)}?" for name, near in meant.items() if near)
            raise UserError(f"{path}, line {self._line}: {found}; expected the columns {','.join(required)}.{advice}")
        doubled = [name for name in known.values() if self.columns.count(name) > 1]
        if doubled:
            raise UserError(f"{path}, line {self._line}: the column {doubled[0]!r} stands there twice. Remove one.")
        for name in self.unused(known.values()):
            absent = set(known.values()) - set(self.columns)
            alike = difflib.get_close_matches(name.casefold(), absent, n=1, cutoff=0.8)
            if near := sorted(absent & _meant(name)) or alike:
                raise UserError(f"{path}: a column {name!r}. Did you mean {near[0]!r}? Rename it in either case.")

    def unused(self, known: Collection[str]) -> list[str]:
        """Columns that are not among `known`."""
        return [name for name in self.columns if name and name not in known]

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(number of the line, column -> cell); empty lines are left out.

        Raises:
          UserError: a row has more or fewer cells than the header, or is no CSV.
        """
        while (cells := self._next()) is not None:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(self.columns):
                raise UserError(
                    f"{self._path}, line {self._line}: {len(cells)} cells, but the header has {len(self.columns)} "
                    "columns. A value with a comma in it must stand in double quotes."
                )
            stripped = (cell.strip() if self._strip else cell for cell in cells)
            yield self._line, dict(zip(self.columns, stripped, strict=True))

    @property
    def _line(self) -> int:
        return max(1, self._reader.line_num) + self._lines_before

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise UserError(f"{self._path}, line {self._line}: not readable as CSV ({error}).") from error


class Places:
    """The files that the paths in a list stand for.

    Args:
      folder: that the paths are relative to.
    """

    def __init__(self, folder: PathLike) -> None:
        self._folder = os.path.abspath(folder)
        self._names: dict[str, list[str]] = {}

    def find(self, written: str) -> str:
        """The absolute path of a file, "" if there is none.

        A path may be written with backslashes, with `./`, or with umlauts in another Unicode form than on the disk.
        """
        for spelling in (written, written.replace("\\", "/")):
            file = os.path.normpath(os.path.join(self._folder, spelling))
            if os.path.isfile(file):
                return file
        # ASCII has one form only.
        return "" if written.isascii() else self._alike(file, composed)

    def missing(self, written: str) -> str:
        """Why there is no such file, in words."""
        file = os.path.normpath(os.path.join(self._folder, written.replace("\\", "/")))
        if near := self._alike(file, lambda name: composed(name).casefold()):
            return f"no such file, but there is {os.path.relpath(near, self._folder)}"
        if re.match(r"[A-Za-z]:[\\/]", written):
            return f"no such file: this is a path of Windows. Paths are relative to {self._folder}"
        return f"no such file. Paths are relative to {self._folder}"

    def _alike(self, file: str, form: Callable[[str], str]) -> str:
        """The file whose path is the same in this form."""
        here = os.sep
        for step in file.split(os.sep)[1:]:
            exact = os.path.join(here, step)
            if os.path.lexists(exact):
                here = exact
                continue
            alike = [name for name in self._listed(here) if form(name) == form(step)]
            if len(alike) != 1:
                return ""
            here = os.path.join(here, alike[0])
        return here if os.path.isfile(here) else ""

    def _listed(self, folder: str) -> list[str]:
        if folder not in self._names:
            try:
                self._names[folder] = os.listdir(folder)
            except OSError:  # what cannot be listed holds no other spelling
                self._names[folder] = []
        return self._names[folder]


def split_separator(text: str) -> tuple[str, str]:
    """(separator, the rest) of a text whose first line is Excel's `sep=;`; "" and all of it of any other."""
    found = _SEPARATOR_LINE.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def _meant(name: str) -> set[str]:
    """Words for what a column is called: `group_id` and `mask_path` hold one, `serial_number` another word for it."""
    parts = re.split(r"[\W_]+", name.casefold())
    return {*parts, *(_OTHER_WORDS[part] for part in parts if part in _OTHER_WORDS)}


def header_names(line: str, separator: str = "") -> set[str]:
    """The names of columns in a line, in lower case; they are separated by `separator`, "": by any usual one."""
    cells = line.split(separator) if separator else re.split(r"[,;\t]", line)
    return {cell.strip().strip('"').casefold() for cell in cells}


def plain_path(written: str) -> str:
    """A relative path as it is written in a list, in the form of names in tables: `./a\\b.png` is `a/b.png`."""
    path = pathlib.PurePosixPath(written.replace("\\", "/"))
    return composed(path.as_posix())


def decode(content: bytes, source: PathLike, lines_of_bytes: bool = False) -> str:
    """The text of a file: UTF-8 or UTF-16.

    Args:
      content: of the file.
      source: its name, for messages.
      lines_of_bytes: whether bytes that are not UTF-8 are kept, as Python keeps them in file names, and NUL bytes too.

    Raises:
      UserError: it is no text.
    """
    for mark, what in _NO_TEXT.items():
        if content.startswith(mark):
            raise UserError(f'{source}: {what}, not a text. Save it as "CSV UTF-8".')
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "") or _unmarked(content)
    try:
        text = content.decode(encoding, "surrogateescape" if lines_of_bytes and encoding == "utf-8-sig" else "strict")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if encoding != "utf-8-sig":
            raise UserError(f"{source}: begins as {encoding.upper()} and is not. Save it as CSV in UTF-8.") from error
        byte = content[error.start : error.start + 1]
        raise UserError(
            f"{source}, line {line}: not UTF-8 (byte 0x{byte[0]:02x}, in Windows-1252 "
            f'{byte.decode("cp1252", "replace")!r}). Save the file as CSV in UTF-8; spreadsheets call it "CSV UTF-8".'
        ) from error
    if "\0" in text and not lines_of_bytes:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{source}, line {line}: a NUL byte, so this is no text. Save the file again as CSV in UTF-8.")
    return text


def _unmarked(content: bytes) -> str:
    """UTF-16 without a byte order mark has a NUL in (nearly) every second byte of what people write here."""
    start = content[:_LOOKED_AT]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if start and start[first::2].count(0) > 0.8 * len(start[first::2]) and not start[1 - first :: 2].count(0):
            return encoding
    return "utf-8-sig"


def _content(path: pathlib.Path) -> bytes:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        inside = sorted(path.glob("*.csv"))
        such = f" CSV files in it: {', '.join(file.name for file in inside)}." if inside else ""
        raise UserError(f"{path}: expected a CSV file, found {found}.{such}")
    return path.read_bytes()
