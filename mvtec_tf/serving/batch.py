"""Verdicts on many image files: one row each, also of a file that cannot be judged."""

import base64
import collections
import contextlib
import dataclasses
import hashlib
import math
import os
import pathlib
import shutil
import stat
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import drift
from mvtec_tf.data import leaks
from mvtec_tf.data.record import DEFECTIVE, GOOD
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.predicted import UNSURE, VERDICTS
from mvtec_tf.files import replacing, speaker, write_bytes
from mvtec_tf.serving import journal as journal_lib
from mvtec_tf.serving.client import BadImageError, Model, UnavailableError
from mvtec_tf.serving.journal import Journal
from mvtec_tf.serving.truth import Truth
from mvtec_tf.side_by_side import in_order

# How usual an image is among the training's; empty where a model does not say.
_USUAL = (drift.P_VALUE, drift.UNLIKE, *drift.COLUMNS)
COLUMNS = (
    "path",
    "category",
    "defect",
    "label",
    "split",
    "group",
    "score",
    "probability",
    "threshold",
    "model",
    "verdict",
    *_USUAL,
    "sha256",
    "error",
)
# Decimals of these.
_DIGITS = 5
_NEEDED = ("anomaly_score", "threshold", "label")
# No camera's encoded photograph is as large; a file that is would fill the memory before it is refused.
_LARGEST_FILE = 512 * 2**20
# 8 x 8 grey pixels, PNG: a server that answers them is there.
_ANY_IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNsYIAAJgaKGAAmCACQtTEKkQAAAABJRU5ErkJggg=="
)
_USES = {
    leaks.FIT: "fit this model",
    leaks.PRETRAIN: "pretrain its encoder",
    leaks.CALIBRATE: "choose its threshold",
}
# So often an image is asked about alone, of a server that answers others, before it is to blame.
_TRIES_ALONE = 2

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Tally:
    """What came of the files that were judged.

    Attributes:
      verdicts: verdict -> how many; "" counts those that could not be judged.
      splits: how the model's run used them -> how many.
    """

    verdicts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    splits: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, rows: Iterable[Row]) -> None:
        """Counts rows."""
        for row in rows:
            self.verdicts[row["verdict"]] += 1
            self.splits[row["split"]] += 1


