"""The table of `predict` by many workers: shards of rows beside it, and the whole of them when all are there.

    judged.csv                    the table, the same as without a runner
    judged.csv.shards/
        manifest.json             the model, and the shards in their order
        rows/00000-3f9a1c22.csv   the rows of one shard, whole or not there
        bad_files.csv             the rows of what could not be judged
        workers.log               what the processes of the direct runner said

A shard's name tells what it is of: model, files, their sizes and times. So the same call does what is missing, and what
has changed.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.beam import pipeline
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.graphs.loading import newest, require_model
from mvtec_tf.ownership import Owned
from mvtec_tf.serving import batch, exchange, journal, predict
from mvtec_tf.serving.settings import PredictSettings
from mvtec_tf.serving.truth import Truth

MANIFEST, BAD_FILES = "manifest.json", "bad_files.csv"
_ROWS, _FILES, _LOG = "rows", "files", "workers.log"


def judge_given(
    settings: PredictSettings, note: Callable[[Iterable[Mapping[str, Any]]], Any]
) -> tuple[int, int, int]:
    """Has the files that are named judged by a runner's workers, and writes the table.

    Args:
      settings: with a runner.
      note: is given all rows, shard by shard.

    Returns:
      The numbers of rows with which something went wrong, of those of them without a verdict, and of all.

    Raises:
      UserError: the model or the table cannot be used, there is no file, or the runner cannot be reached or fails.
    """
    form = journal.form_of(settings.out)
    given = predict.given_files(settings)
    if settings.is_elsewhere:
        # Another machine that has the same folders understands whole paths.
        names = [name for name in ("out", "model", "overlays", "relative_to") if getattr(settings, name)]
        whole = {name: os.path.abspath(getattr(settings, name)) for name in names}
        settings, given = dataclasses.replace(settings, **whole), list(map(os.path.abspath, given))
    out = pathlib.Path(settings.out)
    called = _called(settings)
    records = predict.records_of(settings)
    truth = Truth(records)
    images = batch.distinct(given, lambda file: batch.name_of(file, truth, settings.relative_to))
    folder = out.with_name(f"{out.name}.shards")
    with Owned(folder, "`out`"):
        _check_same(out, folder, called)
        (folder / _ROWS).mkdir(exist_ok=True)
        shards, missing = [], set()
        for name, part in _parts(settings, list(images.values()), records, called):
            shards.append(folder / _ROWS / f"{name}{form}")
            if not shards[-1].exists():
                missing.add(shards[-1])
                files.write_text(folder / _FILES / f"{name}.json", json.dumps(part))
        if 0 < len(missing) < len(shards):
            print(f"{len(shards) - len(missing)} of {len(shards)} shards are there already.", flush=True)
        names = [shard.stem for shard in shards]
        files.write_json(folder / MANIFEST, {"model": called, "images": len(images), "shards": names})
        start = time.monotonic()
        # What names the files is in the shards, and is not sent.
        own = dataclasses.replace(settings, paths=(), list=None, data_dir=())
        counts = pipeline.run(functools.partial(_maker, own), list(map(str, shards)), settings, folder / _LOG)
        seconds = time.monotonic() - start
        tally, numbers = _merge(out, folder, shards, missing, note)
    if not missing:
        print("Nothing was left to judge.")
        return numbers
    print(batch.summary(tally, seconds, (), settings.images_asked))
    worked, judged = counts.get(pipeline.MILLISECONDS, 0) / 1000, counts.get("files", 0)
    # Of a worker that was killed the runner has heard nothing.
    lost = " What killed workers did is not among them." if judged < tally.verdicts.total() else ""
    print(
        f"{counted(len(missing), 'shard')} by the runner {settings.runner}, whose workers counted "
        f"{counted(judged, 'file')}, {counts.get('bad_files', 0)} of them bad, in {worked:.1f} s of all together.{lost}"
    )
    return numbers


def _called(settings: PredictSettings) -> str:
    """The model's name in a table; a SavedModel is not loaded for it."""
    if not settings.model or exchange.is_file(settings.model):
        return predict.opened(settings)[2]
    require_model(newest(settings.model))
    return predict.called(newest(settings.model))


