"""Fitting a model with the labels of the page, beside the model in use, until a person promotes it.

A job is a folder, `jobs/NUMBER`: what was asked, the list of its images, the run, its log. The process holds a lock on
the folder for as long as it lives, also after the page has gone; what was killed goes on with the same command.
"""

import dataclasses
import fcntl
import functools
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.app import labels, store
from mvtec_tf.app.models import Export
from mvtec_tf.app.store import Store
from mvtec_tf.app.wording import WordedError
from mvtec_tf.data import leaks
from mvtec_tf.data.formats import corrections, division, scan
from mvtec_tf.data.record import Record
from mvtec_tf.evaluation import predicted, thresholds
from mvtec_tf.evaluation.comparison import report
from mvtec_tf.evaluation.comparison.compare import ALL, compare
from mvtec_tf.evaluation.comparison.contenders import Contender, Method, recorded_threshold
from mvtec_tf.evaluation.metrics import Confusion, Metric
from mvtec_tf.evaluation.recorded import METRICS_FILE, TABLE_FILE
from mvtec_tf.evaluation.table import Predictions, read_predictions
from mvtec_tf.evaluation.thresholds import Chosen
from mvtec_tf.graphs.loading import EXTRA
from mvtec_tf.run_directory import read_run
from mvtec_tf.serving.export import export_run

JOBS = "jobs"
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
_ASKED, _LOG, _LOCK, _PID, _STATUS = "asked.json", "log.txt", ".job.lock", "pid", "failed"
# With which every command says why it has failed.
_ERROR = "ERROR: "
_LIST, _RUN, _IN_USE = "images.csv", "run", "in_use.csv"
# Of a log.
_LINES, _MOST_BYTES = 12, 20_000
# What is told of both models.
FIGURES = ("recall", "specificity", "balanced_accuracy", "roc_auc")
_CHANGE = threading.RLock()


@dataclasses.dataclass(frozen=True)
class Job:
    """One fit.

    Attributes:
      number: of its folder.
      folder: of it.
      asked: what for: `data`, `weights`, `label_budget`, `with_labels`, `who`, `at`, `in_use` (path of an export
        or ""), `images` and `added` (how many), `promoted` (the version that it became, or 0).
      state: running, finished, stopped by a person or a power cut, or failed by itself.
      log: its last lines.
      reason: why it has failed, "" if it has not.
    """

    number: int
    folder: pathlib.Path
    asked: dict[str, Any]
    state: str
    log: str
    reason: str = ""

    @property
    def run(self) -> pathlib.Path:
        """Directory of the run."""
        return self.folder / _RUN


def _one_by_one(change: Callable[..., Any]) -> Callable[..., Any]:
    """A button that is pressed twice does once what it says."""

    @functools.wraps(change)
    def alone(*given: Any) -> Any:
        with _CHANGE:
            return change(*given)

    return alone


@_one_by_one
def begin(
    kept: Store,
    data: str,
    weights: str,
    label_budget: str,
    with_labels: bool,
    who: str,
    in_use: Export | None,
    flagfile: str = "",
) -> Job:
    """Starts a fit.

    Args:
      kept: of the page.
      data: a folder or a list of photographs, as `scan` takes it; "": the labels of the page alone.
      weights: of the backbone.
      label_budget: share of the labelled test images that it may learn from, or all of the half that it may.
      with_labels: whether the labels of the page are added.
      who: asks for it.
      in_use: the model that it is judged beside; None: none.
      flagfile: that the fit is told instead of the recipe and the weights; "": none.

    Raises:
      UserError: the images cannot be used, or another fit runs.
    """
    root = kept.folder / JOBS
    _check_none_runs(root)
    if data and not os.path.exists(data):
        raise WordedError("no_such_place", place=data)
    own = labels.records(kept) if with_labels else []
    found, added = _joined(list(scan.scan([data])) if data else [], own)
    number = max((job.number for job in jobs(kept)), default=0) + 1
    with files.new_directory(root / str(number)) as folder:
        # Relative paths of a list would be of the folder's first name.
        lines = [(os.path.realpath(one.file), os.path.realpath(one.mask) if one.mask else "", one) for one in found]
        corrections.write_list(folder / _LIST, [dataclasses.replace(one, file=f, mask=m) for f, m, one in lines])
        asked = {"data": data, "weights": weights, "label_budget": label_budget, "with_labels": with_labels, "who": who}
        asked |= {"at": store.now(), "in_use": str(in_use.path.absolute()) if in_use else "", "flagfile": flagfile}
        asked |= {"images": len(found), "added": added, "promoted": 0}
        files.write_json(folder / _ASKED, asked)
        # What no fit could use is told at once, and leaves no job.
        scan.scan([folder / _LIST])
    return go_on(job_of(kept, number))


