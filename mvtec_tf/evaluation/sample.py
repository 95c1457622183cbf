"""The metrics of one set of images, and of many resamples of it at once.

The set itself is the resample in which every image counts once. Images are sorted by score once; in a
resample they keep that order and only their weights change, so a figure costs a running sum.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.intervals import Resampling
from mvtec_tf.evaluation.metrics import Confusion, Costs, Metric, share

# Where the bands of curves are computed: fine enough for a picture 300 pixels wide.
GRID = np.linspace(0, 1, 101)
GAIN = "f1_gain"
# Guo et al., On Calibration of Modern Neural Networks, ICML 2017: fifteen bins of equal width.
BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Replicates:
    """Figures of one set of images in every resample.

    Attributes:
      figures: metric name -> float [R], NaN where it does not exist; beside the metrics the F1
        above always-defective's, as "f1_gain".
      details: what pictures need, by name: "roc" float [R, len(GRID)], recall at each FPR;
        "precision_recall" likewise, precision at each recall; "parts" float [R, P], share of images
        called defective in each part; "reliability" float [R, BINS], share of defective images in
        each bin of probability. Only those that were asked for and exist.
    """

    figures: Mapping[str, np.ndarray]
    details: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Images gathered by their probability, in bins of equal width; empty bins are left out.

    Attributes:
      predicted: float [B], mean probability in the bin.
      observed: float [B], share of the bin's images that are defective.
      images: int [B].
    """

    predicted: np.ndarray
    observed: np.ndarray
    images: np.ndarray


