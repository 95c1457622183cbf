"""For each photograph the few others that it might be a copy of, and where in them it lies.

Aligned parts look alike at any coarse size, and a crop moves everything. So it goes in two steps:
seen through every window that a crop can leave, a photograph looks most like its original or like
other parts in the same place; then, seen through the windows found, the fine detail in which parts
of one kind differ says which one it is.
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
_COARSE_SIDE = 32
_FINE_SIDE = 64
_REGISTERED_SIDE = 64
# One side of the windows that are tried, (start, length), a fortieth apart: half a coarse cell off at most.
_STEP = 0.025
_LINES = np.array([(_STEP * i, 1.0 - _STEP * cut) for cut in range(5) for i in range(cut + 1)])
_TRIED = np.array([[*across, *down] for down in _LINES for across in _LINES])
# Windows this near are found by one step of registration from each other.
_ALIKE = np.abs(_TRIED[:, None] - _TRIED).max(-1) <= 1.01 * _STEP
# Of the detail so many principal components are compared, learned from so many photographs.
_COARSE_COMPONENTS, _FINE_COMPONENTS = 64, 256
_MOST_COMPARED = 1024
_NEIGHBOURS = 8
# Parts of one kind lie some hundredths apart: round each window found these shifts are tried, half a fine cell apart.
_SHIFTS = np.array([-0.0125, -0.00625, 0.0, 0.00625, 0.0125])
_WINDOWS = 6
# So many pass from the components to all of the fine detail, and so many of these are registered.
_MOST_LIKELY, _KEPT = 32, 2
MOST_PER_IMAGE = 2
# Of the shrunk photographs after registration, in grey levels.
_LEFT_SIDE = 64
_LARGEST_LEFT = 3.5
# Of the fine detail that is left when what the parts of a category share is removed.
_SMALLEST_CORRELATION = 0.18
# Two windows this near are one: the shifts make up for it.
_SAME_WINDOW = 0.01
# Below so many images a category has no common structure that could be told from its images.
_FEWEST_OF_A_CATEGORY = 24
_MOST_LEARNED_FROM = 256
_COMMON_PARTS = 8
_CUT = 3.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A pair worth opening: `copy` may show `window` of `original`; both are places in the sequence.

    `apart` says how much the other photographs most like the copy differ from it after registration, grey levels.
    """

    copy: int
    original: int
    window: np.ndarray
    correlation: float
    apart: float = 0.0


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
    # Many small products: BLAS's own threads would only wait for each other.
    with threadpoolctl.threadpool_limits(1), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [one for found in pool.map(search.originals, range(len(small))) for one in found]


