"""Heads that watch a pretraining: whether its encoder gets better or worse at what it is for, epoch by epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError
from mvtec_tf.features.in_memory import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.networks.backbone import Backbone

FUSED, NEIGHBOURS = "online_fused", "online_nearest_neighbours"
_HEADS = {FUSED: RECIPES[FEW_LABELS].head, NEIGHBOURS: "nearest_neighbours"}
# Good images that the heads are fitted on: enough to rank encoders by, few enough for every epoch.
_MOST_GOOD = 100


def heads_on(
    good: Sequence[Record], images: np.ndarray, labelled: Sequence[Record], labelled_images: np.ndarray, seed: int
) -> Callable[[Backbone], Callable[[], dict[str, float]]]:
    """What watches a backbone by labelled images, each scored by heads that were fitted without its object.

    Args:
      good: N good training images, of which a draw is looked at where they are many.
      images: their pixels, uint8 [N, S, S, 3].
      labelled: M labelled images.
      labelled_images: their pixels, uint8 [M, S, S, 3].
      seed: random seed of the draw, the folds and the heads.

    Returns:
      A backbone -> what gives, for the network as it is then, the ROC-AUC of held-out scores by each head.

    Raises:
      UsageError: a category has fewer than two labelled defective objects, of which none can be held out.
    """
    for category in sorted({record.category for record in labelled}):
        objects = {record.group for record in labelled if record.label and record.category == category}
        if len(objects) < 2:
            raise UsageError(
                f"`label_budget`: {len(objects)} defective object of category {category!r} is labelled, and to watch a "
                "training two at least are needed, each held out in its turn. Raise it, or leave it out."
            )
    drawn = np.sort(np.random.default_rng(seed).permutation(len(good))[:_MOST_GOOD])
    records = [*(good[row] for row in drawn), *labelled]
    pixels = np.concatenate([images[drawn], labelled_images])
    labels = np.array([record.label for record in records])

    def of(backbone: Backbone) -> Callable[[], dict[str, float]]:
        graph = InMemory(backbone.model, RECIPES[FEW_LABELS].settings(backbone.middle_stages))

        def values() -> dict[str, float]:
            features = graph.of(pixels)
            return {name: _held_out(head, features, records, labels, seed) for name, head in _HEADS.items()}

        return values

    return of


def _held_out(head: str, features: Any, records: Sequence[Record], labels: np.ndarray, seed: int) -> float:
    probe = fit_probe(lambda: make_head(HeadSettings(head, seed=seed)), features, records, seed)
    return float(roc_auc_score(labels[probe.calibrate], probe.calibrate_scores))
