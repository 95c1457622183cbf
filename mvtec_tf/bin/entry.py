"""The one wrapper around every binary: help, exit status, errors without tracebacks.

absl on its own exits with 1 for `--help`, for wrong use and for failures alike; scripts need
to tell these apart: 0 success or help, 1 failure, 2 wrong use, 130 Ctrl-C, 143 SIGTERM, 141 nobody reads what is
printed.
"""

import contextlib
import difflib
import functools
import gc
import importlib
import io
import os
import pathlib
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging

from mvtec_tf.bin import closed_pipe, define, failures, quiet
from mvtec_tf.bin.main import COMMANDS, IS_COMMAND
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.stopping import Listener, stop

# The flags of a binary's settings are its own, though they are defined from here.
flags.disclaim_key_flags()
_LONGEST_COMMAND = 2000
_COMMAND_OF = {binary: command for command, (binary, _) in COMMANDS.items()}


def run(
    job: str | Callable[..., Any], settings: type | None = None, check: Callable[[Any], Any] | None = None
) -> None:
    """Parses the command line, does the job and exits with the status described above.

    Args:
      job: function that is given the settings, or its full name, such as "mvtec_tf.jobs.fit.fit". It is imported, or
        imports what is heavy, when the command line is known to be right: `--help` and wrong use answer at once.
      settings: dataclass of what the job is asked for, from which the flags are made; None: the job takes nothing.
      check: function that raises UsageError for settings that do not go together, before the job is imported.
    """
    closed_pipe.set_up()
    app.define_help_flags()
    if settings is not None:
        define.define(settings)
    arguments = _parse(sys.argv)
    _say_repeated(sys.argv[1:])
    quiet.set_up(logging.get_verbosity())
    listener = Listener(stop)
    sys.unraisablehook = functools.partial(_interrupt_again, listener)
    # A name that the terminal's encoding does not have is no reason to stop a job.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with listener:
            asked = [] if settings is None else [define.read(settings, arguments)]
            if check is not None:
                check(*asked)
            _function(job)(*asked)
    except UserError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt as stopped:
        _end(getattr(stopped, "number", signal.SIGINT), str(stopped))
    except Exception as error:
        message = failures.describe(error, flags.FLAGS)
        if message is not None:
            _fail(message, 1)
        if listener.number is None:
            raise
        # A signal that comes while a library is loaded is an ImportError by now.
        _end(listener.number, "")
    sys.stdout.flush()
    sys.exit(0)