class Judge:
    """Asks a model about image files and makes rows of its answers. May be called from several threads.

    Args:
      model: that is asked.
      truth: what is known of the images.
      relative_to: a folder; names in the table are relative to it. "": as the records call them, or as they were given.
      overlays: folder for a picture of each image under its heat map; None: no pictures.
      called: the model in every row of the table; "": its name.

    Attributes:
      seconds: of each request.
    """

    def __init__(
        self,
        model: Model,
        truth: Truth | None = None,
        relative_to: str = "",
        overlays: pathlib.Path | None = None,
        called: str = "",
    ) -> None:
        self.called = called or model.name
        self.seconds: list[float] = []
        self._model = model
        self._truth = truth or Truth()
        self._relative_to = relative_to
        self._overlays = overlays
        self._signature = "explain" if overlays else "serving_default"

    def name(self, file: str) -> str:
        """What a file is called in the table, in characters that UTF-8 has."""
        return name_of(file, self._truth, self._relative_to)

    def __call__(self, files: Sequence[str]) -> list[Row]:
        """One row for each file, in their order."""
        contents: list[bytes | str] = [read_image_file(file) for file in files]
        readable = [i for i, content in enumerate(contents) if isinstance(content, bytes)]
        answers = dict(zip(readable, self._ask([contents[i] for i in readable]), strict=True))
        return [
            self._row(file, content, answers.get(i, content))
            for i, (file, content) in enumerate(zip(files, contents, strict=True))
        ]

    def _ask(self, images: list[bytes]) -> list[dict[str, Any] | str]:
        """Each image's outputs, or why there are none."""
        if not images:
            return []
        with contextlib.suppress(BadImageError):  # asked again: a server batches images of several clients
            try:
                return self._request(images)
            except UnavailableError:
                self._check_there()
        if len(images) == 1:
            return [self._ask_alone(images)]
        return [answer for image in images for answer in self._ask([image])]

    def _ask_alone(self, images: list[bytes]) -> dict[str, Any] | str:
        """The outputs of one image that was refused, or got no answer while others do; or why there are none."""
        reason: Exception | None = None
        for _ in range(_TRIES_ALONE):
            try:
                return self._request(images)[0]
            except BadImageError as error:
                return f"not a readable image: {error}"
            except UnavailableError as error:
                reason = error
                self._check_there()
        return f"the server answers other images, but not this one: {reason}"

    def _check_there(self) -> None:
        """Raises UnavailableError if the server answers nothing at all: then no image is to blame."""
        with contextlib.suppress(BadImageError):  # a refusal is an answer too
            self._model(self._signature, [_ANY_IMAGE])

    def _request(self, images: list[bytes]) -> list[dict[str, Any]]:
        start = time.monotonic()
        answer = self._model(self._signature, images)
        self.seconds.append(time.monotonic() - start)
        missing = [name for name in _NEEDED if not _is_one_number_each(answer.get(name), len(images))]
        verdicts = answer.get("verdict", answer.get("label"))
        if missing or not np.isin(verdicts, range(len(VERDICTS))).all():
            what = f"no {', '.join(missing)} of one number an image" if missing else f"the verdicts {verdicts}"
            raise UserError(
                f"{self._model.name}: {self._signature} answers {what}. Expected an export of a classifier or a probe, "
                "saved_models/NAME/VERSION."
            )
        return [{name: values[i] for name, values in answer.items()} for i in range(len(images))]

    def known(self, file: str, content: bytes | str) -> Row:
        """What a row says of a file before the model is asked; `content` is of `read_image_file`."""
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else ""
        row = {"path": self.name(file), "model": self.called, "sha256": digest}
        return row | dataclasses.asdict(self._truth.of(file, digest))

    def _row(self, file: str, content: bytes | str, answer: dict[str, Any] | str) -> Row:
        row = self.known(file, content)
        if not isinstance(answer, str):
            strange = (name for name in ("anomaly_score", "threshold") if not math.isfinite(answer[name]))
            answer = next((f"the model's {name.split('_')[-1]} is {answer[name]}" for name in strange), answer)
        if isinstance(answer, str):
            empty = dict.fromkeys(("score", "probability", "threshold", *_USUAL))
            return row | empty | {"verdict": "", "error": answer}
        return row | {
            "score": float(answer["anomaly_score"]),
            "probability": float(answer["probability"]) if "probability" in answer else None,
            "threshold": float(answer["threshold"]),
            # Models with two verdicts answer a label only.
            "verdict": VERDICTS[int(answer["verdict"] if "verdict" in answer else bool(answer["label"]))],
            "error": self._write_overlay(row["path"], answer) if self._overlays else "",
        } | {name: round(float(answer[name]), _DIGITS) if name in answer else None for name in _USUAL}

    def _write_overlay(self, name: str, answer: dict[str, Any]) -> str:
        """Writes the picture; returns why it could not be written, which takes nothing from the verdict."""
        steps = [step if step != ".." else "__" for step in pathlib.PurePosixPath(name).parts if step != "/"]
        try:
            write_bytes(self._overlays.joinpath(*steps[:-1], f"{steps[-1]}.png"), answer["overlay_bytes"])
        except (OSError, ValueError) as error:
            return f"the overlay cannot be written: {_reason(error)}"
        return ""


def _is_one_number_each(values: np.ndarray | None, images: int) -> bool:
    return np.shape(values) == (images,) and np.asarray(values).dtype.kind in "biuf"


def name_of(file: str, truth: Truth, relative_to: str = "") -> str:
    """What a file is called in a table, see `Judge`."""
    name = os.path.relpath(file, relative_to) if relative_to else truth.name(file) or file
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def distinct(files: Sequence[str], name: Callable[[str], str]) -> dict[str, str]:
    """Key of its name -> each image, once: two spellings of one path are one image. Says how many there were."""
    once: dict[str, str] = {}
    for file in files:
        once.setdefault(leaks.same_file_key(name(file)), file)
    if len(once) < len(files):
        print(f"{len(files) - len(once)} of {len(files)} paths name an image that another one names.", flush=True)
    return once


