"""Whether synthetic defects help where few real ones are labelled: the network and heads with and without, on the same
labels and evaluated images.

  python -m tools.synthetic_study --data_dir=SET,SET --patches=FOLDER --weights=FILE --out=results/synthetic

FOLDER/SET_SEED is a run of generate-defects for each set and draw, with the same `label_budget`. The network takes a
fixed number of steps; what train-cnn would keep for early stopping is left out, for all alike. A cell, a way of one set
and draw, is a line of cells.jsonl; what stands there is not computed again.
"""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from mvtec_tf.bin import entry
from mvtec_tf.data import defect_patches, protocol, synthetic
from mvtec_tf.data.augment_settings import DRAWN_DEFECTS
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.formats import scan
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.heads.fused import Fused
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.jobs.train_classifier import Parts, clean_parts
from mvtec_tf.training import loop, supervised
from mvtec_tf.training.settings import SupervisedSettings
from tools import paired_cells

_CUT, _DRAWN = "cut_patches", "defect_patches"
# Way -> (kinds, file of patches, whether real defects are fitted too).
WAYS: Mapping[str, tuple[tuple[str, ...], str, bool]] = {
    "labels alone": ((), "", True),
    "drawn": (DRAWN_DEFECTS, "", True),
    "nsa": (("nsa",), "", True),
    "their patches": (("generated",), _CUT, True),
    "generated": (("generated",), _DRAWN, True),
    "drawn alone": (DRAWN_DEFECTS, "", False),
    "nsa alone": (("nsa",), "", False),
}
# Of the settings, between calls that fill one folder.
_MAY_DIFFER = ("out", "data_dir", "patches", "ways", "draws", "label_budget")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(paired_cells.SetsAndFolder):
    """What is measured.

    Attributes:
      patches: folder of runs of generate-defects, SET_SEED.
      weights: weights file of the backbone.
      backbone: the network.
      ways: out of `WAYS`.
      draws: draws of labels and of evaluated images.
      image_size: side in pixels.
      steps: steps of a training, of 32 images.
      share: share of good images that get a defect.
    """

    patches: str
    weights: str
    backbone: str = "mobilenetv2-0.35"
    ways: tuple[str, ...] = tuple(WAYS)
    draws: int = 3
    image_size: int = 128
    most_good: int = 200
    steps: int = 100
    share: float = 0.3


