"""How much memory a piece of work needs at most."""

import pathlib
import re
import resource

_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")
# Resets the peak alone (proc(5)); pages are left as they are.
_PEAK = "5"


class PeakMemory:
    """The peak of this process' resident memory from now on.

    Of the whole process: the interpreter, TensorFlow and everything that was loaded before are in it, so that it says
    how large a machine must be. Where the kernel does not let the peak be reset (no /proc, as on macOS), it is the
    peak since the process began, an upper limit.
    """

    def __init__(self) -> None:
        try:
            _RESET.write_text(_PEAK)
            self._resets = True
        except OSError:
            self._resets = False

    def megabytes(self) -> float:
        """So far, in units of 2^20 bytes."""
        if self._resets:
            return int(re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)[1]) / 1024
        # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1024 if _STATUS.exists() else peak / 2**20
