"""The one wrapper around every binary: help, exit status, errors without tracebacks.

absl on its own exits with 1 for `--help`, for wrong use and for failures alike; scripts need
to tell these apart: 0 success or help, 1 failure, 2 wrong use, 130 interrupted.
"""

import difflib
import io
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from mvtec_tf.bin import failures, quiet
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.ownership import Owned

_CLEAN_UPS: list[Callable[[], None]] = []
_AT_END: list[Callable[[], None]] = []


def on_refusal(clean_up: Callable[[], None]) -> None:
    """Calls `clean_up` if the program ends because what it was given is wrong (a `UserError`)."""
    _CLEAN_UPS.append(clean_up)


def at_end(last: Callable[[], None]) -> None:
    """Calls `last` when the program ends, however it does, if it is not killed."""
    _AT_END.append(last)


def own(folder: str, name: str = "--out", new: bool = False) -> None:
    """Makes the folder this process' own until the program ends. See `Owned`."""
    at_end(Owned(folder, name, new).release)


def run(main: Callable[..., None], takes_paths: bool = False) -> None:
    """Parses the command line, calls `main()` and exits with the status described above.

    With `takes_paths`, `main` is given the list of arguments that are no flags; without, such arguments are wrong use.
    `main` reads its flags itself. Binaries import TensorFlow inside `main`, so that `--help`
    and wrong use answer at once.
    """
    app.define_help_flags()
    paths = _parse(sys.argv)
    if paths and not takes_paths:
        _fail(f"Unexpected arguments: {' '.join(paths)}. Flags are written --name=value. Try --help.", 2)
    quiet.set_up(logging.get_verbosity())
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
    finally:
        for last in _AT_END:
            last()
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
    except (flags.CantOpenFlagFileError, UnicodeDecodeError) as error:
        _fail(_about_flagfile(argv, error), 2)
    except (flags.Error, UsageError) as error:
        _fail(f"{error}\nTry --help.", 2)
    except SystemExit:  # only the help flags leave from inside the parser
        sys.exit(0)


def _about_flagfile(argv: list[str], error: Exception) -> str:
    """What to say of a flagfile that cannot be read; the file may be named in another flagfile."""
    given = [text.split("=", 1)[-1] for text in argv[1:] if text.lstrip("-").startswith("flagfile")]
    reason = error.__context__ or error
    if not isinstance(reason, OSError):
        return f"--flagfile={','.join(given)}: not readable as text in UTF-8 ({error}). Save it as UTF-8."
    file = pathlib.Path(reason.filename)
    names = sorted(path.name for path in file.parent.glob("*.flags"))
    near = difflib.get_close_matches(file.name, names, 1)
    hint = f"The path begins at {pathlib.Path.cwd()}; the recipes of this project lie in its folder flags/."
    if names:
        hint = f"Did you mean {file.parent / near[0]}?" if near else f"{file.parent} holds {', '.join(names)}."
    return f"--flagfile={file}: cannot be read ({reason.strerror}). {hint}"


def _fail(message: str, status: int) -> None:
    sys.stdout.flush()
    print(f"ERROR: {_with_flags(message)}", file=sys.stderr, flush=True)
    sys.exit(status)


def _with_flags(message: str) -> str:
    """The message with the names of settings, which stand in backticks below this room, as this program's flags."""
    return re.sub(r"`([a-z_]+)`", lambda found: f"--{found[1]}" if found[1] in flags.FLAGS else found[0], message)
