"""Images whose label the others speak against: by a regression and a distance that never saw them.

A wrong label is found by a fit that did not see it: each object is held out, with all its photographs. What is left of
the good images says how far it lies from them, a ridge regression on good (-1) and defective (+1) on which side; few
wrong labels among many move either hardly. Each weighs what it lifts labelled defects by, as independent scores of unit
variance are best added (Fisher's discriminant): where all defects are subtle, the distance says nothing.

Ranking labels by out-of-fold margins is Northcutt, Jiang and Chuang, "Confident learning", JAIR 70, 2021; the
thresholds of that paper need probabilities, which a dozen defects do not give. Compared with other methods by
tools/suspects_search.py.
"""

import dataclasses

import numpy as np
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from mvtec_tf.heads.frozen import inner_folds
from mvtec_tf.heads.fused import FOLDS, held_out_ridge
from mvtec_tf.heads.gaussian import GoodGaussian, held_out_distances

# Objects of a class that are needed to hold one out and say what the others are like.
_LEAST_GOOD, _LEAST_DEFECTIVE = 3, 2
# Standard deviations from which on a good image stands out where no defect says where defects begin.
_FAR = 3.0
# Median absolute deviations of a normal variable in one standard deviation.
_DEVIATION = 1.4826


@dataclasses.dataclass(frozen=True)
class Suspicion:
    """What the others say of each of N labels.

    Attributes:
      score: float64 [N], in standard deviations of held-out good images beyond the cut between good and defective;
        above 0 the others speak against the label, NaN where an image could not be held out.
      neighbour: int [N], where the score is above 0 the nearest image of another object with the other label, or the
        nearest good one where there is none; -1 elsewhere.
      by_labels: whether labels of both kinds say it; otherwise only good images are looked at.
    """

    score: np.ndarray
    neighbour: np.ndarray
    by_labels: bool


# As `fused.Fused` does it.
@threadpool_limits.wrap(limits=1)
def suspicion(pooled: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> Suspicion:
    """How much the other images of a category speak against each label.

    Args:
      pooled: float [N, D], global features.
      labels: int [N], 1 = defective.
      groups: [N], equal for images of one object.
      seed: random seed of the folds.
    """
    pooled, good = np.asarray(pooled, np.float64), labels == 0
    objects = np.unique(groups, return_inverse=True)[1]
    standard, score = rotated(pooled, good), np.full(len(labels), np.nan)
    counts = [len(np.unique(objects[own])) for own in (good, ~good)]
    by_labels = counts[0] >= _LEAST_GOOD and counts[1] >= _LEAST_DEFECTIVE
    if counts[0] < _LEAST_GOOD:
        return Suspicion(score, np.full(len(labels), -1), False)
    folds = inner_folds(labels, groups, seed, FOLDS)
    known = folds >= 0
    distance = score.copy()
    distance[known] = held_out_distances(pooled[known], good[known], folds[known], GoodGaussian(pooled[good & known]))
    if not by_labels:
        # By medians: defects among the good images must not widen what is usual.
        usual = np.nanmedian(distance[good])
        spread = _DEVIATION * np.nanmedian(np.abs(distance[good] - usual)) or 1.0
        score = np.where(good, (distance - usual) / spread - _FAR, np.nan)
    else:
        both = [_standardised(values, good) for values in (distance, held_out_ridge(standard, labels, folds))]
        joined = _standardised(sum(max(np.nanmean(one[~good]), 0.0) * one for one in both), good)
        score = (joined - best_cut(joined, good)) * np.where(good, 1, -1)
    return Suspicion(score, _neighbours(standard, labels, objects, score > 0), by_labels)


def _standardised(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """In standard deviations of good images, from their mean."""
    return (values - np.nanmean(values[good])) / (np.nanstd(values[good]) or 1.0)


def best_cut(scores: np.ndarray, good: np.ndarray) -> float:
    """The middle of the cuts of the best balanced accuracy.

    Args:
      scores: float [N], NaN where there is none.
      good: bool [N]; both classes have scores.
    """
    low, high = (np.sort(scores[own & np.isfinite(scores)]) for own in (good, ~good))
    values = np.unique(np.concatenate([low, high]))
    cuts = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    right = np.searchsorted(low, cuts) / len(low) + 1 - np.searchsorted(high, cuts) / len(high)
    return float(np.median(cuts[right >= right.max() - 1e-9]))


def rotated(pooled: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Features in standard deviations of the good images, along axes that hold all of them: float64 [N, at most N]."""
    reference = pooled[good] if good.any() else pooled
    scale = reference.std(axis=0)
    standard = (pooled - reference.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    # Only lengths and products are looked at, which a rotation keeps.
    left, strength, _ = np.linalg.svd(standard, full_matrices=False)
    return left * strength


def _neighbours(standard: np.ndarray, labels: np.ndarray, objects: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int [N], of the wanted ones, bool [N]; of the other label if there is one, never of the same object; else -1."""
    found = np.full(len(labels), -1)
    for row in np.flatnonzero(wanted):
        apart = objects != objects[row]
        others = np.flatnonzero(apart & (labels != labels[row]))
        # There are other good objects, or nobody would be suspected.
        others = others if len(others) else np.flatnonzero(apart)
        found[row] = others[cdist(standard[row : row + 1], standard[others]).argmin()]
    return found
