"""What an error of a graph says of an image. Without TensorFlow's seconds of import: a client of a server needs it."""

import re

_REFUSED = re.compile(r"assertion failed: \[(.*?)\]", re.DOTALL)
# What TensorFlow, and a server, put around an op's own words: where in which graph it happened.
_BEHIND = re.compile(r"\s*(\n\s*\[\[|\[Op:).*", re.DOTALL)
_BEFORE = re.compile(
    r".*(\{\{.*?\}\} |<stack traces unavailable>\n)|Error in user-defined function.*?iterator: \S*: ", re.DOTALL
)
# What the ops say of a file that begins as it should.
_DAMAGED = re.compile(r"Invalid (PNG|JPEG) data.*|(jpeg)::Uncompress failed.*|Invalid (PNG)\..*", re.DOTALL)


def words_of(message: str) -> str:
    """What the message of an error says, on one line: the decoder's words on the image, else those of what failed."""
    return of_decoder(message) or _of_op(message)


def of_decoder(message: str) -> str:
    """The decoder's words in the message of an error; "" where something else failed."""
    refused = _REFUSED.search(_in_utf8(message))
    if refused:
        return refused[1]
    damaged = _DAMAGED.fullmatch(_of_op(message))
    return f"a truncated or damaged {next(filter(None, damaged.groups())).upper()} image" if damaged else ""


def _of_op(message: str) -> str:
    return " ".join(_BEFORE.sub("", _BEHIND.sub("", _in_utf8(message))).split())


def _in_utf8(message: str) -> str:
    """JSON can hold half a character, and no table can."""
    return message.encode("utf-8", "backslashreplace").decode()
