"""A third verdict: scores between two thresholds are unsure, and a person looks at the part.

Where a person costs less than the mistake that is to be expected, the part goes to him: Chow, "On optimum recognition
error and reject tradeoff", IEEE Transactions on Information Theory 16, 1970. The zone always lies around the two-way
threshold, so that no score below that is called defective and none from there on good. Both its ends are those of the
least expected cost at the calibrate rows' own share of defects, by smoothed distributions of their scores (see
`smooth_cut`), since counts of a few labelled defects would put them just around these.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.evaluation import intervals, metrics, predicted
from mvtec_tf.evaluation.intervals import Resampling
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.smooth_cut import smoothed
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import FEW, LEAST_COST, Chosen, Rule, choose_threshold

GOOD, DEFECTIVE, UNSURE = 0, 1, 2
# The thresholds may lie so far beyond the scores, in standard deviations.
_MARGIN = 1.0
# What is measured: of all parts, of good and of defective ones, and the costs.
FIGURES = (
    *("reviewed", "reviewed_good", "reviewed_defective", "missed", "stopped"),
    *("cost", "cost_two_way", "difference", "cost_own"),
)


@dataclasses.dataclass(frozen=True)
class Zone:
    """Scores from `low` up to, and not with, `high` are unsure; if both are equal none is."""

    low: float
    high: float

    @property
    def is_empty(self) -> bool:
        """Whether no score is unsure."""
        return self.low >= self.high

    def called(self, scores: np.ndarray) -> np.ndarray:
        """int [N]: `GOOD`, `DEFECTIVE` or `UNSURE`."""
        return np.where(scores >= self.high, DEFECTIVE, np.where(scores < self.low, GOOD, UNSURE))


@dataclasses.dataclass(frozen=True)
class Doubt:
    """What the third verdict comes to on evaluated images.

    Attributes:
      zones: category -> its own zone, an empty one where it has none; under "" that of the model, and of categories
        that are not named. Empty: there is none.
      reason: how they were chosen, or why there is none.
      share: of defective ones among the calibrate rows, at which `figures` weigh good and defective images; of verdicts
        that the table told, among the evaluated images.
      figures: by `FIGURES`: the share of parts that a person looks at, of all, good and defective ones; defective parts
        called good and good ones called defective; the mean cost of a part, the same of two verdicts at the threshold
        of the least cost on the same calibrate rows, the former less the latter, and the cost of two verdicts at the
        threshold that the images are judged by, where that is another. Of told verdicts there is no other.
      warning: why it should not be relied on, "" if nothing speaks against it.
      review: what a person costs, and so a part where all are looked at; None: nobody says so.
      without: category -> why it has no zone, where the others have their own.
      told: whether the verdicts are those that the table has, of `predict`.
    """

    zones: Mapping[str, Zone]
    reason: str
    share: float = 0.0
    figures: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    warning: str = ""
    review: float | None = None
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)
    told: bool = False

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        form = dataclasses.asdict(self)
        return form | {"figures": {name: metric.as_json() for name, metric in self.figures.items()}}


def least_cost(scores: np.ndarray, defective: np.ndarray, costs: Costs, threshold: float) -> Zone | None:
    """The zone of the least expected cost at these images' share of defects; None where no class has any spread.

    Args:
      scores: float [N], held out.
      defective: bool [N], of both kinds.
      costs: with `review`.
      threshold: that the zone lies around.
    """
    found = smoothed(scores, defective, margin=_MARGIN)
    if found is None:
        return None
    # One of the mistakes is to be expected for less than a person costs, whatever the score says.
    if costs.review * (costs.miss + costs.false_alarm) >= costs.miss * costs.false_alarm:
        return Zone(threshold, threshold)
    grid, good, bad = found
    place = int(np.searchsorted(grid, threshold))
    good, bad = (np.insert(shares, place, np.interp(threshold, grid, shares)) for shares in (good, bad))
    grid = np.insert(grid, place, threshold)
    share = defective.mean()
    looked_at = costs.review * (share * bad + (1 - share) * good)
    # The cost is a sum of what hangs on either end. Of equally good ones the nearest to the threshold: fewer are asked.
    below = np.round(looked_at - share * costs.miss * bad, 12)[place::-1]
    above = np.round((1 - share) * costs.false_alarm * good - looked_at, 12)[place:]
    low, high = grid[place - int(np.argmin(below))], grid[place + int(np.argmin(above))]
    # A graph rounds to float32: that must not carry an end across the threshold.
    return Zone(min(float(np.float32(low)), threshold), max(float(np.float32(high)), threshold))


def judge(
    calibrate: Predictions, evaluate: Predictions, chosen: Chosen, costs: Costs, resampling: Resampling
) -> Doubt | None:
    """The zones, and what they come to, or what the verdicts do that the table has; None where nobody is to be asked.

    Args:
      calibrate: held-out rows; the zones are chosen on them, one of each category where `chosen` has thresholds so.
      evaluate: rows that are judged.
      chosen: the two-way rule.
      costs: of mistakes and of a person.
      resampling: of `evaluate`.
    """
    if evaluate.verdicts:
        return _of_told(evaluate, chosen, costs, resampling)
    if costs.review is None:
        return None
    zones: dict[str, Zone] = {}
    without: dict[str, str] = {}
    for name, threshold in (chosen.categories or {"": chosen.whole}).items():
        zone = _zone(calibrate.select(calibrate.category == name) if name else calibrate, threshold.value, costs)
        if isinstance(zone, str):
            without[name] = zone
        else:
            zones[name] = zone
    if not zones:
        why = without.get("", f"of no category there is anything to choose it on ({'; '.join(set(without.values()))})")
        return Doubt({}, f"{why}, so nothing is called unsure")
    for name in [*without, *([""] if chosen.categories else [])]:
        # The zone of other categories would be one of another scale.
        zones[name] = Zone(chosen.of(name).value, chosen.of(name).value)
    defects, images = int(calibrate.label.sum()), len(calibrate)
    reason = (
        f"least expected cost around the threshold (a miss costs {costs.miss:g}, a false alarm "
        f"{costs.false_alarm:g}, a person {costs.review:g}) on {images} calibrate images, {defects} of them defective, "
        "of smoothed scores (Chow 1970)"
    )
    few = f"only {defects} defective calibrate images say where it should lie" if defects < FEW else ""
    three = np.empty(len(evaluate), int)
    for name in evaluate.categories():
        mine = evaluate.category == name
        three[mine] = zones.get(name, zones[""]).called(evaluate.score[mine])
    own, least = (_called(evaluate, rule) for rule in (chosen, _least_cost(calibrate, chosen, costs, without)))
    calls = three, least, None if np.array_equal(own, least) else own
    share = defects / images
    figures = _figures(evaluate, calls, costs, share, resampling)
    return Doubt(zones, reason, share, figures, few, costs.review, without)


def _zone(calibrate: Predictions, threshold: float | None, costs: Costs) -> Zone | str:
    """The zone around a threshold, or why there is none."""
    images, defects = len(calibrate), int(calibrate.label.sum())
    if not 0 < defects < images:
        kind = "calibrate" if not images else "good" if defects else "defective"
        return f"there is no {kind} row to choose it on"
    found = least_cost(calibrate.score, calibrate.label == 1, costs, threshold)
    return found or "the scores of the calibrate rows are all alike"


def _least_cost(calibrate: Predictions, chosen: Chosen, costs: Costs, without: Mapping[str, str]) -> Chosen:
    """The two-way rule of the least cost on the same rows, for each category where `chosen` is so."""

    def best(rows: Predictions) -> Any:
        return choose_threshold(rows.label, rows.score, rows.objects, Rule(LEAST_COST), costs)

    own = {
        name: threshold if name in without else best(calibrate.select(calibrate.category == name))
        for name, threshold in chosen.categories.items()
    }
    return Chosen(best(calibrate), own)


def _called(evaluate: Predictions, chosen: Chosen) -> np.ndarray | None:
    limits = chosen.each(evaluate.category)
    return None if limits is None else (evaluate.score >= limits).astype(int)


def _of_told(evaluate: Predictions, chosen: Chosen, costs: Costs, resampling: Resampling) -> Doubt:
    """What the verdicts come to that the table has, at the evaluated images' own share of defects."""
    three = np.array([predicted.VERDICTS.index(evaluate.verdicts[path]) for path in evaluate.path.tolist()])
    share = float(evaluate.label.mean())
    figures = _figures(evaluate, (three, None, _called(evaluate, chosen)), costs, share, resampling)
    reason = "as the column verdict of the table says"
    return Doubt({}, reason, share, figures, review=costs.review, told=True)


