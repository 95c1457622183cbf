"""A third verdict: scores between two thresholds are unsure, and a person looks at the part.

Where a person costs less than the mistake that is to be expected, the part goes to him: Chow, "On optimum recognition
error and reject tradeoff", IEEE Transactions on Information Theory 16, 1970. Both thresholds are those of the least
expected cost at the calibrate rows' own share of defects, by smoothed distributions of their scores (see `smooth_cut`),
since counts of a few labelled defects would put them just around these.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.evaluation import intervals, metrics
from mvtec_tf.evaluation.intervals import Resampling
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.smooth_cut import smoothed
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import FEW, Chosen

GOOD, DEFECTIVE, UNSURE = 0, 1, 2
# The thresholds may lie so far beyond the scores, in standard deviations.
_MARGIN = 1.0
# What is measured: of all parts, of good and of defective ones, and the costs.
FIGURES = (
    *("reviewed", "reviewed_good", "reviewed_defective", "missed", "stopped"),
    *("cost", "cost_two_way", "difference"),
)


@dataclasses.dataclass(frozen=True)
class Zone:
    """Scores from `low` up to, and not with, `high` are unsure; if both are equal none is."""

    low: float
    high: float

    def called(self, scores: np.ndarray) -> np.ndarray:
        """int [N]: `GOOD`, `DEFECTIVE` or `UNSURE`."""
        return np.where(scores >= self.high, DEFECTIVE, np.where(scores < self.low, GOOD, UNSURE))


@dataclasses.dataclass(frozen=True)
class Doubt:
    """What the third verdict comes to on evaluated images.

    Attributes:
      zones: category -> its own zone; under "" that of the model, and of categories without one. Empty: there is none.
      reason: how they were chosen, or why there is none.
      share: of defective ones among the calibrate rows, at which `figures` weigh good and defective images.
      figures: by `FIGURES`: the share of parts that a person looks at, of all, good and defective ones; defective parts
        called good and good ones called defective; the mean cost of a part, the same of the two-way rule, and the
        former less the latter.
      warning: why it should not be relied on, "" if nothing speaks against it.
      review: what a person costs, and so a part where all are looked at.
    """

    zones: Mapping[str, Zone]
    reason: str
    share: float = 0.0
    figures: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    warning: str = ""
    review: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        form = dataclasses.asdict(self)
        return form | {"figures": {name: metric.as_json() for name, metric in self.figures.items()}}


def least_cost(scores: np.ndarray, defective: np.ndarray, costs: Costs) -> Zone | None:
    """The zone of the least expected cost at these images' share of defects; None where no class has any spread.

    Args:
      scores: float [N], held out.
      defective: bool [N], of both kinds.
      costs: with `review`.
    """
    found = smoothed(scores, defective, margin=_MARGIN)
    if found is None:
        return None
    grid, good, bad = found
    share = defective.mean()
    looked_at = costs.review * (share * bad + (1 - share) * good)
    # The cost is a sum of what hangs on either threshold, so the best lower one is known for every upper one.
    below = looked_at - share * costs.miss * bad
    above = (1 - share) * costs.false_alarm * good - looked_at
    best = np.minimum.accumulate(below)
    high = int(np.argmin(np.round(best + above, 12)))
    low = int(np.argmin(below[: high + 1]))
    return Zone(float(np.float32(grid[low])), float(np.float32(grid[high])))


def judge(
    calibrate: Predictions, evaluate: Predictions, chosen: Chosen, costs: Costs, resampling: Resampling
) -> Doubt | None:
    """The zones, and what they come to; None where nobody is to be asked.

    Args:
      calibrate: held-out rows; the zones are chosen on them, one of each category where `chosen` has thresholds so.
      evaluate: rows that are judged.
      chosen: the two-way rule.
      costs: of mistakes and of a person.
      resampling: of `evaluate`.
    """
    if costs.review is None:
        return None
    defects, images = int(calibrate.label.sum()), len(calibrate)
    if not 0 < defects < images:
        kind = "defective" if images else "calibrate"
        return Doubt({}, f"there is no {kind} row to choose it on, so nothing is called unsure")
    whole = _zone(calibrate, costs)
    if whole is None:
        return Doubt({}, "the scores of the calibrate rows are all alike, so nothing is called unsure")
    own = {name: _zone(calibrate.select(calibrate.category == name), costs) for name in chosen.categories}
    zones = {"": whole} | {name: zone for name, zone in own.items() if zone is not None}
    reason = (
        f"least expected cost (a miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g}, a person "
        f"{costs.review:g}) on {images} calibrate images, {defects} of them defective, of smoothed scores (Chow 1970)"
    )
    few = f"only {defects} defective calibrate images say where it should lie" if defects < FEW else ""
    share = defects / images
    figures = _figures(evaluate, zones, chosen, costs, share, resampling)
    return Doubt(zones, reason, share, figures, few, costs.review)


def _zone(calibrate: Predictions, costs: Costs) -> Zone | None:
    defective = calibrate.label == 1
    return least_cost(calibrate.score, defective, costs) if 0 < defective.sum() < len(defective) else None


def _figures(
    evaluate: Predictions,
    zones: Mapping[str, Zone],
    chosen: Chosen,
    costs: Costs,
    share: float,
    resampling: Resampling,
) -> dict[str, Metric]:
    three = np.empty(len(evaluate), int)
    for name in evaluate.categories():
        mine = evaluate.category == name
        three[mine] = zones.get(name, zones[""]).called(evaluate.score[mine])
    limits = chosen.each(evaluate.category)
    two = None if limits is None else (evaluate.score >= limits).astype(int)
    defective = evaluate.label == 1

    def measured(weights: np.ndarray) -> np.ndarray:
        return rates(weights, defective, three, two, costs, share)

    value = measured(np.ones((1, len(evaluate))))[:, 0]
    chunks = [measured(weights) for weights in resampling.chunks()]
    resampled = np.concatenate(chunks, axis=1) if chunks else np.empty((len(FIGURES), 0))
    units = {"reviewed_good": ~defective, "stopped": ~defective, "reviewed_defective": defective, "missed": defective}
    found = {}
    for name, one, of_it in zip(FIGURES, value, resampled, strict=True):
        reason = "there is no two-way rule" if two is None and name in FIGURES[-2:] else "a class of images is missing"
        metric = Metric(None, reason) if np.isnan(one) else Metric(float(one))
        found[name] = intervals.with_interval(
            metric, of_it, resampling.distinct(units[name]) if name in units else None
        )
    return found


def rates(
    weights: np.ndarray, defective: np.ndarray, three: np.ndarray, two: np.ndarray | None, costs: Costs, share: float
) -> np.ndarray:
    """`FIGURES` of resamples, float [8, C]; NaN where one does not exist.

    Args:
      weights: float [C, N], how often each image is in each.
      defective: bool [N].
      three, two: int [N], how either rule calls the images; None: there is no two-way rule.
      costs: of mistakes and of a person.
      share: of defective parts, by which both classes are weighed.
    """

    def among(called: np.ndarray, kind: np.ndarray) -> np.ndarray:
        return metrics.share(weights @ (called & kind), weights @ kind.astype(float))

    def priced(missed: np.ndarray, stopped: np.ndarray) -> np.ndarray:
        return share * costs.miss * missed + (1 - share) * costs.false_alarm * stopped

    good = ~defective
    looked_at = [among(three == UNSURE, kind) for kind in (good, defective)]
    mistakes = among(three == GOOD, defective), among(three == DEFECTIVE, good)
    reviewed = share * looked_at[1] + (1 - share) * looked_at[0]
    cost = priced(*mistakes) + costs.review * reviewed
    plain = np.full(len(weights), np.nan)
    if two is not None:
        plain = priced(among(two == GOOD, defective), among(two == DEFECTIVE, good))
    return np.stack([reviewed, *looked_at, *mistakes, cost, plain, cost - plain])


def in_words(found: Doubt) -> Sequence[str]:
    """What it comes to, a sentence each."""
    if not found.zones:
        return [f"No verdict is unsure: {found.reason}."]
    numbers = {name: metric.value for name, metric in found.figures.items()}
    if None in (numbers["reviewed"], numbers["cost"]):
        return [f"Unsure verdicts cannot be judged: {found.figures['cost'].reason}."]
    sentence = (
        f"With a third verdict a person looks at {100 * numbers['reviewed']:.1f} % of the parts, "
        f"{100 * numbers['missed']:.1f} % of the defective ones pass and {100 * numbers['stopped']:.1f} % of the good "
        f"ones are stopped; where {100 * found.share:.3g} % of the parts are defective, as of the calibrate rows, a "
        f"part costs {numbers['cost']:.3f}, with a person for every part {found.review:.3f}"
    )
    difference = found.figures["difference"]
    if difference.value is None:
        return [sentence + "."]
    limits = "" if difference.low is None else f" [{difference.low:+.3f} to {difference.high:+.3f}]"
    return [f"{sentence}, with two verdicts {numbers['cost_two_way']:.3f} ({difference.value:+.3f}{limits})."]
