"""Methods set against each other on the same images, in the same resamples.

Two intervals that overlap say little about the difference: both methods find the same images hard.
So the difference itself is computed in every resample, and its own interval is given. Several
runs of a method are averaged; their standard deviation is how far another seed would move it.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.evaluation import intervals, metrics, sample, scope, trivial
from mvtec_tf.evaluation.comparison.contenders import Contender, Method, known_object
from mvtec_tf.evaluation.intervals import LEVEL, Bootstrap, Resampling
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.scope import Scope

# Where figures are of: all images, the mean over categories, or a category.
OVERALL, MEAN, CATEGORY = "overall", "mean_over_categories", "category"
Place = tuple[str, str]
ALL: Place = (OVERALL, "")
MEANS: Place = (MEAN, "")
CSV_COLUMNS = (
    *("method", "labels_used", "runs", "scope", "category", "metric", "value", "low", "high", "deviation"),
    *("difference", "difference_low", "difference_high"),
)
LOWER_IS_BETTER = ("fpr", "fnr", "cost", "brier", "expected_calibration_error")
# Below this many discordant images the chi-squared approximation is poor (McNemar, Psychometrika
# 1947, as usually taught; e.g. Fleiss, Statistical Methods for Rates and Proportions, chapter 8).
FEW = 25
# Of five objects that are called otherwise McNemar's exact test has a p-value of 2 / 2^5 = 0.06 even if one method is
# right about all of them, and yet hardly a resample is without any of the five.
_LEAST_DIFFERING = 6
_TOO_ALIKE = f"{intervals.WITHOUT}fewer than {_LEAST_DIFFERING} objects are called differently, which shows nothing"
_OF_CALLS = (*metrics.AT_THRESHOLD, metrics.COST)


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Result of the test.

    Attributes:
      only_first: images that only the first model called rightly.
      only_second: images that only the second did.
      p_value: chance of a split at least as uneven if the two were equally good.
      exact: whether it is from the binomial distribution, not from chi-squared.
    """

    only_first: int
    only_second: int
    p_value: float
    exact: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Standing:
    """How one method stands.

    Attributes:
      method: who.
      scopes: of all images, one of each run.
      figures: place -> metric name -> mean over the runs, with its interval over images.
      deviations: place -> metric name -> standard deviation over the runs; None of one run.
      differences: place -> metric name -> above the first method's, with its interval, of calls if enough objects are
        called differently; empty of the first method itself.
      calls: McNemar's test against the first method, one of each run; empty without calls.
      verdict: whether it beats calling every image defective, see `Scope.verdict`; "leak" of a method
        that had seen evaluated images.
    """

    method: Method
    scopes: tuple[Scope, ...]
    figures: Mapping[Place, Mapping[str, Metric]]
    deviations: Mapping[Place, Mapping[str, float | None]]
    differences: Mapping[Place, Mapping[str, Metric]]
    calls: tuple[McNemar, ...]
    verdict: str


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """All methods, the first being the one that the others are measured against.

    Attributes:
      standings: in the order of the methods.
      categories: their names.
      bootstrap, costs: what was asked for.
      groups: number of groups among the evaluated images of all runs together.
    """

    standings: tuple[Standing, ...]
    categories: tuple[str, ...]
    bootstrap: Bootstrap
    costs: Costs
    groups: int

    @property
    def places(self) -> list[Place]:
        """Where there are figures of, all images first."""
        if len(self.categories) == 1:
            return [ALL]
        return [ALL, MEANS, *((CATEGORY, name) for name in self.categories)]

    @property
    def leading(self) -> str:
        """The metric that it begins with: of calls if all methods make them, else of the ranking."""
        has_calls = all(each.figures[ALL]["balanced_accuracy"].value is not None for each in self.standings)
        return "balanced_accuracy" if has_calls else "roc_auc"

    def as_json(self) -> dict[str, Any]:
        """The content of `comparison.json` but for the summary."""
        first = self.standings[0]
        whole = first.scopes[0]
        return {
            "reference": first.method.name,
            "images": {"images": whole.images, "defective": whole.defective, "good": whole.good},
            "methods": {each.method.name: self._standing(each) for each in self.standings},
            "trivial": {
                name: {metric: found.as_json() for metric, found in whole.trivial[name].items()}
                for name in trivial.CLASSIFIERS
            },
            "costs": dataclasses.asdict(self.costs),
            "intervals": dataclasses.asdict(self.bootstrap) | {"level": LEVEL, "groups": self.groups},
        }

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of `comparison.csv`, see `CSV_COLUMNS`: one of each method, place and metric."""
        for each in self.standings:
            method = (each.method.name, each.method.labels_used, len(each.method.runs))
            for place in self.places:
                for name, figure in each.figures[place].items():
                    difference = each.differences[place][name] if each.differences else Metric(None)
                    numbers = (*figure.numbers, each.deviations[place][name], *difference.numbers)
                    yield *method, *place, name, *numbers

    def _standing(self, each: Standing) -> dict[str, Any]:
        def block(found: Mapping[Place, Mapping[str, Metric]], extra: bool = False) -> dict[str, Any]:
            forms = {
                place: {
                    name: metric.as_json() | ({"deviation": each.deviations[place][name]} if extra else {})
                    for name, metric in found[place].items()
                }
                for place in self.places
            }
            own = {name: forms[CATEGORY, name] for name in self.categories if (CATEGORY, name) in forms}
            return {OVERALL: forms[ALL], MEAN: forms.get(MEANS), "categories": own}

        return {
            "runs": [
                {
                    "source": run.source,
                    "labels_used": run.labels_used,
                    "threshold": run.threshold.as_json(),
                    "leak": run.leak.as_json() if run.leak else None,
                }
                for run in each.method.runs
            ],
            "labels_used": each.method.labels_used,
            "verdict": each.verdict,
            "figures": block(each.figures, extra=True),
            "difference": block(each.differences) if each.differences else None,
            "mcnemar": [dataclasses.asdict(result) for result in each.calls],
        }


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """Figures of one run: the scope of all images, and values and replicates by place and name."""

    whole: Scope
    figures: Mapping[Place, Mapping[str, Metric]]
    replicates: Mapping[Place, Mapping[str, np.ndarray]]


def compare(methods: Sequence[Method], costs: Costs | None = None, bootstrap: Bootstrap | None = None) -> Comparison:
    """Sets methods against each other.

    Runs of different seeds may have been judged on different images; then whole groups are drawn
    from the images of all runs together, and each run counts those of its own that were drawn.

    Args:
      methods: see `contenders.read_methods`, which has found that they can be compared.
      costs: of wrong calls; None: 1 each.
      bootstrap: of the intervals; None: 1000 resamples.
    """
    costs, bootstrap = costs or Costs(), bootstrap or Bootstrap()
    contenders = [run for method in methods for run in method.runs]
    keys, resampling, classes = _all_images(contenders, bootstrap)
    index = {key: place for place, key in enumerate(keys)}
    categories = tuple(sorted({name for run in contenders for name in run.evaluate.categories()}))
    runs = [_measured(run, index, resampling, categories, costs) for run in contenders]
    grouped, start = [], 0
    for method in methods:
        grouped.append(runs[start : start + len(method.runs)])
        start += len(method.runs)
    standings = tuple(
        _standing(method, of, methods[0], grouped[0], classes) for method, of in zip(methods, grouped, strict=True)
    )
    return Comparison(standings, categories, bootstrap, costs, resampling.distinct(np.ones(len(keys), bool)))


def _all_images(
    contenders: Sequence[Contender], bootstrap: Bootstrap
) -> tuple[list[str], Resampling, dict[Place, tuple[int, int]]]:
    """The images of all runs, the draws from them, and the numbers of good and of defective objects at each place."""
    facts: dict[str, tuple[str, str, int]] = {}
    for run in contenders:
        table = run.evaluate
        for key, category, group, label in zip(run.keys, table.category, table.group, table.label, strict=True):
            known, group = facts.get(key), known_object(group, key)
            # One table may know of an object what another does not say.
            if known is None or (group and not known[1]):
                facts[key] = (category, group, int(label))
    keys = sorted(facts)
    columns = list(zip(*(facts[key] for key in keys), strict=True))
    resampling, category, label = Resampling(keys, *columns, bootstrap), np.array(columns[0]), np.array(columns[2])
    places = {ALL: np.ones(len(keys), bool), **{(CATEGORY, name): category == name for name in set(columns[0])}}
    classes = {
        place: tuple(resampling.distinct(here & (label == which)) for which in (0, 1)) for place, here in places.items()
    }
    return keys, resampling, classes | {MEANS: classes[ALL]}


def _measured(
    run: Contender, index: Mapping[str, int], resampling: Resampling, categories: Sequence[str], costs: Costs
) -> _Run:
    table = run.evaluate
    where = np.array([index[key] for key in run.keys])
    inside = {"": np.arange(len(table))}
    if len(categories) > 1:
        inside |= {name: np.flatnonzero(table.category == name) for name in categories}
    inside = {name: rows for name, rows in inside.items() if len(rows)}
    scopes, found = scope.judge(table, inside, resampling, where, run.threshold, costs)
    place_of = {name: (CATEGORY, name) if name else ALL for name in inside}
    figures = {place_of[name]: each.metrics for name, each in scopes.items()}
    replicates: dict[Place, Mapping[str, np.ndarray]] = {place_of[name]: each.figures for name, each in found.items()}
    own = [name for name in inside if name]
    if own:
        figures[MEANS] = metrics.mean_over({name: scopes[name].metrics for name in own})
        replicates[MEANS] = {
            name: intervals.mean_of([found[category].figures[name] for category in own])
            for name in found[own[0]].figures
        }
    return _Run(scopes[""], figures, replicates)


def _standing(
    method: Method,
    runs: Sequence[_Run],
    first: Method,
    first_runs: Sequence[_Run],
    classes: Mapping[Place, tuple[int, int]],
) -> Standing:
    places = [place for place in first_runs[0].figures if all(place in run.figures for run in (*runs, *first_runs))]
    figures, deviations, differences = {}, {}, {}
    differing = set() if method is first else _called_differently(method, first)
    for place in places:
        names = list(runs[0].figures[place])
        smaller = {name: metrics.smaller_class(name, *classes[place]) for name in names}
        figures[place] = {name: _averaged(runs, place, name, smaller[name]) for name in names}
        deviations[place] = {name: _deviation(runs, place, name) for name in names}
        if method is not first:
            few = sum(place in (ALL, MEANS, (CATEGORY, name)) for name, _ in differing) < _LEAST_DIFFERING
            differences[place] = {
                name: _difference(runs, first_runs, place, name, smaller[name], few and name in _OF_CALLS)
                for name in names
            }
    calls: tuple[McNemar, ...] = ()
    if method is not first and len(runs) == len(first_runs):
        tested = [_discordant(*pair) for pair in zip(method.runs, first.runs, strict=True)]
        calls = tuple(result for result in tested if result)
    verdict = scope.LEAK if method.leak else _verdict(runs, figures[ALL], min(classes[ALL]))
    return Standing(method, tuple(run.whole for run in runs), figures, deviations, differences, calls, verdict)


def _averaged(runs: Sequence[_Run], place: Place, name: str, smaller: int) -> Metric:
    """The mean over the runs with its interval over images."""
    if len(runs) == 1 and place != MEANS:
        return runs[0].figures[place][name]
    return intervals.with_interval(*_mean(runs, place, name), smaller=smaller)


def _difference(
    runs: Sequence[_Run], first: Sequence[_Run], place: Place, name: str, smaller: int, alike: bool
) -> Metric:
    """The means' difference, with the interval of those in each resample, unless the calls are too `alike`."""
    (one, rows), (other, others) = (_mean(of, place, name) for of in (runs, first))
    if one.value is None or other.value is None:
        return Metric(None, one.reason or other.reason)
    if alike:
        return Metric(one.value - other.value, note=_TOO_ALIKE)
    return intervals.with_interval(Metric(one.value - other.value), rows - others, smaller=smaller)