def network_scores(
    asked: StudySettings, more: Mapping[str, Any], fit: tuple[np.ndarray, np.ndarray], images: np.ndarray, seed: int
) -> np.ndarray:
    """Log-odds of images by the network, trained on `fit` for so many steps by the steps of train-cnn.

    Args:
      asked: what all ways share.
      more: what the settings of this way have beside.
      fit: images and labels.
      images: uint8 [N, S, S, 3].
      seed: random seed of weights, order and changes.
    """
    settings = SupervisedSettings(
        backbone=asked.backbone, image_size=asked.image_size, weights=asked.weights, batch_size=32, seed=seed,
        epochs=-(-asked.steps * 32 // len(fit[0])) + 1, precision="float32", **more,
    )  # fmt: skip
    loop.make_deterministic(seed)
    network = supervised.network_of(settings)[0]
    # An epoch of one step, so that the schedule is of so many.
    one_cycle = dataclasses.replace(settings, epochs=asked.steps, batch_size=len(fit[0]))
    model = supervised.compiled(network, one_cycle, fit[1], jit=False)
    model.fit(supervised.batches(*fit, settings).take(asked.steps), verbose=0)
    logits = network.predict(images, verbose=0)
    return logits[:, 1] - logits[:, 0]


def figures_of(asked: StudySettings, way: str, one: "Set", draw: int, graph: InMemory) -> dict[str, float]:
    """ROC-AUC of evaluated images by the network and by heads that are told of the same defects."""
    kinds, name, with_real = WAYS[way]
    parts, folder = one.parts(draw), pathlib.Path(asked.patches) / f"{one.name}_{draw}"
    fitted = [record for record in parts.fit if with_real or not record.label]
    images, labels = one.load(fitted), np.array([record.label for record in fitted])
    evaluated = one.load(parts.evaluate)
    truth = [record.label for record in parts.evaluate]
    file = str(folder / f"{name}.npz") if name else None
    more = {"synthetic_defects": asked.share, "synthetic_kinds": kinds, "defect_patches": file} if kinds else {}
    scores = {"network": network_scores(asked, more, (images, labels), evaluated, draw)}
    groups = np.array([record.group for record in fitted])
    if kinds:
        good = np.flatnonzero(labels == 0)
        seeds = np.stack([np.arange(len(good)), np.full(len(good), draw)], axis=1)
        bank = defect_patches.read(file) if file else None
        draw_all = tf.function(synthetic.with_defects, autograph=False)
        drawn, _ = draw_all(tf.constant(images[good]), tf.constant(seeds), kinds, None, bank)
        images, groups = np.concatenate([images, drawn.numpy()]), np.concatenate([groups, groups[good]])
        labels = np.concatenate([labels, np.ones(len(good), labels.dtype)])
    told, asked_of = dataclasses.replace(graph.of(images), groups=groups), graph.of(evaluated)
    for head in (Fused(), Logistic()):
        if labels.any():
            scores[type(head).__name__.lower()] = head.fit(told, labels).decision_function(asked_of)
    return {name: float(roc_auc_score(truth, values)) for name, values in scores.items()}


class Set:
    """One set with its pixels, decoded once.

    Args:
      data_dir: a folder of one category.
      budget: its label budget.
      asked: what all ways share.
    """

    def __init__(self, data_dir: str, budget: str, asked: StudySettings) -> None:
        self.records, self._budget = scan.scan([data_dir]), protocol.parse_budget(budget)
        self.name, self._most_good = self.records[0].category, asked.most_good
        self._rows = {record.path: row for row, record in enumerate(self.records)}
        self._images = ImageStore(asked.image_size).load(self.records)

    def load(self, records: Sequence[Any]) -> np.ndarray:
        """uint8 [N, S, S, 3]."""
        return self._images[[self._rows[record.path] for record in records]]

    def parts(self, draw: int) -> Parts:
        """The images by use, as train-cnn and generate-defects have them, with fewer good training images."""
        parts = clean_parts(self.records, self._budget, 0.2, draw, synthetic=True)
        good = [record for record in parts.fit if record.split == "train"]
        kept = {good[row].path for row in np.random.default_rng(0).permutation(len(good))[: self._most_good]}
        fit = [record for record in parts.fit if record.split != "train" or record.path in kept]
        return dataclasses.replace(parts, fit=fit)


def main(asked: StudySettings) -> None:
    """Computes what is missing, and writes the tables."""
    file = paired_cells.opened(asked, WAYS, _MAY_DIFFER)
    sets = [Set(*pair, asked) for pair in paired_cells.budgets(asked)]
    start = supervised.network_of(
        SupervisedSettings(backbone=asked.backbone, image_size=asked.image_size, weights=asked.weights)
    )[1]
    graph = InMemory(start.model, RECIPES[FEW_LABELS].settings(start.middle_stages))
    for draw in range(asked.draws):
        for one in sets:
            for way in asked.ways:
                if (one.name, way, draw) in paired_cells.read_cells(file):
                    continue
                begun = time.process_time()
                found = figures_of(asked, way, one, draw, graph)
                seconds = round(time.process_time() - begun, 1)
                parts = one.parts(draw)
                count = [len(parts.fit), sum(record.label for record in parts.fit), len(parts.evaluate)]
                cell = {"set": one.name, "way": way, "seed": draw, "figures": found}
                paired_cells.append(file, cell | {"images": count, "seconds": seconds})
                told = "  ".join(f"{head} {value:.3f}" for head, value in found.items())
                print(f"{one.name} {draw} {way}: {told}  ({count}, {seconds:.0f} CPU s)", flush=True)
    paired_cells.write(file, tables(paired_cells.read_cells(file)))


def tables(cells: Mapping[paired_cells.Place, Mapping[str, Any]]) -> list[str]:
    """One table for the network and each head; draws judge halves of the test images."""
    joined: dict[paired_cells.Place, dict[str, Any]] = {}
    for (name, way, _), cell in sorted(cells.items()):
        one = joined.setdefault((name, way, 0), {"figures": {}, "ratio": 1.0, "cuts": 0})
        one["cuts"] += 1
        for head, value in cell["figures"].items():
            one["figures"].setdefault(head, []).append(value)
    heads = dict.fromkeys(head for one in joined.values() for head in one["figures"])
    return [paired_cells.table(joined, head, WAYS, lambda _: "labels alone") for head in heads]


if __name__ == "__main__":
    entry.run(main, StudySettings)
