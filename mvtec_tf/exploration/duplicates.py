"""Copies of one photograph under two names: exact ones by hash, changed ones by their fine detail.

Photographs of two parts of one kind can look alike at a glance (aligned bottles correlate at
0.999), so a hash alone would call them all duplicates. A pair counts only if also the fine detail
agrees that no two parts share: dust, scratches, grain.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mvtec_tf.data.formats.scan import Record
from mvtec_tf.data.pillow_images import UnreadableImageError, read_grey
from mvtec_tf.errors import UserError
from mvtec_tf.exploration.images import (
    DETAIL_SIDE,
    HASH_BITS,
    Look,
    Signature,
    high_pass,
    shrink,
)

SAME_FILE = "same file"
SAME_PIXELS = "same pixels"
NEAR = "near-duplicate"
# In the order of their weight.
TRAIN_AND_TEST = "train and test"
UNDECLARED = "across groups"
DECLARED = "one group"

# The four limits were set on aligned, rotated and textured products (bottle and screw of MVTec AD,
# magnetic tiles, the toy factory), so that no pair was reported that does not show one part. With
# them are found, of copies re-encoded as JPEG of quality 75, brightened by a tenth, or of gamma 0.8:
# 98 to 100 % on each; of quality 40 or half the size: 100 % of photographs of 448 pixels, but 60 %
# of tiles 120 pixels wide and 0 to 100 % of toys of 64 pixels.
HASH_RADIUS = 16
# Detail at 128 x 128: copies at quality 75 reach 0.86 or more, all but a few different pairs stay below 0.8.
_SIEVE = 0.80
# Detail at up to 256 x 256: different pairs reach at most 0.88, on 64-pixel images.
DETAIL_CORRELATION = 0.90
# Small photographs lose detail when re-encoded (0.84 at quality 75), but their pixels still agree
# better (0.995) than those of different parts whose detail agrees so well (0.98).
_LESS_DETAIL = 0.80
_PIXEL_CORRELATION = 0.995
_VERIFY_SIDE = 256
_COARSE_SIDE = 64
_VERIFY_RADIUS = 2
# Verification opens the files again; a static camera would make every pair a candidate.
MOST_VERIFIED = 5000
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that show the same photograph.

    Attributes:
      kind: `SAME_FILE`, `SAME_PIXELS` or `NEAR`.
      first: the one in train if one of them is.
      second: the other.
      pixel_correlation: of the grey values at 64 x 64; 1 for exact copies.
      detail_correlation: of the fine detail, see `compare`; 1 for exact copies.
    """

    kind: str
    first: Record
    second: Record
    pixel_correlation: float = 1.0
    detail_correlation: float = 1.0

    @property
    def relation(self) -> str:
        """`TRAIN_AND_TEST`: a leak as it stands; `UNDECLARED`: one as soon as the split is divided."""
        if self.first.split != self.second.split:
            return TRAIN_AND_TEST
        return DECLARED if self.first.group == self.second.group else UNDECLARED

    @property
    def leaks(self) -> bool:
        """Whether the pair can stand on both sides of a cut into seen and evaluated images."""
        return self.relation != DECLARED

    @property
    def contradicts(self) -> bool:
        """Whether one is called good and the other defective."""
        return self.first.label != self.second.label


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """All pairs found, the gravest first.

    Attributes:
      pairs: of n exact copies the first is paired with each of the others.
      unverified: candidates beyond `MOST_VERIFIED`, which were not looked at.
    """

    pairs: tuple[Pair, ...]
    unverified: int = 0


def find(looks: Sequence[Look], signatures: Sequence[Signature], most_verified: int = MOST_VERIFIED) -> Duplicates:
    """Exact and near-duplicates among images, of the same and of different categories.

    Compares all with all in blocks: 5,000 images that look alike take half a minute on two cores.
    A copy that was mirrored, turned, cropped, moved or shrunk below 128 pixels is not found.

    Args:
      looks: the images.
      signatures: of the same images.
      most_verified: so many near-duplicate candidates are opened again and compared, the likeliest.

    Raises:
      UserError: an image that was read before cannot be read again.
    """
    order = sorted(range(len(looks)), key=lambda i: _rank(looks[i].record))
    looks, signatures = [looks[i] for i in order], [signatures[i] for i in order]
    exact = list(_exact(looks))
    # One of equal images in a split stands for all of them: a hundred copies make no 5,000 pairs.
    places: dict[tuple[str, str], int] = {}
    for i, one in enumerate(looks):
        places.setdefault((one.pixel_hash, one.record.split), i)
    chosen = list(places.values())
    candidates, unverified = _candidates(looks, signatures, chosen, most_verified)
    near = list(_verified(looks, candidates))
    pairs = sorted(exact + near, key=_gravity)
    return Duplicates(tuple(pairs), unverified)


