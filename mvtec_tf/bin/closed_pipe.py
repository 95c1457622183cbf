"""Printing where nothing can be printed, without a traceback: into a pipe that nobody reads any more, as `| head`
leaves behind, or into a file on a full disk.
"""

import io
import os
import sys

# As a shell reports a program that SIGPIPE has ended. The signal itself would also end who talks to a server.
STATUS = 141


class Unprintable(SystemExit):
    """The end of a program whose output goes nowhere, with its exit status."""


class _Pipe(io.FileIO):
    """A file whose reader may go, or which may not take everything."""

    def write(self, data: bytes) -> int:
        """Raises Unprintable, which no handler of errors takes for one of a file or a server."""
        try:
            return super().write(data)
        except OSError as error:
            # What is printed on the way out goes nowhere.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise Unprintable(STATUS) from None
            message = f"ERROR: standard output cannot be written ({error.strerror}), so the program ends here."
            print(message, file=sys.stderr, flush=True)
            raise Unprintable(1) from None


def set_up() -> None:
    """Sets `sys.stdout` up for a reader who goes. Called before anything is printed; again, it does nothing.

    Who prints last flushes too: while Python ends it is too late to set a status.
    """
    out = sys.stdout
    if out is None:
        # Closed from the beginning, by `>&-` or a service.
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Pipe(os.devnull, "wb")), "utf-8")
        return
    # A test's is none of the process'.
    if type(out) is not io.TextIOWrapper or isinstance(getattr(out.buffer, "raw", out.buffer), _Pipe):
        return
    out.flush()
    pipe = _Pipe(out.fileno(), "wb", closefd=False)
    # PYTHONUNBUFFERED leaves the buffer out.
    buffer = pipe if isinstance(out.buffer, io.FileIO) else io.BufferedWriter(pipe)
    options = {"line_buffering": out.line_buffering, "write_through": out.write_through}
    sys.stdout = io.TextIOWrapper(buffer, out.encoding, out.errors, **options)
