"""The model that a student learns from: a run or an export of ours, whose record says which images it had seen."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data import leaks
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files, table
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.features.feature_graph import FeatureKey
from mvtec_tf.features.probe_graph import Probe
from mvtec_tf.graphs import plain, rebuild, saved_model
from mvtec_tf.graphs.signatures import HEAT_MAP
from mvtec_tf.graphs.thresholded import SCORE, Thresholds
from mvtec_tf.heads.file import load_head, read_head
from mvtec_tf.jobs.probe_features import encoder_of_run
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.run_directory import read_finished
from mvtec_tf.serving import exchange
from mvtec_tf.serving import export as export_lib

# uint8 [1, height, width, 3] -> score [1], heat map [1, H, W], and features: maps [1, h, w, C] of any sizes.
Ask = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A judged model.

    Attributes:
      path: run, or SavedModel of an export.
      model: its SavedModel.
      folder: where its table of predictions and its metrics lie.
      card: of the SavedModel.
      settings: of its run.
      predictions: its table: which image it had been fitted on, and which one was evaluated.
      thresholds: which scores it calls defective.
    """

    path: pathlib.Path
    model: pathlib.Path
    folder: pathlib.Path
    card: Mapping[str, Any]
    settings: Mapping[str, Any]
    predictions: Predictions
    thresholds: Thresholds

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of what it sees."""
        return pixels.height_and_width(self.card["image_size"])

    def parts(self, records: Sequence[Record]) -> tuple[list[Record], list[Record], list[Record]]:
        """Good training images, labelled ones, and evaluated ones, by the teacher's own table.

        Raises:
          UserError: some are not among the `records`, or are others of the same name.
        """
        seen = self.predictions.select(self.predictions.split != leaks.EVALUATE)
        known = {leaks.same_file_key(record.path): record for record in records}

        def found(rows: Predictions) -> list[Record]:
            _, first = np.unique(rows.path.astype(str), return_index=True)
            rows = rows.select(np.sort(first))
            image_files.from_records(records, rows, "`data_dir`")
            return [known[leaks.same_file_key(path)] for path in rows.path.tolist()]

        fitted, evaluate = found(seen), found(self.predictions.part(leaks.EVALUATE))
        good = [record for record in fitted if record.split == "train"]
        if not good:
            raise UserError(
                f"`teacher`={self.path}: was fitted on no good training image, so there is nothing to ask it about and "
                "nothing to calibrate a student on. Expected a teacher of a data set with train/good."
            )
        return good, [record for record in fitted if record.split != "train"], evaluate

    def usual(self, categories: Sequence[str]) -> np.ndarray:
        """Mean score of held-out good images, and threshold, of each category: float64 [N, 2]."""
        rows = self.predictions.part("calibrate")
        rows = rows if len(rows) else self.predictions.select(self.predictions.split != leaks.EVALUATE)
        good = rows.select(rows.label == 0)
        means = {name: good.score[good.category == name].mean() for name in set(good.category.tolist())}
        cuts, whole = self.thresholds.categories, (good.score.mean(), self.thresholds.value)
        return np.array([(means.get(name, whole[0]), cuts.get(name, whole[1])) for name in categories])

    def asked(self) -> Ask:
        """What it answers to pixels, with its middle stages, or where those are not to be had what its head sees."""
        if (self.path / "head.npz").is_file():
            key = read_head(self.path / "head.npz")[0]["key"]
            encoder = encoder_of_run(self.path, {"settings": self.settings}, key["encoder"])
            probe = Probe(encoder, FeatureKey.from_json(key), load_head(self.path / "head.npz", key))

            def of_probe(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
                maps = probe.maps(images)
                answer, heat_map = probe.explain_maps(maps)
                return answer[SCORE], heat_map, maps if len(maps[0]) == 1 else [answer[EMBEDDING][:, None, None]]

            return tf.function(of_probe, input_signature=[tf.TensorSpec([1, *self.size, 3], tf.uint8)])
        answers = plain.of_export(saved_model.load(self.model), self.card["image_size"]).function
        stages = _stages(self) if self.card["kind"] == "classifier" and self.path != self.model else None

        def of_any(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            answer = answers(images)
            maps = [answer[EMBEDDING][:, None, None]] if stages is None else stages(images, training=False)
            return answer[SCORE], answer[HEAT_MAP], maps

        return of_any


def opened(given: str) -> Teacher:
    """The teacher that a path names.

    Args:
      given: a finished run, or saved_models/NAME/VERSION of an export; without the version the newest.

    Raises:
      UserError: it is neither, or gives no verdicts, or was judged on images that it had seen.
    """
    path = pathlib.Path(given)
    if exchange.is_file(path):
        raise UserError(f"`teacher`={given}: a file for another runtime. Name the export or run that it was made of.")
    if (path / "run.json").is_file():
        record = read_finished(path, f"`teacher`={given}")
        model, folder, settings = path / "saved_model", path, record["settings"]
        card = saved_model.read_card(model)
    else:
        path = model = saved_model.newest(path)
        if not model.is_dir():
            raise UserError(f"`teacher`={given}: no run directory and no SavedModel there.")
        card, folder = saved_model.read_card(model), model / saved_model.EXTRA
        settings = card.get("run", {})
    predictions, limits = folder / "predictions.csv", card.get("thresholds")
    if card["kind"] == "encoder" or not predictions.is_file():
        raise UserError(
            f"`teacher`={given}: a model of kind {card['kind']} without predictions.csv, so it gives no verdicts or "
            "does not say which images it had seen. Expected a run of fit, train-cnn or baseline, or its export."
        )
    saved_model.load(model)  # what cannot be read is not found out after the images were
    return Teacher(
        path,
        model,
        folder,
        card,
        settings,
        table.read_predictions(predictions),
        Thresholds(**limits) if limits else export_lib.thresholds_of(folder, None),
    )


def _stages(teacher: Teacher) -> keras.Model:
    """The two stages before the last of a supervised network."""
    network = rebuild.classifier_of(teacher.model, teacher.settings)
    record = files.read_json(teacher.path / "run.json")
    names = [block["name"] for block in record["architecture"] if block["kind"] == "stage"]
    return keras.Model(network.inputs, [network.get_layer(name).output for name in names[-3:-1] or names])
