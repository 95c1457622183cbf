"""A turned and plated flange, the toy factory's part that lies at any angle."""

import dataclasses
from typing import ClassVar

import numpy as np

from mvtec_tf.data.toy.drawing import GROSS, Layers, Piece, between, blob, edge, grid, waves

_RIM = 0.80
_HUB = 0.36
_BORE = 0.19
_BOLT_CIRCLE = 0.57
_BOLT_HOLE = 0.092
_BOLTS = 6
_BEVEL = 0.03
_STEEL = np.array([0.98, 1.0, 1.03])
_RUBBER = np.array([0.92, 1.0, 1.06])
# Below the nickel plating lies brass. As bright as steel to a grey camera: its luma is 1 too.
_BRASS = np.array([1.35, 0.95, 0.33])


@dataclasses.dataclass(frozen=True)
class _Surface:
    """What lies on the mat, each float64 [S, S].

    Attributes:
      metal: brightness.
      cover: how much of each pixel is metal and not mat, 0 to 1.
      bare: how much of the metal has lost its plating, 0 to 1; None if none has.
    """

    metal: np.ndarray
    cover: np.ndarray
    bare: np.ndarray | None = None


class Flange(Piece):
    """A turned and plated flange with a bore, a keyway and six bolt holes, lying on a dark mat at any angle."""

    defects: ClassVar = {"blocked_hole": "block_hole", "chip": "chip", "scratch": "scratch"}

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        x, y = grid(size)
        self.mat = 0.15 + 0.012 * waves(rng, x, y, 4, 9.0)
        self.pixel = 2.0 / len(y)
        scale = between(rng, 0.98, 1.02)
        self.turn = between(rng, 0.0, 2.0 * np.pi)
        # Object coordinates before the turn: the lamp does not turn with the part.
        self.x = (x - between(rng, -0.04, 0.04)) / scale
        self.y = (y - between(rng, -0.04, 0.04)) / scale
        self.radius = np.sqrt(self.x * self.x + self.y * self.y)
        self.lamp = -0.75 * np.pi + between(rng, -0.25, 0.25)
        self.gloss = between(rng, 0.15, 0.19)
        self.shadow = between(rng, 0.50, 0.60)
        self.grooves = self._tooling(rng)
        self.toward_lamp = (self.x * np.cos(self.lamp) + self.y * np.sin(self.lamp)) / np.maximum(self.radius, 1e-9)
        self.surface = self._turned()
        self.clean = self._on_mat(self.surface)

    def _tooling(self, rng: np.random.Generator) -> np.ndarray:
        """Concentric grooves of the lathe tool [S, S]: fine ones on coarse ones."""
        radii = np.linspace(0.0, 1.6, 1024)
        profile = np.zeros_like(radii)
        for strength, knots in ((0.020, 256), (0.012, 38)):
            profile += strength * np.interp(radii, np.linspace(0.0, 1.6, knots), rng.standard_normal(knots))
        return profile[(self.radius * (1023.0 / 1.6)).astype(np.intp)]

    def _hole_centre(self, number: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        angle = self.turn + (number + 0.5) * 2.0 * np.pi / _BOLTS
        return _BOLT_CIRCLE * np.cos(angle), _BOLT_CIRCLE * np.sin(angle)

    def _from_hole(self) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the nearest bolt hole's centre, and the cosine toward the lamp seen from there."""
        angle = np.arctan2(self.y, self.x) - self.turn
        nearest = np.floor(angle * (_BOLTS / (2.0 * np.pi))).astype(np.intp) % _BOLTS
        hole_x, hole_y = self._hole_centre(np.arange(_BOLTS))
        dx, dy = self.x - hole_x[nearest], self.y - hole_y[nearest]
        distance = np.sqrt(dx * dx + dy * dy)
        return distance, (dx * np.cos(self.lamp) + dy * np.sin(self.lamp)) / np.maximum(distance, 1e-9)

    def _turned(self) -> _Surface:
        """The part as it left the lathe."""
        # Turned grooves reflect along two opposite fans, the bow tie seen on any lathe part.
        square = self.toward_lamp * self.toward_lamp
        metal = 0.56 + self.gloss * square * square * square + self.grooves
        metal += 0.05 * edge(_HUB - self.radius, self.pixel)
        for ring, sign in ((_RIM - _BEVEL / 2, 1.0), (_HUB, 1.0), (_BORE + _BEVEL / 2, -1.0)):
            on_bevel = edge(_BEVEL / 2 - np.abs(self.radius - ring), self.pixel)
            metal += on_bevel * (sign * 0.20 * self.toward_lamp - 0.04)
        from_hole, toward_lamp = self._from_hole()
        on_chamfer = edge(_BEVEL / 2 - np.abs(from_hole - _BOLT_HOLE - _BEVEL / 2), self.pixel)
        metal += on_chamfer * (0.06 - 0.14 * toward_lamp)
        holes = np.maximum(edge(_BORE - self.radius, self.pixel), self._keyway())
        cover = edge(_RIM - self.radius, self.pixel) * edge(from_hole - _BOLT_HOLE, self.pixel) * (1.0 - holes)
        return _Surface(metal, cover)

    def _keyway(self) -> np.ndarray:
        along = self.x * np.cos(self.turn) + self.y * np.sin(self.turn)
        across = self.y * np.cos(self.turn) - self.x * np.sin(self.turn)
        inside = np.minimum(_BORE + 0.07 - along, np.minimum(along, 0.05 - np.abs(across)))
        return edge(inside, self.pixel)

    def _on_mat(self, surface: _Surface) -> Layers:
        """The part over the mat, with its contact shadow on the side away from the lamp."""
        dx, dy = self.x + 0.05 * np.cos(self.lamp), self.y + 0.05 * np.sin(self.lamp)
        shaded = 1.0 - self.shadow * edge(_RIM - np.sqrt(dx * dx + dy * dy), 0.12)
        metal, below = surface.cover * surface.metal, ((1.0 - surface.cover) * shaded * self.mat, _RUBBER)
        if surface.bare is None:
            return (metal, _STEEL), below
        return (metal * (1.0 - surface.bare), _STEEL), (metal * surface.bare, _BRASS), below

    def scratch(self, rng: np.random.Generator, severity: str) -> Layers:
        """Parallel scuffs across the face, each a dark groove with a bright lip."""
        gross = severity == GROSS
        length = between(rng, 0.55, 0.75) if gross else between(rng, 0.32, 0.40)
        count = 7 if gross else 3
        depth = between(rng, 0.40, 0.48) if gross else between(rng, 0.34, 0.40)
        spacing = 0.085  # at 96 pixels still four from groove to groove
        # On the face midway between two bolt holes; a long one may run over them, as real ones do.
        place = self.turn + (int(_BOLTS * rng.random()) + between(rng, -0.15, 0.15)) * 2.0 * np.pi / _BOLTS
        reach, direction, bend = between(rng, 0.50, 0.60), np.pi * rng.random(), between(rng, -0.5, 0.5)
        dx, dy = self.x - reach * np.cos(place), self.y - reach * np.sin(place)
        along = dx * np.cos(direction) + dy * np.sin(direction)
        across = (dy * np.cos(direction) - dx * np.sin(direction) + bend * along * along) / spacing + 0.5 * count
        number = np.clip(np.floor(across), 0, count - 1).astype(np.intp)
        ends = 0.25 * length * (rng.random((count, 2)) - 0.5)
        ramp = np.minimum(along - ends[number, 0] + 0.5 * length, 0.5 * length + ends[number, 1] - along)
        inside = np.clip(12.0 * ramp, 0.0, 1.0) * ((across > 0) & (across < count))
        phase = across - number
        groove = np.exp(-(((phase - 0.38) / 0.17) ** 2))
        lip = np.exp(-(((phase - 0.68) / 0.15) ** 2))
        metal = self.surface.metal + depth * inside * (0.8 * lip - groove)
        return self._on_mat(_Surface(metal, self.surface.cover, 0.3 * inside * lip))

    def chip(self, rng: np.random.Generator, severity: str) -> Layers:
        """Pieces broken out of the outer edge where the part was dropped; the fracture glints."""
        gross = severity == GROSS
        place = 2.0 * np.pi * rng.random()
        bite = np.full_like(self.surface.metal, -1.0)
        for _ in range(6 if gross else 3):
            size = between(rng, 0.10, 0.16) if gross else between(rng, 0.055, 0.075)
            reach = _RIM - between(rng, -0.2, 0.3) * size
            one = blob(rng, self.x - reach * np.cos(place), self.y - reach * np.sin(place), size, 0.35)
            bite = np.maximum(bite, one)
            place += between(rng, 0.16, 0.24)
        glint = edge(0.022 - np.abs(bite + 0.022), 2.0 * self.pixel)
        metal, cover = self.surface.metal + 0.34 * glint, self.surface.cover * edge(-bite, self.pixel)
        return self._on_mat(_Surface(metal, cover, 0.3 * glint))

    def block_hole(self, rng: np.random.Generator, severity: str) -> Layers:
        """A nest of brass swarf caught in a bolt hole: wound chips, bright and dark."""
        gross = severity == GROSS
        hole_x, hole_y = self._hole_centre(int(_BOLTS * rng.random()))
        side = 2.0 * np.pi * rng.random()
        size = between(rng, 0.20, 0.26) if gross else between(rng, 0.105, 0.125)
        dx, dy = self.x - hole_x - 0.05 * np.cos(side), self.y - hole_y - 0.05 * np.sin(side)
        plug = edge(blob(rng, dx, dy, size, 0.4), 2.0 * self.pixel)
        arc = np.sqrt((dx - 0.09 * np.sin(side)) ** 2 + (dy + 0.09 * np.cos(side)) ** 2)
        curls = 0.50 + 0.40 * np.sin(between(rng, 62.0, 82.0) * arc)
        metal = self.surface.metal + plug * (curls - self.surface.metal)
        return self._on_mat(_Surface(metal, np.maximum(self.surface.cover, plug), 0.7 * plug))
