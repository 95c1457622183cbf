"""Whether learning without labels, on a line's good images, beats the encoder that it starts from, and where it hurts.

  python -m tools.pretext_study --data_dir=SET,SET --weights=FILE --out=results/pretext

Each encoder is judged by heads on the recipe's features: the recommended head without labels and with some, the
Mahalanobis distance without, logistic regression with some. Draws of labels and of evaluated images are those of the
protocol `clean`, the same for every encoder, so that differences are paired. A cell, an encoder of one set and seed,
is a line of cells.jsonl; what stands there is not computed again.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from mvtec_tf import files
from mvtec_tf.bin import entry
from mvtec_tf.data import protocol, synthetic
from mvtec_tf.data.augment_settings import ContrastiveAugmentation
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError
from mvtec_tf.features.in_memory import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.folds import inner_folds
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.fused import FOLDS, MOST, Fused, Like
from mvtec_tf.heads.gaussian import GoodGaussian
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import NONE, Backbone, build_backbone
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training.contrastive import train_encoder
from mvtec_tf.training.recipes import SUPCON, ContrastiveSettings, SupervisedSettings
from mvtec_tf.training.supervised import train_classifier
from tools import paired_cells

_FLAGS = pathlib.Path(__file__).parent.parent / "flags"
_OF_TRAINING = ("backbone", "image_size", "weights", "epochs", "batch_size", "precision")
_SIMCLR = {"temperature": 0.2}
# Random weights are far from anything: the study's small steps would leave them there.
_FROM_NOTHING = {"weights": NONE, "learning_rate": 1e-3}


def _views(name: str) -> dict[str, Any]:
    """Views by name, from their flagfile."""
    lines = (_FLAGS / f"views_{name}.flags").read_text(encoding="utf-8").splitlines()
    pairs = (line.removeprefix("--augment_").split("=") for line in lines if line.startswith("--"))
    return {"augmentation": ContrastiveAugmentation(**{key: float(value) for key, value in pairs})}


# Name -> what differs from the defaults; `drawn`: copies of the good images with drawn defects are images of their own.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "start": {"epochs": 0},
    "simclr_0.07": {"temperature": 0.07},
    "simclr_0.2": _SIMCLR,
    "simclr_0.5": {"temperature": 0.5},
    **{f"simclr_0.2_{name}": _SIMCLR | _views(name) for name in ("strong", "texture", "aligned", "gentle")},
    "byol": {"method": "byol"},
    "vicreg": {"method": "vicreg"},
    "densecl": {"method": "densecl"} | _SIMCLR,
    "simclr_0.2_slow": _SIMCLR | {"learning_rate": 1e-5},
    "simclr_0.2_late": _SIMCLR | {"frozen_stages": 3},
    "simclr_0.2_drawn": _SIMCLR | {"drawn": True},
    "densecl_gentle_drawn": {"method": "densecl", "drawn": True} | _SIMCLR | _views("gentle"),
    "supcon_drawn": {"method": SUPCON, "drawn": True} | _SIMCLR | _views("gentle"),
    "random": {"weights": NONE, "epochs": 0},
    "random_simclr_0.2": _SIMCLR | _FROM_NOTHING,
    "random_densecl": {"method": "densecl"} | _SIMCLR | _FROM_NOTHING,
    # Told to tell drawn defects from good images, and judged by heads as the others are, and by what it says itself.
    "drawn_network": {},
}
_NO_SEED, _VALIDATION = ("start",), 0.2
# Of the settings, between calls that fill one folder.
_MAY_DIFFER = ("out", "data_dir", "ways", "seeds", "label_budget")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What is measured.

    Attributes:
      out: folder for cells.jsonl and table.md.
      data_dir: the sets, one category each.
      weights: weights file of the backbone.
      backbone: the network.
      image_size: side in pixels.
      ways: encoders, out of `WAYS`.
      seeds: pretrainings of each way.
      draws: draws of labels and of evaluated images.
      label_budget: label budget, one for all sets or one each.
      most_good: good training images at most, drawn at random.
      most_test: test images at most.
      epochs: epochs of a training.
      passes: times that each image is drawn in an epoch.
      batch_size: pairs of views a step.
      precision: number format of the training.
    """

    out: str
    data_dir: tuple[str, ...] = dataclasses.field(metadata={"paths": True})
    weights: str
    backbone: str = "mobilenetv2-0.35"
    image_size: int = 128
    ways: tuple[str, ...] = tuple(WAYS)
    seeds: int = 1
    draws: int = 5
    label_budget: tuple[str, ...] = ("0.1",)
    most_good: int = 120
    most_test: int = 240
    epochs: int = 7
    passes: int = 4
    batch_size: int = 40
    precision: str = "auto"


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


