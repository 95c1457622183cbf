"""Heads that look at every patch, need no labels, and say where: PaDiM's Gaussians and PatchCore's memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.heads import memory
from mvtec_tf.heads.base import Arrays, Head, as_tensors
from mvtec_tf.heads.frozen import FrozenFeatures, good_images
from mvtec_tf.heads.memory import greedy_coreset
from mvtec_tf.networks import patch_maps

# Defard et al., ICPR 2021, section 3.1; here on channels of unit variance.
_PADIM_RIDGE = 0.01
# Patches at a time that are compared with the whole memory: 4096 x 2000 distances are 33 MB.
_ROWS = 4096


class _PatchHead(Head):
    """Distances of patches -> image score (the largest) and heat map."""

    needs_maps = True
    gives_heat_maps = True

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N], the largest distance of any patch."""
        return tf.reduce_max(self.distance_ops(features, arrays), axis=[1, 2])

    def heat_map_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, height, width]."""
        return patch_maps.heat_map_ops(self.distance_ops(features, arrays), features.image_size)

    def distance_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, rows, columns] of all patches."""
        distances = self._distance_ops(patch_maps.join_ops(self._used(features.maps, arrays)), arrays)
        return tf.reshape(distances, [-1, *patch_maps.grid(features.maps)])

    def _patches(self, features: FrozenFeatures) -> Iterator[np.ndarray]:
        """float32 [B, patches, D], a few images at a time."""
        for batch in features.batches():
            yield patch_maps.join_ops(self._used(as_tensors(batch).maps, self._choice())).numpy()

    def _choice(self) -> Arrays:
        """The part of `arrays` that `_used` needs, which is settled before anything is fitted."""
        return {}

    def _used(self, maps: dict[str, tf.Tensor], arrays: Arrays) -> dict[str, tf.Tensor]:
        """The channels that the head looks at."""
        del arrays
        return maps


