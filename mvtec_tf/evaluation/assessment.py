"""What a table of predictions amounts to: all figures, overall and per category, beside the trivial ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.evaluation import doubt, intervals, metrics, scope, shift, thresholds, trivial
from mvtec_tf.evaluation.doubt import Doubt
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.sample import Replicates
from mvtec_tf.evaluation.scope import Scope
from mvtec_tf.evaluation.shift import Shift
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Chosen, Rule

# So many images are named; the table of predictions has all of them.
_NAMED = 10
_USED_TO = {
    leaks.PRETRAIN: "to pretrain it",
    leaks.FIT: "to fit it",
    leaks.CALIBRATE: "to stop its training or to choose its threshold",
}


@dataclasses.dataclass(frozen=True)
class Seen:
    """Evaluated images that were used before.

    Attributes:
      images: how many, or of which another image of the same object was.
      evaluated: number of all evaluated images.
      splits: split -> how many of `images` are in it too; only splits with any.
      same_object: how many of `images` are in no other split, but another image of their object is.
      names: paths of the first ten of `images`.
    """

    images: int
    evaluated: int
    splits: Mapping[str, int]
    same_object: int
    names: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return dataclasses.asdict(self) | {"names": list(self.names)}

    def sentence(self, subject: str = "These figures") -> str:
        """That the figures are no evidence, and why: the first sentence of a report."""
        uses = [f"{count:,} {_USED_TO[split]}" for split, count in self.splits.items()]
        if self.same_object:
            uses.append(f"{self.same_object:,} by another image of the same object")
        labelled = {leaks.FIT, leaks.CALIBRATE} & set(self.splits)
        what = "labelled images" if labelled else "images that were seen before"
        share = 100 * self.images / self.evaluated
        return (
            f"{subject} are no evidence: {what} are among the evaluated ones, {self.images:,} of the "
            f"{self.evaluated:,} ({share:.1f} %) had been used to make the model ({', '.join(uses)})."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Assessment:
    """All figures of one table of predictions.

    Attributes:
      overall: all evaluated images.
      categories: each category by name.
      mean: unweighted means over the categories.
      mean_trivial: the same of each classifier that does not look, by its name.
      threshold: the thresholds and where they come from.
      splits: split -> (images, defective images), of all rows of the table.
      groups: number of groups among the evaluated images; an image without one counts as one.
      bootstrap, costs: what was asked for.
      not_judged: categories of the table without an evaluate row; nothing is known of them.
      leak: how many of the evaluated images had been seen before; None if none had.
      shifts: category -> how its good evaluated images score beside the held-out good ones, where there are both.
      doubt: what a third verdict comes to; None if nobody is to be asked.
    """

    overall: Scope
    categories: Mapping[str, Scope]
    mean: Mapping[str, Metric]
    mean_trivial: Mapping[str, Mapping[str, Metric]]
    threshold: Chosen
    splits: Mapping[str, tuple[int, int]]
    groups: int
    bootstrap: Bootstrap
    costs: Costs
    not_judged: tuple[str, ...] = ()
    leak: Seen | None = None
    shifts: Mapping[str, Shift] = dataclasses.field(default_factory=dict)
    doubt: Doubt | None = None

    @property
    def verdict(self) -> str:
        """Whether the model beats calling every image defective, see `Scope.verdict`; "leak" proves nothing."""
        return scope.LEAK if self.leak else self.overall.verdict

    @property
    def places(self) -> dict[tuple[str, str], tuple[Mapping[str, Metric], Mapping[str, Mapping[str, Metric]]]]:
        """("overall", ""), ("mean_over_categories", ""), ("category", name) -> the figures, and the trivial ones."""
        found = {("overall", ""): (self.overall.metrics, self.overall.trivial)}
        found["mean_over_categories", ""] = (self.mean, self.mean_trivial)
        return found | {("category", name): (each.metrics, each.trivial) for name, each in self.categories.items()}

    def as_json(self) -> dict[str, Any]:
        """The content of `metrics.json` but for the summary."""
        scopes = self.categories.items()
        return {
            "leak": self.leak.as_json() if self.leak else None,
            "overall": forms(self.overall.metrics),
            "categories": {name: forms(each.metrics) for name, each in scopes},
            "mean_over_categories": forms(self.mean),
            "not_judged": list(self.not_judged),
            "defects": {name: {part.name: part.as_json() for part in each.parts} for name, each in scopes},
            "trivial": {
                name: {
                    "overall": forms(self.overall.trivial[name]),
                    "categories": {category: forms(each.trivial[name]) for category, each in scopes},
                    "mean_over_categories": forms(self.mean_trivial[name]),
                }
                for name in trivial.CLASSIFIERS
            },
            "verdict": self.verdict,
            "difference_to_always_defective": forms(self.overall.gains),
            "threshold": self.threshold.as_json(),
            "shift": {name: each.as_json() for name, each in self.shifts.items()},
            "costs": self.costs.as_json(),
            **({"doubt": self.doubt.as_json()} if self.doubt else {}),
            "intervals": dataclasses.asdict(self.bootstrap) | {"level": intervals.LEVEL, "groups": self.groups},
            "confusion": {
                "overall": _counts(self.overall),
                "categories": {name: _counts(each) for name, each in scopes},
            },
            "counts": {
                split: {"images": images, "defective": defective, "good": images - defective}
                for split, (images, defective) in self.splits.items()
            },
        }


def assess(
    predictions: Predictions,
    threshold: float | Chosen | None = None,
    rule: Rule | None = None,
    costs: Costs | None = None,
    bootstrap: Bootstrap | None = None,
    allow_leak: bool = False,
) -> Assessment:
    """Judges the evaluate rows of a checked table.

    Args:
      predictions: see `table.check`; the caller has checked it.
      threshold: a number, or what is chosen already; if None, it is chosen on the calibrate rows, see
        `thresholds.choose_threshold`.
      rule: how it is chosen; None: Youden's, one for the model.
      costs: of wrong calls; None: 1 each.
      bootstrap: of the intervals; None: 1000 resamples.
      allow_leak: whether evaluated images may be in other splits too; that is then recorded.

    Raises:
      LeakError: some are, and it is not allowed.
    """
    leak = seen_before(predictions)
    if leak and not allow_leak:
        leaks.check_leaks(predictions.rows())
    rule, costs, bootstrap = rule or Rule(), costs or Costs(), bootstrap or Bootstrap()
    evaluate = predictions.part(leaks.EVALUATE)
    if threshold is None:
        chosen = thresholds.choose(predictions, evaluate.categories(), rule, costs, bootstrap)
    else:
        chosen = threshold if isinstance(threshold, Chosen) else Chosen(thresholds.given(threshold))
    resampling = Resampling(evaluate.path, evaluate.category, evaluate.group, evaluate.label, bootstrap)
    overall, categories, mean = _scopes(evaluate, resampling, chosen, costs)
    held_out = thresholds.held_out_rows(predictions, rule).rows
    # Images that were used to fit say nothing of new ones.
    limits = {} if leak else {name: chosen.of(name).value for name in categories}
    return Assessment(
        overall=overall,
        categories=categories,
        mean=mean,
        mean_trivial={
            name: metrics.mean_over({category: each.trivial[name] for category, each in categories.items()})
            for name in trivial.CLASSIFIERS
        },
        threshold=chosen,
        splits=predictions.splits,
        groups=resampling.distinct(np.ones(len(evaluate), bool)),
        bootstrap=bootstrap,
        costs=costs,
        not_judged=tuple(name for name in predictions.categories() if name not in categories),
        leak=leak,
        shifts=shift.by_category(held_out, evaluate, limits),
        doubt=doubt.judge(held_out, evaluate, chosen, costs, resampling),
    )


def forms(found: Mapping[str, Metric]) -> dict[str, Any]:
    """Metrics by name in the form of `metrics.json`."""
    return {name: metric.as_json() for name, metric in found.items()}


def _scopes(
    evaluate: Predictions, resampling: Resampling, chosen: Chosen, costs: Costs
) -> tuple[Scope, dict[str, Scope], dict[str, Metric]]:
    """All images, each category, and the means over the categories."""
    every = np.arange(len(evaluate))
    places = {name: np.flatnonzero(evaluate.category == name) for name in evaluate.categories()}
    several = len(places) > 1
    if several:
        places = {"": every} | places
    scopes, replicates = scope.judge(evaluate, places, resampling, every, chosen, costs, details=True)
    if several:
        overall = scopes.pop("")
        overall = dataclasses.replace(overall, categories=tuple(scopes.values()))
    else:
        # All images are the category: the same figures, computed once.
        (only,) = scopes.values()
        overall = dataclasses.replace(only, name="")
    classes = [resampling.distinct(evaluate.label == label) for label in (0, 1)]
    return overall, scopes, _mean(scopes, [replicates[name] for name in scopes], classes)


def _mean(
    categories: Mapping[str, Scope], replicates: Sequence[Replicates], classes: Sequence[int]
) -> dict[str, Metric]:
    """The means over the categories with their intervals, in the order of the replicates."""
    mean = metrics.mean_over({name: each.metrics for name, each in categories.items()})
    if len(categories) == 1:
        (only,) = categories.values()
        return {
            name: dataclasses.replace(metric, low=only.metrics[name].low, high=only.metrics[name].high)
            for name, metric in mean.items()
        }
    there = {
        name: [found.figures[name] for found in replicates] for name in replicates[0].figures if name in metrics.NAMES
    }
    return mean | {
        name: intervals.with_interval(
            mean[name], intervals.mean_of(rows), smaller=metrics.smaller_class(name, *classes)
        )
        for name, rows in there.items()
    }


def _counts(judged: Scope) -> dict[str, int] | None:
    return None if judged.counts is None else dataclasses.asdict(judged.counts)


def seen_before(predictions: Predictions) -> Seen | None:
    """What of a table's evaluated images was seen before; None if nothing was."""
    found = leaks.find_leaks(predictions.rows())
    if not found:
        return None
    counts = {split: sum(split in leak.splits for leak in found) for split in leaks.SPLITS}
    return Seen(
        images=len(found),
        evaluated=int((predictions.split == leaks.EVALUATE).sum()),
        splits={split: count for split, count in counts.items() if count},
        same_object=sum(not leak.splits for leak in found),
        names=tuple(leak.path for leak in found[:_NAMED]),
    )
