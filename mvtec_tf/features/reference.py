"""What is usual: the training's held-out good images, by which an export says how unlike them an image is.

Kept with the run (`reference.npz`), and inside the export's graph.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import conformal, drift, files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UserError
from mvtec_tf.features import neighbours
from mvtec_tf.features.neighbours import Neighbours
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.graphs.signatures import IMAGE_BYTES, IMAGE_STATISTICS, SERVING_DEFAULT, Answer, image_statistics
from mvtec_tf.graphs.thresholded import CATEGORY
from mvtec_tf.heads.frozen import inner_folds
from mvtec_tf.networks.backbone import EMBEDDING

FILE = "reference.npz"
# Of fewer objects nothing is said: "unlike" could not be above 10 / 11.
FEWEST = 10
# More images make it no better, and a run slower.
MOST = 500
# Of held-out distances.
_FOLDS = 10
# A spread is not taken for less than this share of the mean: training images that are all alike have none.
_LEAST_SPREAD = 1e-3
# Standard deviations beyond which a table is not to be read.
_FAR = 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Held-out good images, of C categories that the model tells apart; one if it does not.

    Attributes:
      category: int64 [N].
      mass: float64 [N], so that every object counts once, see `conformal.masses`.
      score: float64 [N], held out.
      mean, spread: float64 [C, 5], of `drift.STATISTICS`.
      z: float64 [N, 5], standard deviations from the mean.
      centre, width: float32 [C, D], mean and standard deviation of the embedding, see `_place`.
    """

    category: np.ndarray
    mass: np.ndarray
    score: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    z: np.ndarray
    centre: np.ndarray
    width: np.ndarray

    @classmethod
    def of(
        cls,
        statistics: np.ndarray,
        embedding: np.ndarray,
        score: np.ndarray,
        category: np.ndarray,
        objects: np.ndarray,
        categories: int = 1,
    ) -> "Reference | None":
        """What N held-out good images say; None if they show too few objects.

        The distance of each is from images of other objects, as that of a new part will be. Categories of which one has
        too few objects are taken together.

        Args:
          statistics: float [N, 3], see `signatures.image_statistics`.
          embedding: float [N, D].
          score: float [N], held out.
          category: int [N], which the model takes them for.
          objects: [N], the object that each shows.
          categories: C, how many the model tells apart.
        """
        if min(len(set(objects[category == number])) for number in range(categories)) < FEWEST:
            category, categories = np.zeros_like(category), 1
        if len(set(objects)) < FEWEST:
            return None
        distance, places = np.empty(len(score)), []
        for number in range(categories):
            mine = np.flatnonzero(category == number)
            folds = inner_folds(np.zeros(len(mine), int), objects[mine], 0, _FOLDS)
            for fold in range(folds.max() + 1):
                inside = folds == fold
                distance[mine[inside]] = _distance(embedding[mine[inside]], *_place(embedding[mine[~inside]]))
            places.append(_place(embedding[mine]))
        raw = np.column_stack([statistics, distance, score]).astype(np.float64)
        parts = [raw[category == number] for number in range(len(places))]
        mean = np.stack([part.mean(axis=0) for part in parts])
        least = np.maximum(_LEAST_SPREAD * np.abs(mean), 1e-6)
        spread = np.maximum([part.std(axis=0) for part in parts], least)
        centre, width = (np.stack(each).astype(np.float32) for each in zip(*places, strict=True))
        z = (raw - mean[category]) / spread[category]
        return cls(category, conformal.masses(objects), raw[:, -1], mean, spread, z, centre, width)

    def save(self, file: files.PathLike) -> None:
        """Writes it, whole or not at all."""
        with files.replacing(file) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **vars(self))

    @classmethod
    def load(cls, file: files.PathLike) -> "Reference":
        """Reads it. Raises UserError if it is damaged."""
        try:
            with np.load(file) as there:
                return cls(**{field.name: there[field.name] for field in dataclasses.fields(cls)})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            without = "Without this file an export says nothing of drift"
            raise UserError(f"{file}: cannot be read ({error}). {without}; fit the run anew to have it.") from error


