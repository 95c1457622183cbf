"""For each photograph the few others that it might be a copy of, and where in them it lies.

A crop moves everything, and aligned parts look alike at any coarse size. So others are found in two ways: seen
through every window that a crop can leave, by the detail in which the photographs of the set differ; and, for parts
of one kind, in the frame of one of them, by the fine detail that is left when all that the kind shares is removed.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import threadpoolctl
from scipy import ndimage

from mvtec_tf.exploration import copy_registration
from mvtec_tf.exploration.copy_registration import WHOLE

# Photographs are compared by what every crop of up to a tenth still shows.
_INNER = (0.1, 0.9)
_COARSE_SIDE = 32
_FINE_SIDE = 64
# One side of the windows that are tried, (start, length), a fortieth apart: half a coarse cell off at most.
_STEP = 0.025
_LINES = np.array([(_STEP * i, 1.0 - _STEP * cut) for cut in range(5) for i in range(cut + 1)])
_TRIED = np.array([[*across, *down] for down in _LINES for across in _LINES])
# Of the coarse detail so many principal components are compared, each made as strong as the others: the strongest
# are what all photographs of a set show.
_COMPONENTS = 160
_FEWEST_LEARNED_FROM, _MOST_LEARNED_FROM = 96, 2048
_NEIGHBOURS = 8
# Among so many photographs, those whose coarse detail agrees less than this with every reference become one themselves.
_REFERENCES_FROM, _MOST_REFERENCES, _REFERENCE_CORRELATION = 256, 24, 0.6
_REFERENCES_EACH = 2
_REGISTERED_SIDE = 64
_REGISTERED_AT_A_TIME = 64
# Fewer photographs share nothing that could be told from what is each one's own.
_FEWEST_OF_A_KIND = 24
# A direction is shared if the photographs vary along it as much as so many copies of one would make it.
_SHARED_BY, _MOST_SHARED = 2.5, 48
_KIND_LEARNED_FROM = 256
_CUT = 3.0
_COMPARED_AT_A_TIME = 256
# A candidate stands out from the other photographs by so many of their standard deviations; these are at least so
# large, for that of a few photographs may be small by chance.
_LEAST_DISTINCT, _SMALLEST_DEVIATION = 4.0, 0.02
_MOST_DISTINCT, _MOST_ALIKE = 2, 2
# Of the shrunk photographs after registration, in grey levels: copies of printed labels reach 6.4, others 3.6.
_LARGEST_LEFT, _LITTLE_LEFT = 8.0, 4.0
# Aligned parts are all about as alike, and each has a few that stand out by chance. Of 1,725 such pairs of 800 drawn
# parts 95 % stand out by less than this and differ by more than this share of what a photograph's candidates usually
# do; the copies that are found and stand out so little differ by at most 0.45 of it. Among few photographs none can
# stand out far, and all pairs can be opened.
_SURELY_DISTINCT, _LEFT_OF_USUAL, _MANY = 5.5, 0.7, 512


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A pair worth opening: `copy` may show `window` of `original`; both are places in the sequence.

    `distinct` says how far its correlation stands out from those of the other photographs with the copy, in their
    standard deviations.
    """

    copy: int
    original: int
    window: np.ndarray
    distinct: float


def candidates(small: Sequence[np.ndarray], equal: Sequence[int]) -> list[Candidate]:
    """The likeliest originals of each photograph, at most four.

    Args:
      small: float [S, S] each, whole photographs shrunk to a square of S = 128.
      equal: photographs with the same number have equal pixels and are no candidates of each other.
    """
    if len(small) < 2:
        return []
    # Many small products: BLAS's own threads would only wait for each other.
    with threadpoolctl.threadpool_limits(1), concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        search = _Search(small, np.asarray(equal), pool)
        return [one for found in pool.map(search.likeliest, range(len(small))) for one in found]


