"""Whether fine-tuning on the labels of a budget beats the frozen encoder that it starts from, on the same images.

  python -m tools.finetune_study --data_dir=SET,SET --weights=FILE --out=results/finetune

Each seed is a cut of its own, with its labels, and a fine-tuning of its own, in the steps of `mvtec-tf finetune`. The
start and what each epoch makes of it are judged by heads that are fitted on the same images, and by out-of-fold scores,
which say what is kept. Fewer than two labelled defective objects are refused, as `finetune` refuses them.
A cell is a line of cells.jsonl; what stands there is not computed again.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from mvtec_tf.bin import entry
from mvtec_tf.data import protocol
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.heads.fused import Fused
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.jobs import finetune as job
from mvtec_tf.networks.tuned import build_tuned
from mvtec_tf.training import finetune, loop
from mvtec_tf.training.settings import FinetuneSettings
from tools import paired_cells
from tools.pretext_study import Set, read_set
from tools.pretext_ways import TrainingSettings

START = "start"
_PSEUDO = "pseudo_"
# Name -> what differs from the defaults.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "finetune": {},
    "rate_1e-3": {"learning_rate": 1e-3},
    "no_drawn": {"synthetic_defects": 0.0},
    "no_mixup": {"mixup": 0.0},
    "rate_1e-3_no_drawn": {"learning_rate": 1e-3, "synthetic_defects": 0.0},
    # Of test images that are neither labelled nor evaluated.
    **{f"{_PSEUDO}{floor}": {} for floor in (0.8, 0.95)},
}
_MAY_DIFFER = ("out", "data_dir", "ways", "label_budget")
_HEADS = {"fused, labels": Fused, "logistic, labels": Logistic}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(paired_cells.SetsAndFolder, TrainingSettings):
    """What is measured.

    Attributes:
      ways: of `WAYS`.
      seeds: cuts, draws of labels and fine-tunings of each way.
      most_test: test images at most.
      epochs: looks at a training of `steps` steps, equally far apart.
    """

    ways: tuple[str, ...] = tuple(WAYS)
    seeds: int = 2
    most_test: int = 180
    steps: int = 40
    epochs: int = 2


class Tuner:
    """Fine-tunes one way's network from its start anew for every cell, by a graph that is made once.

    Args:
      way: of `WAYS`.
      asked: what is measured.
      copies: of the last stage.
    """

    def __init__(self, way: str, asked: StudySettings, copies: int) -> None:
        names = ("backbone", "image_size", "weights", "batch_size", "epochs")
        self.settings = settings = FinetuneSettings(**{name: getattr(asked, name) for name in names}, **WAYS[way])
        self.backbone = backbone = loop.backbone_of(settings)
        self.floor = float(way.removeprefix(_PSEUDO)) if way.startswith(_PSEUDO) else None
        self.tuned = build_tuned(backbone, job.RECIPE.pooling, copies)
        self.graph = InMemory(backbone.model, job.RECIPE.settings(backbone.middle_stages))
        self.steps = asked.steps // asked.epochs
        model = finetune.compiled(self.tuned, settings, self.steps, jit=False)
        model.optimizer.build(model.trainable_variables)
        self._variables = [*self.tuned.network.weights, *model.optimizer.variables]
        self._outset = [np.asarray(one) for one in self._variables]

        @tf.function(autograph=False)
        def step(images: tf.Tensor, known: tf.Tensor, seeds: tf.Tensor) -> None:
            model.train_step(finetune.transform(images, known, seeds, settings))

        self._step = step

    def begin(self) -> None:
        """Back to the start."""
        for variable, value in zip(self._variables, self._outset, strict=True):
            variable.assign(value)

    def train(self, images: np.ndarray, labels: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> None:
        """One epoch on images uint8 [N, S, S, 3], good and defective ones by turns; copies are told `targets`."""
        known = np.concatenate([labels[:, None], targets], axis=1)
        count = self.steps * self.settings.batch_size // 2
        # Each class once through before any image comes again.
        orders = []
        for rows in (np.flatnonzero(labels == label) for label in (0, 1)):
            orders.append(np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])[:count])
        for batch in np.stack(orders, axis=1).reshape(self.steps, -1):
            seeds = rng.integers(0, 2**31, (len(batch), 2))
            self._step(tf.constant(images[batch]), tf.constant(known[batch]), tf.constant(seeds))


def looks_at(one: Set, way: str, seed: int, asked: StudySettings) -> list[dict[str, float]]:
    """What out-of-fold scores say, and ROC-AUC of each head on the evaluated images: at the start and after each epoch.

    Raises:
      UsageError: too few objects are labelled.
    """
    cut = protocol.clean(one.records, one.budget, seed)
    folds = job.folds_of(cut.fit, seed)
    tuner = _tuner(way, asked, int(folds.max()) + 2)
    tuner.begin()
    labels, groups = (np.array([getattr(record, name) for record in one.records]) for name in ("label", "group"))
    fit, judged = one.rows(cut.fit), one.rows(cut.evaluate)
    shown = job.Asked(cut.fit, one.images[fit], folds, seed)
    lessons = (one.images[fit], shown.labels, shown.targets)
    if tuner.floor is not None:
        others = one.images[one.rows(job.left_over(one.records, cut))]
        lessons = shown.with_pseudo_labels(tuner.backbone, others, tuner.floor)
        told = lessons[1][len(fit) :]
        print(f"{one.name} {seed}: {len(told) - told.sum()} good, {told.sum()} defective of {len(others)}", flush=True)
    watch, rng = shown.watch(tuner.tuned), np.random.default_rng(seed)

    def look() -> dict[str, float]:
        features = dataclasses.replace(tuner.graph.of(one.images), groups=groups)
        found = watch()
        for name, make in _HEADS.items():
            head = make().fit(features.select(fit), labels[fit])
            found[name] = float(roc_auc_score(labels[judged], head.decision_function(features.select(judged))))
        return found

    looks = [look()]
    for _ in range(tuner.settings.epochs):
        tuner.train(*lessons, rng)
        looks.append(look())
    return looks


@functools.cache
def _tuner(way: str, asked: StudySettings, copies: int) -> Tuner:
    return Tuner(way, asked, copies)


def cells_of(one: Set, way: str, asked: StudySettings) -> dict[str, dict[str, Any]]:
    """The lines of a way and of its start: head -> one ROC-AUC a seed, at the end and of what is kept."""
    started = time.process_time()
    looks = [looks_at(one, way, seed, asked) for seed in range(asked.seeds)]
    best = [int(np.argmax([own[job.FUSED] for own in each])) for each in looks]
    evaluated = [protocol.clean(one.records, one.budget, seed).evaluate for seed in range(asked.seeds)]
    common = {
        "ratio": len(evaluated[0]) / (len(one.records) - len(one.good) - len(evaluated[0])),
        "cuts": len({tuple(record.path for record in own) for own in evaluated}),
    }
    lines: dict[str, dict[str, Any]] = {}
    for called, last in ((START, [0] * len(looks)), (way, [asked.epochs] * len(looks))):
        figures = {}
        for name in _HEADS:
            figures[name] = [each[number][name] for each, number in zip(looks, last, strict=True)]
            kept = last if called == START else best
            figures[f"{name}, kept by out-of-fold scores"] = [
                each[number][name] for each, number in zip(looks, kept, strict=True)
            ]
        lines[called] = common | {"figures": figures}
    lines[way] |= {"looks": looks, "kept": best, "seconds": round(time.process_time() - started, 1)}
    return lines


def main(asked: StudySettings) -> None:
    """Computes what is missing, and writes the tables."""
    file = paired_cells.opened(asked, WAYS, _MAY_DIFFER)
    sets = [read_set(*pair, asked) for pair in paired_cells.budgets(asked)]
    for way in asked.ways:
        for one in sets:
            done = paired_cells.read_cells(file)
            if (one.name, way, 0) in done:
                continue
            for called, line in cells_of(one, way, asked).items():
                if (one.name, called, 0) not in done:
                    paired_cells.append(file, {"set": one.name, "way": called, "seed": 0} | line)
                for name in _HEADS:
                    values = " ".join(f"{value:.3f}" for value in line["figures"][name])
                    print(f"{one.name} {called}: {name} {values}", flush=True)
    cells = paired_cells.read_cells(file)
    heads = dict.fromkeys(head for cell in cells.values() for head in cell["figures"])
    paired_cells.write(file, [paired_cells.table(cells, head, [START, *WAYS], lambda way: START) for head in heads])


if __name__ == "__main__":
    entry.run(main, StudySettings)
