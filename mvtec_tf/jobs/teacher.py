"""The model that a student learns from, and what it is asked.

It is a run or an export of ours, whose record says which images it had seen. It is asked about good training images, as
they are and changed, some with a drawn defect, and photographs of which nobody knows what they are: about each once,
and its answer is kept in the run.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data import augment, leaks, synthetic
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files, table
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.features.feature_graph import FeatureKey, encoder_digest
from mvtec_tf.features.probe_graph import Probe
from mvtec_tf.graphs import plain, rebuild, saved_model, signatures
from mvtec_tf.graphs.signatures import HEAT_MAP
from mvtec_tf.graphs.thresholded import SCORE, Thresholds
from mvtec_tf.heads.file import load_head, read_head
from mvtec_tf.jobs.encoders import encoder_of_run
from mvtec_tf.jobs.settings import DistilRunSettings
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.run_directory import RunDirectory, read_finished
from mvtec_tf.serving import exchange
from mvtec_tf.serving import export as export_lib
from mvtec_tf.training.distil import Questions

# uint8 [1, height, width, 3] -> score [1], heat map [1, H, W], and features: maps [1, h, w, C] of any sizes.
Ask = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]]
FOLDER = "questions"
# Images that are decoded and changed at a time.
_BATCH = 16
# Features are reduced to the directions in which those of the first questions differ most.
_DIRECTIONS, _FIRST, _PLACES = 32, 32, 4_000
# A score is told by how far it is from that of good images (0) to the threshold (1), times this, under asinh: beyond,
# where every image is called defective, differences count less and less.
_STEEP = 3.0
# A value of a heat map is told by how far it is from what is cold in good images (0) to what is hot there (1), times
# this, under asinh. The shares of their values that lie below the two.
_COLD, _HOT, _STEEP_MAP = 0.05, 0.99, 2.0


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

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what a student rests on: graph, numbers, table, and thresholds, which may be chosen anew."""
        table_of, cuts = files.sha256(self.folder / "predictions.csv"), self.thresholds
        said = [encoder_digest(self.model), table_of, [cuts.value, cuts.categories, cuts.unsure]]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def parts(self, records: Sequence[Record]) -> tuple[list[Record], list[Record], list[Record]]:
        """Good training images, labelled ones, and evaluated ones, by the teacher's own table.

        Raises:
          UserError: some are not among the `records`, or are others of the same name.
        """
        seen = self.predictions.select(self.predictions.split != leaks.EVALUATE)

        def found(rows: Predictions) -> list[Record]:
            _, first = np.unique(rows.path.astype(str), return_index=True)
            return image_files.records_of(records, rows.select(np.sort(first)), "`data_dir`")

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
                return answer[SCORE], heat_map, maps if maps[0].shape[0] == 1 else [answer[EMBEDDING][:, None, None]]

            return signatures.once(of_probe, tf.TensorSpec([1, *self.size, 3], tf.uint8))
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


def asked(
    run: RunDirectory,
    settings: DistilRunSettings,
    teacher: Teacher,
    grid: tuple[int, int],
    good: Sequence[Record],
    others: Sequence[Record],
) -> Questions:
    """Asks the teacher all that it was not yet asked in this run.

    Args:
      run: answers are kept in it, pass by pass.
      settings: the recipe.
      teacher: who is asked.
      grid: (rows, columns) of the student's heat map.
      good: good training images.
      others: photographs without labels, of the same categories.

    Returns:
      The questions with its answers in the student's units.
    """
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    passes = []
    for number in range(settings.passes):
        file = folder / f"{number}.npz"
        if not file.exists():
            with run.timed("questions"):
                _ask(settings, teacher, grid, [*good, *others], number, file)
        with np.load(file) as found:
            passes.append(dict(found))
    found = {name: np.concatenate([one[name] for one in passes]) for name in passes[0]}
    categories = [record.category for record in (*good, *others)] * settings.passes
    return _in_units(found, teacher, categories, len(good))


