"""How many of the first ten suspects are wrong labels, by several methods, where some labels were turned on purpose.

Of the good training images a share are defects of the test set, hidden there; of the other test images the same share
have the other label. Features are written before, of each set by itself (a category folder or a list):

  mvtec-tf extract-features --data_dir=SET --weights=FILE --recipe=few_labels --maps=false --out=FEATURES/SET
  python -m tools.suspects_search --data_dir=SET,SET --features=FEATURES/SET,FEATURES/SET --out=results/suspects
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression

from mvtec_tf import files
from mvtec_tf.bin import entry
from mvtec_tf.data.formats import scan
from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation.report import canvas
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.heads import suspects
from mvtec_tf.heads.frozen import inner_folds
from mvtec_tf.heads.fused import FOLDS, balanced_ridge
from mvtec_tf.heads.gaussian import GoodGaussian
from tools.recipe_search import chosen_on_the_others

FIRST = 10
_NEIGHBOURS = 5
USED = "used"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What is measured.

    Attributes:
      out: folder for table.md, figures.json and precision.png.
      data_dir: the sets, one category each.
      features: their features, in the same order.
      shares: shares of the labels that are turned.
      draws: draws of the labels that are turned.
    """

    out: str
    data_dir: tuple[str, ...] = dataclasses.field(metadata={"paths": True})
    features: tuple[str, ...]
    shares: tuple[str, ...] = ("0.01", "0.03", "0.05", "0.1")
    draws: int = 10


@dataclasses.dataclass(frozen=True)
class Turned:
    """A set with some labels turned.

    Attributes:
      pooled: float64 [N, D].
      given: int [N], the labels as they are said to be.
      wrong: bool [N], whether they are not.
      groups: [N], objects.
    """

    pooled: np.ndarray
    given: np.ndarray
    wrong: np.ndarray
    groups: np.ndarray


