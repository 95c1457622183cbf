"""For each photograph the few others that it might be a copy of, and where in them it lies.

Aligned parts look alike at any coarse size, and a crop moves everything. So it goes in two steps:
the photographs that look most alike at 16 x 16 say which window of them is shown, be it the
original or only a part like it; then, seen through that window, the fine detail in which parts of
one kind differ says which one it is.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import threadpoolctl
from scipy import ndimage

from mvtec_tf.exploration import copy_registration
from mvtec_tf.exploration.copy_registration import WHOLE

# Photographs are compared by what every crop of up to a tenth still shows.
_INNER = (0.1, 0.9)
_COARSE_SIDE = 16
_FINE_SIDE = 64
_REGISTERED_SIDE = 64
# Guesses of one side of the window, (start, length), a twentieth apart: a third of a coarse cell off at most.
_GUESSES = tuple(
    (start, length) for length, count in ((1.0, 1), (0.95, 2), (0.9, 3)) for start in np.linspace(0, 1 - length, count)
)
_NEIGHBOURS = 6
_KEPT = 6
MOST_PER_IMAGE = 2
# Of the shrunk photographs after registration, in grey levels.
_LEFT_SIDE = 32
_LARGEST_LEFT = 3.5
# Of the fine detail that is left when what the parts of a category share is removed.
_SMALLEST_CORRELATION = 0.18
# A window this near to the whole is the whole: parts of one kind lie no more exactly.
_SAME_WINDOW = 0.01
# Below so many images a category has no common structure that could be told from its images.
_FEWEST_OF_A_CATEGORY = 24
_MOST_LEARNED_FROM = 256
_COMMON_PARTS = 8
_CUT = 3.0
_QUERIES = 48


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A pair worth opening: `copy` may show `window` of `original`; both are places in the sequence."""

    copy: int
    original: int
    window: np.ndarray
    correlation: float


