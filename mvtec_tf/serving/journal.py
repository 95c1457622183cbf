"""A table that grows by whole rows, on the disk before anybody hears of them, and survives being killed.

Each append ends with fsync. A process killed in the middle of one leaves a torn last row; the next one that opens the
file cuts it off, and the rows before it say what has been done.
"""

import csv
import fcntl
import io
import json
import os
import pathlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from mvtec_tf import files
from mvtec_tf.errors import UsageError, UserError

FORMS = (".csv", ".jsonl")
# Columns in which all rows of a table have one value, as a rule.
SHARED = ("model",)
# Columns that say what was known of an image before the model was asked, its contents among it.
KNOWN = ("sha256", "category", "defect", "label", "split", "group")


class Journal:
    """One table, open for one process.

    Args:
      file: is made, or gone on with.
      columns: names of the columns; the first one names the row, the last one says what went wrong with it.
      form: ".csv" or ".jsonl".

    Attributes:
      names: of all rows, each with the `mark` of its row.
      failed: number of rows with which something went wrong.
      unjudged: those of them that have no verdict.

    Raises:
      UserError: another process has it open, it is another table, or it cannot be written.
    """

    def __init__(self, file: files.PathLike, columns: Sequence[str], form: str) -> None:
        self.file = pathlib.Path(file)
        self._columns = tuple(columns)
        self._form = form
        self.names: dict[str, int] = {}
        self._values: dict[str, set[str]] = {name: set() for name in SHARED if name in self._columns}
        self.failed = self.unjudged = 0
        self._open()

    def _open(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.file.open("a+b", buffering=0)
        except OSError as error:
            raise UserError(f"{self.file}: cannot be written ({error.strerror}).") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._handle.close()
            raise UserError(
                f"{self.file}: another process is writing it. Wait for it, or give another `out`."
            ) from error
        try:
            self._recover()
        except UserError:
            self._handle.close()
            raise

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes rows; they are on the disk when this returns, and none of them is if it raises OSError.

        A table that somebody moved or removed meanwhile is begun anew in its place, with these rows.
        """
        rows = list(rows)
        if not self._is_there():
            self.close()
            self._open()
            print(f"{self.file} was moved or removed: a new table is begun there for what follows.", flush=True)
        self._write(text_of(rows, self._columns, self._form))
        for row in rows:
            self._note(row)

    def remove(self, names: Container[str]) -> None:
        """Takes the rows of these names out, all at once."""
        self._handle.seek(0)
        text = self._handle.read().decode("utf-8")
        rows = [row for row in rows_of(text, self._columns, self._form) if row[self._columns[0]] not in names]
        with files.replacing(self.file) as temporary:
            handle = temporary.open("a+b", buffering=0)
            # Before it is called as the table is: so no other process can come between.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._handle.close()
            self._handle = handle
            self._write(header_of(self._columns, self._form) + text_of(rows, self._columns, self._form))
        self.names, self.failed, self.unjudged = {}, 0, 0
        for row in rows:
            self._note(row)

    def check_all(self, column: str, value: str) -> None:
        """Raises UserError if a row has another value in this column, one of `SHARED`."""
        if others := sorted(self._values[column] - {value}):
            raise UserError(
                f"`out`={self.file}: there already, of the {column} {others[0]}, not {value}. Give another `out`."
            )

    def close(self) -> None:
        """Lets other processes have it."""
        self._handle.close()

    def __enter__(self) -> "Journal":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self.file.stat(), os.fstat(self._handle.fileno()))
        except FileNotFoundError:
            return False

    def _write(self, text: str) -> None:
        size = os.fstat(self._handle.fileno()).st_size
        left = memoryview(text.encode("utf-8"))
        try:
            while left:
                left = left[self._handle.write(left) :]
            os.fsync(self._handle.fileno())
        except OSError:
            # Half a row would swallow the next one.
            self._handle.truncate(size)
            raise

    def _recover(self) -> None:
        """Notes the whole rows that are there; a torn one behind them is cut off."""
        self._handle.seek(0)
        content = self._handle.read()
        whole = content[: _end_of_last_whole_line(content, quoted=self._form == ".csv")]
        if len(whole) < len(content):
            self._handle.truncate(len(whole))
        text = whole.decode("utf-8")
        try:
            for row in rows_of(text, self._columns, self._form) if text else ():
                self._note(row)
        except (ValueError, csv.Error) as error:
            raise UserError(
                f"{self.file}: not a table of this program ({error}). Expected the columns {','.join(self._columns)}. "
                "Give another `out`."
            ) from error
        if not text:
            self._write(header_of(self._columns, self._form))

    def _note(self, row: Mapping[str, Any]) -> None:
        self.names[row[self._columns[0]]] = mark(row)
        failed = bool(row[self._columns[-1]])
        self.failed += failed
        self.unjudged += failed and not row.get("verdict")
        for column, values in self._values.items():
            values.add(row[column])


def mark(row: Mapping[str, Any]) -> int:
    """A number that tells a row from another one with other values in the columns `KNOWN`; another one every day."""
    return hash(tuple("" if row.get(name) is None else str(row[name]) for name in KNOWN))


def header_of(columns: Sequence[str], form: str) -> str:
    """What a table begins with."""
    return files.csv_text(columns, ()) if form == ".csv" else ""


def text_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], form: str) -> str:
    """The lines of rows."""
    if form == ".csv":
        return files.csv_text(None, ([row[name] for name in columns] for row in rows))
    named = ({name: row[name] for name in columns} for row in rows)
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in named)


def rows_of(text: str, columns: Sequence[str], form: str) -> Iterator[dict[str, Any]]:
    """The rows of a whole table.

    Raises:
      ValueError, csv.Error: it is no table of these columns.
    """
    if form == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise ValueError(f"its columns are {','.join(reader.fieldnames or ())}")
        rows = iter(reader)
    else:
        # Not splitlines: it also splits at characters that JSON may hold.
        rows = (json.loads(line) for line in text.split("\n") if line)
    for row in rows:
        if not isinstance(row, dict) or set(row) != set(columns):
            raise ValueError(f"a row of it is {row!r}")
        yield row


def form_of(file: files.PathLike) -> str:
    """The form that a file's name asks for.

    Raises:
      UsageError: neither CSV nor JSON lines.
    """
    suffix = pathlib.Path(file).suffix.lower()
    if suffix not in FORMS:
        raise UsageError(f"`out`={file}: expected a name that ends in {' or '.join(FORMS)}.")
    return suffix


def _end_of_last_whole_line(content: bytes, quoted: bool) -> int:
    """Where the last line ends that is whole: in CSV, one whose quotes are closed."""
    end, open_quote, position = 0, False, 0
    while (newline := content.find(b"\n", position)) >= 0:
        if quoted and content.count(b'"', position, newline) % 2:
            open_quote = not open_quote
        position = newline + 1
        if not open_quote:
            end = position
    return end
