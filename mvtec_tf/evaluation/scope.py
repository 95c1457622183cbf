"""One set of images that was judged, all of them or one category: its figures and its verdict."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from mvtec_tf.evaluation import intervals, metrics, sample, trivial
from mvtec_tf.evaluation.intervals import Resampling
from mvtec_tf.evaluation.metrics import Confusion, Costs, Metric
from mvtec_tf.evaluation.sample import Replicates, Sample
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Chosen, Threshold

BETTER = "better"
MIXED = "mixed"
UNPROVEN = "unproven"
NO_BETTER = "no_better"
UNKNOWN = "unknown"
LEAK = "leak"

CALLS_ONLY = (
    "the scores have only two values, so they are calls and no ranking: ROC-AUC is then the balanced accuracy of these "
    "calls, and there is only one threshold to choose"
)
ONE_SCORE = "every image has the same score, so nothing is ranked: ROC-AUC is then 0.5, whatever the labels are"
# By how many different scores a table has, what is to be said of its ranking.
FEW_SCORES = {1: ONE_SCORE, 2: CALLS_ONLY}
# Of a model that gives every image the same one, near the share of defects, the error would be near 0.
ONE_PROBABILITY = "every image has the same probability, so it cannot be told whether a higher one means more"
_UNNAMED = "(not named)"
# Below this specificity a model lets pass fewer than one good image in twenty: as an inspection it
# does what calling everything defective does, however sure one is of the last digits of its F1.
_NEARLY_NO_GOOD_PASSES = 0.05
# Differences are of sums of fractions; this much is rounding.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Part:
    """Defective images of one kind within a scope: of one defect type.

    Attributes:
      name: of the kind.
      images: how many there are.
      found: how many were called defective.
      recall: their ratio, with its interval.
    """

    name: str
    images: int
    found: int
    recall: Metric

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return {"images": self.images, "found": self.found, "recall": self.recall.as_json()}


@dataclasses.dataclass(frozen=True, eq=False)
class Scope:
    """One set of images that was judged.

    Attributes:
      name: of the category; "" for all images, which no category can be called.
      labels, scores: [N] each, of the evaluated images.
      probabilities: float [N], or None if not every evaluated image of the table has one.
      metrics: the model's figures by name.
      trivial: the same figures of each classifier that does not look, by its name.
      gains: what the model's balanced accuracy and F1 are above always-defective's.
      threshold: by which the images were called; without a value where there is none, or where
        each category has its own.
      counts: of the calls; None if there were none.
      parts: the defective images by defect type; empty without calls.
      bands: "roc", "precision_recall" and "reliability" -> float [2, G], lower and upper limits.
      categories: of all images, where there are several; a category has none.
    """

    name: str
    labels: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray | None
    metrics: Mapping[str, Metric]
    trivial: Mapping[str, Mapping[str, Metric]]
    gains: Mapping[str, Metric]
    threshold: Threshold
    counts: Confusion | None
    parts: tuple[Part, ...]
    bands: Mapping[str, np.ndarray]
    categories: tuple["Scope", ...] = ()

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
    def always_defective(self) -> Mapping[str, Metric]:
        """The figures of calling every image defective."""
        return self.trivial[trivial.ALWAYS_DEFECTIVE]

    @property
    def verdict(self) -> str:
        """Whether the model beats calling every image defective, by the intervals of the differences.

        "better": its balanced accuracy and its F1 are above, and so are their whole intervals.
        "mixed": only its balanced accuracy is, so it looks, but its F1 is not shown to be higher.
        "unproven": both are above, but even the balanced accuracy's interval reaches down to chance.
        "no_better": neither, or hardly a good image passes, whatever its F1.
        "unknown": there is no threshold, or only one class.
        """
        return verdict(self.gains, self.metrics["specificity"])

    @property
    def stops_nearly_everything(self) -> bool:
        """Whether hardly a good image passes."""
        return _nearly_none_passes(self.metrics["specificity"])


def judge(
    table: Predictions,
    places: Mapping[str, np.ndarray],
    resampling: Resampling,
    images: np.ndarray,
    chosen: Chosen,
    costs: Costs,
    details: bool = False,
) -> tuple[dict[str, Scope], dict[str, Replicates]]:
    """The scopes of a table, and their figures in the same resamples.

    Args:
      table: evaluate rows, N.
      places: name of a category, "" of all images -> indices of its rows, one or more.
      resampling: of the images of this table, and perhaps of more.
      images: int [N], which of the resampled images each row is.
      chosen: the thresholds.
      costs: of wrong calls.
      details: whether what pictures need is wanted too.
    """
    limits = chosen.each(table.category)
    parts = {
        name: _Images(
            name=name,
            table=table.select(rows),
            units=resampling.units[images[rows]],
            limits=limits[rows] if isinstance(limits, np.ndarray) else limits,
            threshold=chosen.of(name) if name else chosen.together,
            # Probabilities of some images only would be judged on other images than the scores.
            probabilities=None if np.isnan(table.probability).any() else table.probability[rows],
            about_ranking=FEW_SCORES.get(len(np.unique(table.score)), ""),
            costs=costs,
        )
        for name, rows in places.items()
    }
    samples = [(images[rows], parts[name].sample()) for name, rows in places.items()]
    replicates = dict(zip(parts, sample.replicate(resampling, samples, details), strict=True))
    return {name: part.judged(replicates[name]) for name, part in parts.items()}, replicates


@dataclasses.dataclass(frozen=True, eq=False)
class _Images:
    """The images of a scope before they are judged.

    Attributes:
      name, threshold, probabilities: see `Scope`.
      table: their rows.
      units: int [N], the group of each.
      limits: the threshold, one or [N]; None if there is none.
      about_ranking: what is to be said of it, for the scores of the whole table have few values; "" if nothing is.
      costs: of wrong calls.
    """

    name: str
    table: Predictions
    units: np.ndarray
    limits: float | np.ndarray | None
    threshold: Threshold
    probabilities: np.ndarray | None
    about_ranking: str
    costs: Costs

    @property
    def defects(self) -> tuple[str, ...]:
        """The defect types of the defective images, sorted."""
        return tuple(sorted(set(self.table.defect[self.table.label == 1].tolist())))

    def sample(self) -> Sample:
        """Prepared for resampling; its parts are the defect types."""
        code = {name: index for index, name in enumerate(self.defects)}
        pairs = zip(self.table.defect.tolist(), self.table.label.tolist(), strict=True)
        parts = np.array([code[defect] if label else -1 for defect, label in pairs], int)
        labels, scores = self.table.label, self.table.score
        return Sample(labels, scores, self.limits, self.probabilities, self.costs, parts)

    def judged(self, replicates: Replicates) -> Scope:
        """The scope, with the intervals of these resamples."""
        labels, scores, limits = self.table.label, self.table.score, self.limits
        reason = f"no threshold: {self.threshold.reason}"
        found = sample.measure(labels, scores, limits, reason, self.probabilities, self.costs)
        if self.about_ranking:
            found |= {
                name: dataclasses.replace(found[name], note=self.about_ranking)
                for name in metrics.RANKING
                if found[name].value is not None
            }
        if self.probabilities is not None and len(np.unique(self.probabilities)) == 1 < len(labels):
            found["expected_calibration_error"] = Metric(None, ONE_PROBABILITY)
        found, by_ends = self._with_intervals(found, replicates)
        idle = {name: measured(labels, self.costs) for name, measured in trivial.CLASSIFIERS.items()}
        return Scope(
            name=self.name,
            labels=labels,
            scores=scores,
            probabilities=self.probabilities,
            metrics=found,
            trivial=idle,
            gains=_gains(found, idle[trivial.ALWAYS_DEFECTIVE], replicates, by_ends),
            threshold=self.threshold,
            counts=None if limits is None else metrics.confusion(labels, scores, limits),
            parts=() if limits is None else self._parts(replicates.details.get("parts")),
            bands={
                name: intervals.band(rows)
                for name, rows in replicates.details.items()
                if name != "parts" and min(self._classes) >= intervals.FEW
            },
        )

    @functools.cached_property
    def _classes(self) -> tuple[int, int]:
        """Numbers of groups of good and of defective images."""
        return tuple(len(np.unique(self.units[self.table.label == label])) for label in (0, 1))

    def _with_intervals(self, found: Mapping[str, Metric], replicates: Replicates) -> tuple[dict[str, Metric], bool]:
        """The metrics with their intervals, and whether F1's is by the limits of recall and specificity."""
        units, classes = self._units(), self._classes
        result = {
            name: intervals.with_interval(
                metric, replicates.figures[name], units.get(name), metrics.smaller_class(name, *classes)
            )
            if name in replicates.figures
            else metric
            for name, metric in found.items()
        }
        defective = int(self.table.label.sum())
        ends = intervals.from_ends(result, units, (defective, len(self.table) - defective), self.costs)
        return result | ends, "f1" in ends

    def _units(self) -> dict[str, int]:
        """Of how many groups each proportion is a proportion.

        Of few, ROC-AUC counts as one of the smaller class: it varies no more than that (Birnbaum and Klose, Annals of
        Mathematical Statistics 28, 1957).
        """
        good, defects = self._classes
        units = {"roc_auc": min(good, defects)} if min(good, defects) < intervals.FEW else {}
        if self.limits is not None:
            called = self.table.score >= self.limits
            wholes = {"precision": called, "npv": ~called, "accuracy": np.ones(len(called), bool)}
            units |= {"recall": defects, "fnr": defects, "specificity": good, "fpr": good}
            units |= {name: len(np.unique(self.units[whole])) for name, whole in wholes.items()}
        return units

    def _parts(self, resampled_recall: np.ndarray | None) -> tuple[Part, ...]:
        called, parts = self.table.score >= self.limits, []
        for index, defect in enumerate(self.defects):
            images = (self.table.defect == defect) & (self.table.label == 1)
            found, whole = int(called[images].sum()), int(images.sum())
            recall = Metric(found / whole)
            if resampled_recall is not None:
                units = len(np.unique(self.units[images]))
                recall = intervals.with_interval(recall, resampled_recall[:, index], units)
            parts.append(Part(defect or _UNNAMED, whole, found, recall))
        return tuple(parts)


