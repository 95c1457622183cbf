"""The choices in the recipe few_labels, made on other sets than those that they are reported of, beside other methods.

Features are written before, for each set by itself (a category folder or a list):

  mvtec-tf extract-features --data_dir=SET --weights=FILE --recipe=few_labels --out=FEATURES/SET
  python -m tools.recipe_search --data_dir=SET,SET --features=FEATURES/SET,FEATURES/SET --out=results/recipe_search

The evidences are fitted on train/good alone, once a set; labels come in with the ridge, draw by draw, protocol `clean`.
The patch heads see the recipe's features too (448 px, brightness taken away, patches not averaged over neighbours).
More tables say how well the recipe's thresholds keep what they promise (`kept_promises`).
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from mvtec_tf import files
from mvtec_tf.bin import entry
from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.heads import join, residual
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.frozen import FrozenFeatures, inner_folds, objects_of
from mvtec_tf.heads.fused import FOLDS, Found, Like, Unlike
from mvtec_tf.heads.gaussian import GoodGaussian
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.heads.patch import Padim, PatchCore
from mvtec_tf.label_efficiency.statistics import estimate
from tools import kept_promises
from tools.kept_promises import Draw


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What is measured.

    Attributes:
      out: folder for table.md, figures.json and what is kept of each set.
      data_dir: the sets, one path each.
      features: their features, in the same order.
      draws: draws of labels and of evaluated images.
      label_budget: label budget of the column with labels.
      others: methods beside the recipe.
    """

    out: str
    data_dir: tuple[str, ...] = dataclasses.field(metadata={"paths": True})
    features: tuple[str, ...]
    draws: int = 5
    label_budget: str = "0.1"
    others: tuple[str, ...] = ("logistic", "mahalanobis", "padim", "patchcore")
# Without labels, and fitted once a set.
_ONCE = {"mahalanobis": Mahalanobis, "padim": Padim, "patchcore": PatchCore}

