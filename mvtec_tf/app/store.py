"""What the page remembers: every judgement once, every label for ever, in one SQLite file beside the photographs."""

import contextlib
import datetime
import json
import pathlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.errors import UserError

FILE = "page.sqlite"
IMAGES, PREVIEWS, HEAT, MASKS, INCOMING = "images", "previews", "heat", "masks", "incoming"
_VERSION = 1
_SCHEMA = """
CREATE TABLE images (
  sha256 TEXT PRIMARY KEY, file TEXT NOT NULL, name TEXT NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL,
  at TEXT NOT NULL);
CREATE TABLE judgements (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL REFERENCES images, model TEXT NOT NULL,
  score REAL NOT NULL, threshold REAL NOT NULL, probability REAL, verdict TEXT NOT NULL, at TEXT NOT NULL,
  row TEXT NOT NULL, heat TEXT NOT NULL, UNIQUE (sha256, model));
CREATE TABLE labels (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL REFERENCES images, at TEXT NOT NULL, who TEXT NOT NULL,
  label TEXT NOT NULL, defect TEXT NOT NULL, mask TEXT NOT NULL, said TEXT NOT NULL);
CREATE TRIGGER labels_are_kept BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are only added'); END;
CREATE TRIGGER labels_stay BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are only added'); END;
"""

Row = dict[str, Any]


class Store:
    """The folder of a page. Whoever opens it has it alone, see `ownership.Owned`; threads may share it.

    What was written is there after a kill or a loss of power: a write ends when it is on the disk.

    Args:
      folder: made if missing.

    Raises:
      UserError: another version of this program wrote it, or it cannot be read.
    """

    def __init__(self, folder: files.PathLike) -> None:
        self.folder = pathlib.Path(folder)
        for name in (IMAGES, PREVIEWS, HEAT, MASKS, INCOMING):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # Of requests that a kill ended.
        for left in (self.folder / INCOMING).iterdir():
            left.unlink()
        self._lock = threading.RLock()
        file = self.folder / FILE
        try:
            self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not found:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise UserError(f"{file}: cannot be read ({error}). Choose another `project`, or mend the file.") from error
        if found not in (0, _VERSION):
            self._db.close()
            raise UserError(
                f"{file}: has the form {found}, this version of the program knows {_VERSION}. Use the version that "
                "wrote it, or choose another `project`."
            )

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is written in the block is there whole or not at all; other threads wait."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def ask(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query; what is JSON in them is read."""
        with self._lock:
            found = [dict(row) for row in self._db.execute(query, values)]
        for row in found:
            row |= {name: json.loads(row[name]) for name in ("row", "heat", "said") if isinstance(row.get(name), str)}
        return found

    def add_image(self, sha256: str, file: str, name: str, size: tuple[int, int]) -> None:
        """Remembers a photograph, once, by the first name that it came under."""
        values = (sha256, file, name, *size, now())
        with self._lock:
            self._db.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values)

    def add_judgement(self, row: Mapping[str, Any], heat: Mapping[str, Any]) -> None:
        """Remembers a row of `batch.Judge` and what its heat map says; the first of an image and a model stays."""
        named = [row[name] for name in ("sha256", "model", "score", "threshold", "probability", "verdict")]
        values = (*named, now(), json.dumps(dict(row)), json.dumps(dict(heat)))
        columns = "sha256, model, score, threshold, probability, verdict, at, row, heat"
        with self._lock:
            self._db.execute(
                f"INSERT INTO judgements ({columns}) VALUES ({', '.join('?' * 9)}) ON CONFLICT DO NOTHING", values
            )

    def add_label(self, values: Sequence[Any], said: Sequence[Row]) -> None:
        """Remembers a label, the columns up to `said`, for ever."""
        with self._lock:
            columns = "sha256, at, who, label, defect, mask, said"
            query = f"INSERT INTO labels ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
            self._db.execute(query, (*values, json.dumps(said)))

    def image(self, sha256: str) -> Row | None:
        """What is known of a photograph."""
        return next(iter(self.ask("SELECT * FROM images WHERE sha256 = ?", (sha256,))), None)

    def judgements(self, sha256: str, models: Sequence[str]) -> list[Row]:
        """What these models said of a photograph, in their order."""
        marks = ", ".join("?" * len(models))
        query = f"SELECT * FROM judgements WHERE sha256 = ? AND model IN ({marks})"
        return sorted(self.ask(query, (sha256, *models)), key=lambda row: models.index(row["model"]))

    def judgement(self, number: int) -> Row | None:
        """One judgement."""
        return next(iter(self.ask("SELECT * FROM judgements WHERE id = ?", (number,))), None)

    def latest(self, most: int, before: int = 0) -> list[Row]:
        """The newest judgements with the name of their photograph, those below the number `before` if it is given."""
        limit = "" if not before else "WHERE judgements.id < ?"
        values = (before, most) if before else (most,)
        return self.ask(
            f"SELECT judgements.*, images.name FROM judgements JOIN images USING (sha256) {limit} "
            "ORDER BY judgements.id DESC LIMIT ?",
            values,
        )

    def counts(self) -> list[Row]:
        """How many judgements there are of each model and verdict."""
        query = "SELECT model, verdict, count(*) AS count FROM judgements GROUP BY model, verdict ORDER BY 1, 2"
        return self.ask(query)


def now() -> str:
    """The time, as it is remembered: ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
