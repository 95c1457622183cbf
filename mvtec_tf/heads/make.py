"""Every head by its name and settings."""

import dataclasses
import functools

from mvtec_tf.heads.base import Head
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
