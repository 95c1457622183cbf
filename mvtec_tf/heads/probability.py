"""From a head's score to the probability of a defect: Platt scaling.

Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood
methods", 1999: a logistic curve over the score, fitted to scores of images that the head was not
fitted on, with targets drawn in from 0 and 1, because a handful of images does not speak for
certainty. Minimised by Newton steps with backtracking, as Lin, Lin and Weng, "A note on Platt's
probabilistic outputs for support vector machines", Machine Learning 68, 2007.
"""

import dataclasses

import numpy as np
from scipy.special import expit

_MAX_STEPS = 100
# Lin et al., algorithm 1: keeps the Hessian invertible where all scores are equal.
_RIDGE = 1e-12


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
    centre, spread = float(scores.mean()), float(scores.std())
    spread = spread if spread > 0 else 1.0
    slope, intercept = _minimise((scores - centre) / spread, targets, weights / weights.sum())
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