def _function(job: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(job):
        return job
    module, name = job.rsplit(".", 1)
    if "tensorflow" in sys.modules:
        return getattr(importlib.import_module(module), name)
    # Libraries are half a million objects, and none is garbage: they are searched neither while they are loaded, which
    # takes a fifth of that time, nor ever again.
    gc.disable()
    try:
        return getattr(importlib.import_module(module), name)
    finally:
        gc.freeze()
        gc.enable()


def _end(number: int, kept: str) -> NoReturn:
    """Ends a job that a signal has stopped. `kept` says what there is of it, if it is known."""
    name = signal.Signals(number).name
    kept = kept or f"Interrupted by {name}. What this job has kept, the same command goes on from."
    _fail(f"{kept} To go on: {_same_command()}", 128 + number)


def _same_command() -> str:
    """The command line as it was typed, but not thousands of files that a shell put in the place of a pattern."""
    typed = sys.orig_argv
    if pathlib.Path(typed[1]).name == "mvtec-tf":
        typed = ["mvtec-tf", *typed[2:]]
    command = shlex.join(typed)
    return command if len(command) < _LONGEST_COMMAND else "the same command"


def _interrupt_again(listener: Listener, ignored: Any) -> None:
    """Python ignores a Ctrl-C that comes while an object is thrown away, and TensorFlow throws away many at once
    (1 of 25 interrupted exports went on to their end): the signal is sent again a moment later."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        listener.listen()
        number = getattr(ignored.exc_value, "number", signal.SIGINT)
        threading.Timer(0.05, os.kill, [os.getpid(), number]).start()
    else:
        sys.__unraisablehook__(ignored)


def _parse(argv: list[str]) -> list[str]:
    """The arguments that are no flags."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            return flags.FLAGS(argv)[1:]
    except (flags.CantOpenFlagFileError, UnicodeDecodeError) as error:
        _fail(_about_flagfile(argv, error), 2)
    except (flags.Error, UsageError) as error:
        _fail(f"{error}\nTry --help.", 2)
    except SystemExit:  # only the help flags leave from inside the parser
        print(_as_typed(shown.getvalue()), end="", flush=True)
        sys.exit(0)


def _say_repeated(argv: list[str]) -> None:
    """Says which flag stands in the command line itself more than once: also of a list only the last one counts."""
    given = argv[: argv.index("--")] if "--" in argv else argv
    names = [text.lstrip("-").split("=", 1)[0] for text in given if text.startswith("-")]
    for name in sorted({name for name in names if names.count(name) > 1 and name in flags.FLAGS} - {"flagfile"}):
        several = " Several go into one, with commas." if isinstance(flags.FLAGS[name].value, list) else ""
        last = flags.FLAGS[name].serialize()
        print(f"--{name} stands there {names.count(name)} times, and the last one counts: {last}.{several}", flush=True)


def _about_flagfile(argv: list[str], error: Exception) -> str:
    """What to say of a flagfile that cannot be read; the file may be named in another flagfile."""
    given = [text.split("=", 1)[-1] for text in argv[1:] if text.lstrip("-").startswith("flagfile")]
    reason = error.__context__ or error
    if not isinstance(reason, OSError):
        return f"--flagfile={','.join(given)}: not readable as text in UTF-8 ({error}). Save it as UTF-8."
    file = pathlib.Path(reason.filename)
    names = sorted(path.name for path in file.parent.glob("*.flags"))
    near = difflib.get_close_matches(file.name, names, 1)
    hint = f"The path begins at {pathlib.Path.cwd()}; the flagfiles of this project lie in its folder flags/."
    if names:
        hint = f"Did you mean {file.parent / near[0]}?" if near else f"{file.parent} holds {', '.join(names)}."
    return f"--flagfile={file}: cannot be read ({reason.strerror}). {hint}"


def _fail(message: str, status: int) -> NoReturn:
    sys.stdout.flush()
    print(f"ERROR: {_with_flags(message)}", file=sys.stderr, flush=True)
    sys.exit(status)


def _with_flags(message: str) -> str:
    """The message with the names of settings, which stand in backticks below this room, as this program's flags."""

    def named(found: re.Match) -> str:
        if found[1] in flags.FLAGS:
            return f"--{found[1]}"
        return f"mvtec-tf {_COMMAND_OF[found[1]]}" if found[1] in _COMMAND_OF else found[0]

    return re.sub(r"`([a-z_]+)`", named, message)


def _as_typed(shown: str) -> str:
    """A text of --help with the names of commands in place of the binaries', if this is a command of `mvtec-tf`."""
    if not vars(sys.modules["__main__"]).get(IS_COMMAND):
        return shown
    own = f"mvtec-tf {_COMMAND_OF[pathlib.Path(sys.argv[0]).stem]}:"
    shown = _with_flags(shown.replace(f"{sys.argv[0]}:", own))
    shown = re.sub(r"python -m mvtec_tf\.bin\.(\w+)", lambda found: f"mvtec-tf {_COMMAND_OF[found[1]]}", shown)
    # `evaluate` is a word, and the name of a split.
    names = "|".join(binary for binary, command in _COMMAND_OF.items() if binary not in (command, "evaluate"))
    return re.sub(rf"(?<![\w./-])({names})(?![\w./])", lambda found: _COMMAND_OF[found[1]], shown)
