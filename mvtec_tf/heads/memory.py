"""A small memory of good patches, and how far a patch lies from the nearest of them.

PatchCore's idea (Roth et al., CVPR 2022) within the principal subspace of good patches: what lies outside of it is
the residual's, and distances in half the dimensions cost half as much. The memory is chosen fold by fold, so that
good images can be held out from a part of it.
"""

import numpy as np
import tensorflow as tf

from mvtec_tf.heads.coreset import greedy_coreset

# Patches that are kept, of all folds together, and random ones among which they are chosen.
_KEPT = 2000
_CANDIDATES = 20_000
# Dimensions in which the greedy choice measures distances.
_PROJECTED = 64


def candidates(values: np.ndarray, images: int, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Random patches of a few images, float32 [P, D].

    Args:
      values: float32 [B, h, w, D].
      images: how many the whole fold has.
      folds: how many there are.
      rng: what is drawn with; no patch is drawn twice.
    """
    patches = values.reshape(len(values), -1, values.shape[-1])
    wanted = min(-(-_CANDIDATES // (folds * images)), patches.shape[1])
    return np.concatenate([one[rng.choice(len(one), wanted, replace=False)] for one in patches])


def kept(patches: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """int64, which candidates of one fold are kept: [at most a fold's share]; coordinates are float32 [P, k]."""
    return greedy_coreset(patches, max(1, _KEPT // folds), seed, _PROJECTED)


def nearest_ops(patches: tf.Tensor, bank: tf.Tensor, neighbours: int = 1) -> tf.Tensor:
    """Mean distances to the nearest patches of a bank [M, k], all of it where it is smaller than `neighbours`: float32
    [B, P, k] -> [B, P]."""
    lengths = tf.reduce_sum(tf.square(bank), axis=1)
    count = min(neighbours, bank.shape[0])

    def nearest(one: tf.Tensor) -> tf.Tensor:
        ranks = 2 * tf.matmul(one, bank, transpose_b=True) - lengths
        found = tf.argmax(ranks, axis=1)[:, None] if count == 1 else tf.math.top_k(ranks, count).indices
        # Subtracted as a vector: a difference of squares would round away what is left.
        parts = [tf.norm(one - tf.gather(bank, found[:, k]), axis=1) for k in range(count)]
        return tf.add_n(parts) / count

    # Image by image: the distances of a whole batch to the whole bank would not fit.
    spec = tf.TensorSpec(patches.shape[1:2], tf.float32)
    return tf.map_fn(nearest, patches, fn_output_signature=spec, parallel_iterations=1)
