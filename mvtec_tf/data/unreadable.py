"""Image files that cannot be used: why, in the words of the person who has to repair them."""

import dataclasses
import re
from collections.abc import Sequence

import tensorflow as tf

from mvtec_tf.data.records import Record
from mvtec_tf.errors import UserError

# So many are named in a message; run.json lists all.
_NAMED = 10
_REFUSED = re.compile(r"assertion failed: \[(.*?)\]", re.DOTALL)
# What TensorFlow puts around an op's own words: where in which graph it happened.
_BEHIND = re.compile(r"\s*(\n\t \[\[|\[Op:).*", re.DOTALL)
_BEFORE = re.compile(r".*\{\{.*?\}\} |Error in user-defined function.*?iterator: \S*: ", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An image that cannot be used.

    Attributes:
      record: which.
      reason: what was found, and what was expected; no full stop.
    """

    record: Record
    reason: str


def reason(error: tf.errors.OpError) -> str:
    """What an error of `pixels.decode`, here or in an exported graph, says of the file."""
    refused = _REFUSED.search(error.message)
    if refused:
        return refused[1]
    words = _BEFORE.sub("", _BEHIND.sub("", error.message)) or type(error).__name__
    if isinstance(error, tf.errors.InvalidArgumentError):
        return f"a truncated or damaged image ({words})"
    return f"it cannot be read ({words})"


def refuse(unreadable: Sequence[Unreadable], images: int) -> None:
    """Raises if there are any.

    Args:
      unreadable: of a data set.
      images: number of all its images.

    Raises:
      UserError: names the files, each with its reason.
    """
    if not unreadable:
        return
    lines = [f"{one.record.file}: {one.reason}." for one in unreadable[:_NAMED]]
    if len(unreadable) > _NAMED:
        lines.append(f"... and {len(unreadable) - _NAMED} more.")
    count = f"{len(unreadable)} of {images} images cannot be used. " if images > 1 else ""
    hint = f"{count}Repair or remove them, or leave them out by --on_bad_image=skip."
    raise UserError("\n".join([*lines, hint]))


def listing(unreadable: Sequence[Unreadable]) -> str:
    """One sentence on images that were left out, for a person; "" if there are none."""
    if not unreadable:
        return ""
    named = "; ".join(f"{one.record.path} ({one.reason})" for one in unreadable[:_NAMED])
    more = f"; and {len(unreadable) - _NAMED} more, listed in run.json" if len(unreadable) > _NAMED else ""
    return f"{len(unreadable)} images cannot be used and were left out: {named}{more}."
