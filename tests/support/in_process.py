"""Runs a binary inside the process of the tests, as `python -m mvtec_tf.bin.NAME` would, without TensorFlow's start."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings

from absl import app, flags, logging

import mvtec_tf
import mvtec_tf.bin
import mvtec_tf.jobs

# Their modules know the flags, or somebody who does.
_ROOMS = (mvtec_tf.bin.__name__, mvtec_tf.jobs.__name__)
# Before any binary does it: the flags of a binary are forgotten after its call, and absl defines these once.
app.define_help_flags()
# absl remembers the modules that disclaim their flags by `id`, which Python would give to another module.
_FORGOTTEN = []


def run_in_process(name, *arguments, check=True, cwd=None):
    """Runs the binary; with `check`, what it raises or fails with is the test's own failure.

    Every call begins with what a new process has: no flags but the libraries', modules of `bin/` that nobody has
    imported, Keras' layers numbered from the first. What a call changes in the process is changed back.

    Args:
      name: name of the binary.
      arguments: arguments of the command line.
      check: whether an exit status other than 0 raises AssertionError.
      cwd: folder to run in.

    Returns:
      `subprocess.CompletedProcess` with the texts that Python wrote to stdout and stderr.
    """
    out, err = io.StringIO(), io.StringIO()
    command = [name, *map(str, arguments)]
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with warnings.catch_warnings(), _new_program(command), contextlib.chdir(cwd or os.curdir), streams[0], streams[1]:
        status = _status(f"mvtec_tf.bin.{name}", check)
    if check and status:
        raise AssertionError(f"{name} ended with {status}\n{out.getvalue()}\n{err.getvalue()}")
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def _status(module, check):
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:
        if check:
            raise
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _new_program(command):
    modules, own = _modules_of_binaries(), _flags_of_binaries()
    attributes = [(sys, "argv"), (sys, "unraisablehook"), (mvtec_tf, "bin"), (mvtec_tf, "jobs")]
    before = [(where, name, getattr(where, name)) for where, name in attributes]
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    environment, verbosity = dict(os.environ), logging.get_verbosity()
    _forget(modules, own)
    libraries = [(flags.FLAGS[name], flags.FLAGS[name].value, flags.FLAGS[name].present) for name in flags.FLAGS]
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)
    sys.argv = command
    try:
        yield
    finally:
        _forget(_modules_of_binaries(), _flags_of_binaries())
        sys.modules.update(modules)
        _define(own)
        for flag, value, present in libraries:
            flag.value, flag.present = value, present
        for where, name, value in before:
            setattr(where, name, value)
        for number, handler in signals.items():
            signal.signal(number, handler)
        logging.set_verbosity(verbosity)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def _modules_of_binaries():
    return {name: module for name, module in sys.modules.items() if ".".join(name.split(".")[:2]) in _ROOMS}


def _flags_of_binaries():
    """(module, its id, flag, whether it is a key flag), of everything that some binary has defined."""
    values = flags.FLAGS
    ids = {id(flag): number for number, found in values.flags_by_module_id_dict().items() for flag in found}
    keys = {(name, id(flag)) for name, found in values.key_flags_by_module_dict().items() for flag in found}
    return [
        (name, ids[id(flag)], flag, (name, id(flag)) in keys)
        for name, found in values.flags_by_module_dict().items()
        # absl files the flags of the module that was started under the first word of the command line.
        if name.startswith(_ROOMS) or f"{os.sep}mvtec_tf{os.sep}bin{os.sep}" in name
        for flag in found
    ]


def _forget(modules, own):
    for name in modules:
        _FORGOTTEN.append(sys.modules.pop(name))
    for name in {flag.name for _, _, flag, _ in own}:
        delattr(flags.FLAGS, name)


def _define(own):
    for module, number, flag, is_key in own:
        flags.FLAGS[flag.name] = flag
        flags.FLAGS.register_flag_by_module(module, flag)
        flags.FLAGS.register_flag_by_module_id(number, flag)
        if is_key:
            flags.FLAGS.register_key_flag_for_module(module, flag)
