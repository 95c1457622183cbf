"""From a finished run to `saved_models/NAME/VERSION/`: the judged graph with its threshold beside it."""

import json
import pathlib
import shutil
from typing import Any

import tensorflow as tf

from mvtec_tf import atomic
from mvtec_tf.errors import UserError
from mvtec_tf.serving import saved_model


class ThresholdedModel(tf.Module):
    """A scoring SavedModel, read back, that also says what it calls defective.

    Args:
      scoring: path of a SavedModel with `anomaly_score` and perhaps `probability`.
      threshold: a score that reaches it is called defective.
    """

    def __init__(self, scoring: atomic.PathLike, threshold: float) -> None:
        super().__init__()
        self._scoring = saved_model.load(scoring)
        self._threshold = tf.Variable(threshold, trainable=False, dtype=tf.float32)

    @tf.function(input_signature=[saved_model.IMAGE_BYTES])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [B] -> `anomaly_score`, `threshold` float32 [B], `label` int64 [B], perhaps `probability`."""
        outputs = self._scoring.signatures["serving_default"](image_bytes=image_bytes)
        score = outputs["anomaly_score"]
        threshold = tf.fill(tf.shape(score), self._threshold.read_value())
        return outputs | {"threshold": threshold, "label": tf.cast(score >= threshold, tf.int64)}


def export_run(
    run_dir: atomic.PathLike, name: str, root: atomic.PathLike, threshold: float | None = None
) -> pathlib.Path:
    """Writes the next version of `name` below `root`, whole or not at all; older ones stay untouched.

    Args:
      run_dir: a finished run with a SavedModel in it.
      name: of the model.
      root: folder of all models.
      threshold: overrides the one that the run's evaluation used; meaningless for an encoder.

    Returns:
      The new directory.

    Raises:
      UserError: the run is not finished or has no model or no threshold.
    """
    run_dir = pathlib.Path(run_dir)
    source = run_dir / "saved_model"
    card = saved_model.read_card(source)
    target = _next_version(pathlib.Path(root) / name)
    if card["kind"] == "encoder":
        with atomic.new_directory(target) as directory:
            shutil.copytree(source, directory, dirs_exist_ok=True)
        return target
    value, origin = _threshold(run_dir, threshold)
    model = ThresholdedModel(source, value)
    card |= {"name": name, "version": int(target.name), "threshold": value, "threshold_origin": origin}
    saved_model.write_module(target, model, model.serve, card)
    return target


def _threshold(run_dir: pathlib.Path, given: float | None) -> tuple[float, str]:
    if given is not None:
        return given, "given on the command line"
    file = run_dir / "metrics.json"
    if not file.is_file():
        raise UserError(f"{run_dir}: the run is not finished (no metrics.json). Repeat its command to finish it.")
    threshold: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["threshold"]
    if threshold["value"] is None:
        raise UserError(f"{file}: the run has no threshold ({threshold['reason']}). Give one with --threshold.")
    return threshold["value"], threshold["reason"]


def _next_version(folder: pathlib.Path) -> pathlib.Path:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file of this name is in the way. Choose another --name.")
    versions = [int(child.name) for child in folder.glob("*") if child.name.isdigit()] if folder.exists() else []
    return folder / str(max(versions, default=0) + 1)
