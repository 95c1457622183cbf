"""Whether learning without labels, on a line's good images, beats the encoder that it starts from, and where it hurts.

  python -m tools.pretext_study --data_dir=SET,SET --weights=FILE --out=results/pretext

Each encoder is judged by heads on the recipe's features: the recommended head without labels and with some, the
Mahalanobis distance without, logistic regression with some. Draws of labels and of evaluated images are those of the
protocol `clean`, the same for every encoder, so that differences are paired. A cell, an encoder of one set and seed,
is a line of cells.jsonl; what stands there is not computed again.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from mvtec_tf.bin import entry
from mvtec_tf.data import protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.frozen import FrozenFeatures, inner_folds
from mvtec_tf.heads.fused import FOLDS, Fused, Like
from mvtec_tf.heads.gaussian import GoodGaussian
from mvtec_tf.heads.linear import Logistic
from tools import paired_cells
from tools.pretext_ways import WAYS, Trainer, TrainingSettings, with_defects

_NO_SEED = ("start",)
_LABELS = "fused, labels"
# Of the settings, between calls that fill one folder.
_MAY_DIFFER = ("out", "data_dir", "ways", "seeds", "label_budget")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(paired_cells.SetsAndFolder, TrainingSettings):
    """What is measured.

    Attributes:
      ways: encoders, out of `WAYS`.
      seeds: pretrainings of each way.
      draws: draws of labels and of evaluated images.
      most_test: test images at most.
    """

    ways: tuple[str, ...] = tuple(WAYS)
    seeds: int = 1
    draws: int = 5
    most_test: int = 180


@dataclasses.dataclass(frozen=True)
class Set:
    """One set, drawn down to what is looked at: good training images first, with their pixels, uint8 [N, S, S, 3]."""

    name: str
    records: Sequence[Record]
    images: np.ndarray
    budget: protocol.Budget

    @property
    def good(self) -> np.ndarray:
        """Rows of the good training images."""
        return np.arange(sum(record.split == "train" for record in self.records))

    def rows(self, records: Sequence[Record]) -> np.ndarray:
        """int [M], where these images stand."""
        place = {record.path: row for row, record in enumerate(self.records)}
        return np.array([place[record.path] for record in records], int)


def read_set(data_dir: str, budget: str, asked: StudySettings) -> Set:
    """A set with its pixels."""
    records, rng = scan.scan([data_dir]), np.random.default_rng(0)
    drawn: list[Record] = []
    for split, most in (("train", asked.most_good), ("test", asked.most_test)):
        own = [record for record in records if record.split == split]
        kept = sorted(rng.permutation(len(own))[:most])
        drawn += [own[row] for row in kept]
    images = ImageStore(asked.image_size).load(drawn)
    return Set(records[0].category, drawn, images, protocol.parse_budget(budget))


def figures_of(one: Set, trainer: Trainer, seed: int, draws: int) -> dict[str, Any]:
    """The line of a cell: head -> ROC-AUC of each draw, and how the training ended."""
    started = time.process_time()
    logs = trainer.train(one.images[one.good], seed)
    trained = time.process_time() - started
    labels, groups = (np.array([getattr(record, name) for record in one.records]) for name in ("label", "group"))
    features = dataclasses.replace(trainer.graph.of(one.images), groups=groups)
    cuts = [protocol.clean(one.records, one.budget, draw) for draw in range(draws)]
    found: dict[str, list[float]] = {}

    def add(name: str, cut: protocol.Cut, scores: np.ndarray) -> None:
        rows = one.rows(cut.evaluate)
        found.setdefault(name, []).append(float(roc_auc_score(labels[rows], scores[rows])))

    fused = Fused().fit(features.select(one.good))
    unlike = fused.decision_function(features).astype(np.float64)
    distance = Mahalanobis().fit(features.pooled[one.good]).decision_function(features.pooled)
    once = {"fused, no labels": unlike, "mahalanobis, no labels": distance}
    if trainer.classifies:
        logits = trainer.classifier.predict(one.images, verbose=0)
        once["network, drawn defects"] = logits[:, 1] - logits[:, 0]
    elif trainer.way in _NO_SEED:
        once |= _by_drawn(one, trainer.graph, features, seed)
    held_out = unlike.copy()
    held_out[one.good] = fused.held_out_
    watched: list[float | None] = []
    for cut in cuts:
        for name, scores in once.items():
            add(name, cut, scores)
        rows = np.concatenate([one.good, one.rows(cut.labelled)])
        ridge, told = _ridge(features, labels, rows, held_out)
        add(_LABELS, cut, unlike + ridge)
        watched.append(told)
        logistic = Logistic().fit(features.pooled[rows], labels[rows])
        add("logistic, labels", cut, logistic.decision_function(features.pooled))
    test, evaluated = len(labels) - len(one.good), len(cuts[0].evaluate)
    labelled = [[len(cut.labelled), sum(record.label for record in cut.labelled)] for cut in cuts]
    return {
        "ratio": evaluated / (test - evaluated),
        "cuts": len({tuple(record.path for record in cut.evaluate) for cut in cuts}),
        "images": {"good": len(one.good), "test": test, "evaluated": evaluated, "labelled and defective": labelled},
        "seconds": {"trained": round(trained, 1), "all": round(time.process_time() - started, 1)},
        "logs": logs,
        "held out": watched,
        "figures": found,
    }


def _ridge(
    features: FrozenFeatures, labels: np.ndarray, rows: np.ndarray, held_out: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """What labels add to the scores of all images, as the head `fused` adds it; its evidences stay those of the good
    training images, so that they are fitted once a cell. And ROC-AUC of the held-out scores of `rows`, if there is."""
    pooled, known, groups = np.asarray(features.pooled, np.float64), labels[rows], features.groups[rows]
    gaussian = GoodGaussian(pooled[rows][known == 0])
    folds, objects = inner_folds(known, groups, 0, FOLDS), np.unique(groups, return_inverse=True)[1]
    like = Like.fit(pooled[rows], known, folds, gaussian, objects)
    mean, factor = like.scale(held_out[rows])
    kept = held_out[rows] + factor * (like.held_out - mean)
    there = np.isfinite(kept)
    watched = float(roc_auc_score(known[there], kept[there])) if len(set(known[there])) == 2 else None
    return factor * ((pooled - gaussian.mean) @ like.direction + like.offset - mean), watched


def _by_drawn(one: Set, graph: InMemory, features: FrozenFeatures, seed: int) -> dict[str, np.ndarray]:
    """Scores by heads that know of drawn defects alone, and are told that they are the labelled ones."""
    drawn = graph.of(with_defects(one.images[one.good], seed))
    good, count = features.select(one.good), len(one.good)
    told = FrozenFeatures(
        np.concatenate([good.pooled, drawn.pooled]),
        {name: np.concatenate([good.maps[name][np.arange(count)], drawn.maps[name]]) for name in drawn.maps},
        image_size=features.image_size,
        groups=np.concatenate([good.groups] * 2),
    )
    heads = {"fused, drawn defects": Fused(), "logistic, drawn defects": Logistic()}
    return {name: one.fit(told, np.repeat([0, 1], count)).decision_function(features) for name, one in heads.items()}


def start_of(way: str) -> str:
    """The way that trains nothing, of the weights that `way` starts from."""
    return "random" if way.startswith("random") else "start"


def kept(cells: Mapping[paired_cells.Place, Mapping[str, Any]]) -> dict[paired_cells.Place, dict[str, Any]]:
    """The cells as they are where, draw by draw, an encoder is kept only if held-out scores of the labelled images are
    better by it than by the one that it started from, which is kept otherwise. `--keep=best_online` asks so each epoch.
    """
    found = {}
    for (name, way, seed), cell in cells.items():
        start = cells.get((name, start_of(way), 0), {})
        if "held out" in cell and "held out" in start:
            pairs = ((one["held out"], one["figures"][_LABELS]) for one in (cell, start))
            own, theirs = (list(zip(*pair, strict=True)) for pair in pairs)
            both = zip(own, theirs, strict=True)
            chosen = [ours[1] if ours[0] and ours[0] > before[0] else before[1] for ours, before in both]
            found[name, way, seed] = cell | {"figures": {f"{_LABELS}, best by held-out scores": chosen}}
    return found


def missing(
    sets: Sequence[Set], asked: StudySettings, cells: Mapping[paired_cells.Place, Any]
) -> Iterator[tuple[Set, str, int]]:
    """Cells that are not there yet, one seed of all ways after another."""
    for seed in range(asked.seeds):
        for way in asked.ways:
            for one in sets:
                if (one.name, way, seed) not in cells and not (seed and way in _NO_SEED):
                    yield one, way, seed


def main(asked: StudySettings) -> None:
    """Computes what is missing, and writes the tables."""
    file = paired_cells.opened(asked, WAYS, _MAY_DIFFER)
    sets = [read_set(*pair, asked) for pair in paired_cells.budgets(asked)]
    trainers = functools.cache(lambda way: Trainer(way, asked))
    for one, way, seed in missing(sets, asked, paired_cells.read_cells(file)):
        cell = {"set": one.name, "way": way, "seed": seed} | figures_of(one, trainers(way), seed, asked.draws)
        paired_cells.append(file, cell)
        means = "  ".join(f"{head} {np.mean(values):.3f}" for head, values in cell["figures"].items())
        print(f"{one.name} {way} {seed}: {means}  ({cell['seconds']['all']:.0f} CPU s)", flush=True)
    cells, tables = paired_cells.read_cells(file), []
    for own in (cells, kept(cells)):
        heads = dict.fromkeys(head for cell in own.values() for head in cell["figures"])
        tables += [paired_cells.table(own, head, WAYS, start_of) for head in heads]
    paired_cells.write(file, tables)


if __name__ == "__main__":
    entry.run(main, StudySettings)
