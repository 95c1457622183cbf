"""How a patch deviates from good ones: by its residual outside their principal subspace, and within it by the distance
to the nearest of a small memory; each set against what is usual at its place.

The subspace is SubspaceAD's (CVPR 2026): one matrix product in the graph. Both lengths are large wherever good parts
differ from each other, and at the border of every map, where a network sees zeros beside the photograph. So the
logarithm of a length is set against the largest that held-out good images have at its place. (A woven texture, 448 px,
no labels: the worst hundredth of residuals of conv3 has a ROC-AUC of 0.63 as it is and of 1.00 against the mean at its
place; reflecting the photograph beyond its border instead reached 0.87.)
"""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.memory import greedy_coreset, nearest_ops
from mvtec_tf.side_by_side import in_order

# Of the patches' variance; 0.9 to 0.99 were measured to be alike.
VARIANCE = 0.95
# Of the generalised mean over good images that says what is usual at a place: near the maximum, but of many images.
POWER = 16.0
# Share of an image's patches that its score looks at, the farthest from usual: a maximum is at the mercy of one.
WORST = 0.01
# Patches of an image that enter the covariance: neighbours say the same twice.
_PATCHES = 1000
# Good patches to the nearest of which distances are measured, and random ones among which half of them are chosen.
_REMEMBERED = 2000
_CANDIDATES = 20_000
# Smallest length whose logarithm is taken: of a copy of what the subspace was fitted on.
_TINY = 1e-6
# No place is taken to be more regular than this share of what is usual in the middle of all places: a background
# without any noise would make a defect of the first grain.
_REGULAR = 0.5
# How many images what is usual at a distance from the border counts for beside what is usual at the very place.
_PRIOR_IMAGES = 10
# Cells over which what is usual at a place is smoothed.
_SMOOTHING = 1.0
# Where every fold counts.
_ALL = -1
# Share of the map's shorter side from which on the border is no longer felt.
_BORDER = 1 / 7
# A map whose longer side is more times the shorter one is a strip.
_STRIP = 4


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums over patches of one layer, which add up: what is left without some images is a difference.

    Attributes:
      count: of patches.
      total: float64 [D].
      products: float64 [D, D].
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    def plus(self, other: "Moments", sign: int = 1) -> "Moments":
        """The sums of both, or with a sign of -1 of what is not the other's."""
        return Moments(
            self.count + sign * other.count, self.total + sign * other.total, self.products + sign * other.products
        )

    def covariance(self) -> np.ndarray:
        """float64 [D, D], of the patches."""
        mean = self.total / self.count
        return self.products / self.count - np.outer(mean, mean)


def _bases(covariances: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Orthonormal bases, float32 [D, k] each, of VARIANCE of the variance that each of several [D, D] says.

    One a core, in half of TensorFlow's time where LAPACK has one thread, see `Fused`.
    """
    bases = []
    for variances, axes in in_order(np.linalg.eigh, covariances, os.cpu_count()):
        variances, axes = np.maximum(variances[::-1], 0.0), axes[:, ::-1]
        kept = int(np.searchsorted(np.cumsum(variances), VARIANCE * variances.sum())) + 1 if variances.any() else 0
        # At least one direction is left over, however few there are.
        bases.append(np.ascontiguousarray(axes[:, : min(kept, len(variances) - 1)], np.float32))
    return bases


def subspaces(features: FrozenFeatures, folds: np.ndarray, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Subspaces and memories of good images: of all of them, and of all but each fold; the maps are read once.

    Args:
      features: of N good images, with maps.
      folds: int [N], from 0 on.
      seed: random seed of the patches that are remembered.

    Returns:
      The state for `log_deviations`: first of all images, then without fold 0, without fold 1, ...; without a fold that
      has no image, that is of all.
    """
    # Sums of squares far from zero would cost the covariance its digits.
    shifts = {name: _some_patches(values).mean(axis=0) for name, values in next(features.batches(1)).maps.items()}
    parts: dict[str, dict[int, Moments]] = {name: {} for name in features.maps}
    banks = {name: _Bank(value.shape[1:], folds, seed) for name, value in features.maps.items()}
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds == fold)
        start = 0
        for maps, sums in features.select(inside).each(lambda batch: (batch.maps, _sums(batch.maps, shifts))):
            rows = inside[start : start + len(next(iter(maps.values())))]
            start += len(rows)
            for name, values in maps.items():
                own = parts[name]
                own[fold] = own[fold].plus(sums[name]) if fold in own else sums[name]
                banks[name].read(rows, values)
    states: list[dict[str, np.ndarray]] = [{} for _ in range(folds.max() + 2)]
    for number, (name, own) in enumerate(parts.items()):
        whole = functools.reduce(Moments.plus, own.values())
        without = {fold: whole.plus(part, -1) for fold, part in own.items()} if len(own) > 1 else {}
        seen = {_ALL: whole, **without}
        bases = _bases([moments.covariance() for moments in seen.values()])
        found = {}
        for (fold, moments), basis in zip(seen.items(), bases, strict=True):
            mean = (moments.total / moments.count + shifts[name]).astype(np.float32)
            bank = (banks[name].without(fold) - mean) @ basis
            found[fold] = {f"{number}/mean": mean, f"{number}/basis": basis, f"{number}/bank": bank}
        for fold, state in enumerate(states, _ALL):
            state.update(found.get(fold, found[_ALL]))
    return states