def turned(
    pooled: np.ndarray, labels: np.ndarray, train: np.ndarray, groups: np.ndarray, share: float, seed: int
) -> Turned:
    """`share` of the good training images are hidden defects, `share` of the test images have the other label."""
    rng = np.random.default_rng(seed)
    defects = np.flatnonzero(labels == 1)
    # Two thirds of the defects stay where they can be told by.
    hidden = rng.choice(defects, min(math.ceil(share * train.sum()), len(defects) // 3), replace=False)
    tests = np.flatnonzero(~train)
    flipped = rng.choice(np.setdiff1d(tests, hidden), math.ceil(share * len(tests)), replace=False)
    given = labels.copy()
    given[hidden], given[flipped] = 0, 1 - given[flipped]
    return Turned(np.asarray(pooled, np.float64), given, given != labels, groups)


def _held_out(one: Turned, fit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Scores of each fold by a fit on the others, as a margin on the wrong side of the best cut."""
    good, scores = one.given == 0, np.full(len(one.given), np.nan)
    folds = inner_folds(one.given, one.groups, 0, FOLDS)
    # The Gaussian standardises for itself, and no rotated axes.
    values = one.pooled if fit is _distance else suspects.rotated(one.pooled, good)
    for fold in range(folds.max() + 1):
        held = folds == fold
        scores[held] = fit(values[~held], one.given[~held])(values[held])
    return np.where(good, 1, -1) * (scores - suspects.best_cut(scores, good))


def _neighbours(one: Turned) -> np.ndarray:
    """Share of the nearest images with the other label, each class weighted alike."""
    standard = suspects.rotated(one.pooled, one.given == 0)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    distances = cdist(standard, standard)
    distances[one.groups[:, None] == one.groups] = np.inf
    nearest = one.given[np.argsort(distances, axis=1)[:, :_NEIGHBOURS]]
    weight = 1 / np.bincount(one.given)[nearest]
    return (weight * (nearest != one.given[:, None])).sum(axis=1) / weight.sum(axis=1)


def _distance(good: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    gaussian = GoodGaussian(good[labels == 0])
    return lambda values: np.log(gaussian.distances(values))


METHODS: Mapping[str, Callable[[Turned], np.ndarray]] = {
    USED: lambda one: suspects.suspicion(one.pooled, one.given, one.groups).score,
    "ridge": lambda one: _held_out(one, lambda x, y: balanced_ridge(x, y).predict),
    "distance": lambda one: _held_out(one, _distance),
    "logistic": lambda one: _held_out(
        one, lambda x, y: LogisticRegression(C=0.01, class_weight="balanced", max_iter=500).fit(x, y).decision_function
    ),
    "neighbours": _neighbours,
}


def precision(score: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Of the FIRST suspects, the share whose label is wrong; and of as many as there are wrong ones."""
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf), kind="stable")
    return float(wrong[order[:FIRST]].mean()), float(wrong[order[: wrong.sum()]].mean())


def measure(data_dir: str, features: str, asked: SearchSettings) -> dict[str, dict[str, list]]:
    """share -> method -> (precision of the first, of as many as are wrong, number wrong) of each draw; and the name."""
    records = scan.scan([data_dir])
    frozen = FeatureStore(features).of(records)
    labels = np.array([record.label for record in records])
    train = np.array([record.split == "train" for record in records])
    found: dict[str, dict[str, list]] = {}
    for share in asked.shares:
        for seed in range(asked.draws):
            one = turned(frozen.pooled, labels, train, frozen.groups, float(share), seed)
            for name, method in METHODS.items():
                figures = (*precision(method(one), one.wrong), int(one.wrong.sum()))
                found.setdefault(share, {}).setdefault(name, []).append(figures)
        print(records[0].category, share, {name: np.mean(each, axis=0).round(2) for name, each in found[share].items()})
    return found


def table(found: Mapping[str, Mapping[str, Mapping[str, list]]], share: str) -> str:
    """Markdown at one share: set, wrong labels, precision of the first ten (of as many as are wrong) by each method."""
    lines = [f"| set | wrong | {' | '.join(METHODS)} | chosen on the other sets |", "|---" * (len(METHODS) + 3) + "|"]
    means = {name: {m: np.mean(each, axis=0) for m, each in own[share].items()} for name, own in found.items()}
    picked = chosen_on_the_others(np.array([[own[m][1] for m in METHODS] for own in means.values()]))
    for (name, own), pick in zip(means.items(), picked, strict=True):
        cells = " | ".join(f"{own[m][0]:.2f} ({own[m][1]:.2f})" for m in METHODS)
        lines.append(f"| {name} | {own[USED][2]:.0f} | {cells} | {list(METHODS)[pick]} |")
    return "\n".join(lines)


def main(asked: SearchSettings) -> None:
    """Measures the sets, and writes table and curves."""
    if len(asked.data_dir) != len(asked.features):
        raise UsageError("As many `features` as `data_dir` are needed. Try --help.")
    out = pathlib.Path(asked.out)
    names = [pathlib.Path(name).stem for name in asked.data_dir]
    found = {
        name: measure(*each, asked) for name, *each in zip(names, asked.data_dir, asked.features, strict=True)
    }
    texts = [f"{float(share):.0%} turned\n\n{table(found, share)}" for share in asked.shares]
    files.write_text(out / "table.md", "\n\n".join(texts) + "\n")
    files.write_json(out / "figures.json", {"draws": asked.draws, "figures": found})
    figure = Figure(figsize=(canvas.WIDTH, canvas.HEIGHT), dpi=canvas.DPI, layout="constrained")
    axes = figure.add_subplot(xlabel="share of the labels turned, %", ylabel="found among as many suspects")
    for (name, own), marker in zip(found.items(), canvas.SERIES_MARKERS, strict=False):
        means = [np.mean(own[share][USED], axis=0)[1] for share in asked.shares]
        axes.plot([100 * float(share) for share in asked.shares], means, marker=marker, label=name)
    axes.set_ylim(0, 1.02)
    axes.legend()
    figure.savefig(out / "precision.png")
    print("\n\n".join(texts))
    print(out)


if __name__ == "__main__":
    entry.run(main, SearchSettings)