RULES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "fisher": lambda standard: np.log(-norm.logsf(np.maximum(standard, -4)).sum(axis=1)),
    "sum": lambda standard: standard.sum(axis=1),
    "max": lambda standard: standard.max(axis=1),
}
# Which evidences: the distance of the whole, the residuals of the finer layer and of the coarser one, the distances to
# the memory of both.
EVIDENCES = {
    "distance": (0,),
    "distance+residuals": (0, 1, 2),
    "distance+memory": (0, 3, 4),
    "residuals+memory": (1, 2, 3, 4),
    "all": (0, 1, 2, 3, 4),
}
# Of the generalised mean that says what is usual at a place; 0 is the mean of logarithms.
POWERS = (0.0, residual.POWER, 64.0)
TRUST = ("as explained", "never", "always")
# Of the ridge; None: by what it says of held-out defects.
WEIGHTS = (0.25, 0.5, None)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One recipe out of those that are compared."""

    evidences: str
    power: float
    rule: str
    trust: str
    weight: float | None = 0.0

    def __str__(self) -> str:
        """In words."""
        weight = "" if self.weight == 0 else ", weight by held-out defects"
        weight = f", weight {self.weight}" if self.weight else weight
        return f"{self.evidences}, power {self.power:g}, {self.rule}, main directions followed {self.trust}{weight}"


NOW = Choice("all", residual.POWER, "fisher", "as explained", None)
# The version before this one, and `before` was the one before that.
LAST = Choice("distance+residuals", 0.0, "fisher", "as explained", 0.25)


@dataclasses.dataclass(frozen=True)
class Set:
    """One set: its images, and what was found in them by evidences that never saw them."""

    name: str
    records: Sequence[Record]
    features: FrozenFeatures
    found: Found

    @property
    def train(self) -> np.ndarray:
        """bool [N]."""
        return np.array([record.split == "train" for record in self.records])

    def rows(self, records: Sequence[Record]) -> np.ndarray:
        """int [M], where these images stand."""
        place = {record.path: row for row, record in enumerate(self.records)}
        return np.array([place[record.path] for record in records], int)


def read_set(data_dir: str, features: str, kept: pathlib.Path) -> Set:
    """A set with its evidences; they are kept in the folder `kept`, since they take minutes."""
    records = records_lib.scan([data_dir])
    name = records[0].category
    if any(record.category != name for record in records):
        raise UsageError(f"`data_dir`={data_dir}: expected one category. Name each by itself, with its own features.")
    frozen = FeatureStore(features).of(records)
    file = kept / f"{name}.npz"
    if not file.exists():
        train = np.array([record.split == "train" for record in records])
        found = _found(frozen, train)
        parts = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        patches = {f"patches_{number}": value for number, value in enumerate(parts.pop("patches"))}
        with files.replacing(file) as temporary:
            np.savez(temporary, **parts, **patches)
    with np.load(file) as there:
        patches = [there[name] for name in sorted(there.files) if name.startswith("patches_")]
        found = Found(there["distance"], patches, there["places"], there["objects"], there["folds"])
    return Set(name, records, frozen, found)


def _found(frozen: FrozenFeatures, train: np.ndarray) -> Found:
    folds = np.full(len(train), -1)
    folds[train] = inner_folds(np.zeros(train.sum(), int), frozen.groups[train], 0, FOLDS)
    pooled = np.asarray(frozen.pooled, np.float64)
    gaussian = GoodGaussian(pooled[train])
    subspaces = residual.subspaces(frozen.select(train), folds[train])
    found = Found.held_out(frozen, train, folds, gaussian, subspaces)
    places = (pooled - gaussian.mean) @ gaussian.main_directions(join.directions(int(train.sum())))
    return dataclasses.replace(found, places=places, objects=objects_of(frozen))


def evidence_of(one: Set, power: float) -> np.ndarray:
    """All evidences, float64 [N, J]; of good training images against what is usual in those of other folds."""
    good = one.found.select(one.train)
    evidence = one.found.evidence(good.usual(power))
    evidence[one.train] = good.held_out_evidence(power)
    return evidence


def unlike(one: Set, all_evidence: np.ndarray, choice: Choice) -> np.ndarray:
    """Scores without labels, float64 [N], in standard deviations of held-out good images."""
    evidence = all_evidence[:, EVIDENCES[choice.evidences]]
    good, places = one.train, join.clipped(one.found.places)
    fitted = join.Join.fit(evidence[good], places[good], one.found.objects[good])
    slopes = fitted.slopes
    if choice.trust != "as explained":
        design = np.column_stack([np.ones(good.sum()), places[good]])
        slopes = np.linalg.lstsq(design, evidence[good], rcond=None)[0][1:] * (choice.trust == "always")
    left = evidence - places @ slopes
    joined = RULES[choice.rule]((left - left[good].mean(axis=0)) / left[good].std(axis=0))
    return (joined - joined[good].mean()) / joined[good].std()


@dataclasses.dataclass(frozen=True)
class Ridge:
    """What the labels of the images `fit` say.

    Attributes:
      like: fitted on them.
      scores: float64 [N], of all images.
      fit: int [M].
    """

    like: Like
    scores: np.ndarray
    fit: np.ndarray

    def added(self, unlike: np.ndarray, weight: float | None) -> np.ndarray:
        """Scores with the ridge's at this weight, float64 [N]; None: by what it says of held-out defects."""
        mean, factor = self.like.scale(unlike[self.fit])
        if weight is not None:
            factor = weight / float(np.nanstd(self.like.held_out[self.like.labels == 0]))
        return unlike + factor * (self.scores - mean)


def ridge_of(one: Set, fit: np.ndarray) -> Ridge:
    """The ridge on the images `fit`, int [M], of both classes."""
    labels = np.array([one.records[row].label for row in fit])
    pooled = np.asarray(one.features.pooled, np.float64)
    gaussian = GoodGaussian(pooled[fit][labels == 0])
    folds = inner_folds(labels, one.features.groups[fit], 0, FOLDS)
    like = Like.fit(pooled[fit], labels, folds, gaussian, one.found.objects[fit])
    return Ridge(like, (pooled - gaussian.mean) @ like.direction + like.offset, fit)


def before(one: Set, fit: np.ndarray) -> np.ndarray:
    """Scores of the recipe as it was at first, float64 [N]: the distance alone, less what is usual along two main
    directions whatever that explains, and half the ridge."""
    labels = np.array([one.records[row].label for row in fit])
    pooled = np.asarray(one.features.pooled, np.float64)
    known, good = pooled[fit], labels == 0
    gaussian = GoodGaussian(known[good])
    folds = inner_folds(labels, one.features.groups[fit], 0)
    held = np.empty(len(fit))
    for fold in range(folds.max() + 1):
        inside = folds == fold
        held[inside] = np.log(np.maximum(GoodGaussian(known[good & ~inside]).distances(known[inside]), 1e-6))
    main = gaussian.main_directions(join.directions(int(good.sum())))
    design = np.column_stack([np.ones(len(pooled)), (pooled - gaussian.mean) @ main])
    usual = np.linalg.lstsq(design[fit][good], held[good], rcond=None)[0]
    left = held[good] - design[fit][good] @ usual
    scores = (np.log(np.maximum(gaussian.distances(pooled), 1e-6)) - design @ usual - left.mean()) / left.std()
    return ridge_of(one, fit).added(scores, 0.5) if labels.any() else scores


