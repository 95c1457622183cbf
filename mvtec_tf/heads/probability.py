"""From a head's score to the probability of a defect: Platt scaling.

Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood
methods", 1999: a logistic curve over the score, fitted to scores of images that the head was not
fitted on, with targets drawn in from 0 and 1, because a handful of images does not speak for
certainty. Minimised by Newton steps with backtracking, as Lin, Lin and Weng, "A note on Platt's
probabilistic outputs for support vector machines", Machine Learning 68, 2007.

The curve goes through means, so that a held-out score far beyond all others lays it flat: a head of few
labels, fitted without the one defect of its kind, may put that at -78 where good images have -9. Such a
score is taken as no more than it says by rank: that the image looks as the other kind does.
"""

import dataclasses

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_auc_score

_MAX_STEPS = 100
# Lin et al., algorithm 1: keeps the Hessian invertible where all scores are equal.
_RIDGE = 1e-12
# So many spreads beyond the other kind's median, a score is an outlier. One in three million of that kind's own lies
# there if they are normally distributed, so that ordinary scores are fitted as they are.
_FAR = 5.0
# The median absolute deviation of a normal distribution of standard deviation 1 is one in this.
_SPREAD_OF_DEVIATION = 1.4826


@dataclasses.dataclass(frozen=True)
class Platt:
    """probability = sigmoid(slope * score + intercept); the slope is never negative, so that no
    calibration turns a ranking round."""

    slope: float
    intercept: float

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """float [N] -> float32 [N] of being defective."""
        return expit(self.slope * np.asarray(scores, np.float64) + self.intercept).astype(np.float32)


def fit_platt(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Platt:
    """Fits the curve.

    A score far on the wrong side counts as the other kind's median. Where the scores rank defective above good images
    more often than not, and the means say otherwise even then, all are drawn in to lie between the two medians. A slope
    of 0 is left where they do not rank them so.

    Args:
      scores: float [N], out-of-fold.
      labels: int [N], 1 = defective; both kinds must occur.
      weights: float [N], how many images of the line each one stands for; None: one.

    Raises:
      ValueError: one kind only, scores that are not finite, or shapes that do not fit.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    if not len(scores) == len(labels) == len(weights) or not np.all(np.isfinite(scores)):
        raise ValueError(f"expected N finite scores, labels and weights. Received: {scores}, {labels}, {weights}")
    defective, good = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    if not defective or not good:
        raise ValueError(f"expected good and defective scores. Received: {good} good, {defective} defective.")
    targets = np.where(labels == 1, (defective + 1) / (defective + 2), 1 / (good + 2))
    weights = weights / weights.sum()
    found = _curve(_without_outliers(scores, labels), targets, weights)
    if found.slope == 0 and roc_auc_score(labels, scores) > 0.5:
        medians = [float(np.median(scores[labels == label])) for label in (0, 1)]
        if medians[0] < medians[1]:
            found = _curve(np.clip(scores, *medians), targets, weights)
    return found


def _without_outliers(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The scores, where one that lies far beyond the other kind, on its far side, is the other kind's median."""
    medians = [np.median(scores[labels == label]) for label in (0, 1)]
    spreads = [
        _SPREAD_OF_DEVIATION * np.median(np.abs(scores[labels == label] - medians[label])) for label in (0, 1)
    ]
    # The wider of both: of two or three defects a spread may be next to nothing.
    fence = _FAR * max(spreads)
    low = (labels == 1) & (scores < medians[0] - fence)
    high = (labels == 0) & (scores > medians[1] + fence)
    return np.where(low, medians[0], np.where(high, medians[1], scores)) if fence > 0 else scores


def _curve(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Platt:
    centre, spread = float(scores.mean()), float(scores.std())
    spread = spread if spread > 0 else 1.0
    slope, intercept = _minimise((scores - centre) / spread, targets, weights)
    return Platt(slope / spread, intercept - slope * centre / spread)


def line_weights(labels: np.ndarray, from_line: np.ndarray) -> np.ndarray:
    """How many images of the line each calibration image stands for.

    The labelled images are drawn from what is to be judged and say how common defects are there.
    Extra good training images say how good ones score, but not how common they are: all good
    images together get the weight that the labelled ones among them speak for. Laplace's rule of
    succession keeps a share of 0 or 1 from being read off a handful of images.

    Args:
      labels: int [N], 1 = defective.
      from_line: bool [N], whether the image is one of those drawn and labelled.

    Returns:
      float [N], with a mean of 1.
    """
    labels, from_line = np.asarray(labels), np.asarray(from_line, bool)
    share = (np.sum(labels[from_line] == 1) + 1) / (np.sum(from_line) + 2)
    counts = np.bincount(labels, minlength=2)
    per_image = np.array([(1 - share) / max(counts[0], 1), share / max(counts[1], 1)])
    weights = per_image[labels]
    return weights / weights.mean()


def _minimise(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """(slope >= 0, intercept) of the least weighted cross-entropy."""
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    share = float(weights @ targets)
    point = np.array([0.0, np.log(share / (1 - share))])
    # At slope 0 the best intercept is known; if the loss does not fall towards positive slopes, that is the answer.
    if weights @ ((expit(point[1]) - targets) * scores) >= 0:
        return 0.0, float(point[1])
    for _ in range(_MAX_STEPS):
        probability = expit(design @ point)
        gradient = design.T @ (weights * (probability - targets))
        if np.abs(gradient).max() < 1e-10:
            break
        curvature = design.T @ (design * (weights * probability * (1 - probability))[:, None]) + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        here, length = _loss(design @ point, targets, weights), 1.0
        while length > 1e-10 and _loss(design @ (point - length * step), targets, weights) > here - 1e-4 * length * (
            gradient @ step
        ):
            length /= 2
        point = point - length * step
    return float(point[0]), float(point[1])


def _loss(odds: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ (np.logaddexp(0, odds) - targets * odds))