def verdict(gains: Mapping[str, Metric], specificity: Metric) -> str:
    """See `Scope.verdict`.

    Args:
      gains: balanced accuracy and F1 above always-defective's.
      specificity: of the model.
    """
    balanced, f1 = gains["balanced_accuracy"], gains["f1"]
    if balanced.value is None or f1.value is None:
        return UNKNOWN
    if _nearly_none_passes(specificity):
        return NO_BETTER
    if not _above_zero(balanced):
        return UNPROVEN if min(balanced.value, f1.value) > _ROUNDING else NO_BETTER
    return BETTER if _above_zero(f1) else MIXED


def _nearly_none_passes(specificity: Metric) -> bool:
    return specificity.value is not None and specificity.value < _NEARLY_NO_GOOD_PASSES


def _gains(
    found: Mapping[str, Metric], always_defective: Mapping[str, Metric], replicates: Replicates, by_ends: bool
) -> dict[str, Metric]:
    balanced, f1 = found["balanced_accuracy"], found["f1"]
    if balanced.value is None or f1.value is None:
        reason = balanced.reason or f1.reason
        return {"balanced_accuracy": Metric(None, reason), "f1": Metric(None, reason)}
    gain = shifted(f1, always_defective["f1"].value)
    if not by_ends:
        gain = intervals.with_interval(Metric(gain.value), replicates.figures.get(sample.GAIN, np.zeros(0)))
    # Always-defective's balanced accuracy is 0.5 in every resample: the interval is only shifted.
    return {"balanced_accuracy": shifted(balanced, 0.5), "f1": gain}


def shifted(metric: Metric, by: float) -> Metric:
    """The metric less a constant, with its interval."""
    moved = (None if one is None else one - by for one in metric.numbers)
    return Metric(**dict(zip(("value", "low", "high"), moved, strict=True)), note=metric.note)


def _above_zero(difference: Metric) -> bool:
    """Whether the whole interval is; the value itself where no interval was asked for."""
    if difference.low is None:
        return difference.value > _ROUNDING and intervals.WITHOUT not in difference.note
    return difference.low > _ROUNDING