def encoder_of(
    one: Set, way: str, seed: int, asked: StudySettings
) -> tuple[Backbone, keras.Model | None, dict[str, float]]:
    """(encoder; classifier of a supervised way; logs of the last epoch), trained as the commands train them."""
    common = {name: getattr(asked, name) for name in _OF_TRAINING}
    common |= {"seed": seed, "checkpoint_minutes": 0.0, "checkpoint_every": 1000}
    good = one.images[one.good]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(pathlib.Path(folder) / "run", "pretext_study", {}, {"fingerprint": one.name}, "")
        try:
            if way == "drawn_network":
                # An epoch of so few images is a few steps: their number says when to end, the best epoch is kept.
                common |= dict.fromkeys(("epochs", "patience"), asked.epochs * asked.passes)
                settings = SupervisedSettings(**common | {"synthetic_defects": 0.5})
                held = np.random.default_rng(seed).permutation(len(good)) < _VALIDATION * len(good)
                parts = [(good[part], np.zeros(part.sum(), int)) for part in (~held, held)]
                classifier = train_classifier(run, settings, *parts)
                # The stages have the same names in both.
                return build_backbone(asked.backbone, asked.image_size), classifier, run.record["history"][-1]
            more, labels = dict(WAYS[way]), None
            if more.pop("drawn", False):
                labels = np.repeat([0, 1], len(good)) if more.get("method") == SUPCON else None
                good = np.concatenate([good, with_defects(good, seed)])
            settings = ContrastiveSettings(**common | {"passes_per_epoch": asked.passes} | more)
            return train_encoder(run, settings, good, labels=labels), None, (run.record["history"] or [{}])[-1]
        finally:
            run.close()


def with_defects(images: np.ndarray, seed: int) -> np.ndarray:
    """The same images, each with a drawn defect."""
    seeds = np.stack([np.arange(len(images)), np.full(len(images), seed)], axis=1)
    return tf.function(synthetic.with_defects)(tf.constant(images), tf.constant(seeds))[0].numpy()


def figures_of(one: Set, way: str, seed: int, asked: StudySettings) -> dict[str, Any]:
    """The line of a cell: head -> ROC-AUC of each draw, and how the training ended."""
    started = time.process_time()
    encoder, classifier, logs = encoder_of(one, way, seed, asked)
    trained = time.process_time() - started
    graph = InMemory(classifier or encoder.model, RECIPES[FEW_LABELS].settings(encoder.middle_stages))
    labels, groups = (np.array([getattr(record, name) for record in one.records]) for name in ("label", "group"))
    features = dataclasses.replace(graph.of(one.images), groups=groups)
    cuts = [protocol.clean(one.records, one.budget, draw) for draw in range(asked.draws)]
    found: dict[str, list[float]] = {}

    def add(name: str, cut: protocol.Cut, scores: np.ndarray) -> None:
        rows = one.rows(cut.evaluate)
        found.setdefault(name, []).append(float(roc_auc_score(labels[rows], scores[rows])))

    fused = Fused().fit(features.select(one.good))
    unlike = fused.decision_function(features).astype(np.float64)
    distance = Mahalanobis().fit(features.pooled[one.good]).decision_function(features.pooled)
    once = {"fused, no labels": unlike, "mahalanobis, no labels": distance}
    if way in ("start", "drawn_network"):
        once |= _by_drawn(one, graph, features, classifier, seed)
    held_out = unlike.copy()
    held_out[one.good] = fused.held_out_
    for cut in cuts:
        for name, scores in once.items():
            add(name, cut, scores)
        rows = np.concatenate([one.good, one.rows(cut.labelled)])
        add("fused, labels", cut, unlike + _ridge(features, labels, rows, held_out))
        logistic = Logistic().fit(features.pooled[rows], labels[rows])
        add("logistic, labels", cut, logistic.decision_function(features.pooled))
    test, evaluated = len(labels) - len(one.good), len(cuts[0].evaluate)
    labelled = [[len(cut.labelled), sum(record.label for record in cut.labelled)] for cut in cuts]
    return {
        "ratio": evaluated / (test - evaluated),
        "images": {"good": len(one.good), "test": test, "evaluated": evaluated, "labelled and defective": labelled},
        "seconds": {"trained": round(trained, 1), "all": round(time.process_time() - started, 1)},
        "logs": {name: round(value, 4) for name, value in logs.items()},
        "figures": found,
    }


