"""Judging image files with an exported model, here or on a server: a table of given files, or a watched folder."""

import hashlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import predicted
from mvtec_tf.graphs.loading import newest
from mvtec_tf.serving import batch, client, drifting, exchange, inputs, journal
from mvtec_tf.serving.drifting import Line
from mvtec_tf.serving.journal import Journal
from mvtec_tf.serving.settings import PredictSettings
from mvtec_tf.serving.truth import Truth
from mvtec_tf.serving.watch import DropBox, watch
from mvtec_tf.side_by_side import cores


def predict(settings: PredictSettings) -> None:
    """Writes one row for each image, and prints what was found.

    Raises:
      UsageError: settings contradict each other.
      UserError: the model or the table cannot be used, or some images could not be judged; their rows are written.
    """
    settings.check()
    form, out = journal.form_of(settings.out), pathlib.Path(settings.out)
    # First: what cannot be read is not found out after hours.
    line = Line(_reference(settings), settings.drift_alarm)
    if settings.watch:
        judge = _judge(settings)
        with Journal(out, batch.COLUMNS, form) as table:
            _watch(settings, judge, table, line)
        failed = what_failed(table.failed, table.unjudged, len(table.names), out)
    elif settings.runner:
        # Not above: Apache Beam is another package, and slow to load.
        from mvtec_tf.serving import sharded

        failed = what_failed(*sharded.judge_given(settings, line.add), out)
    else:
        table = judge_given(settings)
        line.add(row for _, row in predicted.open_table(out, batch.COLUMNS))
        failed = what_failed(table.failed, table.unjudged, len(table.names), out)
    if found := line.summary():
        print(found)
    print(out, flush=True)
    if failed:
        raise UserError(failed)


def judge_given(settings: PredictSettings) -> Journal:
    """Judges the files that are named, without a word on drift; returns the table, finished.

    Raises:
      UserError: the model or the table cannot be used, or there is no file.
    """
    form, out, files = journal.form_of(settings.out), pathlib.Path(settings.out), given_files(settings)
    judge = _judge(settings)
    asked = set(map(judge.name, files))
    with batch.finished_as(out, _partial(settings, judge.called), judge.called, form, asked) as table:
        start = time.monotonic()
        tally = batch.judge_files(judge, files, table, settings.images_asked, requests_at_once(settings))
        seconds = time.monotonic() - start
    summary = batch.summary(tally, seconds, judge.seconds, settings.images_asked)
    print(summary if tally.verdicts.total() else "Nothing was left to judge.")
    return table


def requests_at_once(settings: PredictSettings) -> int:
    """How many requests are under way: of a SavedModel here, while one image is decoded, others are in its network."""
    alone = settings.server or exchange.is_file(settings.model)
    return settings.concurrency or (1 if alone else cores())


def what_failed(failed: int, unjudged: int, images: int, out: pathlib.Path) -> str:
    """How many rows of a table something went wrong with, `unjudged` among them, and where `out` says what."""
    rest = failed - unjudged
    found = [f"{unjudged} of {counted(images, 'image')} could not be judged"] * bool(unjudged)
    found += [f"{rest} were judged, but have no overlay"] * bool(rest)
    return f"{', and '.join(found)}; the column error of {out} says why." if found else ""


def given_files(settings: PredictSettings) -> list[str]:
    """The files that the settings name. Raises UserError if there is none."""
    listed = inputs.read_list(settings.list) if settings.list else []
    files = inputs.expand([*settings.paths, *listed], print)
    if not files:
        raise UserError("No image file among the paths given. Expected files, folders with images, or patterns.")
    return files


def _judge(settings: PredictSettings) -> batch.Judge:
    records = records_of(settings)
    model, truth, name = opened(settings)
    if settings.model and not exchange.is_file(settings.model) and not truth.knows_contents:
        print(f"{model.name}: an export without a list of its images, which knows them by their names only.")
    return judge_of(settings, model, truth.about(records), name)


def records_of(settings: PredictSettings) -> Sequence[Record]:
    """What is said of images before they are judged."""
    return scan.scan(settings.data_dir, say=print) if settings.data_dir else ()


def opened(settings: PredictSettings) -> tuple[client.Model, Truth, str]:
    """The model that is asked, what it knows of images, and what it is called in a table."""
    if settings.model and exchange.is_file(settings.model):
        model = exchange.ExchangeModel(settings.model)
        return model, Truth(export=model.export), model.called
    if settings.model:
        model = client.LocalModel(settings.model)
        return model, Truth(export=model.name), called(pathlib.Path(model.name))
    model = client.open_server(settings.server, settings.timeout)
    return model, Truth(), model.name


def judge_of(settings: PredictSettings, model: client.Model, truth: Truth, name: str) -> batch.Judge:
    """Who makes rows of what the model says."""
    overlays = pathlib.Path(settings.overlays) if settings.overlays else None
    return batch.Judge(model, truth, settings.relative_to, overlays, name)


def _reference(settings: PredictSettings) -> np.ndarray | None:
    """What the model says is usual; None of one that does not, or is elsewhere."""
    if not settings.model:
        return None
    export = exchange.export_of(settings.model) if exchange.is_file(settings.model) else newest(settings.model)
    return drifting.read_reference(export) if export else None


def _watch(settings: PredictSettings, judge: batch.Judge, table: Journal, line: Line) -> None:
    """Until SIGTERM or SIGINT; a batch that has begun is finished."""
    place = table.file.with_name(f"{table.file.stem}{drifting.ENDING}")

    def note(rows: Iterable[Mapping[str, Any]]) -> None:
        if risen := line.add(rows):
            print(f"DRIFT: {'; '.join(map(line.told, risen))}.", flush=True)
            try:
                line.write(place)
            except OSError as error:  # a full disk ends no watch; the next alarm writes all
                print(f"{place}: cannot be written ({error.strerror}).", flush=True)

    note(row for _, row in predicted.open_table(table.file, batch.COLUMNS))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(
        f"Watching {settings.watch}; {counted(len(table.names), 'file is', 'files are')} in {settings.out} already.",
        flush=True,
    )
    box = DropBox(settings.watch, judge.name, settings.patience)
    watch(box, judge, table, settings.images_asked, lambda: not stop.wait(settings.poll_seconds), note)


def called(model: pathlib.Path) -> str:
    """What an export is called in every row of a table: name and version, and what tells it from others of these."""
    found = (model / name for name in ("fingerprint.pb", "assets.extra/mvtec_tf.json"))
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in found if file.is_file())).hexdigest()[:8]
    return f"{'/'.join(model.absolute().parts[-2:])} {digest}"


def _partial(settings: PredictSettings, called: str) -> pathlib.Path:
    """Where the table grows: another one for another model or other images, so that no table mixes two."""
    asked = [called, settings.relative_to, settings.list or "", *settings.data_dir, *settings.paths]
    key = hashlib.sha256(b"\0".join(map(os.fsencode, asked))).hexdigest()[:8]
    out = pathlib.Path(settings.out)
    return out.with_name(f".{out.name}.{key}.partial")
