"""A global head that looks at an image tile by tile; the image is as bad as its worst tile."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.heads.base import Arrays, Head
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.frozen import FrozenFeatures

# The choice of witnesses settles within a few rounds; a cycle of two choices would not.
_MAX_ROUNDS = 10


class TiledHead(Head):
    """Scores every tile with one head and takes the maximum.

    A label says that an image is defective, not which tile shows it. A head that needs labels is therefore
    fitted on all tiles of good images and one witness of each defective image: first the tile farthest from
    the good ones (Mahalanobis), then the one that the fitted head finds worst, until that does not change
    (MI-SVM, Andrews et al., "Support vector machines for multiple-instance learning", NIPS 2002).

    Args:
      make_head: gives an unfitted head on global features.
    """

    def __init__(self, make_head: Callable[[], Any]) -> None:
        self.make_head = make_head
        self.head_ = make_head()
        self.needs_labels = self.head_.needs_labels

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Features must have tiles. Raises what the head raises."""
        if features.tiled is None:
            raise ValueError("This head looks at tiles, and the features have none.")
        good = features.tiled[labels == 0]
        if not self.needs_labels:
            self.head_ = self.make_head().fit(_tiles(good), np.zeros(good.shape[0] * good.shape[1], int))
            return
        defective = features.tiled[labels == 1]
        judge = Mahalanobis().fit(_tiles(good), np.zeros(good.shape[0] * good.shape[1], int))
        witnesses = None
        for _ in range(_MAX_ROUNDS):
            worst = judge.decision_function(_tiles(defective)).reshape(defective.shape[:2]).argmax(axis=1)
            if witnesses is not None and np.array_equal(worst, witnesses):
                break
            witnesses = worst
            rows = np.concatenate([_tiles(good), defective[np.arange(len(defective)), witnesses]])
            judge = self.make_head().fit(rows, np.repeat([0, 1], [len(rows) - len(defective), len(defective)]))
        self.head_ = judge
        self.witnesses_ = witnesses

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the head."""
        return self.head_.arrays()

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N]."""
        _, tiles, width = features.tiled.shape
        scores = self.head_.score_ops(FrozenFeatures(tf.reshape(features.tiled, [-1, width])), arrays)
        return tf.reduce_max(tf.reshape(scores, [-1, tiles]), axis=1)


def _tiles(tiled: np.ndarray) -> np.ndarray:
    """[N, T, D] -> [N * T, D]."""
    return tiled.reshape(-1, tiled.shape[-1])
