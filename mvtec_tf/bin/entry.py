"""The one wrapper around every binary: help, exit status, errors without tracebacks.

absl on its own exits with 1 for `--help`, for wrong use and for failures alike; scripts need
to tell these apart: 0 success or help, 1 failure, 2 wrong use, 130 interrupted.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from mvtec_tf.bin import failures
from mvtec_tf.errors import UsageError, UserError

_CLEAN_UPS: list[Callable[[], None]] = []


def on_refusal(clean_up: Callable[[], None]) -> None:
    """Calls `clean_up` if the program ends because what it was given is wrong (a `UserError`)."""
    _CLEAN_UPS.append(clean_up)


def run(main: Callable[..., None], takes_paths: bool = False) -> None:
    """Parses the command line, calls `main()` and exits with the status described above.

    With `takes_paths`, `main` is given the list of arguments that are no flags; without, such arguments are wrong use.
    `main` reads its flags itself. Binaries import TensorFlow inside `main`, so that `--help`
    and wrong use answer at once.
    """
    # Before TensorFlow is imported: its start-up messages on stderr would bury the run's own.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app.define_help_flags()
    paths = _parse(sys.argv)
    if paths and not takes_paths:
        _fail(f"Unexpected arguments: {' '.join(paths)}. Flags are written --name=value. Try --help.", 2)
    logging.use_absl_handler()
    # TensorFlow reports its housekeeping at INFO through the same logger; the runs speak by print.
    logging.set_verbosity(logging.WARNING)
    sys.unraisablehook = _interrupt_again
    # A name that the terminal's encoding does not have is no reason to stop a job.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main(*([paths] if takes_paths else []))
    except UserError as error:
        for clean_up in _CLEAN_UPS:
            clean_up()
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        _fail("Interrupted. The same command goes on where it stopped, if this job can resume.", 130)
    except Exception as error:
        message = failures.describe(error, flags.FLAGS)
        if message is None:
            raise
        _fail(message, 1)
    sys.exit(0)


def _interrupt_again(ignored: Any) -> None:
    """Python ignores a Ctrl-C that comes while an object is thrown away, and TensorFlow throws away many at once
    (1 of 25 interrupted exports went on to their end): the signal is sent again a moment later."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(ignored)


def _parse(argv: list[str]) -> list[str]:
    """The arguments that are no flags."""
    try:
        return flags.FLAGS(argv)[1:]
    except (flags.Error, UsageError) as error:
        _fail(f"{error}\nTry --help.", 2)
    except SystemExit:  # only the help flags leave from inside the parser
        sys.exit(0)


def _fail(message: str, status: int) -> None:
    sys.stdout.flush()
    print(f"ERROR: {message}", file=sys.stderr, flush=True)
    sys.exit(status)
