"""A woven wire mesh, the toy factory's periodic texture: the same everywhere, at any phase, pitch and turn."""

from typing import ClassVar

import numpy as np

from mvtec_tf.data.toy.drawing import GROSS, Layers, Piece, between, grid, waves

_WIRES = 20  # across the image
_WIRE = 0.52  # of a mesh's width
_STEEL = np.array([1.0, 0.96, 0.90])
_DARK = 0.16


class Mesh(Piece):
    """Plain woven wire before a dark ground, each wire over and under its neighbours in turn."""

    defects: ClassVar = {"bent": "bend", "broken": "break_wire", "missing": "leave_out"}

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        x, y = grid(size)
        angle = between(rng, -0.07, 0.07)
        pitch = 2.0 / _WIRES * between(rng, 0.93, 1.07)
        phases = rng.random(2) + 2 * _WIRES
        sway = [0.08 * waves(rng, x, y, 4, 5.0) for _ in range(2)]
        self.u = (x * np.cos(angle) + y * np.sin(angle)) / pitch + phases[0] + sway[0]
        self.v = (y * np.cos(angle) - x * np.sin(angle)) / pitch + phases[1] + sway[1]
        self.wire = _WIRE * between(rng, 0.95, 1.05)
        self.tarnish = 0.03 * waves(rng, x, y, 4, 9.0)
        # Defects are of either set of wires.
        if rng.random() < 0.5:
            self.u, self.v = self.v, self.u
        # The wire nearest to a random place that is not at the very edge of the photograph.
        dx, dy = x - between(rng, -0.84, 0.84), y - between(rng, -0.84, 0.84)
        place = np.unravel_index(np.argmin(dx * dx + dy * dy), self.u.shape)
        self.chosen, self.along = np.floor(self.u[place]), self.v - self.v[place]
        self.clean = self.woven()

    def woven(self, shift: np.ndarray | float = 0.0, left: np.ndarray | float = 1.0) -> Layers:
        """The mesh; `shift` moves the wires of the first set sideways, in meshes, and `left` says how much of them is
        there, 0 to 1."""
        u, v = self.u - shift, self.v
        over = np.where((np.floor(u) + np.floor(v)) % 2 == 0, 1.0, -1.0)
        first = left * self._profile(u) * (1.0 + 0.25 * over * self._crown(v))
        second = self._profile(v) * (1.0 - 0.25 * over * self._crown(u))
        top = np.maximum(first, second)
        twist = np.where(first > second, np.sin(2 * np.pi * (3 * v + u)), np.sin(2 * np.pi * (3 * u + v)))
        return ((_DARK + self.tarnish + (0.45 + 0.03 * twist) * top, _STEEL),)

    def _profile(self, across: np.ndarray) -> np.ndarray:
        """Height of a round wire over its axis, 0 beside it."""
        distance = np.abs(across - np.floor(across) - 0.5) * 2.0 / self.wire
        return np.sqrt(np.clip(1.0 - distance * distance, 0.0, 1.0))

    def _crown(self, along: np.ndarray) -> np.ndarray:
        """How far a wire stands out from the middle plane, 1 where it crosses another."""
        return np.cos(np.pi * (along - np.floor(along) - 0.5))

    def bend(self, rng: np.random.Generator, severity: str) -> Layers:
        """A wire is pushed aside, and its neighbours a little with it."""
        gross = severity == GROSS
        amount = (between(rng, 0.40, 0.50) if gross else between(rng, 0.28, 0.38)) * (1 if rng.random() < 0.5 else -1)
        length = between(rng, 1.4, 2.2) if gross else between(rng, 0.7, 1.2)
        near = np.clip(1.6 - np.abs(self.u - self.chosen - 0.5), 0.0, 1.0)
        return self.woven(shift=amount * np.exp(-((self.along / length) ** 2)) * near)

    def break_wire(self, rng: np.random.Generator, severity: str) -> Layers:
        """A gap in a wire."""
        half = between(rng, 0.8, 1.4) if severity == GROSS else between(rng, 0.55, 0.8)
        return self.woven(left=1.0 - ((np.floor(self.u) == self.chosen) & (np.abs(self.along) < half)))

    def leave_out(self, rng: np.random.Generator, severity: str) -> Layers:
        """A wire is missing over many meshes, or so thin that it hardly shows."""
        half = between(rng, 5.0, 9.0) if severity == GROSS else between(rng, 2.5, 4.5)
        rest = 0.0 if severity == GROSS else between(rng, 0.2, 0.4)
        missing = (np.floor(self.u) == self.chosen) & (np.abs(self.along) < half)
        return self.woven(left=np.where(missing, rest, 1.0))
