"""A circuit board, the toy factory's aligned part: it lies alike in every photograph, as in a fixture."""

from typing import ClassVar

import numpy as np

from mvtec_tf.data.toy.drawing import GROSS, Layers, Piece, between, blob, edge, grid

# Of the design, which all boards share: cells a side, in each of which one component lies.
_CELLS = 6
_DESIGN = 7
_BOARD = np.array([0.10, 0.33, 0.17])
# Kinds of component: colour, half width and half height in cells, and how much of it is metal at both ends.
_KINDS = (
    (np.array([0.08, 0.08, 0.09]), 0.40, 0.32, 0.10),
    (np.array([0.62, 0.50, 0.34]), 0.30, 0.14, 0.25),
    (np.array([0.22, 0.24, 0.42]), 0.16, 0.30, 0.15),
)
_METAL = np.array([0.74, 0.75, 0.76])
_SOFT = 0.01
# Half image widths by which a component, and a whole board, lies elsewhere.
_PLACED, _FIXED = 0.003, 0.003


class Board(Piece):
    """Components on a green board, each a little off its place."""

    defects: ClassVar = {"missing": "leave_out", "scratch": "scratch", "splash": "splash"}

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        x, y = grid(size)
        self.x, self.y = x - between(rng, -_FIXED, _FIXED), y - between(rng, -_FIXED, _FIXED)
        design = np.random.default_rng(_DESIGN)
        self.kinds = design.integers(len(_KINDS), size=(_CELLS, _CELLS))
        self.turned = design.random((_CELLS, _CELLS)) < 0.5
        self.off = _PLACED * rng.uniform(-1.0, 1.0, size=(2, _CELLS, _CELLS))
        self.tone = 1.0 + 0.03 * rng.standard_normal((_CELLS, _CELLS))
        self.clean = self._populated()

    def _populated(self, without: tuple[int, int] | None = None) -> Layers:
        """The board with all its components but one."""
        bare, metal = np.ones((self.y.size, self.x.size)), np.zeros((self.y.size, self.x.size))
        bodies = [np.zeros_like(bare) for _ in _KINDS]
        for row, column in np.ndindex(_CELLS, _CELLS):
            kind = int(self.kinds[row, column])
            _, half_width, half_height, ends = _KINDS[kind]
            across, down = self._around(row, column)
            if self.turned[row, column]:
                across, down = down, across
            height = edge(half_height / _CELLS * 2 - np.abs(down), _SOFT)
            whole = edge(half_width / _CELLS * 2 - np.abs(across), _SOFT) * height
            body = edge((half_width - ends * half_width) / _CELLS * 2 - np.abs(across), _SOFT) * height
            bare = bare * (1.0 - whole)
            if (row, column) == without:
                # Of a component that was left out, the two pads.
                metal += 0.8 * (whole - body)
                bare = bare + body
            else:
                metal += whole - body
                bodies[kind] += self.tone[row, column] * body
        layers = [(body, colour) for body, (colour, *_) in zip(bodies, _KINDS, strict=True)]
        return ((bare, _BOARD), (metal, _METAL), *layers)

    def _around(self, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        """x and y from a component's own middle."""
        right, below = ((2 * place + 1) / _CELLS - 1 for place in (column, row))
        return self.x - right - self.off[0, row, column], self.y - below - self.off[1, row, column]

    def leave_out(self, rng: np.random.Generator, severity: str) -> Layers:
        """A component is missing, a large one or a small one."""
        wanted = self.kinds == 0 if severity == GROSS else self.kinds > 0
        places = np.argwhere(wanted)
        row, column = places[rng.integers(len(places))]
        return self._populated(without=(int(row), int(column)))

    def scratch(self, rng: np.random.Generator, severity: str) -> Layers:
        """Bare metal along a straight line."""
        length = between(rng, 0.5, 0.8) if severity == GROSS else between(rng, 0.2, 0.35)
        along, across = self._turned(rng)
        depth = edge(length / 2 - np.abs(along), _SOFT) * edge(0.008 - np.abs(across), _SOFT)
        return self._over(depth)

    def splash(self, rng: np.random.Generator, severity: str) -> Layers:
        """A drop of solder where none belongs."""
        radius = between(rng, 0.05, 0.08) if severity == GROSS else between(rng, 0.025, 0.04)
        along, across = self._turned(rng)
        return self._over(edge(blob(rng, along, across, radius, 0.4), _SOFT))

    def _turned(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates around a random place that is not at the very edge, at a random angle."""
        x, y, angle = self.x - between(rng, -0.8, 0.8), self.y - between(rng, -0.8, 0.8), between(rng, 0.0, 2 * np.pi)
        return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    def _over(self, cover: np.ndarray) -> Layers:
        """The board under metal, as far as it covers, 0 to 1."""
        return (*((shade * (1.0 - cover), colour) for shade, colour in self.clean), (cover, _METAL))
