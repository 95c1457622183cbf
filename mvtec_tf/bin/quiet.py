"""What TensorFlow and other libraries say beside the program: kept from the user unless --verbosity=1 asks for it.

TensorFlow's C++ reads the environment for most of what it says, but tells of oneDNN and of a missing CUDA while it is
loaded, before anything can be set. So stderr is led away for that moment; should loading fail, what was said is shown.
"""

import contextlib
import faulthandler
import importlib.abc
import importlib.machinery
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator

from absl import logging as absl_logging

_CPP_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_STDERR = 2


def set_up(verbosity: int) -> None:
    """Quiets the libraries, if `verbosity` is below 1. Called after the flags are read, before TensorFlow is imported.

    What the user's own environment says of TensorFlow's messages is left as it is.
    """
    absl_logging.use_absl_handler()
    # Nothing is shown in a window here; one that this matplotlib does not know would end the program.
    os.environ.pop("MPLBACKEND", None)
    if verbosity >= 1:
        os.environ[_CPP_LEVEL] = "0"
        return
    # Errors too: those that matter come as exceptions, and what ends the process is said all the same.
    os.environ.setdefault(_CPP_LEVEL, "3")
    absl_logging.set_verbosity(absl_logging.ERROR)
    # Deprecations and the like, of libraries: this package warns by sentences of its own.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as Python does, and keeps stderr away while it is loaded."""

    def find_spec(
        self, name: str, path: object = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Python's hook."""
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    """Another loader, without what is said meanwhile."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """Python's hook."""
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        """Python's hook."""
        with _stderr_led_away():
            self._loader.exec_module(module)


@contextlib.contextmanager
def _stderr_led_away() -> Iterator[None]:
    """Shows what was written to stderr only if the block fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said, os.fdopen(os.dup(_STDERR), "wb") as stderr:
        os.dup2(said.fileno(), _STDERR)
        # A processor that TensorFlow was not built for ends the process here: this much is still said.
        if enabled := not faulthandler.is_enabled():
            faulthandler.enable(stderr)
        try:
            yield
        except BaseException:
            said.seek(0)
            stderr.write(said.read())
            stderr.flush()
            raise
        finally:
            os.dup2(stderr.fileno(), _STDERR)
            if enabled:
                faulthandler.disable()