def candidates(small: Sequence[np.ndarray], categories: Sequence[str], equal: Sequence[int]) -> list[Candidate]:
    """The likeliest originals of each photograph, at most `MOST_PER_IMAGE`, the likeliest first.

    Args:
      small: float [S, S] each, whole photographs shrunk to a square of S = 128.
      categories: of the same photographs.
      equal: photographs with the same number have equal pixels and are no candidates of each other.
    """
    if len(small) < 2:
        return []
    search = _Search(small, categories, np.asarray(equal))
    blocks = np.array_split(np.arange(len(small)), -(-len(small) // _QUERIES))
    # Many small products: BLAS's own threads would only wait for each other.
    with threadpoolctl.threadpool_limits(1), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [one for found in pool.map(search.originals, blocks) for one in found]


class _Search:
    def __init__(self, small: Sequence[np.ndarray], categories: Sequence[str], equal: np.ndarray) -> None:
        self._small, self._equal = small, equal
        side = small[0].shape[0]
        self._guesses = [_cells(guess, _COARSE_SIDE, side) for guess in _GUESSES]
        names, self._category = np.unique(categories, return_inverse=True)
        whole = [self._inner(i, WHOLE, _COARSE_SIDE) for i in range(len(small))]
        self._coarse = _unit(np.reshape(whole, (len(small), -1)))
        fine = np.empty((len(small), _FINE_SIDE**2), np.float32)
        for i in range(len(small)):
            fine[i] = _detail(self._inner(i, WHOLE, _FINE_SIDE))
        self._common = [_Common(fine[self._category == number]) for number in range(len(names))]
        for number, common in enumerate(self._common):
            chosen = self._category == number
            fine[chosen] = common.removed(fine[chosen])
        self._fine = fine

    def originals(self, queries: np.ndarray) -> list[Candidate]:
        near, guesses = self._neighbours(queries)
        rounds = [self._registered(queries, near, guesses)]
        places, windows = rounds[0]
        # First through the windows that the neighbours suggest, then through those of the likeliest.
        for _ in range(2):
            found = self._through(queries, windows, places)
            rounds.append(self._registered(queries, *found))
            places, windows = rounds[-1]
        everything = [np.concatenate(parts, 1) for parts in zip(*rounds, strict=True)]
        found = (self._likeliest(query, *rows) for query, *rows in zip(queries, *everything, strict=True))
        return [one for some in found for one in some]

    def _neighbours(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The photographs most alike, [Q, K], and in which window of them each query is seen, [Q, K, 4]."""
        stack = np.concatenate(self._guesses)
        seen = stack @ self._stack(queries) @ stack.T
        ways = len(_GUESSES)
        seen = seen.reshape(len(queries), ways, _COARSE_SIDE, ways, _COARSE_SIDE).swapaxes(2, 3)
        scores = _unit(seen.reshape(-1, _COARSE_SIDE**2)) @ self._coarse.T
        scores = scores.reshape(len(queries), ways**2, -1)
        best = self._top(queries, scores.max(1), _NEIGHBOURS)
        way = np.take_along_axis(scores, best[:, None], 2).argmax(1)
        lines = np.array(_GUESSES)
        return best, np.concatenate([lines[way % ways], lines[way // ways]], -1)

    def _registered(
        self, queries: np.ndarray, places: np.ndarray, windows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(places, refined windows)."""
        count = places.shape[1]
        copies = np.repeat(_halved(self._stack(queries)), count, 0)
        originals = _halved(self._stack(places.ravel()))
        refined = copy_registration.register(copies, originals, windows.reshape(-1, 4))
        return places, refined.reshape(*places.shape, 4)

    def _through(self, queries: np.ndarray, windows: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The photographs whose fine detail is most alike through any of the windows, and through which."""
        frames = np.concatenate([np.broadcast_to(WHOLE, (len(queries), 1, 4)), windows], 1)
        used = copy_registration.plausible(frames) & (np.abs(frames - WHOLE).max(-1) > _SAME_WINDOW)
        used[:, 0] = True
        row, column = np.nonzero(used)
        category = self._category[np.concatenate([queries[:, None], places], 1)[row, column]]
        seen = np.stack(
            [self._seen(queries[i], frames[i, j], number) for i, j, number in zip(row, column, category, strict=True)]
        )
        scores = np.full((len(queries), len(self._small)), -1.0, np.float32)
        through = np.zeros(scores.shape, np.int8)
        for i, j, values in zip(row, column, seen @ self._fine.T, strict=True):
            better = values > scores[i]
            scores[i, better], through[i, better] = values[better], j
        best = self._top(queries, scores, _KEPT)
        chosen = np.take_along_axis(through, best, 1)
        return best, np.take_along_axis(frames, chosen[..., None].astype(int), 1)

    def _likeliest(self, query: int, places: np.ndarray, windows: np.ndarray) -> list[Candidate]:
        found: dict[int, Candidate] = {}
        for place, window in zip(places.tolist(), windows, strict=True):
            if self._equal[place] == self._equal[query] or not copy_registration.plausible(window):
                continue
            correlation = float(self._seen(query, window, self._category[place]) @ self._fine[place])
            if correlation > max(_SMALLEST_CORRELATION, found[place].correlation if place in found else -1.0):
                found[place] = Candidate(int(query), place, window, correlation)
        likeliest = sorted(found.values(), key=lambda one: -one.correlation)
        return [one for one in likeliest if self._left(one) <= _LARGEST_LEFT][:MOST_PER_IMAGE]

    def _left(self, one: Candidate) -> float:
        """Root mean square of what differs at a coarse size."""
        copy, original = self._inner(one.copy, one.window, _LEFT_SIDE), self._inner(one.original, WHOLE, _LEFT_SIDE)
        return float(np.sqrt(((copy - original) ** 2).mean()))

    def _top(self, queries: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
        scores[self._equal[queries][:, None] == self._equal[None]] = -2.0
        count = min(count, scores.shape[1])
        return np.argpartition(scores, -count, axis=1)[:, -count:]

    def _stack(self, chosen: np.ndarray) -> np.ndarray:
        return np.stack([self._small[i] for i in chosen]).astype(np.float32)

    def _seen(self, query: int, window: np.ndarray, category: int) -> np.ndarray:
        return self._common[category].removed(_detail(self._inner(query, window, _FINE_SIDE))[None])[0]

    def _inner(self, i: int, window: Sequence[float], cells: int) -> np.ndarray:
        """What photograph i shows of the inner part of the photograph that it is a window of, [cells, cells]."""
        small = np.asarray(self._small[i], np.float32)
        left, width, top, height = window
        side = small.shape[0]
        return _cells((top, height), cells, side) @ small @ _cells((left, width), cells, side).T


class _Common:
    """What the photographs of a category share: their mean, and how they vary together."""

    def __init__(self, detail: np.ndarray) -> None:
        self._none = len(detail) < _FEWEST_OF_A_CATEGORY
        if self._none:
            return
        learned = detail[:: -(-len(detail) // _MOST_LEARNED_FROM)]
        self._mean, self._deviation = learned.mean(0), learned.std(0) + 0.25
        scaled = self._scaled(learned)
        parts = min(_COMMON_PARTS, len(scaled) // 12)
        # The eigenvectors of the small matrix of products give those of the large one.
        _, vectors = np.linalg.eigh(scaled @ scaled.T)
        self._parts = _unit(vectors[:, -parts:].T @ scaled, centred=False)

    def removed(self, detail: np.ndarray) -> np.ndarray:
        """What is a photograph's own, [N, D] of length 1."""
        if self._none:
            return _unit(detail)
        scaled = self._scaled(detail)
        return _unit(scaled - (scaled @ self._parts.T) @ self._parts)

    def _scaled(self, detail: np.ndarray) -> np.ndarray:
        return np.clip((detail - self._mean) / self._deviation, -_CUT, _CUT)


def _cells(line: tuple[float, float], cells: int, side: int) -> np.ndarray:
    """The matrix [cells, side] of means over the cells of the inner part, seen in a window (start, length)."""
    start, length = line
    edges = (np.linspace(*_INNER, cells + 1) - start) / length * side
    places = np.arange(side)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    overlap = np.clip(overlap, 0.0, None)
    return (overlap / np.maximum(overlap.sum(1, keepdims=True), 1e-6)).astype(np.float32)


def _detail(grey: np.ndarray) -> np.ndarray:
    return (grey - ndimage.uniform_filter(grey, 3, mode="nearest")).ravel()


def _halved(grey: np.ndarray) -> np.ndarray:
    count, side, _ = grey.shape
    part = side // _REGISTERED_SIDE
    return grey.reshape(count, _REGISTERED_SIDE, part, _REGISTERED_SIDE, part).mean((2, 4))


def _unit(values: np.ndarray, centred: bool = True) -> np.ndarray:
    if centred:
        values = values - values.mean(-1, keepdims=True)
    return (values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-3)).astype(np.float32)
