"""What a teacher is asked: good training images, as they are and changed, some with a drawn defect, and photographs
of which nobody knows what they are. Each is asked once, and its answer kept in the run."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data import augment, synthetic
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.jobs.settings import DistilRunSettings
from mvtec_tf.jobs.teacher import Teacher
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training.distil import Questions

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
            score, heat_map, maps = ask(_resized(image, teacher.size))
            rows["images"].append(_resized(image, (settings.image_size,) * 2)[0].numpy())
            rows["score"].append(float(score[0]))
            rows["heat_map"].append(tf.image.resize(heat_map[..., None], grid, "area")[0, ..., 0].numpy())
            size = grid if maps[0].shape[1] > 1 else (1, 1)
            joined = tf.concat([tf.image.resize(one, size, "bilinear") for one in maps], axis=-1)[0].numpy()
            rows["matched"].append(joined if directions is None else joined @ directions)
        if directions is None and (len(rows["matched"]) >= _FIRST or start + _BATCH >= len(records)):
            directions = _directions(rows["matched"], reduce, settings.seed)
            rows["matched"] = [one @ directions for one in rows["matched"]]
        speak(f"asked the teacher {start + len(part):,} of {counted(len(records), 'question')}")
    columns = {"images": np.uint8, "score": np.float32, "heat_map": np.float32, "matched": np.float16}
    with files.replacing(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **{name: np.array(rows[name], kind) for name, kind in columns.items()})


@tf.function(reduce_retracing=True)
def _with_defects_on_some(images: tf.Tensor, seeds: tf.Tensor, share: float) -> tf.Tensor:
    return synthetic.on_some(images, tf.zeros_like(seeds[:, 0]), seeds, share)[0]


def _changed(images: tf.Tensor, seeds: tf.Tensor, settings: DistilRunSettings) -> tf.Tensor:
    if settings.synthetic_defects:
        images = _with_defects_on_some(images, seeds, settings.synthetic_defects)
    return augment.augment_classifier(images, seeds, settings.augmentation)


def _resized(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """uint8 [S, S, 3] -> uint8 [1, height, width, 3], as a decoded file is resized."""
    if tuple(image.shape[:2]) == size:
        return image[None]
    found = tf.image.resize(tf.cast(image[None], tf.float32), size, "bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(found), 0.0, 255.0), tf.uint8)


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
