"""What the cells amount to: means over draws, and which differences between heads are real."""

import dataclasses
import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mvtec_tf.data import protocol
from mvtec_tf.evaluation.intervals import LEVEL
from mvtec_tf.label_efficiency import statistics as efficiency_statistics
from mvtec_tf.label_efficiency.cell import METRICS, CellResult
from mvtec_tf.label_efficiency.grid import Cell, Grid, LeftOut, order_of
from mvtec_tf.label_efficiency.statistics import Estimate

# Both are compared, each with its own correction for many tests.
COMPARED = ("roc_auc", "balanced_accuracy")
GAIN = "f1_above_always_defective"
# Of two figures from 0 to 1.
_DIFFERENCE = (-1.0, 1.0)
Method = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Standing:
    """A head on an encoder at one budget of one category.

    Attributes:
      method: (encoder, head).
      results: one a draw, by seed.
      estimates: metric -> mean over the draws; also GAIN, F1 above that of calling everything defective.
    """

    method: Method
    results: tuple[CellResult, ...]
    estimates: Mapping[str, Estimate]

    @property
    def labelled(self) -> tuple[float, float]:
        """(images, defective images) labelled, means over the draws."""
        images = statistics.fmean(result.labelled_images for result in self.results)
        return images, statistics.fmean(result.labelled_defects for result in self.results)

    @property
    def always_defective_f1(self) -> float:
        """Mean over the draws."""
        return statistics.fmean(result.always_defective_f1 for result in self.results)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two heads on the same cuts.

    Attributes:
      first, second: (encoder, head) each; the first ranks higher.
      metric: which figure.
      difference: first minus second, paired by draw.
      adjusted: its p-value after Holm's correction over all pairs of this category, budget and metric; None if a
        single draw is common to both.
    """

    first: Method
    second: Method
    metric: str
    difference: Estimate
    adjusted: float | None

    @property
    def shown(self) -> bool:
        """Whether the difference is real, at an error rate of 5 % for all pairs together."""
        return self.adjusted is not None and self.adjusted < 1 - LEVEL


@dataclasses.dataclass(frozen=True)
class Place:
    """One budget of one category.

    Attributes:
      category, budget: which.
      standings: best first: by mean ROC-AUC, then by mean balanced accuracy.
      pairs: all pairs of standings, for each metric of COMPARED.
    """

    category: str
    budget: str
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]

    def against_best(self, metric: str) -> dict[Method, Pair]:
        """The others -> how the best compares with them."""
        best = self.standings[0].method
        return {pair.second: pair for pair in self.pairs if pair.metric == metric and pair.first == best}


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the report is made of.

    Attributes:
      places: by category, then by budget.
      categories, budgets, methods: what there is, in order.
      seeds: draws that are complete.
      all_seeds: that were asked for.
      left_out: cells that cannot be.
    """

    places: tuple[Place, ...]
    categories: tuple[str, ...]
    budgets: tuple[str, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    all_seeds: tuple[int, ...]
    left_out: tuple[LeftOut, ...]

    def place(self, category: str, budget: str) -> Place | None:
        """That of a category and a budget, None if no cell is there."""
        found = [place for place in self.places if (place.category, place.budget) == (category, budget)]
        return found[0] if found else None

    def of_category(self, category: str) -> list[Place]:
        """Those of a category, by budget."""
        return [place for place in self.places if place.category == category]

    def name(self, method: Method) -> str:
        """Of a method; without its encoder where there is only one."""
        encoder, head = method
        return head if len({encoder for encoder, _ in self.methods}) == 1 else f"{encoder}, {head}"

    @property
    def leading_budget(self) -> str:
        """The one that the answer is about: 10 % of the labels if it was asked for, else the last share that was."""
        shares = [budget for budget in self.budgets if order_of(budget)[0] == 0]
        return "0.1" if "0.1" in self.budgets else (shares or list(self.budgets))[-1]

    def as_json(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "seeds": list(self.seeds),
            "seeds_asked_for": list(self.all_seeds),
            "level": LEVEL,
            "places": [_place_json(place) for place in self.places],
            "left_out": [dataclasses.asdict(item.cell) | {"reason": item.reason} for item in self.left_out],
        }


def find(grid: Grid, results: Mapping[Cell, CellResult], left_out: Sequence[LeftOut]) -> Findings:
    """Sums up the draws of which every cell is there or cannot be.

    Args:
      grid: what was asked for.
      results: what there is of it.
      left_out: what cannot be.
    """
    impossible = {item.cell for item in left_out}
    open_seeds = {cell.seed for cell in grid.cells if cell not in results and cell not in impossible}
    all_seeds = sorted({cell.seed for cell in (*grid.cells, *impossible)})
    seeds = [seed for seed in all_seeds if seed not in open_seeds]
    # Cells with fewer good objects answer another question, see `enough`.
    done = [each for each in results.values() if each.cell.seed in seeds and each.cell.good == protocol.ALL]
    budgets = sorted({result.cell.budget for result in done}, key=order_of)
    categories = sorted({result.cell.category for result in done})
    known = {(result.cell.encoder, result.cell.head) for result in done}
    methods = tuple(dict.fromkeys(method for cell in grid.cells if (method := (cell.encoder, cell.head)) in known))
    places = [
        _place(category, budget, own)
        for category in categories
        for budget in budgets
        if (own := [each for each in done if (each.cell.category, each.cell.budget) == (category, budget)])
    ]
    return Findings(
        tuple(places), tuple(categories), tuple(budgets), methods, tuple(seeds), tuple(all_seeds), tuple(left_out)
    )


def _place(category: str, budget: str, results: Collection[CellResult]) -> Place:
    methods = sorted({(result.cell.encoder, result.cell.head) for result in results})
    standings = [standing_of(method, results) for method in methods]
    standings.sort(key=_rank)
    pairs = [pair for metric in COMPARED for pair in _pairs(standings, metric)]
    return Place(category, budget, tuple(standings), tuple(pairs))


def standing_of(method: Method, results: Collection[CellResult]) -> Standing:
    """What a method's own of these cells amount to; they are of one category and budget."""
    own = [result for result in results if (result.cell.encoder, result.cell.head) == method]
    own.sort(key=lambda result: result.cell.seed)
    share = ratio(own)
    estimates = {
        name: efficiency_statistics.estimate([result.metrics[name] for result in own], share, (0.0, 1.0))
        for name in METRICS
    }
    gains = [difference(result.metrics["f1"], result.always_defective_f1) for result in own]
    return Standing(method, tuple(own), estimates | {GAIN: efficiency_statistics.estimate(gains, share, _DIFFERENCE)})


def ratio(results: Collection[CellResult]) -> float:
    """Images judged by images of the pool, in a draw."""
    return statistics.fmean(result.evaluated_images / result.pool_images for result in results)


def _rank(standing: Standing) -> tuple[float, ...]:
    values = (standing.estimates[name].metric.value for name in COMPARED)
    # Figures that are equal but for rounding are equal.
    return tuple(1.0 if value is None else -round(value, 9) for value in values)


def _pairs(standings: Sequence[Standing], metric: str) -> list[Pair]:
    found = []
    for first, second in itertools.combinations(standings, 2):
        if {result.cell.seed for result in first.results} & {result.cell.seed for result in second.results}:
            found.append((first, second, gain(first, second, metric)))
    tested = [difference.p_value for *_, difference in found if difference.p_value is not None]
    adjusted = iter(efficiency_statistics.holm(tested))
    return [
        Pair(first.method, second.method, metric, each, None if each.p_value is None else next(adjusted))
        for first, second, each in found
    ]


def gain(one: Standing, other: Standing, metric: str) -> Estimate:
    """The mean difference of one above the other, draw by draw."""
    others = {result.cell.seed: result.metrics[metric] for result in other.results}
    both = [result for result in one.results if result.cell.seed in others]
    values = [difference(result.metrics[metric], others[result.cell.seed]) for result in both]
    return efficiency_statistics.estimate(values, ratio(both or one.results), _DIFFERENCE)


def difference(one: float | None, other: float | None) -> float | None:
    """One less the other; None where either does not exist."""
    return None if one is None or other is None else one - other


def _place_json(place: Place) -> dict[str, Any]:
    return {
        "category": place.category,
        "budget": place.budget,
        "standings": [_standing_json(standing) for standing in place.standings],
        "differences": [
            {
                "metric": pair.metric,
                "first": list(pair.first),
                "second": list(pair.second),
                **_estimate_json(pair.difference),
                "p_value": pair.difference.p_value,
                "p_value_holm": pair.adjusted,
                "shown": pair.shown,
            }
            for pair in place.pairs
        ],
    }


def _standing_json(standing: Standing) -> dict[str, Any]:
    images, defects = standing.labelled
    return {
        "encoder": standing.method[0],
        "head": standing.method[1],
        "labelled_images": images,
        "labelled_defects": defects,
        "always_defective_f1": standing.always_defective_f1,
        "metrics": {name: _estimate_json(each) for name, each in standing.estimates.items()},
    }


def _estimate_json(each: Estimate) -> dict[str, Any]:
    return each.metric.as_json() | {"deviation": each.deviation, "draws": each.draws}
