"""What a third verdict costs beside two, and how its thresholds are best chosen, on sets of real photographs.

Features are written before, for each set by itself (a category folder or a list):

  mvtec-tf extract-features --data_dir=SET --weights=FILE --image_size=224 --out=FEATURES/SET
  python -m tools.doubt_search --data_dir=SET,SET --features=FEATURES/SET,FEATURES/SET

Draws of the protocol `clean`: rules are chosen on out-of-fold scores of the good training images and the labelled ones,
and what they cost is measured on the evaluated images, all at the calibrate rows' own share of defects.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mvtec_tf.bin import entry
from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation import doubt, thresholds
from mvtec_tf.evaluation.doubt import FIGURES, Zone
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.thresholds import Rule, choose_threshold
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.probability import fit_platt
from mvtec_tf.heads.settings import HeadSettings

_METHODS = (thresholds.SMOOTH_YOUDEN, thresholds.LEAST_COST)
_THREE = ("three: smoothed", "three: counted", "three: logistic curve")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoubtSettings:
    """What is measured.

    Attributes:
      data_dir: the sets, one path each.
      features: their features, in the same order.
      heads: heads that are fitted.
      label_budget: label budget of a draw.
      draws: draws of labels and of evaluated images.
      cost_miss: what a defective part that passes costs.
      cost_false_alarm: what a good part that is stopped costs.
      cost_review: what a person costs, several numbers.
    """

    data_dir: tuple[str, ...] = dataclasses.field(metadata={"paths": True})
    features: tuple[str, ...]
    heads: tuple[str, ...] = ("logistic", "mahalanobis")
    label_budget: str = "0.1"
    draws: int = 10
    cost_miss: float = 10.0
    cost_false_alarm: float = 1.0
    cost_review: tuple[str, ...] = ("0.05", "0.1", "0.2", "0.5", "1")


def counted(scores: np.ndarray, defective: np.ndarray, costs: Costs) -> Zone:
    """The pair of thresholds of the least cost of these very images, midway between their scores."""
    order = np.argsort(scores)
    bad = np.append(0, np.cumsum(defective[order]))
    good = np.append(0, np.cumsum(~defective[order]))
    cuts = np.concatenate([[scores.min() - 1], (scores[order][1:] + scores[order][:-1]) / 2, [scores.max() + 1]])
    below = costs.miss * bad - costs.review * (bad + good)
    above = costs.false_alarm * (good[-1] - good) + costs.review * (bad + good)
    high = int(np.argmin(np.minimum.accumulate(below) + above))
    return Zone(float(cuts[np.argmin(below[: high + 1])]), float(cuts[high]))


def of_curve(scores: np.ndarray, defective: np.ndarray, costs: Costs) -> Zone:
    """Chow's rule on probabilities by a logistic curve (Platt)."""
    curve = fit_platt(scores, defective.astype(int))
    low, high = costs.review / costs.miss, 1 - costs.review / costs.false_alarm
    if low >= high:
        low = high = costs.false_alarm / (costs.miss + costs.false_alarm)
    with np.errstate(divide="ignore"):
        cuts = [(np.log(p / (1 - p)) - curve.intercept) / max(curve.slope, 1e-9) for p in (low, high)]
    return Zone(*map(float, np.clip(cuts, -1e30, 1e30)))


def measure(data_dir: str, features: str, head: str, asked: DoubtSettings) -> tuple[str, dict[str, dict[str, list]]]:
    """(set, cost_review -> rule -> `FIGURES` of each draw)."""
    records = records_lib.scan([data_dir])
    store, budget = FeatureStore(features), protocol.parse_budget(asked.label_budget)
    found: dict[str, dict[str, list]] = {review: {} for review in asked.cost_review}
    for seed in range(asked.draws):
        cut = protocol.clean(records, budget, seed)
        labels = np.array([record.label for record in cut.fit])
        settings = HeadSettings(name=head, seed=seed)
        fitted = fit_probe(lambda own=settings: make_head(own), store.of(cut.fit), cut.fit, seed)
        held, known = fitted.calibrate_scores.astype(np.float64), labels[fitted.calibrate] == 1
        scores = fitted.head.decision_function(store.of(cut.evaluate)).astype(np.float64)
        defective = np.array([record.label for record in cut.evaluate]) == 1
        for review, rows in found.items():
            costs = Costs(asked.cost_miss, asked.cost_false_alarm, float(review))
            two = {name: choose_threshold(known, held, rule=Rule(name), costs=costs).value for name in _METHODS}
            zones = {f"two: {name}": Zone(value, value) for name, value in two.items()}
            smoothed = doubt.least_cost(held, known, costs, two[thresholds.LEAST_COST])
            three = smoothed, counted(held, known, costs), of_curve(held, known, costs)
            zones |= dict(zip(_THREE, three, strict=True))
            for name, zone in zones.items():
                called = zone.called(scores)
                figures = doubt.rates(np.ones((1, len(scores))), defective, called, None, None, costs, known.mean())
                rows.setdefault(name, []).append(figures[:, 0])
    return records[0].category, found


def table(title: str, found: Mapping[str, Mapping[str, Sequence[np.ndarray]]]) -> str:
    """Markdown: the mean cost of a part by each rule, and what the smoothed rule sends to a person and lets pass."""
    names = list(next(iter(found.values())))
    lines = [f"| {title}, a person costs | " + " | ".join(names) + " | less two: least_cost | to a person | pass |"]
    lines.append("|" + "---|" * (len(names) + 4))
    cost, reviewed, missed = (FIGURES.index(name) for name in ("cost", "reviewed", "missed"))
    for review, rows in found.items():
        draws = {name: np.array(values) for name, values in rows.items()}
        own, best = draws[_THREE[0]], draws[f"two: {thresholds.LEAST_COST}"]
        less = own[:, cost] - best[:, cost]
        cells = [f"{draws[name][:, cost].mean():.4f}" for name in names]
        cells += [f"{less.mean():+.4f} (worse in {(less > 1e-9).sum()} of {len(less)})"]
        cells += [f"{100 * own[:, each].mean():.1f} %" for each in (reviewed, missed)]
        lines.append(f"| {review} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(asked: DoubtSettings) -> None:
    """Prints the tables, and which way of choosing is best on the other sets."""
    if len(asked.data_dir) != len(asked.features):
        raise UsageError("As many `features` as `data_dir` are needed. Try --help.")
    costs = f"A miss costs {asked.cost_miss:g}, a false alarm {asked.cost_false_alarm:g}"
    print(f"{costs}; {asked.draws} draws, seeds from 0.")
    means, sets = [], []
    for data_dir, features in zip(asked.data_dir, asked.features, strict=True):
        for head in asked.heads:
            name, found = measure(data_dir, features, head, asked)
            print("\n" + table(f"{name}, {head}", found), flush=True)
            cost = FIGURES.index("cost")
            means.append([[np.mean([one[cost] for one in rows[rule]]) for rule in _THREE] for rows in found.values()])
            sets.append(name)
    values = np.array(means).mean(axis=1)
    print("\nThe way of choosing with the least mean cost on the other sets:")
    for name in dict.fromkeys(sets):
        own = np.array([one == name for one in sets])
        chosen = int(values[~own].mean(axis=0).argmin()) if (~own).any() else 0
        own_costs = ", ".join(f"{rule} {cost:.4f}" for rule, cost in zip(_THREE, values[own].mean(axis=0), strict=True))
        print(f"- {name}: {_THREE[chosen]}; here {own_costs}")


if __name__ == "__main__":
    entry.run(main, DoubtSettings)