def _check_same(out: pathlib.Path, folder: pathlib.Path, called: str) -> None:
    """Raises UserError if the table is another one."""
    if (folder / MANIFEST).exists():
        other = files.read_json(folder / MANIFEST, advice=f"Remove {folder}, and all is judged anew.")["model"]
        if other != called:
            raise UserError(f"`out`={out}: there already, of the model {other}, not {called}. Give another `out`.")
    elif out.exists():
        raise UserError(f"`out`={out}: there already, and not written by a runner. Give another `out`.")


def _parts(
    settings: PredictSettings, images: Sequence[str], records: Sequence[Record], called: str
) -> Iterator[tuple[str, list[list[Any]]]]:
    """Name of each shard, and [file, size, time of modification, its record or None] of each of its images."""
    # Whole batches, so that each is the one that a single process would ask for.
    size = max(settings.images_per_shard // settings.images_asked, 1) * settings.images_asked
    known = {os.path.realpath(record.file): record for record in records}
    asked = [called, settings.relative_to, settings.overlays or ""]
    for start in range(0, len(images), size):
        part = []
        for file in images[start : start + size]:
            record = known.get(os.path.realpath(file))
            part.append([file, *_state(file), record and dataclasses.asdict(record)])
        digest = hashlib.sha256(json.dumps([asked, part]).encode()).hexdigest()
        yield f"{start // size:05d}-{digest[:8]}", part


def _state(file: str) -> tuple[int, int]:
    try:
        facts = os.stat(file)
    except (OSError, ValueError):  # its row will say why
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _maker(settings: PredictSettings) -> pipeline.Work:
    """In a worker: loads the model, and what it knows of images."""
    model, truth, called = predict.opened(settings)

    def work(shard: str) -> dict[str, int]:
        path = pathlib.Path(shard)
        part = json.loads((path.parents[1] / _FILES / f"{path.stem}.json").read_text(encoding="utf-8"))
        records = [Record(**record) for *_, record in part if record]
        judge = predict.judge_of(settings, model, truth.about(records), called)
        images = [file for file, *_ in part]
        text, bad = journal.header_of(batch.COLUMNS, path.suffix), 0
        for start in range(0, len(images), settings.images_asked):
            rows = judge(images[start : start + settings.images_asked])
            text += journal.text_of(rows, batch.COLUMNS, path.suffix)
            bad += sum(not row["verdict"] for row in rows)
        files.write_text(path, text)
        return {"files": len(images), "bad_files": bad}

    return work


def _merge(
    out: pathlib.Path,
    folder: pathlib.Path,
    shards: Sequence[pathlib.Path],
    new: Container[pathlib.Path],
    note: Callable[[Iterable[Mapping[str, Any]]], Any],
) -> tuple[batch.Tally, tuple[int, int, int]]:
    """Writes the whole table and that of bad files, one shard in memory after the other; takes away what is no more."""
    tally, bad, failed, images = batch.Tally(), [], 0, 0
    header = journal.header_of(batch.COLUMNS, out.suffix.lower())
    with files.replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as table:
        table.write(header)
        for file in shards:
            text = file.read_bytes().decode()
            rows = list(journal.rows_of(text, batch.COLUMNS, file.suffix))
            table.write(text[len(header) :])
            note(rows)
            if file in new:
                tally.add(rows)
            bad += [row for row in rows if not row["verdict"]]
            failed += sum(bool(row["error"]) for row in rows)
            images += len(rows)
    files.write_csv(folder / BAD_FILES, batch.COLUMNS, ([row[name] for name in batch.COLUMNS] for row in bad))
    for file in set((folder / _ROWS).iterdir()) - set(shards):
        file.unlink()
    shutil.rmtree(folder / _FILES, ignore_errors=True)
    return tally, (failed, len(bad), images)
