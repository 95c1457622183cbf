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
IMAGES, PREVIEWS, HEAT, MASKS, NEAREST, INCOMING = "images", "previews", "heat", "masks", "nearest", "incoming"
# A camera that comes and goes all night does not fill the disk.
_MOST_EVENTS = 10_000
# What each form adds to the one before.
_FORMS = (
    """
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
""",
    """
CREATE TABLE parts (
  id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL,
  error TEXT NOT NULL, at TEXT NOT NULL, UNIQUE (source, name));
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, what TEXT NOT NULL, said TEXT NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, said TEXT NOT NULL);
CREATE TABLE sinks (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, place TEXT NOT NULL, which TEXT NOT NULL,
  per_minute INTEGER NOT NULL, after INTEGER NOT NULL, sent INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '');
""",
    """
ALTER TABLE judgements ADD COLUMN nearest TEXT NOT NULL DEFAULT '[]';
""",
)
# Columns that hold JSON.
_JSON = ("row", "heat", "said", "nearest")

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
        for name in (IMAGES, PREVIEWS, HEAT, MASKS, NEAREST, INCOMING):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # Of requests that a kill ended.
        for left in (self.folder / INCOMING).iterdir():
            left.unlink()
        self._lock = threading.RLock()
        file = self.folder / FILE
        # The address of a camera may hold its password.
        file.touch(0o600)
        file.chmod(0o600)
        try:
            self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            for form, added in enumerate(_FORMS[found:], found + 1):
                self._db.executescript(f"BEGIN; {added} PRAGMA user_version = {form}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise UserError(f"{file}: cannot be read ({error}). Choose another `project`, or mend the file.") from error
        if found > len(_FORMS):
            self._db.close()
            raise UserError(
                f"{file}: has the form {found}, this version of the program knows {len(_FORMS)}. Use the version that "
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
            row |= {name: json.loads(row[name]) for name in _JSON if isinstance(row.get(name), str)}
        return found

    def add_image(self, sha256: str, file: str, name: str, size: tuple[int, int]) -> None:
        """Remembers a photograph, once, by the first name that it came under."""
        values = (sha256, file, name, *size, now())
        self.change("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values)

    def name_of(self, file: files.PathLike, sha256: str) -> str:
        """What a person calls a photograph: the page's own files are named by their content, and known by the name that
        they came under."""
        if pathlib.PurePath(file).stem != sha256:
            return pathlib.PurePath(file).name
        image = self.image(sha256)
        return image["name"] if image else sha256[:8]

    def add_judgement(
        self, row: Mapping[str, Any], heat: Mapping[str, Any], nearest: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Remembers a row of `batch.Judge`, what its heat map says, and the nearest good parts; the first of an image
        and a model stays."""
        named = [row[name] for name in ("sha256", "model", "score", "threshold", "probability", "verdict")]
        values = (*named, now(), json.dumps(dict(row)), json.dumps(dict(heat)), json.dumps(list(nearest)))
        columns = "sha256, model, score, threshold, probability, verdict, at, row, heat, nearest"
        query = f"INSERT INTO judgements ({columns}) VALUES ({', '.join('?' * 10)}) ON CONFLICT DO NOTHING"
        self.change(query, values)

    def add_label(self, values: Sequence[Any], said: Sequence[Row]) -> None:
        """Remembers a label, the columns up to `said`, for ever."""
        columns = "sha256, at, who, label, defect, mask, said"
        self.change(f"INSERT INTO labels ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, json.dumps(said)))

    def add_part(self, source: str, name: str, sha256: str, error: str = "") -> None:
        """Remembers that a part of a source was judged, or why it was not; once."""
        values = (source, name, sha256, error, now())
        columns = "source, name, sha256, error, at"
        self.change(f"INSERT INTO parts ({columns}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values)

    def add_event(self, what: str, **said: Any) -> None:
        """Remembers that something has happened, by a key of the words and its values."""
        with self._lock:
            self._db.execute("INSERT INTO events (at, what, said) VALUES (?, ?, ?)", (now(), what, json.dumps(said)))
            self._db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (_MOST_EVENTS,))

    def events(self, most: int) -> list[Row]:
        """The newest events, the newest first."""
        return self.ask("SELECT * FROM events ORDER BY id DESC LIMIT ?", (most,))

    def put(self, name: str, said: Any) -> None:
        """Remembers a setting, None: no more."""
        query = "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET said = excluded.said"
        self.change(query, (name, json.dumps(said)))

    def setting(self, name: str) -> Any:
        """What `put` has remembered, None if nothing."""
        return next((row["said"] for row in self.ask("SELECT said FROM settings WHERE name = ?", (name,))), None)

    def change(self, query: str, values: Sequence[Any] = ()) -> int:
        """Writes by a query; returns the number of the row that is new."""
        with self._lock:
            return self._db.execute(query, values).lastrowid or 0

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


def here(moment: str) -> str:
    """A moment, as it is remembered, by the clock of this place, which a person goes by."""
    return datetime.datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
