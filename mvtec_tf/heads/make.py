"""Light heads on frozen features, with one contract: `fit(features, labels)`, `decision_function`.

Each fitted head is a handful of arrays (`arrays()`), and `score` computes the same from them in
TensorFlow ops, so that a head is exported as plain graph and nothing is ever pickled.
"""

import dataclasses
import functools
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.distance import MahalanobisHead, NearestNeighboursHead, RbfSvmHead
from mvtec_tf.heads.fused import FusedHead
from mvtec_tf.heads.hybrid import HybridHead
from mvtec_tf.heads.linear import LdaHead, LinearSvmHead, LogisticHead, StudyHead
from mvtec_tf.heads.patch import PadimHead, PatchCoreHead
from mvtec_tf.heads.settings import FUSED, NEED_MAPS, HeadSettings
from mvtec_tf.heads.tiled import TiledHead

__all__ = [
    "FusedHead",
    "Head",
    "HybridHead",
    "LdaHead",
    "LinearSvmHead",
    "LogisticHead",
    "MahalanobisHead",
    "NearestNeighboursHead",
    "PadimHead",
    "PatchCoreHead",
    "PerCategoryHead",
    "RbfSvmHead",
    "StudyHead",
    "TiledHead",
    "make_head",
]


class Head(Protocol):
    """What every head can do.

    `features` are `FrozenFeatures` of N images, or a plain float [N, D] of global features for heads
    that need no maps; in `score` and `heat_map` they are tensors of the same form.

    Attributes:
      needs_labels: whether defective images must be among those it is fitted on.
      needs_maps: whether it looks at patch maps.
      gives_heat_maps: whether it has `heat_map(features, arrays)` -> float32 [N, height, width].
    """

    needs_labels: bool
    needs_maps: bool
    gives_heat_maps: bool

    def fit(self, features: Any, labels: np.ndarray) -> "Head":
        """Learns from int [N] labels, 1 = defective; returns itself."""

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N], higher = more defective."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The learned state, float32."""

    def score(self, features: Any, arrays: dict[str, tf.Tensor]) -> tf.Tensor:
        """`decision_function` in TensorFlow ops on the state of `arrays`: float32 [N]."""


def make_head(settings: HeadSettings, tiled: bool = False) -> Head:
    """An unfitted head.

    Args:
      settings: which, and its numbers.
      tiled: whether a head on global features is to look at every tile; patch heads do without being told,
        and the fused ones look at the average over tiles.
    """
    if settings.name == "hybrid":
        bases = {
            name: functools.partial(make_head, dataclasses.replace(settings, name=name), tiled)
            for name in settings.hybrid_of
        }
        return HybridHead(bases, seed=settings.seed)
    make = functools.partial(_MAKERS[settings.name], settings)
    return TiledHead(make) if tiled and settings.name not in NEED_MAPS | FUSED else make()


_MAKERS = {
    "logistic": lambda s: LogisticHead(s.c),
    "linear_svm": lambda s: LinearSvmHead(s.c, s.seed),
    "lda": lambda s: LdaHead(),
    "fused": lambda s: FusedHead(seed=s.seed),
    "auto": lambda s: FusedHead(weight=None, seed=s.seed),
    "rbf_svm": lambda s: RbfSvmHead(s.c),
    "mahalanobis": lambda s: MahalanobisHead(),
    "nearest_neighbours": lambda s: NearestNeighboursHead(s.neighbours),
    "padim": lambda s: PadimHead(s.padim_channels, s.seed),
    "patchcore": lambda s: PatchCoreHead(s.memory_bank, s.coreset_candidates, s.neighbours, s.seed),
}