class _Search:
    def __init__(
        self, small: Sequence[np.ndarray], equal: np.ndarray, pool: concurrent.futures.ThreadPoolExecutor
    ) -> None:
        self._small, self._equal = small, equal
        self._side = small[0].shape[0]
        everyone = range(len(small))
        self._shrunk = np.stack([_shrunk(one) for one in small])
        self._tried = np.concatenate([_cells(line, _COARSE_SIDE, self._side) for line in _LINES])
        whole = _cells(WHOLE[:2], _COARSE_SIDE, self._side)
        coarse = np.concatenate([self._detail(i, whole, whole, _COARSE_SIDE) for i in everyone])
        self._mean, self._parts = _components(coarse)
        self._keys = self._key(coarse)
        references = self._references(_unit(coarse))
        self._reference_detail = _unit(coarse)[references]
        del coarse
        found, kinds = zip(*pool.map(self._by_windows, everyone), strict=True)
        self._found: list[list[Candidate]] = list(found)
        for number, reference in enumerate(references):
            members = [(i, windows[number]) for i, windows in enumerate(kinds) if number in windows]
            if len(members) >= _FEWEST_OF_A_KIND:
                places, windows = zip(*members, strict=True)
                self._by_frame(reference, np.array(places), np.array(windows), pool)

    def likeliest(self, query: int) -> list[Candidate]:
        """Of all found the most distinct one, and those that differ least after registration."""
        found: dict[int, Candidate] = {}
        for one in self._found[query]:
            if one.original not in found or one.distinct > found[one.original].distinct:
                found[one.original] = one
        if not found:
            return []
        others = list(found)
        windows = copy_registration.register(
            np.repeat(self._shrunk[query][None], len(others), 0),
            self._shrunk[others],
            np.stack([one.window for one in found.values()]),
        )
        registered = [
            (self._left(query, other, window), dataclasses.replace(found[other], window=window))
            for other, window in zip(others, windows, strict=True)
            if copy_registration.plausible(window)
        ]
        registered.sort(key=lambda item: -item[1].distinct)
        alike = [item for item in registered[_MOST_DISTINCT:] if item[0] <= _LITTLE_LEFT]
        alike.sort(key=lambda item: item[0])
        kept = [*registered[:_MOST_DISTINCT], *alike[:_MOST_ALIKE]]
        most = min(_LARGEST_LEFT, _LEFT_OF_USUAL * float(np.median([left for left, _ in registered] or [0.0])))
        all_opened = len(registered) == 1 or len(self._small) < _MANY
        return [
            one
            for left, one in kept
            if left <= (_LARGEST_LEFT if all_opened or one.distinct >= _SURELY_DISTINCT else most)
        ]

    def _left(self, copy: int, original: int, window: np.ndarray) -> float:
        """Root mean square of what differs at a small size after registration, grey levels."""
        seen = [
            _cells(shown[2:], _FINE_SIDE, self._side)
            @ np.asarray(self._small[i], np.float32)
            @ _cells(shown[:2], _FINE_SIDE, self._side).T
            for i, shown in ((copy, window), (original, WHOLE))
        ]
        return float((seen[0] - seen[1]).std())

    def _references(self, detail: np.ndarray) -> list[int]:
        """The photographs that most others are a window of, [R], and of which no one is a window of another."""
        alike: dict[int, int] = {}
        for i in range(0, len(detail), -(-len(detail) // _REFERENCES_FROM)):
            seen = _unit(self._detail(i, self._tried, self._tried, _COARSE_SIDE))
            found = np.array(list(alike), int)
            found = found[(seen @ detail[found].T).max(0) >= _REFERENCE_CORRELATION]
            alike.update({one: alike[one] + 1 for one in found.tolist()} if len(found) else {i: 1})
        return sorted(alike, key=lambda one: -alike[one])[:_MOST_REFERENCES]

    def _by_windows(self, query: int) -> tuple[list[Candidate], dict[int, np.ndarray]]:
        """The photographs most alike; and {reference: window} of the references most alike."""
        seen = self._detail(query, self._tried, self._tried, _COARSE_SIDE)
        kinds = _unit(seen) @ self._reference_detail.T
        references = {
            int(number): _TRIED[kinds[:, number].argmax()] for number in _largest(kinds.max(0), _REFERENCES_EACH)
        }
        scores = self._key(seen) @ self._keys.T
        others = np.flatnonzero(self._equal != self._equal[query])
        best = scores[:, others].max(0)
        found = [
            Candidate(query, int(others[i]), _TRIED[scores[:, others[i]].argmax()], distinct)
            for i, distinct in _distinct(best, _NEIGHBOURS)
        ]
        return found, references

    def _by_frame(
        self, reference: int, places: np.ndarray, windows: np.ndarray, pool: concurrent.futures.ThreadPoolExecutor
    ) -> None:
        """Finds the photographs most alike among those that look like one reference, in its frame."""

        def registered(start: int) -> np.ndarray:
            copies = self._shrunk[places[start : start + _REGISTERED_AT_A_TIME]]
            originals = np.broadcast_to(self._shrunk[reference], copies.shape)
            first = windows[start : start + _REGISTERED_AT_A_TIME]
            return copy_registration.register(copies, originals, first, steps=8)

        def compared(start: int) -> None:
            part = slice(start, start + _COMPARED_AT_A_TIME)
            for row, scores in enumerate(own[part] @ own.T, start):
                query = places[row]
                others = np.flatnonzero(self._equal[places] != self._equal[query])
                self._found[query] += [
                    Candidate(int(query), int(places[others[i]]), _within(frames[row], frames[others[i]]), distinct)
                    for i, distinct in _distinct(scores[others], _NEIGHBOURS)
                ]

        frames = np.concatenate(list(pool.map(registered, range(0, len(places), _REGISTERED_AT_A_TIME))))
        fine = np.concatenate(list(pool.map(self._fine, places, frames)))
        own = _own(fine)
        list(pool.map(compared, range(0, len(places), _COMPARED_AT_A_TIME)))

    def _key(self, detail: np.ndarray) -> np.ndarray:
        return _unit((detail - self._mean) @ self._parts)

    def _fine(self, i: int, window: np.ndarray) -> np.ndarray:
        """Fine detail of photograph i in the frame of which it shows the window, [1, D]."""
        rows, columns = (_cells(line, _FINE_SIDE, self._side) for line in (window[2:], window[:2]))
        return self._detail(i, rows, columns, _FINE_SIDE)

    def _detail(self, i: int, rows: np.ndarray, columns: np.ndarray, cells: int) -> np.ndarray:
        """Photograph i less its surroundings, by the lines given, [lines * lines, cells * cells]."""
        seen = rows @ np.asarray(self._small[i], np.float32) @ columns.T
        seen = seen.reshape(len(rows) // cells, cells, -1, cells).swapaxes(1, 2)
        around = _SURROUNDINGS[cells]
        return (seen - around @ seen @ around.T).reshape(-1, cells**2)


def _own(detail: np.ndarray) -> np.ndarray:
    """What is each photograph's own: detail [N, D] less the mean and how all vary together, [N, D] of length 1."""
    learned = detail[:: -(-len(detail) // _KIND_LEARNED_FROM)]
    mean, deviation = learned.mean(0), learned.std(0) + 0.25
    learned, scaled = (np.clip((one - mean) / deviation, -_CUT, _CUT) for one in (learned, detail))
    # The eigenvectors of the small matrix of products give those of the large one.
    values, vectors = np.linalg.eigh(learned @ learned.T)
    many = values > _SHARED_BY * values.mean()
    many[: -_MOST_SHARED] = False
    shared = _unit(vectors[:, many].T @ learned)
    return _unit(scaled - (scaled @ shared.T) @ shared)


def _components(detail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D] of detail [N, D] and its principal components [D, C], divided by the deviation along them."""
    learned = detail[:: -(-len(detail) // _MOST_LEARNED_FROM)]
    mean = learned.mean(0)
    if len(learned) < _FEWEST_LEARNED_FROM:
        return mean, np.eye(detail.shape[1], dtype=np.float32)
    values, vectors = np.linalg.eigh(np.cov(learned, rowvar=False, bias=True))
    count = min(_COMPONENTS, len(learned) // 3)
    return mean, (vectors[:, -count:] / np.sqrt(np.maximum(values[-count:], 1e-6))).astype(np.float32)


def _distinct(scores: np.ndarray, count: int) -> Iterator[tuple[int, float]]:
    """(place, by how many standard deviations it stands out) of the largest scores [N] that stand out far enough."""
    largest = _largest(scores, count)
    rest = np.delete(scores, largest[: len(scores) // 3])
    mean, deviation = float(rest.mean()), max(float(rest.std()), _SMALLEST_DEVIATION)
    for i in largest.tolist():
        distinct = (float(scores[i]) - mean) / deviation
        if distinct >= _LEAST_DISTINCT:
            yield i, distinct


def _within(copy: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The window of the original that the copy shows, from the windows of one frame that both show."""
    window = np.empty(4)
    window[0::2] = (copy[0::2] - original[0::2]) / original[1::2]
    window[1::2] = copy[1::2] / original[1::2]
    return window


def _cells(line: Sequence[float], cells: int, side: int) -> np.ndarray:
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


def _shrunk(small: np.ndarray) -> np.ndarray:
    part = len(small) // _REGISTERED_SIDE
    cells = np.asarray(small, np.float32).reshape(_REGISTERED_SIDE, part, _REGISTERED_SIDE, part)
    return cells.mean((1, 3))


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest values, largest first."""
    count = min(count, len(values))
    best = np.argpartition(values, -count)[-count:]
    return best[np.argsort(-values[best])]


def _unit(values: np.ndarray) -> np.ndarray:
    return (values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-3)).astype(np.float32)