class _Search:
    def __init__(self, small: Sequence[np.ndarray], categories: Sequence[str], equal: np.ndarray) -> None:
        self._small, self._equal = small, equal
        self._side = small[0].shape[0]
        names, self._category = np.unique(categories, return_inverse=True)
        self._tried = np.concatenate([_cells(line, _COARSE_SIDE, self._side) for line in _LINES])
        whole = _cells(WHOLE[:2], _COARSE_SIDE, self._side)
        coarse = np.concatenate([self._detail(i, whole, whole, _COARSE_SIDE) for i in range(len(small))])
        self._coarse_parts = _components(coarse, _COARSE_COMPONENTS)
        self._coarse = _unit(coarse @ self._coarse_parts)
        fine = np.empty((len(small), _FINE_SIDE**2), np.float32)
        for i in range(len(small)):
            fine[i] = self._through(i, np.array(WHOLE), 0.0)
        self._common = [_Common(fine[self._category == number]) for number in range(len(names))]
        for number, common in enumerate(self._common):
            chosen = self._category == number
            fine[chosen] = common.removed(fine[chosen])
        self._fine_parts = _components(fine, _FINE_COMPONENTS)
        self._fine_keys = _unit(fine @ self._fine_parts)
        self._fine = fine.astype(np.float16)

    def originals(self, query: int) -> list[Candidate]:
        places, windows = self._nearest(query)
        windows = self._registered(query, places, windows)
        others, shifted = self._likely(query, places, windows)
        shifted = self._registered(query, others, shifted)
        return self._likeliest(query, np.concatenate([places, others]), np.concatenate([windows, shifted]))

    def _nearest(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """The photographs most alike, [K], and the windows, [K, 4]; first those through windows far from each other."""
        seen = self._detail(query, self._tried, self._tried, _COARSE_SIDE)
        scores = _unit(seen @ self._coarse_parts) @ self._coarse.T
        scores[:, self._equal == self._equal[query]] = -2.0
        through = scores.max(1)
        apart = []
        for _ in range(_WINDOWS):
            apart.append(through.argmax())
            through[_ALIKE[apart[-1]]] = -3.0
        best = _largest(scores.max(0), _NEIGHBOURS)
        places = np.concatenate([scores[apart].argmax(1), best])
        return places, _TRIED[np.concatenate([apart, scores[:, best].argmax(0)])]

    def _registered(self, query: int, places: np.ndarray, windows: np.ndarray) -> np.ndarray:
        small = [_halved(np.asarray(self._small[i], np.float32)) for i in (query, *places)]
        copies = np.repeat(small[0][None], len(places), 0)
        return copy_registration.register(copies, np.stack(small[1:]), windows)

    def _likely(self, query: int, places: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The photographs whose fine detail is most alike near each of the windows, [K], and the windows, [K, 4]."""
        others, frames = [], []
        for number, window in self._distinct(places, windows):
            seen = self._common[number].removed(self._through(query, window, _SHIFTS))
            scores = _unit(seen @ self._fine_parts) @ self._fine_keys.T
            scores[:, self._equal == self._equal[query]] = -2.0
            likely = _largest(scores.max(0), _MOST_LIKELY)
            way = scores[:, likely].argmax(0)
            exact = _largest((seen[way] * self._fine[likely]).sum(1), _KEPT)
            others.append(likely[exact])
            frames.append(_shifted(window)[way[exact]])
        return np.concatenate(others), np.concatenate(frames)

    def _distinct(self, places: np.ndarray, windows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(category, window) of some windows that differ, the whole in any case."""
        found = [(self._category[places[0]], np.array(WHOLE))]
        for place, window in zip(places, windows, strict=True):
            known = any(np.abs(window - one).max() <= _SAME_WINDOW for _, one in found)
            if not known and copy_registration.plausible(window) and len(found) <= _WINDOWS:
                found.append((self._category[place], window))
        return found

    def _likeliest(self, query: int, places: np.ndarray, windows: np.ndarray) -> list[Candidate]:
        found: dict[int, Candidate] = {}
        for place, window in zip(places.tolist(), windows, strict=True):
            if self._equal[place] == self._equal[query] or not copy_registration.plausible(window):
                continue
            correlation = float(self._seen(query, window, self._category[place]) @ self._fine[place])
            if correlation > max(_SMALLEST_CORRELATION, found[place].correlation if place in found else -1.0):
                found[place] = Candidate(int(query), place, window, correlation)
        left = {place: self._left(one) for place, one in found.items()}
        others = dict(zip(places.tolist(), windows, strict=True))
        apart = float(np.median([self._left(Candidate(query, *other, 0.0)) for other in others.items()]))
        likeliest = sorted(place for place in found if left[place] <= _LARGEST_LEFT)
        likeliest = sorted(likeliest, key=left.__getitem__)[:MOST_PER_IMAGE]
        return [dataclasses.replace(found[place], apart=apart) for place in likeliest]

    def _left(self, one: Candidate) -> float:
        """Root mean square of what differs at a small size."""
        left = self._inner(one.copy, one.window, _LEFT_SIDE) - self._inner(one.original, WHOLE, _LEFT_SIDE)
        return float(left.std())

    def _seen(self, query: int, window: np.ndarray, category: int) -> np.ndarray:
        return self._common[category].removed(self._through(query, window, 0.0))[0]

    def _through(self, i: int, window: np.ndarray, shifts: np.ndarray | float) -> np.ndarray:
        """Fine detail of photograph i seen through the window, shifted across and down, [shifts * shifts, D]."""
        across, down = (
            np.concatenate([_cells((start + shift, length), _FINE_SIDE, self._side) for shift in np.atleast_1d(shifts)])
            for start, length in (window[:2], window[2:])
        )
        return self._detail(i, down, across, _FINE_SIDE)

    def _detail(self, i: int, rows: np.ndarray, columns: np.ndarray, cells: int) -> np.ndarray:
        """Photograph i less its surroundings, by the lines given, [lines * lines, cells * cells]."""
        seen = rows @ np.asarray(self._small[i], np.float32) @ columns.T
        seen = seen.reshape(len(rows) // cells, cells, -1, cells).swapaxes(1, 2)
        around = _SURROUNDINGS[cells]
        return (seen - around @ seen @ around.T).reshape(-1, cells**2)

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
        self._parts = _unit(vectors[:, -parts:].T @ scaled)

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


def _mean_around(cells: int, width: int) -> np.ndarray:
    """The matrix [cells, cells] of running means, the border repeated."""
    return ndimage.uniform_filter1d(np.eye(cells, dtype=np.float32), width, axis=0, mode="nearest")


_SURROUNDINGS = {_COARSE_SIDE: _mean_around(_COARSE_SIDE, 5), _FINE_SIDE: _mean_around(_FINE_SIDE, 3)}


def _shifted(window: np.ndarray) -> np.ndarray:
    """[shifts * shifts, 4] in the order of `_through`."""
    down, across = np.meshgrid(_SHIFTS, _SHIFTS, indexing="ij")
    zero = np.zeros_like(across)
    return window + np.stack([across, zero, down, zero], -1).reshape(-1, 4)


def _components(detail: np.ndarray, count: int) -> np.ndarray:
    """Principal components [D, count] of detail [N, D], by the smaller of the two matrices of products."""
    learned = detail[:: -(-len(detail) // _MOST_COMPARED)]
    if len(learned) >= learned.shape[1]:
        return np.linalg.eigh(learned.T @ learned)[1][:, -count:]
    return _unit(np.linalg.eigh(learned @ learned.T)[1][:, -count:].T @ learned).T


def _halved(grey: np.ndarray) -> np.ndarray:
    part = len(grey) // _REGISTERED_SIDE
    return grey.reshape(_REGISTERED_SIDE, part, _REGISTERED_SIDE, part).mean((1, 3))


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest values, largest first."""
    count = min(count, len(values))
    best = np.argpartition(values, -count)[-count:]
    return best[np.argsort(-values[best])]


def _unit(values: np.ndarray) -> np.ndarray:
    return (values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-3)).astype(np.float32)