def _joined(found: list[Record], own: Sequence[Record]) -> tuple[list[Record], int]:
    """The images of a source with those that were labelled on the page, and how many of these are new in it.

    Photographs of the source keep the source's label. What is of no category of it is of its only one.
    """
    if not found:
        return division.divide(list(own)), len(own)
    there = {files.sha256(record.file) for record in found}
    categories = {record.category for record in found}
    only = next(iter(categories)) if len(categories) == 1 else ""
    new = [one for one in own if files.sha256(one.file) not in there and (only or one.category in categories)]
    new = [dataclasses.replace(one, category=only or one.category) for one in new]
    return [*found, *(division.divide(new) if new else [])], len(new)


def _check_none_runs(root: pathlib.Path, but: pathlib.Path | None = None) -> None:
    """Raises WordedError: another job runs; a fit takes all cores."""
    if root.is_dir() and any(folder != but and _is_locked(folder) for folder in root.iterdir()):
        raise WordedError("job_runs")


@_one_by_one
def go_on(job: Job) -> Job:
    """Starts the process of a job that is not running, where it stopped. Raises UserError: another one runs."""
    _check_none_runs(job.folder.parent, job.folder)
    lock = os.open(job.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (job.folder / _STATUS).unlink(missing_ok=True)
        with (job.folder / _LOG).open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command(job)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
            )
        files.write_text(job.folder / _PID, str(process.pid))
        _CHILDREN.append(process)
    except BlockingIOError:
        pass  # it runs already
    finally:
        # The process has its own; the lock is held until both are closed.
        os.close(lock)
    return _read(job.folder)


# Asked whether they have ended, so that none stays behind as a zombie.
_CHILDREN: list[subprocess.Popen] = []


def command(job: Job) -> str:
    """What a shell is told: the fit, then what the model in use says of the same images."""
    asked, python = job.asked, [sys.executable, "-m"]
    recipe = ["--recipe=few_labels", f"--weights={asked['weights']}"]
    if asked["flagfile"]:
        recipe = [f"--flagfile={asked['flagfile']}"]
    places = [f"--data_dir={job.folder / _LIST}", f"--run_dir={job.run}"]
    budget = f"--label_budget={asked['label_budget']}"
    steps = [[*python, "mvtec_tf.bin.fit_probe", *recipe, budget, *places]]
    if asked["in_use"]:
        out = [f"--out={job.folder / _IN_USE}", f"--list={job.folder / _LIST}", places[0]]
        steps.append([*python, "mvtec_tf.bin.predict", f"--model={asked['in_use']}", *out])
    # A shell that is killed writes nothing.
    failed = f"echo $? > {shlex.quote(str(job.folder / _STATUS))}"
    return "exec 2>&1; " + " && ".join("nice " + shlex.join(step) for step in steps) + f" || {failed}"


def cancel(job: Job) -> None:
    """Ends the process of a job; what it has done stays, and it can go on."""
    if job.state == RUNNING:
        os.killpg(int((job.folder / _PID).read_text()), signal.SIGTERM)