class Sample:
    """One set of images, prepared for figures of resamples.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite.
      threshold: one, or [N], or None: then there are no figures that need one.
      probabilities: float [N], or None.
      costs: of wrong calls.
      parts: int [N], the part that an image belongs to, negative for none; or None. Only of use
        with a threshold.
    """

    def __init__(
        self,
        labels: np.ndarray,
        scores: np.ndarray,
        threshold: float | np.ndarray | None,
        probabilities: np.ndarray | None,
        costs: Costs,
        parts: np.ndarray | None = None,
    ) -> None:
        defective, scores = metrics.checked(labels, scores)
        self._both_classes = bool(defective.any() and not defective.all())
        self._costs = costs
        self._order, self._last = metrics.ranked(scores)
        self._defective = defective[self._order].astype(float)
        self._calls = self._parts = None
        if threshold is not None:
            called = scores >= threshold
            kinds = (~called & ~defective, called & ~defective, ~called & defective, called & defective)
            self._calls = np.stack(kinds, axis=1).astype(float)
            if parts is not None:
                inside = parts[:, None] == np.arange(parts.max(initial=-1) + 1)
                self._parts = np.hstack([inside & called[:, None], inside]).astype(float)
        self._errors = self._bins = None
        if probabilities is not None:
            gap = probabilities - defective
            inside = np.eye(BINS)[bin_of(probabilities)]
            self._errors = np.hstack([gap[:, None] ** 2, inside * gap[:, None]])
            self._bins = np.hstack([inside * defective[:, None], inside])

    def points(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Found defects and false alarms at every threshold, from above all scores downwards.

        Args:
          weights: float [C, N].

        Returns:
          tp, fp: float [C, T + 1] each.
        """
        ranked = weights[:, self._order]
        below = np.zeros((len(weights), 1))
        tp = np.hstack([below, np.cumsum(ranked * self._defective, axis=1)[:, self._last]])
        both = np.hstack([below, np.cumsum(ranked, axis=1)[:, self._last]])
        return tp, both - tp

    def figures(self, weights: np.ndarray, points: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """Metric name -> float [C]; NaN where a figure does not exist in a resample.

        Args:
          weights: float [C, N].
          points: of the same weights.
        """
        found = {name: figure(*points) for name, figure in metrics.RANKING.items()}
        if self._calls is not None:
            counts = Confusion(*(weights @ self._calls).T)
            found |= metrics.at_threshold(counts, self._costs)
            found[GAIN] = found["f1"] - share(2 * counts.defective, counts.images + counts.defective)
        if self._errors is not None:
            errors, images = weights @ self._errors, weights.sum(1)
            found["brier"] = share(errors[:, 0], images)
            gaps = np.abs(errors[:, 1:]).sum(1)
            found["expected_calibration_error"] = share(gaps, images)
        return found

    def details(self, weights: np.ndarray, points: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """What pictures need, see `Replicates`. Args as in `figures`."""
        found = {"roc": _roc(*points), "precision_recall": _precision_recall(*points)} if self._both_classes else {}
        if self._parts is not None:
            found["parts"] = share(*np.hsplit(weights @ self._parts, 2))
        if self._bins is not None:
            found["reliability"] = share(*np.hsplit(weights @ self._bins, 2))
        return found


def measure(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float | np.ndarray | None,
    no_threshold: str = "there is no threshold",
    probabilities: np.ndarray | None = None,
    costs: Costs | None = None,
) -> dict[str, Metric]:
    """All metrics of one set of images, by name.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite.
      threshold: one, or [N]; None if there is none; then the metrics that need one have no value.
      no_threshold: why there is none.
      probabilities: float [N] in 0..1, of being defective; None if not every image has one.
      costs: of wrong calls; None: 1 each.

    Raises:
      ValueError: labels or scores are not as described.
    """
    sample = Sample(labels, scores, threshold, probabilities, costs or Costs())
    once = np.ones((1, len(labels)))
    figures = sample.figures(once, sample.points(once))
    # Only whether a class is missing can be told without a threshold; only figures without one ask for that then.
    counts = metrics.confusion(labels, scores, np.inf if threshold is None else threshold)
    found = {name: metrics.named(name, figure[0], counts) for name, figure in figures.items() if name != GAIN}
    found |= {name: Metric(None, no_threshold) for name in (*metrics.AT_THRESHOLD, metrics.COST) if name not in found}
    missing = metrics.NO_PROBABILITY if probabilities is None else metrics.NO_IMAGES
    return found | {name: Metric(None, missing) for name in metrics.OF_PROBABILITY if name not in found}


def replicate(
    resampling: Resampling, samples: Sequence[tuple[np.ndarray, Sample]], details: bool = False
) -> list[Replicates]:
    """Figures of several sets of images in the same resamples, so that they can be set against each other.

    Args:
      resampling: of N images.
      samples: (indices into the N images, the images prepared) each.
      details: whether what pictures need is wanted too.
    """
    figures: list[list[dict[str, np.ndarray]]] = [[] for _ in samples]
    extras: list[list[dict[str, np.ndarray]]] = [[] for _ in samples]
    for weights in resampling.chunks():
        for index, (images, sample) in enumerate(samples):
            chosen = weights[:, images]
            points = sample.points(chosen)
            drawn = sample.figures(chosen, points)
            figures[index].append({name: resampling.varied(figure) for name, figure in drawn.items()})
            extras[index].append(sample.details(chosen, points) if details else {})
    return [Replicates(_joined(*pieces), _joined(*more)) for pieces, more in zip(figures, extras, strict=True)]


def _joined(*pieces: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in (pieces[0] if pieces else ())}


def _roc(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Recall at each FPR of the grid, float32 [C, len(GRID)]."""
    rows = [share(np.interp(GRID * x[-1], x, y), y[-1]) for y, x in zip(tp, fp, strict=True)]
    return np.array(rows, np.float32)


def _precision_recall(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Precision of the highest threshold that reaches each recall of the grid, float32 [C, len(GRID)]."""
    rows = []
    for found, stopped in zip(tp, fp, strict=True):
        # At recall 0: the first defect that is found. Below a whole defect there is no recall.
        wanted = np.maximum(GRID * found[-1] - 1e-9, 0.5)
        where = np.minimum(np.searchsorted(found, wanted), len(found) - 1)
        rows.append(share(found[where], found[where] + stopped[where]))
    return np.array(rows, np.float32)


def bin_of(probabilities: np.ndarray) -> np.ndarray:
    """Index of each probability's bin, int [N] in 0..BINS-1; a bin holds its upper end, the first one 0 too."""
    return np.clip(np.ceil(np.asarray(probabilities) * BINS).astype(int) - 1, 0, BINS - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """The bins of a reliability diagram.

    Args:
      labels: [N] of 0 and 1, N > 0.
      probabilities: float [N] in 0..1.
    """
    bins = bin_of(probabilities)
    images = np.bincount(bins, minlength=BINS)
    filled = images > 0
    images = images[filled]
    predicted = np.bincount(bins, probabilities, BINS)[filled] / images
    observed = np.bincount(bins, np.asarray(labels, float), BINS)[filled] / images
    return Reliability(predicted, observed, images)
