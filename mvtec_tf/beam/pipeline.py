"""A pipeline of one step: every shard that is missing is done by some worker, which has loaded what it needs once.

A shard, a file or a folder, is there or not: so a runner may try one again, two workers may do the same, and a later
call does only what is missing. Paths of shards travel through the pipeline, images and rows do not.
"""

import concurrent.futures
import contextlib
import functools
import io
import logging
import os
import pathlib
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam
import grpc
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.utils import shared

from mvtec_tf.beam.settings import RunnerSettings
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.files import PathLike
from mvtec_tf.side_by_side import usable_cores

# Makes the shard of a path, and says how many there were of what: files, bad files.
Work = Callable[[str], Mapping[str, int]]
MILLISECONDS = "milliseconds"
_METRICS = "mvtec_tf"
# The file that tells workers to leave; the next call takes it away.
STOPPED = "stopped"
_TELL_EVERY_SECONDS = 10
_THREADS = "TF_NUM_INTRAOP_THREADS"
_LEVEL = "default_sdk_harness_log_level"
_RUNNERS = {
    "portable": "PortableRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
_HINTS = {
    "portable": "Is a job server at its job_endpoint?",
    "flink": "Is there a Flink at its flink_master, and can Beam have its job server's jar (flink_job_server_jar)?",
    "spark": "Is there a Spark at its spark_master_url, and can Beam have its job server's jar (spark_job_server_jar)?",
    "dataflow": "Is apache-beam[gcp] installed, and are project, region and temp_location right?",
}
# What a worker raised, in the texts that runners make of it.
_OWN_ERROR = re.compile(r"mvtec_tf\.(?:errors|serving\.client)\.\w+: (.+?)(?: \[while running|\n|$)")


def run(make: Callable[[], Work], shards: Sequence[str], asked: RunnerSettings, log: PathLike) -> dict[str, int]:
    """Has all shards done by the workers of a runner.

    Of the direct runner a worker that is killed is missed, and what it leaves is done by new ones; other runners see to
    that themselves.

    Args:
      make: makes the work in a worker, once a process. Pickled.
      shards: the paths of all of them, those that are there already among them.
      asked: which runner.
      log: file for what the processes of the direct runner say on stderr, in a folder of the workers' own.

    Returns:
      The sums of what the works said, and of the milliseconds that they took.

    Raises:
      UsageError: Beam does not know such options.
      UserError: the runner cannot be reached, or a shard cannot be done.
      KeyboardInterrupt: a signal came; each worker has left after the shard that it was at.
    """
    options = _options(asked)
    handler = functools.partial(_Watched, log, options.view_as(DirectOptions).direct_num_workers)
    worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(handler)
    stop = pathlib.Path(log).absolute().with_name(STOPPED)
    stop.unlink(missing_ok=True)
    found: dict[str, int] = {}

    def tell() -> None:
        print(f"{len(shards) - len(_missing(shards))} of {len(shards)} shards are there", flush=True)

    while missing := _missing(shards):
        try:
            do = functools.partial(_run_once, _Shards(make, stop), missing, asked, options)
            result = _waited_for(do, tell, stop)
        except _WorkerGoneError as error:
            left = len(_missing(missing))
            if left == len(missing):
                raise UserError(f"{error}, before any shard was done. See {log}.") from error
            print(f"{error}; {left} of {len(shards)} shards are left to new workers.", flush=True)
            continue
        for name, value in result.items():
            found[name] = found.get(name, 0) + value
        if left := len(_missing(missing)):
            raise UserError(
                f"`runner`={asked.runner}: it says that it is done, but {left} of {len(shards)} shards are not here. "
                "Do its workers see this machine's folders under the same names?"
            )
    return found


def _missing(shards: Sequence[str]) -> list[str]:
    return [shard for shard in shards if not os.path.exists(shard)]


class _WorkerGoneError(Exception):
    """A worker's process has ended in the middle."""


def _run_once(
    step: apache_beam.DoFn, missing: Sequence[str], asked: RunnerSettings, options: PipelineOptions
) -> dict[str, int]:
    gone: list[str] = []
    try:
        pipeline = apache_beam.Pipeline(runner=_RUNNERS.get(asked.runner) or _direct(options), options=options)
        # Reshuffled: else a runner may give all that was created together to one worker.
        names = pipeline | "Shards" >> apache_beam.Create(list(missing)) | apache_beam.Reshuffle()
        _ = names | "Work" >> apache_beam.ParDo(step)
        with contextlib.nullcontext() if asked.is_elsewhere else _noticed(gone):
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:
        if gone:
            raise _WorkerGoneError(gone[0]) from error
        if words := _in_words(error, asked):
            raise UserError(words) from error
        raise
    if state != "DONE":
        raise UserError(f"`runner`={asked.runner}: the pipeline ended as {state}. Its own log says why.")
    counters = result.metrics().query(MetricsFilter().with_namespace(_METRICS))["counters"]
    # Beam takes a sum of 0 for none.
    return {one.key.metric.name: one.result or 0 for one in counters}


def _direct(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """What Beam's DirectRunner comes to in the end, which would first look for another one, Prism, on the web."""
    encoded = portable_runner.JobServiceHandle.encode_pipeline_options(options.get_all_options())
    information = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(information))


class _Shards(apache_beam.DoFn):
    """Does shards. All of one process share what `make` makes."""

    def __init__(self, make: Callable[[], Work], stop: pathlib.Path) -> None:
        self._make, self._stop = make, stop
        self._shared = shared.Shared()

    def setup(self) -> None:
        """Loads what the work needs, unless another thread of this process has."""
        self._work = self._shared.acquire(self._make)

    def process(self, shard: str) -> None:
        """Does one, unless it was done meanwhile, or all is to stop."""
        if self._stop.exists() or os.path.exists(shard):
            return
        start = time.monotonic()
        counts = dict(self._work(shard))
        counts[MILLISECONDS] = round(1000 * (time.monotonic() - start))
        for name, value in counts.items():
            Metrics.counter(_METRICS, name).inc(value)


class _Watched(worker_handlers.SubprocessSdkWorkerHandler):
    """A worker whose end is noticed: Beam's own direct runner waits for the answers of a killed one for ever.

    Args:
      log: file for its stderr.
      workers: how many there are; TensorFlow in each would take all cores of this machine.
      command: that starts it.
      rest: see Beam.
    """

    def __init__(self, log: PathLike, workers: int, command: bytes, *rest: Any) -> None:
        threads = os.environ.get(_THREADS) or max(usable_cores() // max(workers, 1), 1)
        line = f"{_THREADS}={threads} {command.decode()} 2>>{shlex.quote(os.path.abspath(log))}"
        super().__init__(os.fsencode(line), *rest)

    def start_worker(self) -> None:
        """Starts it, and a thread that waits for its end."""
        super().start_worker()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.worker_thread.join()
        # Of one that has answered everything nobody waits.
        self.control_conn.abort(RuntimeError("the worker has ended"))


@contextlib.contextmanager
def _noticed(gone: list[str]) -> Iterator[None]:
    """Puts into `gone` how workers' processes ended, of which Beam would print and log tracebacks."""
    before, logger = threading.excepthook, logging.getLogger("apache_beam")
    level = logger.level
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.CRITICAL)

    def note(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else ""
        if name == "run_worker":
            gone.append(f"A worker is gone ({failed.exc_value})")
        # The streams to a worker that is gone break too.
        elif not isinstance(failed.exc_value, grpc.RpcError):
            before(failed)

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before
        logger.setLevel(level)


def _waited_for(do: Callable[[], Any], tell: Callable[[], None], stop: pathlib.Path) -> Any:
    """What `do` returns, which runs in another thread; on a signal a file tells the workers to leave the rest."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(do)
        try:
            while not concurrent.futures.wait([future], _TELL_EVERY_SECONDS).done:
                tell()
        except KeyboardInterrupt:
            stop.touch()
            raise
        return future.result()


def _options(asked: RunnerSettings) -> PipelineOptions:
    """Beam's options. Raises UsageError for a value that Beam refuses, or for what the direct runner does not know."""
    quiet = {} if _LEVEL in asked.beam_options else {_LEVEL: "ERROR"}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions(asked.options(), **quiet)
            known, all_of_them = options.get_all_options(), options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:  # argparse
        raise UsageError(f"`beam_options`: {said.getvalue().strip().splitlines()[-1]}") from error
    # A job server may know more than Beam here does.
    if not asked.is_elsewhere and (unknown := sorted(set(all_of_them) - set(known))):
        raise UsageError(f"`beam_options`: Beam knows no {', '.join(unknown)}.")
    return options


def _in_words(error: Exception, asked: RunnerSettings) -> str:
    """What a worker refused, or why a runner that is elsewhere does nothing; "" of any other error."""
    if isinstance(error, UserError):
        return str(error).split(" [while running", 1)[0]
    if own := _OWN_ERROR.findall(str(error)):
        return own[-1]
    if not asked.is_elsewhere:
        return ""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    # The end of a traceback is what was raised.
    reason = lines[-1] if any(line.startswith("Traceback") for line in lines) else " ".join(lines)
    return (
        f"`runner`={asked.runner}: cannot be reached, or failed ({type(error).__name__}: {reason}). "
        f"{_HINTS[asked.runner]}"
    )