def choices(with_labels: bool) -> list[Choice]:
    """All that are compared."""
    parts = itertools.product(EVIDENCES, POWERS, RULES, TRUST, WEIGHTS if with_labels else (0.0,))
    # A single evidence is joined with nothing, and the distance of the whole has no place.
    return [Choice(*part) for part in parts if len(EVIDENCES[part[0]]) > 1 or part[1:3] == (POWERS[0], "sum")]


def chosen_on_the_others(values: np.ndarray) -> np.ndarray:
    """int [S]: for each set the choice with the best mean on all other sets.

    Args:
      values: float [S, C].
    """
    others = (values.sum(axis=0) - values) / max(len(values) - 1, 1)
    return others.argmax(axis=1)


def held_out_scores(one: Set) -> np.ndarray:
    """float64 [N] of the good training images, as the head holds them out: their scale too is set without the fold."""
    good = one.found.select(one.train)
    scores = np.empty(len(good.folds))
    for fold in np.unique(good.folds):
        held = good.folds == fold
        scores[held] = Unlike.fit(good.select(~held)).scores(good.select(held))
    return scores


def promises(one: Set, budget: protocol.Budget, draws: int) -> list[dict[str, float]]:
    """What the recipe's thresholds come to, draw by draw, see `kept_promises.Draw`."""
    plain = unlike(one, evidence_of(one, NOW.power), NOW)
    plain[one.train] = held_out_scores(one)
    labels = np.array([record.label for record in one.records])
    tests, train = np.flatnonzero(~one.train), np.flatnonzero(one.train)
    found = []
    for seed in range(draws):
        cut = protocol.clean(one.records, budget, seed)
        fit = np.concatenate([train, one.rows(cut.labelled)])
        scores, held_out = plain, plain[fit]
        if labels[fit].any():
            ridge = ridge_of(one, fit)
            scores, kept = ridge.added(plain, None), ridge.scores.copy()
            kept[fit] = ridge.like.held_out
            held_out = dataclasses.replace(ridge, scores=kept).added(plain, None)[fit]
        known = np.isfinite(held_out)
        of = [one.records[row] for row in fit[known]]
        draw = Draw(cut, [one.records[row] for row in tests], scores[tests], of, held_out[known], seed)
        found.append(draw.figures())
    return found


def measure(one: Set, budget: protocol.Budget, draws: int, others: Sequence[str]) -> Iterator[tuple[str, float]]:
    """(method or choice, ROC-AUC on the evaluated images), draw by draw."""
    labels = np.array([record.label for record in one.records])
    evidence = {power: evidence_of(one, power) for power in POWERS}
    alone = {choice: unlike(one, evidence[choice.power], choice) for choice in choices(False)}
    train = np.flatnonzero(one.train)
    once = {}
    for name in [name for name in others if name in _ONCE]:
        good, rest = one.features.select(train), ~one.train
        once[name] = np.full(len(labels), np.nan)
        once[name][rest] = _ONCE[name]().fit(good, labels[train]).decision_function(one.features.select(rest))
    for seed in range(draws):
        cut = protocol.clean(one.records, budget, seed)
        evaluate = one.rows(cut.evaluate)
        fit = np.concatenate([train, one.rows(cut.labelled)])

        def area(scores: np.ndarray, rows: np.ndarray = evaluate) -> float:
            return float(roc_auc_score(labels[rows], scores[rows]))

        ridge = ridge_of(one, fit) if labels[fit].any() else None
        for choice in choices(ridge is not None):
            plain = alone[dataclasses.replace(choice, weight=0.0)]
            yield str(choice), area(plain if ridge is None else ridge.added(plain, choice.weight))
        yield "recipe at first", area(before(one, fit))
        for name, scores in once.items():
            yield name, area(scores)
        if "logistic" in others and ridge is not None:
            pooled = one.features.pooled
            yield "logistic", area(Logistic().fit(pooled[fit], labels[fit]).decision_function(pooled))