def compare(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Correlation of the grey values and of the fine detail of two images, each from -1 to 1.

    Grey values are compared at 64 x 64, where noise has averaged out. Detail is compared at the
    same size of both, at most 256 x 256 and never enlarged, without the pixels that are black or
    white in either, since brightening a photograph flattens them. A flat image correlates with
    nothing.

    Args:
      first: float32 [H, W], 0 to 255.
      second: float32 [H', W'], 0 to 255.
    """
    height, width = (min(_VERIFY_SIDE, *sides) for sides in zip(first.shape, second.shape, strict=True))
    pair = [shrink(grey, width, height) for grey in (first, second)]
    inside = np.logical_and.reduce([(grey > 2.0) & (grey < 253.0) for grey in pair])
    if inside.mean() < 0.05:
        inside[:] = True
    detail = [high_pass(grey, _VERIFY_RADIUS)[inside] for grey in pair]
    coarse = [shrink(grey, _COARSE_SIDE, _COARSE_SIDE) for grey in (first, second)]
    return _correlation(*coarse), _correlation(*detail)


def _rank(record: Record) -> tuple[bool, str]:
    return record.split != "train", record.path


def _gravity(pair: Pair) -> tuple:
    relation = (TRAIN_AND_TEST, UNDECLARED, DECLARED).index(pair.relation)
    kind = (SAME_FILE, SAME_PIXELS, NEAR).index(pair.kind)
    return relation, not pair.contradicts, kind, -pair.detail_correlation, pair.first.path, pair.second.path


def _exact(looks: Sequence[Look]) -> Iterator[Pair]:
    """The first of equal images with each of the others; equal files have equal pixels."""
    equal: dict[str, list[Look]] = collections.defaultdict(list)
    for one in looks:
        equal[one.pixel_hash].append(one)
    for first, *others in equal.values():
        for other in others:
            kind = SAME_FILE if other.file_hash == first.file_hash else SAME_PIXELS
            yield Pair(kind, first.record, other.record)


def _candidates(
    looks: Sequence[Look], signatures: Sequence[Signature], chosen: Sequence[int], most: int
) -> tuple[list[tuple[int, int]], int]:
    """The likeliest pairs of `chosen` in the order of reading, and how many more there were."""
    _, pixels = np.unique([one.pixel_hash for one in looks], return_inverse=True)
    best = np.empty(0), np.empty(0, int), np.empty(0, int)
    found = 0
    blocks = [np.array(chosen[start : start + _BLOCK]) for start in range(0, len(chosen), _BLOCK)]
    for i, rows in enumerate(blocks):
        row_stack = _stack(signatures, rows)
        for columns in blocks[i:]:
            same = columns is rows
            scores, a, b = _alike(row_stack, row_stack if same else _stack(signatures, columns), same)
            a, b = rows[a], columns[b]
            # Equal pixels are listed as exact copies already.
            new = pixels[a] != pixels[b]
            found += int(new.sum())
            best = tuple(np.concatenate(pair) for pair in zip(best, (scores[new], a[new], b[new]), strict=True))
            # Cut at once, so that a set of look-alikes does not fill the memory with pairs.
            if len(best[0]) > most:
                kept = np.argpartition(best[0], -most)[-most:]
                best = tuple(values[kept] for values in best)
    return sorted(zip(best[1].tolist(), best[2].tolist(), strict=True)), found - len(best[0])


def _stack(signatures: Sequence[Signature], chosen: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes as float32 [N, 64] of +-1, details as float32 [N, 128 * 128] of length 1 (or 0 if flat)."""
    chosen = list(chosen)
    bits = np.array([signatures[i].hash_bits for i in chosen], np.float32) * 2.0 - 1.0
    detail = np.empty((len(chosen), DETAIL_SIDE**2), np.float32)
    for row, i in enumerate(chosen):
        values = signatures[i].detail.astype(np.float32)
        values -= values.mean()
        detail[row] = values / max(float(np.linalg.norm(values)), 1.0)
    return bits, detail


def _alike(
    rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray], same: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detail correlation, row and column of the pairs that pass both sieves, each [P]."""
    # The product of +-1 vectors is 64 less twice the Hamming distance.
    close = rows[0] @ columns[0].T >= HASH_BITS - 2 * HASH_RADIUS
    if same:
        close = np.triu(close, 1)
    a, b = np.flatnonzero(close.any(1)), np.flatnonzero(close.any(0))
    correlation = rows[1][a] @ columns[1][b].T
    i, j = np.nonzero(close[np.ix_(a, b)] & (correlation >= _SIEVE))
    return correlation[i, j], a[i], b[j]


def _verified(looks: Sequence[Look], candidates: Iterable[tuple[int, int]]) -> Iterator[Pair]:
    """Opens each pair again; an image that stands in several pairs in a row is read once."""
    read: dict[int, np.ndarray] = {}
    for a, b in candidates:
        try:
            read = {i: read[i] if i in read else read_grey(looks[i].record.file) for i in (a, b)}
        except UnreadableImageError as error:
            raise UserError(
                f"{looks[a].record.file} or {looks[b].record.file} could be read a moment ago and cannot now: {error}. "
                "Expected that nothing changes the folder meanwhile; run it again when it is at rest."
            ) from error
        pixels, detail = compare(read[a], read[b])
        if detail >= DETAIL_CORRELATION or (detail >= _LESS_DETAIL and pixels >= _PIXEL_CORRELATION):
            yield Pair(NEAR, looks[a].record, looks[b].record, pixels, detail)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's, 0 if either is flat."""
    first, second = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (first, second))
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    # float32 pictures of one grey value have rounding errors for detail, not exact zeros.
    return float((first * second).sum() / length) if length > 1e-6 * first.size else 0.0