def judge_files(
    judge: Judge, files: Sequence[str], journal: Journal, batch_size: int, concurrency: int = 1
) -> Tally:
    """Judges all files that the journal does not have yet, and writes each batch down as it comes.

    Args:
      judge: of one batch.
      files: all of them.
      journal: takes the rows, in the order of the files.
      batch_size: files in one request.
      concurrency: requests at a time.

    Returns:
      What came of the files that were judged now.
    """
    once = distinct(files, judge.name)
    _forget_changed(judge, once, journal)
    there = {leaks.same_file_key(name) for name in journal.names}
    left = [file for key, file in once.items() if key not in there]
    if len(left) < len(once):
        print(f"{len(once) - len(left)} of {counted(len(once), 'image')} are in the table already.", flush=True)
    batches = [left[i : i + batch_size] for i in range(0, len(left), batch_size)]
    tally, speak, start = Tally(), speaker(), time.monotonic()
    # A million images must not pile up in memory.
    for rows in in_order(judge, batches, concurrency):
        journal.append(rows)
        tally.add(rows)
        done, seconds = tally.verdicts.total(), max(time.monotonic() - start, 1e-9)
        speak(f"judged {done} of {len(left)} images, {done / seconds:.1f} images/s")
    return tally


def _forget_changed(judge: Judge, once: Mapping[str, str], journal: Journal) -> None:
    """Takes out the rows of files that have other contents now, or of which something else is known."""
    changed, gone = set(), 0
    for name, mark in journal.names.items():
        file = once.get(leaks.same_file_key(name))
        if file is None:
            continue
        content = read_image_file(file)
        if isinstance(content, str):
            gone += 1
        elif journal_lib.mark(judge.known(file, content)) != mark:
            changed.add(name)
    if gone:
        print(
            f"{counted(gone, 'image')} of the table cannot be read now; what was said of "
            f"{'it' if gone == 1 else 'them'} stays.",
            flush=True,
        )
    if changed:
        text = (
            f"{counted(len(changed), 'image')} of the table with other contents now, or of which something else "
            "is known"
        )
        print(f"{text}: judged anew, such as {min(changed)}.", flush=True)
        journal.remove(changed)


def summary(tally: Tally, seconds: float, requests: Sequence[float], batch_size: int) -> str:
    """What was found, and how fast: throughput over all, latency of single requests."""
    verdicts, count = tally.verdicts, tally.verdicts.total()
    splits = {split: tally.splits[split] for split in _USES if tally.splits[split]}
    unsure = f"{verdicts[UNSURE]} unsure, " if verdicts[UNSURE] else ""
    used = [f"{images} of these were used to {_USES[split]}" for split, images in splits.items()]
    text = (
        f"{counted(count, 'image')}: {verdicts[GOOD]} good, {verdicts[DEFECTIVE]} defective, {unsure}{verdicts['']} "
        f"could not be judged. {count / max(seconds, 1e-9):.1f} images/s."
    )
    if used:
        text += f" {', '.join(used)}: their verdicts say nothing about new images."
    if not requests:
        return text
    median, late = 1000 * np.percentile(requests, [50, 95])
    size = f"up to {batch_size} images" if batch_size > 1 else "one image"
    return (
        f"{text} {counted(len(requests), 'request')} of {size}: median {median:.1f} ms, 95th percentile {late:.1f} ms."
    )


def read_image_file(file: str) -> bytes | str:
    """A file's contents, or in words why they are not to be had."""
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode):
            return "not a file"
        if facts.st_size > _LARGEST_FILE:
            return f"the file has {facts.st_size} bytes; no more than {_LARGEST_FILE} are read"
        content = pathlib.Path(file).read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        return f"cannot be read: {_reason(error)}"
    return content or "the file is empty"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextlib.contextmanager
def finished_as(
    out: pathlib.Path, partial: pathlib.Path, called: str, form: str, asked: Container[str] = ()
) -> Iterator[Journal]:
    """Yields a table that grows beside `out`, with the rows that are in it; on success it becomes `out`.

    A later call goes on with it if this one is interrupted.

    Args:
      out: the finished table.
      partial: the growing one.
      called: the model, as rows have it.
      form: of both.
      asked: names of the images that will be judged where no row has them.

    Raises:
      UserError: the finished table is of another model, or another call has finished it meanwhile.
    """
    if out.exists():
        with Journal(out, COLUMNS, form) as finished:
            finished.check_all("model", called)
            names = set(finished.names)
        if not partial.exists():
            with replacing(partial) as temporary:
                shutil.copyfile(out, temporary)
    else:
        names = set()
    with Journal(partial, COLUMNS, form) as table:
        if any(name not in table.names and name not in asked for name in names):
            raise UserError(
                f"`out`={out}: another call has written it since this one was interrupted. Give another `out`, or "
                f"remove {partial}, which is what this one had come to."
            )
        yield table
    os.replace(partial, out)
