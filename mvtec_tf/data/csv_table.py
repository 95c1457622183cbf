"""Reading CSV files that people write by hand or save from a spreadsheet, with errors that name the line."""

import csv
import io
import pathlib
from collections.abc import Iterator

from mvtec_tf.errors import UserError

# Spreadsheets of countries with a decimal comma separate by semicolons.
_DELIMITERS = (",", ";", "\t")


class CsvTable:
    """The rows of a CSV file with a header.

    The encoding is UTF-8, with or without a byte order mark; cells are separated by commas, semicolons
    or tabs, whichever the header has.

    Args:
      path: of the file.
      required: columns that must be there.

    Attributes:
      columns: of the header, in its order, without surrounding spaces.

    Raises:
      UserError: the file cannot be read, is not UTF-8, is empty, or lacks a column or has one twice.
    """

    def __init__(self, path: pathlib.Path, required: tuple[str, ...]) -> None:
        self._path = path
        text = _read(path)
        header = next(iter(text.splitlines()), "")
        delimiter = max(_DELIMITERS, key=header.count)
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        self.columns = [name.strip() for name in self._next() or ()]
        if not set(required) <= set(self.columns):
            raise UserError(f"{path}: expected the columns {','.join(required)}, found {self.columns}.")
        doubled = sorted({name for name in self.columns if name and self.columns.count(name) > 1})
        if doubled:
            raise UserError(f"{path}: the column {doubled[0]!r} stands there twice.")

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(number of the line, column -> cell without surrounding spaces); empty lines are left out.

        Raises:
          UserError: a row has more or fewer cells than the header, or is no CSV.
        """
        while (cells := self._next()) is not None:
            if not any(cell.strip() for cell in cells):
                continue
            line = self._reader.line_num
            if len(cells) != len(self.columns):
                raise UserError(
                    f"{self._path}, line {line}: {len(cells)} cells, but the header has {len(self.columns)} columns. "
                    "A name with a comma in it must stand in double quotes."
                )
            yield line, {name: cell.strip() for name, cell in zip(self.columns, cells, strict=True)}

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise UserError(f"{self._path}, line {self._reader.line_num}: not readable as CSV ({error}).") from error


def _read(path: pathlib.Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8. Save the file as CSV in UTF-8.") from error