def keep(
    run_dir: files.PathLike,
    images: Sequence[str],
    score: np.ndarray,
    objects: np.ndarray,
    embedded: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Looks at held-out good images, and writes what they say beside a run; nothing of too few.

    Args:
      run_dir: with its SavedModel.
      images: files, N.
      score: float [N], held out.
      objects: [N], the object that each shows.
      embedded: embedding float [N, D] and number of the category int64 [N], which the run's graph would answer; None:
        it is asked, which takes as long as judging the images.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:MOST])
    model = pathlib.Path(run_dir) / "saved_model"
    card = saved_model.read_card(model)
    look = _look(card) if embedded else saved_model.load(model).signatures[SERVING_DEFAULT]
    seen = scoring.run_signature(look, [images[row] for row in chosen], "what is usual:")
    if embedded:
        embedding, category = (one[chosen] for one in embedded)
    else:
        embedding, category = seen[EMBEDDING], seen.get(CATEGORY, np.zeros(len(chosen), np.int64))
    categories = len(card.get("categories", [""]))
    found = Reference.of(seen[IMAGE_STATISTICS], embedding, score[chosen], category, objects[chosen], categories)
    if found is not None:
        found.save(pathlib.Path(run_dir) / FILE)
        files.write_csv(pathlib.Path(run_dir) / drift.REFERENCE_FILE, drift.COLUMNS, found.z.tolist())
        shown = Neighbours.of(embedding, [images[row] for row in chosen], objects[chosen])
        shown.save(pathlib.Path(run_dir) / neighbours.FILE)


def _look(card: Mapping[str, Any]) -> Callable[..., Answer]:
    """`image_bytes` -> the statistics of the image alone, as the graph that the card is of computes them."""

    @tf.function(input_signature=[IMAGE_BYTES], autograph=False)
    def look(image_bytes: tf.Tensor) -> Answer:
        images = pixels.decode_batch(image_bytes, card["image_size"], card["max_pixels"])
        return {IMAGE_STATISTICS: image_statistics(images)}

    return look


class Usual(tf.Module):
    """How usual images are, as ops.

    Args:
      reference: that they are set beside.
    """

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        number = len(reference.mean)
        most = np.bincount(reference.category, minlength=number).max()
        # [C, most]: the largest deviation and the score of each; what fills a row up has no mass.
        table = np.zeros((3, number, most))
        for category in range(number):
            mine = reference.category == category
            unlike = np.abs(reference.z[mine, :-1]).max(axis=1)
            table[:, category, : mine.sum()] = reference.mass[mine], unlike, reference.score[mine]
        arrays = [*table, reference.mean, reference.spread, reference.centre, reference.width]
        self._arrays = [tf.Variable(one, trainable=False, dtype=tf.float32) for one in arrays]

    def score(self, category: tf.Tensor) -> tf.Tensor:
        """int64 [B] -> mean score of the held-out good images of each category, float32 [B]."""
        mean = self._arrays[3]
        return tf.gather(mean[:, -1], tf.minimum(category, mean.shape[0] - 1))

    def __call__(self, statistics: tf.Tensor, embedding: tf.Tensor, score: tf.Tensor, category: tf.Tensor) -> Answer:
        """How usual each of B images is.

        Args:
          statistics: float32 [B, 3], see `signatures.image_statistics`.
          embedding: float32 [B, D].
          score: float32 [B].
          category: int64 [B].

        Returns:
          `drift.COLUMNS`: how many standard deviations each statistic lies from its mean. `unlike_training`: 1 - the
          conformal p-value (see `conformal`) of the largest of them but the score's. `p_value`: the conformal p-value
          of the score among those of good images. float32 [B] each.
        """
        which = tf.minimum(category, self._arrays[0].shape[0] - 1)
        mass, unlike, scores, mean, spread, centre, width = (tf.gather(one, which) for one in self._arrays)
        distance = tf.sqrt(tf.reduce_mean(tf.square((embedding - centre) / width), axis=1))
        raw = tf.concat([statistics, distance[:, None], score[:, None]], axis=1)
        z = tf.clip_by_value((raw - mean) / spread, -_FAR, _FAR)
        found = dict(zip(drift.COLUMNS, tf.unstack(z, axis=1), strict=True))
        found[drift.UNLIKE] = 1 - _p_value(tf.reduce_max(tf.abs(z[:, :-1]), axis=1), unlike, mass)
        return found | {drift.P_VALUE: _p_value(score, scores, mass)}


def _p_value(values: tf.Tensor, those: tf.Tensor, mass: tf.Tensor) -> tf.Tensor:
    """Of [B] among [B, n] that count `mass` each: the share that is as large, the new one among them."""
    as_large = tf.cast(those >= values[:, None], tf.float32)
    return (1 + tf.reduce_sum(mass * as_large, axis=1)) / (1 + tf.reduce_sum(mass, axis=1))


def _place(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and width of each dimension, [D]: its variance, half of it that of all dimensions, as few images want it."""
    variance = embedding.var(axis=0, dtype=np.float64)
    return embedding.mean(axis=0, dtype=np.float64), np.sqrt(np.maximum((variance + variance.mean()) / 2, 1e-12))


def _distance(embedding: np.ndarray, centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    return np.sqrt((((embedding - centre) / width) ** 2).mean(axis=1))
