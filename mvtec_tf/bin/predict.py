"""Judges image files with an exported model, here or on a server, and writes one row for each.

python -m mvtec_tf.bin.predict --model=saved_models/NAME/VERSION --out=FILE.csv PATH...
python -m mvtec_tf.bin.predict --server=grpc://HOST:8500/NAME --out=FILE.jsonl PATH...
python -m mvtec_tf.bin.predict --model=saved_models/NAME/VERSION --out=FILE.csv --watch=FOLDER

PATH is a file, a folder or a pattern in quotes. The columns are those that evaluate reads, path,category,defect,
label,split,group,score,probability, and threshold,model,verdict,error; what is not known is empty. A file that cannot
be judged is listed with its reason and does not stop the rest. Exit status: 0 all were judged, 1 some could not be, 2
wrong use. The same command goes on with a table that was interrupted, and a finished one gets the rows of new files.
"""

import hashlib
import os
import pathlib
import signal
import threading
import time

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.errors import UsageError, UserError

_MODEL = flags.DEFINE_string(
    "model", None, "SavedModel of an export, saved_models/NAME/VERSION; without the version the newest."
)
_SERVER = flags.DEFINE_string(
    "server",
    None,
    "Instead of --model: grpc://HOST:PORT/NAME or http://HOST:PORT/NAME, then perhaps /VERSION or /LABEL.",
)
_OUT = flags.DEFINE_string("out", None, "Table to write, FILE.csv or FILE.jsonl.", required=True)
_LIST = flags.DEFINE_string(
    "list",
    None,
    "File with one path a line, or a CSV list with a column path; - for standard input. Besides the paths given.",
)
_WATCH = flags.DEFINE_string(
    "watch",
    None,
    "Folder to watch: every file that comes is judged once, also across restarts; until SIGTERM or Ctrl-C.",
)
_DATA_DIR = run_flags.define_data_dir(
    "Where records of these images are, as for training: what they say of an image goes into its row. Unset: what the "
    "export's own list or the folders around an image say beyond doubt."
)
_OVERLAYS = flags.DEFINE_string("overlays", None, "Folder for a picture of each image under its heat map.")
_RELATIVE_TO = flags.DEFINE_string("relative_to", "", "Write paths relative to this folder. Unset: as they were given.")
_BATCH = flags.DEFINE_integer("batch_size", 8, "Images in one request.", 1)
_CONCURRENCY = flags.DEFINE_integer("concurrency", 1, "Requests at a time; for servers.", 1)
_TIMEOUT = flags.DEFINE_float("timeout", 60.0, "Seconds that a server may take for one request.", 0.001)
_POLL = flags.DEFINE_float("poll_seconds", 1.0, "Between two looks into the watched folder.", 0.001)
_PATIENCE = flags.DEFINE_integer(
    "patience",
    10,
    "Looks without change after which a file in the watched folder that cannot be read is called bad.",
    2,
)


def main(paths: list[str]) -> None:
    _check(paths)

    from mvtec_tf.data.formats import scan
    from mvtec_tf.serving import batch, client, inputs, journal
    from mvtec_tf.serving.journal import Journal
    from mvtec_tf.serving.truth import Truth

    form = journal.form_of(_OUT.value)
    files = []
    if not _WATCH.value:
        files = inputs.expand([*paths, *(inputs.read_list(_LIST.value) if _LIST.value else [])], print)
    if not files and not _WATCH.value:
        raise UserError("No image file among the paths given. Expected files, folders with images, or patterns.")
    records = scan.scan(_DATA_DIR.value, say=print) if _DATA_DIR.value else ()
    if _MODEL.value:
        model = client.LocalModel(_MODEL.value)
        truth, called = Truth(records, model.name), _called(pathlib.Path(model.name))
        if not truth.knows_contents:
            print(f"{model.name}: an export without a list of its images, which knows them by their names only.")
    else:
        model, truth = client.open_server(_SERVER.value, _TIMEOUT.value), Truth(records)
        called = model.name
    overlays = pathlib.Path(_OVERLAYS.value) if _OVERLAYS.value else None
    judge = batch.Judge(model, truth, _RELATIVE_TO.value, overlays, called)
    out = pathlib.Path(_OUT.value)
    if _WATCH.value:
        with Journal(out, batch.COLUMNS, form) as table:
            _watch(judge, table)
            failed, count = table.failed, len(table.names)
    else:
        with batch.finished_as(out, _partial(out, called, paths), called, form) as table:
            start = time.monotonic()
            tally = batch.judge_files(judge, files, table, _BATCH.value, _CONCURRENCY.value)
            seconds = time.monotonic() - start
            failed, count = table.failed, len(table.names)
        judged = tally.verdicts.total()
        print(batch.summary(tally, seconds, judge.seconds, _BATCH.value) if judged else "Nothing was left to judge.")
    print(out, flush=True)
    if failed:
        raise UserError(f"{failed} of {count} images could not be judged; the column error of {out} says why.")


def _check(paths: list[str]) -> None:
    if bool(_MODEL.value) == bool(_SERVER.value):
        raise UsageError("Give either --model=saved_models/NAME/VERSION or --server=grpc://HOST:PORT/NAME. Try --help.")
    if _WATCH.value and (paths or _LIST.value):
        raise UsageError("--watch judges what comes into its folder; leave the paths and --list out.")
    if _WATCH.value and not pathlib.Path(_WATCH.value).is_dir():
        raise UserError(f"--watch={_WATCH.value}: no such folder. Make it first.")
    if not _WATCH.value and not paths and not _LIST.value:
        raise UsageError(
            "Nothing to judge: give files, folders or patterns, --list=FILE or --watch=FOLDER. Try --help."
        )


def _watch(judge: object, table: object) -> None:
    """Until SIGTERM or SIGINT; a batch that has begun is finished."""
    from mvtec_tf.serving.watch import DropBox, watch

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(f"Watching {_WATCH.value}; {len(table.names)} files are in {_OUT.value} already.", flush=True)
    box = DropBox(_WATCH.value, judge.name, _PATIENCE.value)
    watch(box, judge, table, _BATCH.value, lambda: not stop.wait(_POLL.value))


def _called(model: pathlib.Path) -> str:
    """An export in every row of the table: its name and version, and what tells it from others of these."""
    found = (model / name for name in ("fingerprint.pb", "assets.extra/mvtec_tf.json"))
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in found if file.is_file())).hexdigest()[:8]
    return f"{'/'.join(model.absolute().parts[-2:])} {digest}"


def _partial(out: pathlib.Path, called: str, paths: list[str]) -> pathlib.Path:
    """Where the table grows: another one for another model or other images, so that no table mixes two."""
    asked = [called, _RELATIVE_TO.value, _LIST.value or "", *(_DATA_DIR.value or ()), *paths]
    key = hashlib.sha256(b"\0".join(map(os.fsencode, asked))).hexdigest()[:8]
    return out.with_name(f".{out.name}.{key}.partial")


if __name__ == "__main__":
    entry.run(main, takes_paths=True)
