"""Fitting a head on frozen features, with out-of-fold scores of what it was fitted on."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.records import Record
from mvtec_tf.models.heads import Head, PerCategoryHead

# Five folds leave four fifths of a handful of labels to each fit.
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class FittedProbe:
    """A head and what it says of images that it was not fitted on.

    Attributes:
      head: fitted on all images.
      calibrate: indices int64 [M] of the images that have an out-of-fold score.
      calibrate_scores: float32 [M], each by a head that was fitted without the image's fold.
    """

    head: PerCategoryHead
    calibrate: np.ndarray
    calibrate_scores: np.ndarray


def fit_probe(make_head: Callable[[], Head], features: np.ndarray, records: Sequence[Record], seed: int) -> FittedProbe:
    """Fits one head a category, and again without each fold.

    Args:
      make_head: gives an unfitted head.
      features: float32 [N, D].
      records: the N images; their labels are used.
      seed: of the folds.

    Raises:
      UserError: a category lacks a class that the head needs.
    """
    labels = np.array([record.label for record in records])
    categories = np.array([record.category for record in records])
    head = _fit(make_head, features, labels, categories)
    folds = protocol.folds(records, FOLDS, seed)
    scores = np.full(len(records), np.nan, np.float32)
    for fold in range(FOLDS):
        held_out = folds == fold
        if not held_out.any():
            continue
        rest = ~held_out
        for category in np.unique(categories[held_out]):
            # A head of the image's own category: the choice among categories is not what is calibrated.
            own = categories == category
            part = make_head().fit(features[rest & own], labels[rest & own])
            scores[held_out & own] = part.decision_function(features[held_out & own])
    calibrate = np.flatnonzero(folds >= 0)
    return FittedProbe(head, calibrate, scores[calibrate])


def _fit(
    make_head: Callable[[], Head], features: np.ndarray, labels: np.ndarray, categories: np.ndarray
) -> PerCategoryHead:
    heads = {str(category): make_head() for category in np.unique(categories)}
    return PerCategoryHead(heads).fit(features, labels, categories)
