"""One run, one directory, one form: what was asked, with what, on which data, how far it got."""

import pathlib
import platform
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import mvtec_tf
from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.ownership import LOCK_FILE, Owned

# Of a run's data: what its settings point to, by contents.
SOURCES = "sources"
_PACKAGES = ("tensorflow", "keras", "keras-cv", "scikit-learn", "numpy", "tf-keras-vis")


class RunDirectory:
    """A directory that knows its recipe, so that a second call resumes it and a wrong one is refused.

    Args:
      path: the directory; made if it is not there.
      binary: name of the program, e.g. "train_cnn".
      settings: everything that decides the run's outcome but the data, JSON values.
      data: description of the data; its "fingerprint" decides whether it is the same, and so do its "sources", a
        digest of what lies where a setting points to. A run that was begun without one is not asked for it.
      flagfile: text of a flagfile that repeats the run.
      defaults: of the settings, for a run that an earlier version began, which knew fewer of them.
      of_features: names of the settings that decide what lies in `features/`. A run that has come to its features and
        no further may be begun anew with others of the rest.

    Raises:
      UserError: the directory belongs to another recipe or other data, or is no run directory, or another process
        is at work in it.
    """

    def __init__(
        self,
        path: files.PathLike,
        binary: str,
        settings: Mapping[str, Any],
        data: Mapping[str, Any],
        flagfile: str,
        defaults: Mapping[str, Any] | None = None,
        of_features: Collection[str] = (),
    ) -> None:
        self.path = pathlib.Path(path)
        files.check_text(self.path, "`run_dir`=")
        self._owned = Owned(self.path, "`run_dir`")
        asked = {
            "binary": binary,
            "status": "running",
            "settings": dict(settings),
            "data": dict(data),
            "versions": {
                "mvtec_tf": mvtec_tf.__version__,
                "python": platform.python_version(),
                **{package: metadata.version(package) for package in _PACKAGES},
            },
            "timings_seconds": {},
        }
        self.resumed, anew = self._record_file.exists(), True
        try:
            if self.resumed:
                self.record = read_run(self.path)
                anew = self._is_begun_anew(asked, defaults or {}, of_features)
                files.remove_partial(self.path)
            else:
                self._refuse_strangers()
            if anew:
                self.record = asked
                self._make(flagfile)
        except BaseException:
            self.close()
            raise

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, now or in an earlier call."""
        return self.record["status"] == "finished"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> pathlib.Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def saved_model(self) -> pathlib.Path:
        """The graph that was judged, and is served."""
        return self.path / "saved_model"

    @property
    def predictions(self) -> pathlib.Path:
        """Table of predictions."""
        return self.path / "predictions.csv"

    @property
    def cells(self) -> pathlib.Path:
        """Folder of a grid's cells."""
        return self.path / "cells"

    def note(self, **facts: Any) -> None:
        """Adds facts to run.json."""
        self.record.update(facts)
        self._write()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds that the block takes to run.json's timings, also over several calls that are stopped."""
        start = time.monotonic()

        def add() -> None:
            timings = self.record["timings_seconds"]
            timings[stage] = round(timings.get(stage, 0.0) + time.monotonic() - start, 2)
            self._write()

        try:
            yield
        except KeyboardInterrupt:
            add()
            raise
        add()

    def finish(self, said: str) -> None:
        """Marks the run as finished, so that the same command says so and does nothing, and lets others in.

        Prints what is to be said of it and, last, where it is.
        """
        self.note(status="finished")
        self.close()
        print(said)
        print(self.path)

    def close(self) -> None:
        """Lets other processes in. What ends lets them in by itself."""
        self._owned.release()

    def damaged(self, results: Iterable[str]) -> list[str]:
        """Those of `results`, paths within the run, that are missing or empty. A damaged SavedModel is removed."""
        gone = [name for name in results if _is_empty(self.path / name)]
        if is_damaged_model(self.saved_model):
            shutil.rmtree(self.saved_model)
            gone = list(dict.fromkeys([*gone, self.saved_model.name]))
        return gone

    def discard_if_unused(self) -> None:
        """Removes what this call has made, if it has come to no features, checkpoint, model, prediction or cell.

        For a run that is refused after it was opened. A resumed run is left as it is.
        """
        if not self.resumed and not self._has_results() and not self._has_features():
            for item in self.path.iterdir():
                if item.name != LOCK_FILE:
                    shutil.rmtree(item) if item.is_dir() else item.unlink()
        self.close()

    def _has_results(self) -> bool:
        return any(path.exists() for path in (self.checkpoints, self.saved_model, self.predictions, self.cells))

    def _has_features(self) -> bool:
        return any((self.path / "features").rglob("*.npy"))

    @property
    def _record_file(self) -> pathlib.Path:
        return self.path / "run.json"

    def _refuse_strangers(self) -> None:
        if any(item.name != LOCK_FILE for item in self.path.iterdir()):
            raise UserError(
                f"`run_dir`={self.path}: not empty, and no run of this program (no run.json). "
                "Choose a new directory, or empty this one."
            )

    def _make(self, flagfile: str) -> None:
        try:
            files.write_text(self.path / "flags.txt", flagfile)
            self._write()
        except OSError as error:
            raise UserError(f"`run_dir`={self.path}: cannot be written ({error}). Choose another directory.") from error

    def _is_begun_anew(
        self, asked: Mapping[str, Any], defaults: Mapping[str, Any], of_features: Collection[str]
    ) -> bool:
        """Whether the run begins anew, with the features that are there. Raises UserError if it is another one."""
        record, settings = self.record, asked["settings"]
        # A run that was begun before a setting existed has it at its default.
        there = {name: defaults.get(name) for name in settings} | record["settings"]
        changed = [name for name in sorted({*there, *settings}) if there.get(name) != settings.get(name)]
        begins = bool(changed) and not self.finished and self._has_features() and not self._has_results()
        if begins:
            changed = [name for name in changed if name in of_features]
        differences, contents = [difference(name, there, settings) for name in changed], []
        if record["binary"] != asked["binary"]:
            # Their settings have little in common, and what of the images each of them reads differs.
            differences = [f"It is one of `{record['binary']}`, this is `{asked['binary']}`"]
        elif record["data"]["fingerprint"] != asked["data"]["fingerprint"]:
            contents.append("the images, their labels or other files that it reads are not the same")
        then, now = (one["data"].get(SOURCES, {}) for one in (record, asked))
        replaced = [name for name in sorted(then.keys() & now) if then[name] != now[name]]
        # One of several is called encoders=PATH.
        named = [name.partition("=") for name in replaced]
        contents += [f"`{name}`{equals}{path}: what lies there has changed since" for name, equals, path in named]
        if differences or contents:
            # Flags that are that run's already need not be repeated; with other ones other images may be read.
            undone = ["repeat that run's flags"] if differences else []
            undone += ["put back what lay there"] if replaced or not differences else []
            raise UserError(
                f"`run_dir`={self.path}: belongs to another run. {'; '.join([*differences, *contents])}. "
                f"Choose a new directory, or {' and '.join(undone)} to resume it."
            )
        return begins

    def _write(self) -> None:
        files.write_json(self._record_file, self.record)