def _mean(runs: Sequence[_Run], place: Place, name: str) -> tuple[Metric, np.ndarray]:
    """The mean over the runs, without an interval, and in each resample."""
    found = [run.figures[place][name] for run in runs]
    without = next((metric for metric in found if metric.value is None), None)
    if without:
        return Metric(None, without.reason), np.zeros(0)
    mean = Metric(float(np.mean([metric.value for metric in found])), note=found[0].note if place == MEANS else "")
    return mean, _mean_of_runs([run.replicates[place].get(name) for run in runs])


def _mean_of_runs(rows: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.zeros(0) if any(row is None for row in rows) else np.mean(rows, axis=0)


def _deviation(runs: Sequence[_Run], place: Place, name: str) -> float | None:
    values = [run.figures[place][name].value for run in runs]
    return None if len(values) < 2 or None in values else float(np.std(values, ddof=1))


def _called_differently(method: Method, first: Method) -> set[tuple[str, str]]:
    """(category, object) of which an image is called otherwise by a run of the method than by that run, or any, of the
    first."""
    pairs = itertools.product(method.runs, first.runs)
    if len(method.runs) == len(first.runs):
        pairs = zip(method.runs, first.runs, strict=True)
    found = set()
    for pair in pairs:
        if any(run.calls is None for run in pair):
            continue
        one, other = (dict(zip(run.keys, run.calls, strict=True)) for run in pair)
        table = pair[0].evaluate
        for key, category, group in zip(pair[0].keys, table.category, table.group, strict=True):
            if one[key] != other.get(key, one[key]):
                found.add((category, known_object(group, key) or key))
    return found


def _discordant(run: Contender, first: Contender) -> McNemar | None:
    """McNemar's test of two runs on the same images, sorted alike; None if one of them calls nothing."""
    if run.calls is None or first.calls is None:
        return None
    one, other = (each.calls == (each.evaluate.label == 1) for each in (run, first))
    return mcnemar_test(int((one & ~other).sum()), int((~one & other).sum()))


def _verdict(runs: Sequence[_Run], figures: Mapping[str, Metric], smaller: int) -> str:
    if len(runs) == 1:
        return runs[0].whole.verdict
    balanced = figures["balanced_accuracy"]
    gains = [run.whole.gains["f1"] for run in runs]
    if balanced.value is None or any(gain.value is None for gain in gains):
        return scope.UNKNOWN
    rows = _mean_of_runs([run.replicates[ALL].get(sample.GAIN) for run in runs])
    f1 = intervals.with_interval(Metric(float(np.mean([gain.value for gain in gains]))), rows, smaller=smaller)
    return scope.verdict({"balanced_accuracy": scope.shifted(balanced, 0.5), "f1": f1}, figures["specificity"])


def mcnemar_test(only_first: int, only_second: int) -> McNemar:
    """The two-sided test: exact for fewer than 25 discordant images, else chi-squared with Edwards' correction.

    It takes images as independent: with several images of one object the p-value is too small.
    """
    count = only_first + only_second
    exact = count < FEW
    if exact:
        tail = sum(math.comb(count, k) for k in range(min(only_first, only_second) + 1))
        p_value = min(1.0, 2 * tail / 2**count)
    else:
        statistic = max(0, abs(only_first - only_second) - 1) ** 2 / count
        p_value = math.erfc(math.sqrt(statistic / 2))
    return McNemar(only_first, only_second, p_value, exact)
