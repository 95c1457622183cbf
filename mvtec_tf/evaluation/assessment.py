"""What a table of predictions amounts to: all figures, overall and per category, beside the trivial ones."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.evaluation import metrics, thresholds
from mvtec_tf.evaluation.metrics import Confusion, Metric
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Threshold

BETTER = "better"
MIXED = "mixed"
NO_BETTER = "no_better"
UNKNOWN = "unknown"

# Below this specificity a model lets pass fewer than one good image in twenty: as an inspection it
# does what calling everything defective does, whatever the last digits of its F1 are.
_NEARLY_NO_GOOD_PASSES = 0.05
# So close to 0.5, the balanced accuracy of every classifier that does not look, is not above it.
_NEARLY_CHANCE = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Scope:
    """One set of images that was judged: all of them, or one category.

    Attributes:
      name: of the category; "" for all images, which no category can be called.
      labels, scores: [N] each, of the evaluated images.
      metrics: the model's figures by name.
      always_defective: the same figures of calling every image defective.
      counts: at the threshold; None if there is none.
    """

    name: str
    labels: np.ndarray
    scores: np.ndarray
    metrics: Mapping[str, Metric]
    always_defective: Mapping[str, Metric]
    counts: Confusion | None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def defective(self) -> int:
        """Number of defective images."""
        return int(np.sum(self.labels))

    @property
    def good(self) -> int:
        """Number of good images."""
        return self.images - self.defective

    @property
    def verdict(self) -> str:
        """Whether the model beats calling every image defective.

        "no_better": its balanced accuracy is that of a classifier that does not look, or it lets
        hardly a good image pass, whatever its F1. "mixed": it tells good from defective, but its
        F1 is not above always-defective's. "better": above in both. "unknown": there is no
        threshold, or only one class.
        """
        balanced, f1 = self.metrics["balanced_accuracy"].value, self.metrics["f1"].value
        if balanced is None or f1 is None:
            return UNKNOWN
        if balanced <= 0.5 + _NEARLY_CHANCE or self.stops_nearly_everything:
            return NO_BETTER
        return BETTER if f1 > self.always_defective["f1"].value else MIXED

    @property
    def stops_nearly_everything(self) -> bool:
        """Whether hardly a good image passes."""
        specificity = self.metrics["specificity"].value
        return specificity is not None and specificity < _NEARLY_NO_GOOD_PASSES


@dataclasses.dataclass(frozen=True, eq=False)
class Assessment:
    """All figures of one table of predictions.

    Attributes:
      overall: all evaluated images.
      categories: each category by name.
      mean, mean_always_defective: unweighted means over the categories.
      threshold: the threshold and where it comes from.
      splits: split -> (images, defective images), of all rows of the table.
    """

    overall: Scope
    categories: Mapping[str, Scope]
    mean: Mapping[str, Metric]
    mean_always_defective: Mapping[str, Metric]
    threshold: Threshold
    splits: Mapping[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """The content of `metrics.json` but for the summary."""
        scopes = self.categories.items()
        return {
            "overall": _forms(self.overall.metrics),
            "categories": {name: _forms(scope.metrics) for name, scope in scopes},
            "mean_over_categories": _forms(self.mean),
            "trivial": {
                "always_defective": {
                    "overall": _forms(self.overall.always_defective),
                    "categories": {name: _forms(scope.always_defective) for name, scope in scopes},
                    "mean_over_categories": _forms(self.mean_always_defective),
                }
            },
            "verdict": self.overall.verdict,
            "threshold": self.threshold.as_json(),
            "confusion": {
                "overall": _counts(self.overall),
                "categories": {name: _counts(scope) for name, scope in scopes},
            },
            "counts": {
                split: {"images": images, "defective": defective, "good": images - defective}
                for split, (images, defective) in self.splits.items()
            },
        }


def assess(predictions: Predictions, threshold: float | None = None) -> Assessment:
    """Judges the evaluate rows of a checked table.

    Args:
      predictions: see `table.check`; the caller has checked it.
      threshold: if None, it is chosen on the calibrate rows, see `thresholds.choose_threshold`.
    """
    if threshold is None:
        calibrate = predictions.part(leaks.CALIBRATE)
        chosen = thresholds.choose_threshold(calibrate.label, calibrate.score)
    else:
        chosen = thresholds.given(threshold)
    evaluate = predictions.part(leaks.EVALUATE)
    categories = {
        name: _scope(name, evaluate.select(evaluate.category == name), chosen) for name in evaluate.categories()
    }
    splits = {split: predictions.label[predictions.split == split] for split in leaks.SPLITS}
    return Assessment(
        overall=_scope("", evaluate, chosen),
        categories=categories,
        mean=metrics.mean_over({name: scope.metrics for name, scope in categories.items()}),
        mean_always_defective=metrics.mean_over({name: scope.always_defective for name, scope in categories.items()}),
        threshold=chosen,
        splits={split: (len(labels), int(labels.sum())) for split, labels in splits.items()},
    )


def _scope(name: str, images: Predictions, threshold: Threshold) -> Scope:
    labels, scores = images.label, images.score
    return Scope(
        name=name,
        labels=labels,
        scores=scores,
        metrics=metrics.measure(labels, scores, threshold.value, f"no threshold: {threshold.reason}"),
        always_defective=metrics.measure_always_defective(labels),
        counts=None if threshold.value is None else metrics.confusion(labels, scores, threshold.value),
    )


def _forms(found: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: metric.as_json() for name, metric in found.items()}


def _counts(scope: Scope) -> dict[str, int] | None:
    return None if scope.counts is None else dataclasses.asdict(scope.counts)