def read_run(path: files.PathLike) -> dict[str, Any]:
    """The record of the run in `path`.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    missing = f"{path}: no run directory (no run.json in it)."
    return files.read_json(pathlib.Path(path) / "run.json", missing, "Remove the run directory and start again.")


def read_finished(path: files.PathLike, named: str = "") -> dict[str, Any]:
    """The record of the finished run in `path`.

    Args:
      path: its directory.
      named: what a message calls it, such as "`run`=PATH"; "": the path.

    Raises:
      UserError: there is no run, it is not finished, or what it came to is missing or damaged.
    """
    record, path = read_run(path), pathlib.Path(path)
    if record["status"] != "finished":
        raise UserError(f"{named or path}: that run is not finished. Repeat its command to finish it.")
    judged = [path / name for name in ("predictions.csv", "metrics.json")]
    # Encoders have neither.
    gone = [file.name for file in judged if any(map(pathlib.Path.exists, judged)) and _is_empty(file)]
    if gone := [*gone, *(["saved_model"] if is_damaged_model(path / "saved_model") else [])]:
        raise UserError(
            f"{named or path}: that run is damaged: {' and '.join(gone)} missing, empty or in part gone. Its command, "
            f"repeated, makes that anew; its flags are in {path / 'flags.txt'}."
        )
    return record


def difference(name: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, how a setting of another run differs from this one's."""
    return f"`{name}`: {there.get(name)!r} there, {here.get(name)!r} here"


def _is_empty(path: pathlib.Path) -> bool:
    if path.is_dir():
        return not any(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return not path.is_file() or path.stat().st_size == 0


def is_damaged_model(folder: pathlib.Path) -> bool:
    """Whether there is a SavedModel of which a part is missing or empty."""
    names = ("saved_model.pb", "variables/variables.index")
    numbers = any((folder / "variables").glob("variables.data-*"))
    return folder.exists() and (any(_is_empty(folder / name) for name in names) or not numbers)