def in_units(score: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """A teacher's scores as a student says them: float [N] and `Teacher.usual` [N, 2] -> float32 [N]."""
    mean, threshold = usual.T
    span = np.where(threshold > mean, threshold - mean, max(float(np.std(score)), 1e-6))
    return np.arcsinh(_STEEP * (score - mean) / span).astype(np.float32)


def _in_units(found: dict[str, np.ndarray], teacher: Teacher, categories: Sequence[str], good: int) -> Questions:
    """The first `good` answers are of good images as they are."""
    heat, matched = found["heat_map"], found["matched"].astype(np.float32)
    cold, hot = np.quantile(heat[:good], (_COLD, _HOT))
    heat = np.arcsinh(_STEEP_MAP * (heat - cold) / max(hot - cold, 1e-6))
    axes = (0, 1, 2)
    matched = (matched - matched.mean(axes)) / np.maximum(matched.std(axes), 1e-6)
    return Questions(
        found["images"],
        in_units(found["score"], teacher.usual(categories)),
        heat.astype(np.float16),
        np.clip(matched, -8, 8).astype(np.float16),
    )


def _ask(
    settings: DistilRunSettings,
    teacher: Teacher,
    grid: tuple[int, int],
    records: Sequence[Record],
    number: int,
    file: pathlib.Path,
) -> None:
    """Asks about every record once and writes images and answers to `file`, whole or not at all."""
    side = max(teacher.size)
    store, ask, speak = ImageStore(side, max_pixels=settings.max_pixels), teacher.asked(), files.speaker()
    rows: dict[str, list] = {"images": [], "score": [], "heat_map": [], "matched": []}
    reduce = file.parent / "directions.npy"
    directions = np.load(reduce) if reduce.exists() else None
    for start in range(0, len(records), _BATCH):
        part = records[start : start + _BATCH]
        seeds = np.stack([np.full(len(part), settings.seed), number * len(records) + start + np.arange(len(part))], 1)
        images = tf.constant(store.load(part))
        if number:
            images = _changed(images, tf.constant(seeds), settings)
        for image in images:
            score, heat_map, maps = ask(pixels.resize(image, teacher.size)[None])
            rows["images"].append(pixels.resize(image, settings.image_size).numpy())
            rows["score"].append(float(score[0]))
            rows["heat_map"].append(tf.image.resize(heat_map[..., None], grid, "area")[0, ..., 0].numpy())
            size = grid if maps[0].shape[1] > 1 else (1, 1)
            joined = tf.concat([tf.image.resize(one, size, "bilinear") for one in maps], axis=-1)[0].numpy()
            rows["matched"].append(joined if directions is None else joined @ directions)
        if directions is None and (len(rows["matched"]) >= _FIRST or start + _BATCH >= len(records)):
            directions = _directions(rows["matched"], reduce, settings.seed)
            rows["matched"] = [one @ directions for one in rows["matched"]]
        what = f"changed copies, {number} of {settings.passes - 1}: " if number else ""
        speak(f"{what}asked the teacher {start + len(part):,} of {counted(len(records), 'question')}")
    columns = {"images": np.uint8, "score": np.float32, "heat_map": np.float32, "matched": np.float16}
    with files.replacing(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **{name: np.array(rows[name], kind) for name, kind in columns.items()})


# Without `reduce_retracing`, which traces a second image size as an unknown one; defects are drawn by the size.
@tf.function(autograph=False)
def with_defects_on_some(images: tf.Tensor, seeds: tf.Tensor, share: float) -> tf.Tensor:
    """Images uint8 [B, S, S, 3], a `share` of them with a drawn defect."""
    return synthetic.on_some(images, tf.zeros_like(seeds[:, 0]), seeds, share)[0]


def _changed(images: tf.Tensor, seeds: tf.Tensor, settings: DistilRunSettings) -> tf.Tensor:
    if settings.synthetic_defects:
        images = with_defects_on_some(images, seeds, settings.synthetic_defects)
    return augment.augment_classifier(images, seeds, settings.augmentation)


def _directions(features: Sequence[np.ndarray], file: pathlib.Path, seed: int) -> np.ndarray:
    """float32 [C, M]: principal directions of features [h, w, C] in which each is of unit variance; kept in `file`,
    for all passes to have the same."""
    rows = np.concatenate([one.reshape(-1, one.shape[-1]) for one in features]).astype(np.float64)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))[:_PLACES]]
    rows -= rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    kept = slice(None, -min(_DIRECTIONS, len(values)) - 1, -1)
    found = (vectors[:, kept] / np.sqrt(np.maximum(values[kept], 1e-9))).astype(np.float32)
    with files.replacing(file) as temporary, temporary.open("wb") as handle:
        np.save(handle, found)
    return found