def _ridge(features: FrozenFeatures, labels: np.ndarray, rows: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """What labels add to the scores of all images, as the head `fused` adds it; its evidences stay those of the good
    training images, so that they are fitted once a cell."""
    pooled, known, groups = np.asarray(features.pooled, np.float64), labels[rows], features.groups[rows]
    gaussian = GoodGaussian(pooled[rows][known == 0])
    folds, objects = inner_folds(known, groups, 0, FOLDS), np.unique(groups, return_inverse=True)[1]
    like = Like.fit(pooled[rows], known, folds, gaussian, objects)
    mean, factor = like.scale(held_out[rows], MOST)
    return factor * ((pooled - gaussian.mean) @ like.direction + like.offset - mean)


def _by_drawn(
    one: Set, graph: InMemory, features: FrozenFeatures, classifier: keras.Model | None, seed: int
) -> dict[str, np.ndarray]:
    """Scores by what knows of drawn defects alone: heads told that they are the labelled ones, or the network."""
    if classifier is not None:
        logits = classifier.predict(one.images, verbose=0)
        return {"network, drawn defects": logits[:, 1] - logits[:, 0]}
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


def missing(sets: Sequence[Set], asked: StudySettings, cells: Mapping[tuple, Any]) -> Iterator[tuple[Set, str, int]]:
    """Cells that are not there yet, one seed of all ways after another."""
    for seed in range(asked.seeds):
        for way in asked.ways:
            for one in sets:
                if (one.name, way, seed) not in cells and not (seed and way in _NO_SEED):
                    yield one, way, seed


def main(asked: StudySettings) -> None:
    """Computes what is missing, and writes the tables."""
    if unknown := [way for way in asked.ways if way not in WAYS]:
        raise UsageError(f"`ways`={','.join(unknown)}: unknown. Known are {', '.join(WAYS)}.")
    file = pathlib.Path(asked.out) / "cells.jsonl"
    alike = {name: value for name, value in vars(asked).items() if name not in _MAY_DIFFER}
    paired_cells.check_same(file.with_name("settings.json"), alike)
    budgets = asked.label_budget * (len(asked.data_dir) if len(asked.label_budget) == 1 else 1)
    sets = [read_set(*pair, asked) for pair in zip(asked.data_dir, budgets, strict=True)]
    for one, way, seed in missing(sets, asked, paired_cells.read_cells(file)):
        cell = {"set": one.name, "way": way, "seed": seed} | figures_of(one, way, seed, asked)
        paired_cells.append(file, cell)
        means = "  ".join(f"{head} {np.mean(values):.3f}" for head, values in cell["figures"].items())
        print(f"{one.name} {way} {seed}: {means}  ({cell['seconds']['all']:.0f} CPU s)", flush=True)
        keras.backend.clear_session()
    cells = paired_cells.read_cells(file)
    heads = dict.fromkeys(head for cell in cells.values() for head in cell["figures"])
    text = "\n\n".join(paired_cells.table(cells, head, WAYS, start_of) for head in heads)
    files.write_text(file.with_name("table.md"), text + "\n")
    print(text)


if __name__ == "__main__":
    entry.run(main, StudySettings)