def _figures(
    evaluate: Predictions,
    calls: tuple[np.ndarray, np.ndarray | None, np.ndarray | None],
    costs: Costs,
    share: float,
    resampling: Resampling,
) -> dict[str, Metric]:
    """`FIGURES`, without those of a two-way rule that is not there."""
    defective = evaluate.label == 1

    def measured(weights: np.ndarray) -> np.ndarray:
        return rates(weights, defective, *calls, costs, share)

    value = measured(np.ones((1, len(evaluate))))[:, 0]
    chunks = [resampling.varied(measured(weights)) for weights in resampling.chunks()]
    resampled = np.concatenate(chunks, axis=1) if chunks else np.empty((len(FIGURES), 0))
    units = {"reviewed_good": ~defective, "stopped": ~defective, "reviewed_defective": defective, "missed": defective}
    smaller = min(resampling.distinct(defective), resampling.distinct(~defective))
    missing = {name for name, call in zip(("cost_two_way", "cost_own"), calls[1:], strict=True) if call is None}
    missing |= {"difference"} if calls[1] is None else set()
    found = {}
    for name, one, of_it in zip(FIGURES, value, resampled, strict=True):
        if name in missing:
            continue
        unpriced = name == "cost" and costs.review is None
        reason = "nobody says what a person costs" if unpriced else "a class of images is missing"
        metric = Metric(None, reason) if np.isnan(one) else Metric(float(one))
        found[name] = intervals.with_interval(
            metric, of_it, resampling.distinct(units[name]) if name in units else None, smaller
        )
    return found