class Padim(_PatchHead):
    """A Gaussian for every position: Defard et al., "PaDiM: a patch distribution modeling framework", ICPR 2021.

    Fits parts that lie in the same place on every image. The distance is Mahalanobis', equation 2.

    Args:
      channels: random channels of a patch that are used; memory and the exported graph grow with their square.
      seed: of their choice.
    """

    def __init__(self, channels: int = 100, seed: int = 0) -> None:
        self.channels = channels
        self.seed = seed

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Reads the good images' maps once. Raises UserError on fewer than two of them."""
        good = good_images(features, labels, "padim")
        width = patch_maps.channels(good.maps)
        rng = np.random.default_rng(self.seed)
        self.chosen_ = np.sort(rng.choice(width, min(self.channels, width), replace=False))
        mean, covariance = self._moments(good)
        # Between and within positions: the unit in which the ridge of the paper is 1 % of a channel's variance.
        variance = np.einsum("pdd->pd", covariance).mean(axis=0) + mean.var(axis=0)
        scale = np.sqrt(np.where(variance > 0, variance, 1.0))
        covariance = covariance / np.outer(scale, scale) + _PADIM_RIDGE * np.eye(len(scale))
        # |whitening.T (x - mean)| is the distance: the inverse of the Cholesky factor, transposed.
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        self.mean_ = mean.astype(np.float32)
        self.whitening_ = (inverse.transpose(0, 2, 1) / scale[:, None]).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """chosen int32 [d], mean [P, d], whitening [P, d, d]; P positions, row by row."""
        return {"chosen": self.chosen_.astype(np.int32), "mean": self.mean_, "whitening": self.whitening_}

    def _choice(self) -> Arrays:
        return {"chosen": tf.constant(self.chosen_, tf.int32)}

    def _used(self, maps: dict[str, tf.Tensor], arrays: Arrays) -> dict[str, tf.Tensor]:
        # Before coarse maps are interpolated: a tenth of the work.
        chosen, found, first = arrays["chosen"], {}, 0
        for name, value in maps.items():
            width = value.shape[-1]
            own = tf.boolean_mask(chosen, (chosen >= first) & (chosen < first + width)) - first
            found[name], first = tf.gather(value, own, axis=-1), first + width
        return found

    def _moments(self, good: FrozenFeatures) -> tuple[np.ndarray, np.ndarray]:
        """float64 mean [P, d] and covariance [P, d, d], of all good images in one pass."""
        shift = total = products = None
        for patches in self._patches(good):
            values = patches.astype(np.float64)
            if shift is None:
                # Sums of squares far from zero would cost the covariance its digits.
                shift = values.mean(axis=0)
                total, products = np.zeros_like(shift), np.zeros((*shift.shape, shift.shape[1]))
            values -= shift
            total += values.sum(axis=0)
            products += values.transpose(1, 2, 0) @ values.transpose(1, 0, 2)
        mean = total / len(good)
        covariance = (products - len(good) * mean[:, :, None] * mean[:, None, :]) / (len(good) - 1)
        return mean + shift, covariance

    def _distance_ops(self, patches: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        centred = patches - arrays["mean"]
        return tf.transpose(tf.norm(tf.matmul(tf.transpose(centred, [1, 0, 2]), arrays["whitening"]), axis=2))


class PatchCore(_PatchHead):
    """Distance of each patch to its nearest in a memory of good patches: Roth et al., "Towards total recall in
    industrial anomaly detection", CVPR 2022.

    The memory is a greedy coreset of random candidates, so that neither memory nor the time for an image
    grows with the number of training images. Each layer is scaled to unit variance, because stages
    differ in scale by orders of magnitude. The paper's re-weighting of the image score by the neighbours of the
    nearest patch (equation 7) is left out.

    Args:
      memory_bank: patches that are kept.
      candidates: random patches among which they are chosen.
      neighbours: nearest patches whose distances are averaged.
      seed: of the candidates and the choice.
    """

    def __init__(
        self, memory_bank: int = 2000, candidates: int = 50_000, neighbours: int = 1, seed: int = 0
    ) -> None:
        self.memory_bank = memory_bank
        self.candidates = candidates
        self.neighbours = neighbours
        self.seed = seed

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Reads the good images' maps once; those of a single image are a memory too. Raises UserError on none."""
        good = good_images(features, labels, "patchcore", least=1)
        sample = self._sample(good)
        self.mean_ = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.scale_ = self._layer_scale(sample, [value.shape[-1] for value in good.maps.values()])
        sample -= self.mean_
        sample /= self.scale_
        self.bank_ = sample[greedy_coreset(sample, self.memory_bank, self.seed)]

    def arrays(self) -> dict[str, np.ndarray]:
        """mean and scale [D], bank [memory_bank, D]."""
        return {"mean": self.mean_, "scale": self.scale_, "bank": self.bank_}

    def _sample(self, good: FrozenFeatures) -> np.ndarray:
        """float32 [at most `candidates`, D]: patches drawn evenly from all, in random order."""
        rows, columns = patch_maps.grid(good.maps)
        total = len(good) * rows * columns
        rng = np.random.default_rng(self.seed)
        wanted = np.sort(rng.choice(total, min(self.candidates, total), replace=False))
        sample = np.empty((len(wanted), patch_maps.channels(good.maps)), np.float32)
        first = filled = 0
        for patches in self._patches(good):
            flat = patches.reshape(-1, patches.shape[-1])
            here = wanted[(wanted >= first) & (wanted < first + len(flat))] - first
            sample[filled : filled + len(here)] = flat[here]
            first, filled = first + len(flat), filled + len(here)
        # A random choice of the same size is then simply the first ones.
        rng.shuffle(sample)
        return sample

    def _layer_scale(self, sample: np.ndarray, widths: Sequence[int]) -> np.ndarray:
        """float32 [D]: one number a layer, the deviation of its channels."""
        # By parts: the squares of the whole sample in double precision would be the largest thing in memory.
        starts = range(0, len(sample), _ROWS)
        squares = [np.square(sample[i : i + _ROWS] - self.mean_).sum(axis=0, dtype=np.float64) for i in starts]
        variance = np.sum(squares, axis=0) / len(sample)
        means = [part.mean() for part in np.split(variance, np.cumsum(widths)[:-1])]
        return np.repeat(np.sqrt([mean if mean > 0 else 1.0 for mean in means]), widths).astype(np.float32)

    def _distance_ops(self, patches: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        scaled = (patches - arrays["mean"]) / arrays["scale"]
        return memory.nearest_ops(scaled, arrays["bank"], self.neighbours)
