"""Every head by its name and settings."""

import dataclasses
import functools

from mvtec_tf.heads.base import Head
from mvtec_tf.heads.distance import Mahalanobis, NearestNeighbours, RbfSvm
from mvtec_tf.heads.fused import Fused
from mvtec_tf.heads.hybrid import Hybrid
from mvtec_tf.heads.linear import Lda, LinearSvm, Logistic
from mvtec_tf.heads.patch import Padim, PatchCore
from mvtec_tf.heads.settings import NEED_MAPS, HeadSettings
from mvtec_tf.heads.tiled import TiledHead


def make_head(settings: HeadSettings, tiled: bool = False) -> Head:
    """An unfitted head.

    Args:
      settings: which, and its numbers.
      tiled: whether a head on global features is to look at every tile; those on maps do without being told.
    """
    if settings.name == "hybrid":
        bases = {
            name: functools.partial(make_head, dataclasses.replace(settings, name=name), tiled)
            for name in settings.hybrid_of
        }
        return Hybrid(bases, seed=settings.seed)
    make = functools.partial(_MAKERS[settings.name], settings)
    return TiledHead(make) if tiled and settings.name not in NEED_MAPS else make()


_MAKERS = {
    "logistic": lambda s: Logistic(s.c),
    "linear_svm": lambda s: LinearSvm(s.c, s.seed),
    "lda": lambda s: Lda(),
    "fused": lambda s: Fused(seed=s.seed),
    "rbf_svm": lambda s: RbfSvm(s.c),
    "mahalanobis": lambda s: Mahalanobis(),
    "nearest_neighbours": lambda s: NearestNeighbours(s.neighbours),
    "padim": lambda s: Padim(s.padim_channels, s.seed),
    "patchcore": lambda s: PatchCore(s.memory_bank, s.coreset_candidates, s.neighbours, s.seed),
}
