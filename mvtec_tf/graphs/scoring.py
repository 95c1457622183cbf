"""Scores of image files by a SavedModel: the road that evaluation and batch prediction share."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.data.decoding import unreadable
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike, speaker
from mvtec_tf.graphs import loading, saved_model
from mvtec_tf.graphs.signatures import EXPLAIN, HEAT_MAP, SERVING_DEFAULT
from mvtec_tf.side_by_side import in_order

# Images of a batch, and batches at a time. More would take memory and no less time.
BATCH = 16
_AT_ONCE = 2
# Not an image; or gone, or forbidden, since the files were listed.
_OF_A_FILE = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    # An address on the web.
    tf.errors.UnimplementedError,
)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of N files.

    Attributes:
      score: float32 [N], higher = more defective.
      probability: float32 [N] of being defective, or None if the model gives none.
    """

    score: np.ndarray
    probability: np.ndarray | None


def score_files(model: PathLike, files: Sequence[str], batch_size: int = BATCH) -> Scores:
    """Runs the `serving_default` signature of the SavedModel in `model` over `files`.

    Raises:
      UserError: no such model, or a file that cannot be read as an image.
    """
    outputs = run_signature(saved_model.load(model).signatures[SERVING_DEFAULT], files, "scored", batch_size)
    return Scores(outputs["anomaly_score"], outputs.get("probability"))


def run_signature(
    signature: Callable, files: Sequence[str], verb: str, batch_size: int = BATCH
) -> dict[str, np.ndarray]:
    """All outputs of a signature that takes `image_bytes`, each [N, ...], with a line of progress now and then."""
    if not files:
        return {name: value.numpy() for name, value in signature(image_bytes=tf.zeros([0], tf.string)).items()}
    parts: dict[str, list[np.ndarray]] = {}
    speak, done = speaker(), 0
    for outputs in stream_signature(signature, files, batch_size):
        for name, value in outputs.items():
            parts.setdefault(name, []).append(value)
        done += min(batch_size, len(files) - done)
        speak(f"{verb} {done} of {len(files)} images")
    return {name: np.concatenate(values) for name, values in parts.items()}


def explained(model: PathLike, files: Sequence[str], batch_size: int = BATCH) -> Iterator[dict[str, np.ndarray]]:
    """What the signature `explain` of the SavedModel in `model` answers to each file, in their order.

    Yields:
      `heat_map` float32 [h, w], `anomaly_score` float32 [] and the rest, of one image after the other.

    Raises:
      UserError: no such model, or a file that cannot be read as an image.
    """
    if not files:
        return
    signature = saved_model.load(model).signatures[EXPLAIN]
    speak, done = speaker(), 0
    for outputs in stream_signature(signature, files, batch_size):
        for index in range(len(outputs[HEAT_MAP])):
            yield {name: values[index] for name, values in outputs.items()}
            done += 1
        speak(f"heat maps: {done:,} of {len(files):,}")


def stream_signature(signature: Callable, files: Sequence[str], batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """The outputs of a signature that takes `image_bytes`, batch by batch, in the order of the files.

    Raises:
      UserError: a file cannot be read as an image; the message names it.
    """
    # As the file system has them: a name need not be valid UTF-8.
    names = [os.fsencode(file) for file in files]
    batches = (names[start : start + batch_size] for start in range(0, len(names), batch_size))

    def answered(batch: Sequence[bytes]) -> dict[str, np.ndarray]:
        try:
            outputs = loading.ask(signature, tf.stack([tf.io.read_file(name) for name in batch]))
        except _OF_A_FILE as error:
            raise UserError(_name_the_bad_file(signature, batch, error)) from error
        return {name: value.numpy() for name, value in outputs.items()}

    # Decoding hardly fills a core: one batch is decoded while another goes through the network.
    return in_order(answered, batches, at_once=_AT_ONCE)


def _name_the_bad_file(signature: Callable, files: Sequence[bytes], error: Exception) -> str:
    for file in files:
        try:
            loading.ask(signature, tf.io.read_file(file)[None])
        except _OF_A_FILE as own:
            return unreadable.message(os.fsdecode(file), unreadable.reason(own))
    return (
        f"{os.fsdecode(files[0])} and the {len(files) - 1} files after it: the model failed on them together ({error})."
    )
