"""Image files that cannot be used: why, in the words of the person who has to repair them."""

from collections.abc import Sequence

import tensorflow as tf

from mvtec_tf.data import words
from mvtec_tf.data.decoding import refusal
from mvtec_tf.data.record import Unreadable
from mvtec_tf.errors import UserError

# So many are named in a message; run.json lists all.
_NAMED = 10


def reason(error: tf.errors.OpError) -> str:
    """What an error of `pixels.decode`, here or in an exported graph, says of the file."""
    said = refusal.words_of(error.message)
    return said if refusal.of_decoder(error.message) else f"it cannot be read ({said or type(error).__name__})"


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
    if len(unreadable) == 1:
        raise UserError(message(unreadable[0].record.file, unreadable[0].reason))
    lines = [f"{one.record.file}: {one.reason}." for one in unreadable[:_NAMED]]
    if len(unreadable) > _NAMED:
        lines.append(f"... and {len(unreadable) - _NAMED} more.")
    count = f"{len(unreadable)} of {words.counted(images, 'image')} cannot be used."
    raise UserError("\n".join([*lines, f"{count} Repair or remove them, or leave them out by `on_bad_image`=skip."]))


def message(file: str, reason: str) -> str:
    """What to say of one image that cannot be used."""
    return f"{file}: {reason}. Repair or remove it, or leave it out (in a run: `on_bad_image`=skip)."


def listing(skipped: Sequence[tuple[str, str]]) -> str:
    """A sentence for a person on images that were left out: (path, reason) each."""
    named = words.listing((f"{path} ({reason})" for path, reason in skipped), _NAMED, "; ", ", listed in run.json")
    return f"Left out: {words.counted(len(skipped), 'image')}: {named}."