def rates(
    weights: np.ndarray,
    defective: np.ndarray,
    three: np.ndarray,
    two: np.ndarray | None,
    own: np.ndarray | None,
    costs: Costs,
    share: float,
) -> np.ndarray:
    """`FIGURES` of resamples, float [9, C]; NaN where one does not exist.

    Args:
      weights: float [C, N], how often each image is in each.
      defective: bool [N].
      three, two, own: int [N], how each rule calls the images: that of three verdicts, that of the least cost with two,
        and that which the images are judged by; None: there is no such rule.
      costs: of mistakes and of a person.
      share: of defective parts, by which both classes are weighed.
    """

    def among(called: np.ndarray, kind: np.ndarray) -> np.ndarray:
        return metrics.share(weights @ (called & kind), weights @ kind.astype(float))

    def mistakes(called: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return among(called == GOOD, defective), among(called == DEFECTIVE, ~defective)

    def priced(missed: np.ndarray, stopped: np.ndarray) -> np.ndarray:
        return share * costs.miss * missed + (1 - share) * costs.false_alarm * stopped

    unknown = np.full(len(weights), np.nan)
    looked_at = [among(three == UNSURE, kind) for kind in (~defective, defective)]
    reviewed = share * looked_at[1] + (1 - share) * looked_at[0]
    wrong = mistakes(three)
    cost = unknown if costs.review is None else priced(*wrong) + costs.review * reviewed
    plain, judged_by = (unknown if called is None else priced(*mistakes(called)) for called in (two, own))
    return np.stack([reviewed, *looked_at, *wrong, cost, plain, cost - plain, judged_by])


def in_words(found: Doubt) -> Sequence[str]:
    """What it comes to, a sentence each."""
    if found.told:
        return _told_in_words(found)
    if not found.zones:
        return [f"No verdict is unsure: {found.reason}."]
    without = [f"No verdict of {name} is unsure: {why}." for name, why in found.without.items()]
    numbers = {name: metric.value for name, metric in found.figures.items()}
    if None in (numbers["reviewed"], numbers["cost"]):
        return [f"Unsure verdicts cannot be judged: {found.figures['cost'].reason}.", *without]
    where = f"where {100 * found.share:.3g} % of the parts are defective, as of the calibrate rows, a part costs"
    least = "at the threshold of the least cost on the same calibrate rows"
    own = numbers.get("cost_own")
    if all(zone.is_empty for zone in found.zones.values()):
        text = f"A person never pays at this price, {found.review:g}: no verdict is unsure"
        if own is not None:
            text += f"; {where} {own:.3f} at this threshold and {numbers['cost_two_way']:.3f} {least}"
        return [f"{text}.", *without]
    sentence = (
        f"With a third verdict {_shares(numbers)}; {where} {numbers['cost']:.3f}, with a person for every part "
        f"{found.review:.3f}, with two verdicts {least} {numbers['cost_two_way']:.3f} "
        f"({metrics.with_limits(found.figures['difference'], sign='+')})"
    )
    if own is not None:
        sentence += f", with two at this threshold, which is another, {own:.3f}"
    return [f"{sentence}.", *without]


def _told_in_words(found: Doubt) -> Sequence[str]:
    numbers = {name: metric.value for name, metric in found.figures.items()}
    two_way = "All other figures are of two verdicts, a score that reaches the threshold being defective."
    if None in (numbers["missed"], numbers["stopped"]):
        kind, name = ("good", "reviewed_good") if numbers["missed"] is None else ("defective", "reviewed_defective")
        alone = f"By the table's own column verdict a person looks at {100 * numbers[name]:.1f} % of the {kind} parts."
        return [alone, two_way]
    where = f"where {100 * found.share:.3g} % of the parts are defective, as of the evaluated images"
    text = f"By the table's own column verdict {_shares(numbers)}, {where}"
    if numbers["cost"] is None:
        return [f"{text}; what a person costs the table does not say, `cost_review` does.", two_way]
    text += f"; a part costs {numbers['cost']:.3f}, with a person for every part {found.review:.3f}"
    own = numbers.get("cost_own")
    return [f"{text}." if own is None else f"{text}, with two verdicts at the threshold {own:.3f}.", two_way]


def _shares(numbers: Mapping[str, float]) -> str:
    return (
        f"a person looks at {100 * numbers['reviewed']:.1f} % of the parts, {100 * numbers['missed']:.1f} % of the "
        f"defective ones pass and {100 * numbers['stopped']:.1f} % of the good ones are stopped"
    )
