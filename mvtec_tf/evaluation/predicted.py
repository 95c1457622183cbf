"""Tables that `predict` wrote: rows of any images, of which only some can be judged, with their thresholds."""

import collections
import json
import pathlib
from collections.abc import Collection, Iterable, Iterator

from mvtec_tf import files
from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.record import DEFECTIVE, GOOD
from mvtec_tf.errors import UserError

JSON_LINES = ".jsonl"
# Columns of such a table; other tables have no business with all of these.
MARKS = frozenset(("threshold", "verdict", "error"))
UNSURE = "unsure"
# In the order of the numbers that an export answers.
VERDICTS = (GOOD, DEFECTIVE, UNSURE)


class JsonLines:
    """The rows of a file with one JSON object a line, as `CsvTable` gives them.

    Args:
      path: of the file.
      required: keys that must be there.

    Attributes:
      columns: keys of the first object.

    Raises:
      UserError: the file cannot be read, or a line is no such object.
    """

    def __init__(self, path: pathlib.Path, required: Collection[str]) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}). Expected one JSON object a line, in UTF-8.") from error
        self._rows = [
            (line, self._object(f"{path}, line {line}", one))
            for line, one in enumerate(text.split("\n"), 1)
            if one.strip()
        ]
        self.columns = list(self._rows[0][1]) if self._rows else list(required)
        for line, row in self._rows:
            if list(row) != self.columns or not set(required) <= set(row):
                raise UserError(
                    f"{path}, line {line}: found {','.join(row)}; expected {','.join(required)} in every line."
                )

    def unused(self, known: Collection[str]) -> list[str]:
        """Keys that are not among `known`."""
        return [name for name in self.columns if name not in known]

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(number of the line, key -> value as text; null is empty)."""
        yield from self._rows

    def _object(self, where: str, line: str) -> dict[str, str]:
        try:
            found = json.loads(line)
            # JSON can write half a character, which no report can hold.
            if "\\ud" in line.casefold():
                json.dumps(found, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not readable as JSON ({error}).") from error
        if not isinstance(found, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(found).__name__}.")
        return {name: "" if value is None else str(value) for name, value in found.items()}


def open_table(path: files.PathLike, required: Collection[str], optional: Collection[str] = ()) -> CsvTable | JsonLines:
    """The rows of a table, JSON lines or CSV by its name. Raises UserError if it cannot be read."""
    file = pathlib.Path(path)
    if file.suffix.lower() == JSON_LINES:
        return JsonLines(file, required)
    return CsvTable(file, required, optional, strip=False)


def why_not_judged(row: dict[str, str]) -> str:
    """What a row lacks to be judged, "" if nothing."""
    if not row["score"]:
        return f"no score ({row['error']})" if row["error"] else "no score"
    if not row["label"]:
        return "no label"
    return "" if row["split"] else "not known whether the model was made with it"


def verdict_of(row: dict[str, str], where: str) -> str:
    """The verdict of a row. Raises UserError if it is none of `VERDICTS`; `where` begins the message."""
    if row["verdict"] not in VERDICTS:
        raise UserError(f"{where}: verdict {row['verdict']!r}. Expected {', '.join(VERDICTS)}, as predict writes it.")
    return row["verdict"]


def in_words(left_out: Iterable[tuple[str, str]]) -> str:
    """How many rows are not judged, and why."""
    kinds = collections.Counter(reason.split(" (")[0] for _, reason in left_out)
    return ", ".join(f"{count} ({kind})" for kind, count in kinds.items())
