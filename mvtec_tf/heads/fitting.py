"""Fitting a head on frozen features, with out-of-fold scores of what it was fitted on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.heads.base import Head
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.defect_types import PerCategoryTypeHead
from mvtec_tf.heads.frozen import FrozenFeatures, frozen
from mvtec_tf.heads.probability import Platt, fit_platt, line_weights

# Five folds leave four fifths of a handful of labels to each fit.
FOLDS = 5
# Images of a category that a head is fitted on. Some heads keep a number for each patch of each, or compare each with
# all: more would cost memory and time without end, and tell little that is new.
MOST_IMAGES = 10_000


@dataclasses.dataclass(frozen=True)
class FittedProbe:
    """A head and what it says of images that it was not fitted on.

    Attributes:
      head: fitted on all images, with a calibrated probability where every category has
        out-of-fold scores of good and of defective images.
      calibrate: indices int64 [M] of the images that have an out-of-fold score.
      calibrate_scores: float32 [M], each by a head that was fitted without the image's fold.
      warnings: what the labels were too few for, one sentence a category.
    """

    head: PerCategoryHead
    calibrate: np.ndarray
    calibrate_scores: np.ndarray
    warnings: tuple[str, ...] = ()

    def with_scores(self, held_out: Sequence[Record], scores: np.ndarray) -> "FittedProbe":
        """The same, calibrated on other scores, float [M], of its held-out images."""
        self.head.calibrate(_calibrations(held_out, scores))
        return dataclasses.replace(self, calibrate_scores=np.asarray(scores, np.float32))

    def scores(self, features: Any) -> np.ndarray:
        """float32 [N] of the images that it was fitted on: out-of-fold, or where there is none by the head itself."""
        scores = np.full(len(features), np.nan, np.float32)
        scores[self.calibrate] = self.calibrate_scores
        if (own := np.isnan(scores)).any():
            scores[own] = self.head.decision_function(frozen(features).select(own))
        return scores


def fit_probe(
    make_head: Callable[[], Any], features: Any, records: Sequence[Record], seed: int, of_types: bool = False
) -> FittedProbe:
    """Fits one head a category, and again without each fold; calibrates on what the latter say.

    Of a category with more than `MOST_IMAGES` so many are drawn, and the others are left aside: defective ones first,
    but no more than half.

    Args:
      make_head: gives an unfitted head.
      features: `FrozenFeatures` of the N images, or their global features, float32 [N, D].
      records: the N images; their labels and groups are used.
      seed: of the folds, and of what is drawn.
      of_types: whether the heads are `TypeHead`s, fitted on the defects' names.

    Raises:
      UserError: a category lacks a class that the head needs.
    """
    drawn, said = _drawn(records, seed)
    if said:
        probe = fit_probe(make_head, frozen(features).select(drawn), [records[i] for i in drawn], seed, of_types)
        return dataclasses.replace(probe, calibrate=drawn[probe.calibrate], warnings=(*said, *probe.warnings))
    labels = np.array([record.label for record in records])
    categories = np.array([record.category for record in records])
    features = dataclasses.replace(frozen(features), groups=np.array([record.group for record in records]))
    targets = np.array([record.defect for record in records]) if of_types else labels
    heads = {str(category): make_head() for category in np.unique(categories)}
    head = (PerCategoryTypeHead if of_types else PerCategoryHead)(heads).fit(features, targets, categories)
    folds = protocol.folds(records, FOLDS, seed)
    if all(own.held_out_ is not None for own in head.heads.values()):
        scores = np.full(len(targets), np.nan, np.float32)
        for category, own in head.heads.items():
            scores[categories == category] = own.held_out_
    else:
        scores = _out_of_fold(make_head, features, targets, categories, folds)
    calibrate = np.flatnonzero(np.isfinite(scores))
    probe = FittedProbe(head, calibrate, scores[calibrate], tuple(_warnings(records, folds)))
    return probe.with_scores([records[i] for i in calibrate], scores[calibrate])


def _drawn(records: Sequence[Record], seed: int) -> tuple[np.ndarray, list[str]]:
    """The rows that are fitted on, ascending, and a sentence for each category of which some are left aside."""
    labels = np.array([record.label for record in records])
    categories = np.array([record.category for record in records])
    rng, kept, said = np.random.default_rng(seed), [], []
    for category in np.unique(categories):
        rows = np.flatnonzero(categories == category)
        if len(rows) > MOST_IMAGES:
            good, defective = (rng.permutation(rows[labels[rows] == label]) for label in (0, 1))
            wanted = min(len(defective), max(MOST_IMAGES // 2, MOST_IMAGES - len(good)))
            said.append(
                f"Category {str(category)!r}: the head was fitted on {MOST_IMAGES:,} of {len(rows):,} images, drawn at "
                f"random, {wanted:,} of {len(defective):,} defective ones among them."
            )
            rows = np.concatenate([defective[:wanted], good[: MOST_IMAGES - wanted]])
        kept.append(rows)
    return np.sort(np.concatenate(kept)), said


def _out_of_fold(
    make_head: Callable[[], Head],
    features: FrozenFeatures,
    targets: np.ndarray,
    categories: np.ndarray,
    folds: np.ndarray,
) -> np.ndarray:
    """float32 [N], NaN where the fold is -1."""
    scores = np.full(len(targets), np.nan, np.float32)
    for fold in range(FOLDS):
        held_out = folds == fold
        for category in np.unique(categories[held_out]):
            # A head of the image's own category: the choice among categories is not what is calibrated.
            own = categories == category
            try:
                part = make_head().fit(features.select(~held_out & own), targets[~held_out & own])
            except UserError as error:
                without = f"category {str(category)!r}, with fold {fold + 1} of {FOLDS} held out of the fit"
                raise type(error)(f"{without}: {error}") from error
            scores[held_out & own] = part.decision_function(features.select(held_out & own))
    return scores


def _calibrations(records: Sequence[Record], scores: np.ndarray) -> dict[str, Platt]:
    """category -> calibration, where there are good and defective images of the category."""
    labels = np.array([record.label for record in records], int)
    categories = np.array([record.category for record in records])
    # Good training images are extra: they say nothing of how common defects are on the line.
    from_line = np.array([record.split == "test" for record in records], bool)
    found = {}
    for category in np.unique(categories):
        own = categories == category
        if len(set(labels[own])) == 2:
            weights = line_weights(labels[own], from_line[own])
            found[str(category)] = fit_platt(scores[own], labels[own], weights)
    return found


def _warnings(records: Sequence[Record], folds: np.ndarray) -> list[str]:
    """What the labels are too few for, in words."""
    defective = [(record, fold) for record, fold in zip(records, folds, strict=True) if record.label]
    sentences = []
    for category in sorted({record.category for record in records}):
        own = [(record.group, fold) for record, fold in defective if record.category == category]
        defects = {group for group, _ in own}
        if any(fold < 0 for _, fold in own):
            sentences.append(
                f"Category {category!r} has a single labelled defective object. The fit needed it and it could not be "
                "held out, so the threshold rests on held-out good images and there is no calibrated probability."
            )
        elif 0 < len(defects) < FOLDS:
            sentences.append(
                f"Category {category!r} has {len(defects)} labelled defective objects for {FOLDS} folds: each was held "
                "out by itself, and threshold and probability rest on so few."
            )
    return sentences