def table(
    sets: Sequence[str], draws: Sequence[Mapping[str, Sequence[float]]], others: Sequence[str], labelled: bool
) -> str:
    """Markdown: the recipe at first, before and now, what would have been chosen on the other sets, other methods.

    Args:
      sets: their names.
      draws: method or choice -> ROC-AUC of each draw, one a set.
      others: methods that are shown.
      labelled: whether labels were bought.
    """
    figures = [{name: float(np.mean(values)) for name, values in own.items()} for own in draws]
    names = [str(choice) for choice in choices(labelled)]
    last, now = (str(one if labelled else dataclasses.replace(one, weight=0.0)) for one in (LAST, NOW))
    picked = chosen_on_the_others(np.array([[own[name] for name in names] for own in figures]))
    shown = [name for name in others if name in figures[0]]
    lines = [
        "| set | recipe at first | recipe before | recipe now | more than before | chosen on the other sets | "
        + " | ".join(shown)
        + " |",
        "|" + "---|" * (6 + len(shown)),
    ]
    rows = [
        [own["recipe at first"], own[last], own[now], own[names[pick]], *(own[name] for name in shown)]
        for own, pick in zip(figures, picked, strict=True)
    ]
    more = [_difference(own[now], own[last]) for own in draws]
    more.append(f"{np.mean([row[2] - row[1] for row in rows]):+.3f}")
    for name, row, gain in zip([*sets, "mean"], [*rows, np.mean(rows, axis=0)], more, strict=True):
        cells = [f"{value:.3f}" for value in row]
        lines.append(f"| {name} | " + " | ".join([*cells[:3], gain, *cells[3:]]) + " |")
    lines += ["", "Chosen on the other sets:"]
    return "\n".join([*lines, *(f"- {name}: {names[pick]}" for name, pick in zip(sets, picked, strict=True))])


def _difference(now: Sequence[float], before: Sequence[float]) -> str:
    """Mean of the differences, draw by draw, with its corrected interval: half of the images are judged in each."""
    found = estimate(np.subtract(now, before).tolist(), 1.0).metric
    return f"{found.value:+.3f}" + ("" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]")


def main(asked: SearchSettings) -> None:
    """Measures the sets and writes the tables."""
    if len(asked.data_dir) != len(asked.features):
        raise UsageError("As many `features` as `data_dir` are needed. Try --help.")
    # A budget that buys no defect of a set is refused before the minutes that each takes.
    for data_dir in asked.data_dir:
        records = records_lib.scan([data_dir])
        for seed in range(asked.draws):
            protocol.clean(records, protocol.parse_budget(asked.label_budget), seed)
    folder = pathlib.Path(asked.out)
    folder.mkdir(parents=True, exist_ok=True)
    sets: list[str] = []
    found: dict[str, list[dict[str, list[float]]]] = {"0": [], asked.label_budget: []}
    kept: dict[str, list[list[dict[str, float]]]] = {"0": [], asked.label_budget: []}
    few: list[dict[int, tuple[float, float]]] = []
    for data_dir, features in zip(asked.data_dir, asked.features, strict=True):
        one = read_set(data_dir, features, folder)
        sets.append(f"{one.name} ({one.train.sum()} good, {len(one.records) - one.train.sum()} test)")
        for budget, figures in found.items():
            draws: dict[str, list[float]] = {}
            for name, value in measure(one, protocol.parse_budget(budget), asked.draws, asked.others):
                draws.setdefault(name, []).append(value)
            figures.append(draws)
            kept[budget].append(promises(one, protocol.parse_budget(budget), asked.draws))
        few.append(kept_promises.of_few(held_out_scores(one), one.found.objects[one.train]))
        print(f"{sets[-1]}: done", flush=True)
    texts = []
    for budget, figures in found.items():
        words = "No labels" if budget == "0" else f"Labels: {budget}"
        texts.append(f"{words}, mean of {asked.draws} draws\n\n{table(sets, figures, asked.others, budget != '0')}")
        texts.append(f"{words}, thresholds\n\n{kept_promises.table(sets, kept[budget], budget != '0')}")
    texts.append(f"Specificity of few good objects\n\n{kept_promises.table_of_few(sets, few)}")
    files.write_text(folder / "table.md", "\n\n".join(texts) + "\n")
    figures = {"sets": sets, "draws": asked.draws, "figures": found, "thresholds": kept}
    files.write_json(folder / "figures.json", figures)
    print("\n\n".join(texts))
    print(folder)


if __name__ == "__main__":
    entry.run(main, SearchSettings)