def _sums(maps: Mapping[str, np.ndarray], shifts: Mapping[str, np.ndarray]) -> dict[str, Moments]:
    """Of each layer's map [B, h, w, D], less a shift [D]."""
    found = {}
    for name, values in maps.items():
        patches = _some_patches(values)
        patches -= shifts[name]
        products = (patches.T @ patches).astype(np.float64)
        found[name] = Moments(len(patches), patches.sum(axis=0, dtype=np.float64), products)
    return found


class _Bank:
    """Good patches that are remembered: half of them of every place as many, half by a greedy choice in each fold.

    A greedy choice knows what is rare, as screws need that lie at any angle, and forgets what is common: its patches
    lie as far from each other as can be. Of aligned parts the others are wanted. What is left without a fold must be no
    better and no worse than the whole, or held-out images would say nothing of new ones: a patch of the fold is
    replaced by one of the same place in another fold, and the choice in it by one among as many patches of the others.

    Args:
      shape: height, width and depth of the maps.
      folds: int [N].
      seed: random seed.
    """

    def __init__(self, shape: tuple[int, ...], folds: np.ndarray, seed: int) -> None:
        rows, columns, depth = shape
        places, images, half = rows * columns, len(folds), _REMEMBERED // 2
        self._seed, self._rng = seed, np.random.default_rng(seed)
        times = min(-(-half // places), images)
        place = np.concatenate([self._rng.permutation(places) for _ in range(times)])[:half]
        # No image twice for one place.
        turn = np.repeat(np.arange(times), places)[:half] + self._rng.integers(images, size=places)[place]
        image = self._rng.permutation(images)[turn % images]
        spare = image.copy()
        for fold in np.unique(folds):
            others, own = np.flatnonzero(folds != fold), folds[image] == fold
            if len(others):
                spare[own] = self._rng.choice(others, own.sum())
        self._folds, self._place, self._fold = folds, place, folds[image]
        self._kinds = [(image, np.empty((len(place), depth), np.float32)) for image in (image, spare)]
        # Of each image: its fold, and patches among which the greedy choice is made.
        self._drawn: list[tuple[int, np.ndarray]] = []
        self._wanted = min(-(-_CANDIDATES // images), places)

    def read(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Takes what is needed of images `rows`, int [B], whose maps are float [B, h, w, D]."""
        for row, patches in zip(rows, values.reshape(len(values), -1, values.shape[-1]), strict=True):
            for image, kept in self._kinds:
                wanted = image == row
                kept[wanted] = patches[self._place[wanted]]
            drawn = patches[self._rng.choice(len(patches), self._wanted, replace=False)]
            self._drawn.append((self._folds[row], np.asarray(drawn, np.float32)))

    def without(self, fold: int) -> np.ndarray:
        """float32 [M, D], with nothing of this fold; of -1, all."""
        (_, first), (_, spare) = self._kinds
        far = [others if own == fold else chosen for own, (chosen, others) in self._far.items()]
        return np.concatenate([np.where((self._fold == fold)[:, None], spare, first), *far])

    @functools.cached_property
    def _far(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Fold -> the greedy choice, float32 [m, D] each, among its patches and among as many of the other folds."""
        patches, folds = np.concatenate([drawn for _, drawn in self._drawn]), np.unique(self._folds)
        of_fold = np.repeat([fold for fold, _ in self._drawn], self._wanted)
        found = {}
        for fold in folds:
            own, others = np.flatnonzero(of_fold == fold), np.flatnonzero(of_fold != fold)
            among = own, self._rng.choice(others, min(len(own), len(others)), replace=False)
            size = max(1, _REMEMBERED // 2 // len(folds))
            chosen, spare = (patches[rows[greedy_coreset(patches[rows], size, self._seed)]] for rows in among)
            found[fold] = chosen, spare
        return found


def log_deviations(features: FrozenFeatures, arrays: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """Logarithms of what is left of each patch outside the subspace, and of its distance within to the nearest of the
    memory: float32 [B, h, w] a layer, first the residuals of all layers, then the distances.

    Args:
      features: tensors of B images.
      arrays: `NUMBER/mean` [D], `NUMBER/basis` [D, k] and `NUMBER/bank` [M, k] of each layer.
    """
    residuals, distances = [], []
    for number, values in enumerate(features.maps.values()):
        _, rows, columns, depth = values.shape
        basis = arrays[f"{number}/basis"]
        centred = tf.reshape(values, [-1, depth]) - arrays[f"{number}/mean"]
        along = tf.matmul(centred, basis)
        # Subtracted as a vector: a difference of squares would round away what is left.
        left = tf.norm(centred - tf.matmul(along, basis, transpose_b=True), axis=1)
        patches = tf.reshape(along, [-1, rows * columns, basis.shape[1]])
        for found, lengths in ((residuals, left), (distances, nearest_ops(patches, arrays[f"{number}/bank"]))):
            found.append(tf.reshape(tf.math.log(tf.maximum(lengths, _TINY)), [-1, rows, columns]))
    return residuals + distances


def usual_at_place(logarithms: np.ndarray, power: float = POWER) -> np.ndarray:
    """What logarithm of a length is the most that is usual at each place, float32 [h, w].

    A generalised mean over held-out good images: that at its distance from the borders, and what the very place adds to
    it, smoothed, and less of it where images are few.

    Args:
      logarithms: float [N, h, w] of held-out good images.
      power: of the mean; 0 is the mean of the logarithms.
    """
    return _usual(logarithms, np.zeros(len(logarithms), int), np.ones((1, 1)), power)[0]


def usual_without(logarithms: np.ndarray, folds: np.ndarray, power: float = POWER) -> np.ndarray:
    """`usual_at_place` of the images of all other folds, for each image: float32 [N, h, w]; of all, of an only fold.

    Args:
      logarithms: float [N, h, w] of held-out good images.
      folds: int [N].
      power: of the mean.
    """
    present, part = np.unique(folds, return_inverse=True)
    others = 1 - np.eye(len(present)) if len(present) > 1 else np.ones((1, 1))
    return _usual(logarithms, part, others, power)[part]


def _usual(logarithms: np.ndarray, part: np.ndarray, kept: np.ndarray, power: float) -> np.ndarray:
    """What is usual in M selections of the P parts that N images lie in: float32 [M, h, w].

    Sums over parts add up, so that a selection costs no pass over the images.

    Args:
      logarithms: float [N, h, w].
      part: int [N].
      kept: [M, P], 1 for the parts of a selection, else 0.
      power: of the mean.
    """
    _, rows, columns = logarithms.shape
    flat = logarithms.reshape(len(part), -1).astype(np.float64)
    of_part = (np.arange(kept.shape[1])[:, None] == part).astype(np.float64)
    count = (kept @ of_part.sum(axis=1))[:, None]
    highest = flat.max(axis=0)
    if power:
        sums = kept @ (of_part @ np.exp(power * (flat - highest)))
        at_place = highest + np.log(np.maximum(sums, np.finfo(np.float64).tiny) / count) / power
    else:
        at_place = kept @ (of_part @ flat) / count
    kind = _distances_from_borders(rows, columns).ravel()
    places = np.maximum(np.bincount(kind), 1)
    by_border = np.stack([(np.bincount(kind, one) / places)[kind] for one in at_place])
    # What is left is smoothed, not the step at the border.
    left = (at_place - by_border).reshape(-1, rows, columns)
    smooth = gaussian_filter(left, (0, _SMOOTHING, _SMOOTHING), mode="nearest").reshape(at_place.shape)
    usual = by_border + count / (count + _PRIOR_IMAGES) * smooth
    usual = np.maximum(usual, np.median(usual, axis=1, keepdims=True) + math.log(_REGULAR))
    return usual.reshape(-1, rows, columns).astype(np.float32)


def worst_patches(deviations: np.ndarray | tf.Tensor) -> tf.Tensor:
    """Logarithm of the mean length of the patches farthest from usual, WORST of them: float32 [B].

    Args:
      deviations: [B, h, w], logarithms of lengths, less what is usual at their place.
    """
    patches = deviations.shape[1] * deviations.shape[2]
    largest = tf.math.top_k(tf.reshape(deviations, [-1, patches]), max(1, int(patches * WORST)), sorted=False).values
    return tf.reduce_logsumexp(largest, axis=1) - math.log(largest.shape[1])


def _distances_from_borders(rows: int, columns: int) -> np.ndarray:
    """int [h, w], equal for places as far from the nearest border above or below, and as far from that at a side; none
    told apart that are far from both."""
    shorter, longer = sorted((rows, columns))
    # A border is felt over as many cells in every map of its area: in a strip everywhere, and at its ends as far.
    side = shorter if longer <= _STRIP * shorter else math.sqrt(rows * columns)
    far = int(side * _BORDER)
    down, across = (np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), far) for n in (rows, columns))
    return down[:, None] * (far + 1) + across


def _some_patches(values: np.ndarray) -> np.ndarray:
    """[B, h, w, D] -> float32 [P, D], evenly spread."""
    _, rows, columns, depth = values.shape
    step = max(1, round(math.sqrt(rows * columns / _PATCHES)))
    return np.array(values[:, ::step, ::step], np.float32).reshape(-1, depth)