def jobs(kept: Store) -> list[Job]:
    """All jobs, the newest first."""
    root = kept.folder / JOBS
    numbers = [path.name for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []
    return [_read(root / name) for name in sorted(numbers, key=int, reverse=True)]


def job_of(kept: Store, number: int) -> Job:
    """The job of a number. Raises UserError if there is none."""
    folder = kept.folder / JOBS / str(number)
    if not folder.is_dir():
        raise WordedError("not_found")
    return _read(folder)


def _read(folder: pathlib.Path) -> Job:
    for child in _CHILDREN:
        child.poll()
    asked, log = files.read_json(folder / _ASKED), folder / _LOG
    text = log.read_bytes()[-_MOST_BYTES:].decode("utf-8", "replace") if log.is_file() else ""
    if _is_locked(folder):
        state = RUNNING
    elif _is_finished(folder, asked):
        state = FINISHED
    else:
        state = FAILED if (folder / _STATUS).is_file() else STOPPED
    lines = text.splitlines()
    reason = _reason(lines) if state == FAILED else ""
    return Job(int(folder.name), folder, asked, state, "\n".join(lines[-_LINES:]), reason)


def _reason(lines: Sequence[str]) -> str:
    """Why a command has failed, by its log: its last error with what follows, else the last line."""
    starts = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    said = lines[starts[-1] :] if starts else lines[-1:]
    return "\n".join(said).removeprefix(_ERROR).strip()


def _is_locked(folder: pathlib.Path) -> bool:
    try:
        with (folder / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_finished(folder: pathlib.Path, asked: dict[str, Any]) -> bool:
    run = folder / _RUN
    if not (run / "run.json").is_file() or read_run(run).get("status") != "finished":
        return False
    return not asked["in_use"] or (folder / _IN_USE).is_file()


@dataclasses.dataclass(frozen=True)
class Side:
    """What one of the models says of the photographs that both are set beside each other on.

    Attributes:
      calls: how many it calls what.
      figures: metric of each of `FIGURES`.
      labels_used: how many labels it has used; None if that is not recorded.
    """

    calls: Confusion
    figures: Mapping[str, Metric]
    labels_used: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished fit comes to.

    Attributes:
      own: what the new model calls the photographs that it was judged on by itself; None if it calls nothing.
      defective, good: how many photographs of each neither model had seen.
      parts: how many parts these show.
      new, old: the new model and the one in use on them; None where they cannot be set beside each other.
      shown: "better", "worse", or "" where neither is shown.
      differences: metric -> the new one's above the old one's.
      alone: photographs that only the new one has called rightly, and only the old one.
    """

    own: Confusion | None
    defective: int = 0
    good: int = 0
    parts: int = 0
    new: Side | None = None
    old: Side | None = None
    shown: str = ""
    differences: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    alone: tuple[int, int] = (0, 0)


def outcome(job: Job) -> Outcome:
    """Of a finished job: both models on the evaluated images of the new one that the one in use had not been made with.

    Raises:
      UserError: a table of it cannot be read.
    """
    document = files.read_json(job.run / METRICS_FILE)
    calls = document["confusion"]["overall"]
    own = Confusion(**calls) if calls else None
    if not job.asked["in_use"]:
        return Outcome(own)
    evaluate = read_predictions(job.run / TABLE_FILE).part(leaks.EVALUATE)
    rows = {row["path"]: row for _, row in predicted.open_table(job.folder / _IN_USE, ("path", "score", "split"))}
    unseen = ("", leaks.EVALUATE)
    both = [path in rows and bool(rows[path]["score"]) and rows[path]["split"] in unseen for path in evaluate.path]
    new = evaluate.select(np.array(both, bool))
    defective = int(new.label.sum())
    if own is None or not 0 < defective < len(new):
        return Outcome(own, defective, len(new) - defective)
    told = [rows[path] for path in new.path]
    old = dataclasses.replace(new, score=np.array([float(row["score"]) for row in told]))
    values = {row["category"]: float(row["threshold"]) for row in told}
    threshold = recorded_threshold(document, job.run / METRICS_FILE)
    run, about = read_run(job.run), pathlib.Path(job.asked["in_use"]) / EXTRA / "model_card.json"
    labels_used = files.read_json(about)["data"].get("labelled_test_images") if about.is_file() else None
    methods = [
        _method("old", old, thresholds.told(values, "the model in use"), labels_used),
        _method("new", new, threshold, run.get("labels_used")),
    ]
    compared = compare(methods)
    differences = compared.standings[1].differences[ALL]
    test = compared.standings[1].calls[0]
    return Outcome(
        own,
        defective,
        len(new) - defective,
        compared.groups,
        *(
            Side(one.scopes[0].counts, one.figures[ALL], one.method.labels_used)
            for one in reversed(compared.standings)
        ),
        shown=report.direction(differences[compared.leading], compared.leading),
        differences=differences,
        alone=(test.only_first, test.only_second),
    )


def _method(name: str, table: Predictions, threshold: Chosen, labels_used: int | None) -> Method:
    table = dataclasses.replace(table, probability=np.full(len(table), np.nan))
    return Method(name, (Contender.of(name, table, threshold, labels_used),))


@_one_by_one
def promote(job: Job, name: str, root: files.PathLike, who: str) -> int:
    """Exports the run of a finished job as the next version of a model, once; returns its number.

    Raises:
      UserError: the job is not finished, or the name is none.
    """
    job = _read(job.folder)
    if job.state != FINISHED:
        raise WordedError("not_finished")
    if job.asked["promoted"]:
        return job.asked["promoted"]
    version = int(export_run(job.run, name, root).name)
    files.write_json(job.folder / _ASKED, job.asked | {"promoted": version, "promoted_as": name, "promoted_by": who})
    return version


def asked_before(kept: Store, export: Export) -> dict[str, str]:
    """What a model was fitted on and with, as far as it still is: `data`, `weights` and `label_budget`.

    Of a model that was fitted here, what was asked for, and not the list that the page made of it.
    """
    file = export.path / EXTRA / "flags.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    flags = dict(line.lstrip("-").split("=", 1) for line in lines if "=" in line)
    data = flags.get("data_dir", "")
    own = [job.asked for job in jobs(kept) if os.path.realpath(job.folder / _LIST) == os.path.realpath(data)]
    asked = own[0] if own else {"data": data, **flags}
    found = {name: str(asked[name]) for name in ("data", "weights", "label_budget") if name in asked}
    # A relative place is one of the folder in which the model was fitted.
    return {name: said for name, said in found.items() if name != "data" or os.path.exists(said)}
