"""Errors that are part of the interface: raised with a message for the person at the keyboard."""


class UserError(Exception):
    """Something outside the code is wrong: a file, a folder, a machine without network.

    The message names the file or flag, what was found, what was expected and what to do.
    Binaries print it without a traceback and exit with status 1.
    """


class UsageError(UserError):
    """The command line itself is wrong. Binaries print it and exit with status 2."""


class LeakError(UserError):
    """An image or an object that is evaluated was also seen before. Names the images."""
