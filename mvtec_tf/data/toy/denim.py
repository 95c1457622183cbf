"""A piece of denim, the toy factory's cloth."""

from typing import ClassVar

import numpy as np

from mvtec_tf.data.toy.drawing import GROSS, Layers, Piece, between, blob, edge, grid, waves

_YARNS = 20  # across the image; at 64 pixels a yarn is still 3.2 pixels wide
_TABLE = 64  # yarns with a colour of their own; more than fit into any pose
_INDIGO = np.array([0.25, 0.33, 0.50])
_ECRU = np.array([0.76, 0.75, 0.70])
_RUST = np.array([0.54, 0.26, 0.09])
_BOARD = np.array([0.66, 0.25, 0.07])
_OCHRE = np.array([0.82, 0.58, 0.28])


class Denim(Piece):
    """Denim, a 2/1 twill: indigo warp over undyed weft, the weft showing as diagonals of pale specks."""

    defects: ClassVar = {"broken_yarn": "break_yarn", "hole": "tear_hole", "stain": "stain"}

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        x, y = grid(size)
        self.x, self.y = x, y
        self.pixel = 2.0 / len(y)
        angle = between(rng, -0.08, 0.08)
        pitch = 2.0 / _YARNS * between(rng, 0.98, 1.02)
        phase_u, phase_v = rng.random(2) * 6.0 + _YARNS
        # Cloth is never stretched evenly: up to a fifth of a yarn of drift.
        u = (x * np.cos(angle) + y * np.sin(angle)) / pitch + phase_u + 0.12 * waves(rng, x, y, 3, 4.0)
        v = (y * np.cos(angle) - x * np.sin(angle)) / pitch + phase_v + 0.12 * waves(rng, x, y, 3, 4.0)
        warp, weft = np.floor(u), np.floor(v)
        self.v = v
        self.across_warp, self.across_weft = u - warp - 0.5, v - weft - 0.5
        self.warp, self.weft = warp.astype(np.intp), weft.astype(np.intp)
        self.warp_dye = 1.0 + 0.05 * rng.standard_normal(_TABLE)
        self.weft_dye = 1.0 + 0.04 * rng.standard_normal(_TABLE)
        self.streaks = 0.04 * rng.standard_normal((_TABLE, _TABLE))
        self.fibres = 1.0 + 0.07 * rng.standard_normal((_TABLE, _TABLE))
        self.wash = 1.0 + 0.03 * waves(rng, x, y, 3, 5.0)
        self.clean = self.woven()

    def woven(self, missing: np.ndarray | None = None) -> Layers:
        """The cloth; `missing`, bool [S, S], says where the warp yarn is not there."""
        order = (self.warp + self.weft) % 3
        warp_on_top = order > 0
        along = np.where(warp_on_top, 0.5 * (order + self.across_weft - 0.5), self.across_warp + 0.5)
        across = np.where(warp_on_top, self.across_warp, self.across_weft)
        if missing is not None:
            warp_on_top = warp_on_top & ~missing
            along, across = np.where(missing, 0.5, along), np.where(missing, self.across_weft, across)
        shade = self._yarn_shade(across, along) * self.wash
        warp = shade * self._warp_tone() * warp_on_top
        weft = shade * self.weft_dye[self.weft % _TABLE] * ~warp_on_top
        return (warp, _INDIGO), (weft, _ECRU)

    def _warp_tone(self) -> np.ndarray:
        """Dye of each warp yarn, changing slowly along it: the streaks of ring-spun denim."""
        yarn = self.warp % _TABLE
        here = self.weft // 4
        share = 0.25 * self.v - here
        slow = (1.0 - share) * self.streaks[yarn, here % _TABLE] + share * self.streaks[yarn, (here + 1) % _TABLE]
        return self.warp_dye[yarn] + slow

    def _yarn_shade(self, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        """A round, twisted yarn that dives under its neighbour at both ends of a float."""
        from_end = 4.0 * along * (1.0 - along)
        round_profile = 1.0 - 2.2 * across * across
        dive = 0.55 + 0.45 * np.sqrt(np.clip(from_end, 0.0, 1.0))
        twisted = (4.0 * across + 3.0 * along + 8.0).astype(np.intp)
        return round_profile * dive * self.fibres[twisted + 9 * (self.warp % 6), (self.weft + self.warp) % _TABLE]

    def _spot(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Position relative to a random place that is not at the very edge of the photograph."""
        return self.x - between(rng, -0.78, 0.78), self.y - between(rng, -0.78, 0.78)

    def break_yarn(self, rng: np.random.Generator, severity: str) -> Layers:
        """A stretch of warp yarn is gone and the pale weft lies bare."""
        gross = severity == GROSS
        length = between(rng, 10.0, 15.0) if gross else between(rng, 6.5, 9.0)
        dx, dy = self._spot(rng)
        centre = np.unravel_index(np.argmin(dx * dx + dy * dy), self.v.shape)
        first = self.warp[centre]
        in_yarn = (self.warp >= first) & (self.warp < first + (2 if gross else 1))
        return self.woven(missing=in_yarn & (np.abs(self.v - self.v[centre]) < length / 2.0))

    def tear_hole(self, rng: np.random.Generator, severity: str) -> Layers:
        """A hole with pale frayed ends; the orange inspection board shows through it."""
        size = between(rng, 0.20, 0.28) if severity == GROSS else between(rng, 0.09, 0.11)
        dx, dy = self._spot(rng)
        inside = blob(rng, dx, dy, size, 0.45)
        torn = edge(inside, 2.0 * self.pixel)
        ends = 0.5 + 0.5 * np.sin(9.0 * np.arctan2(dy, dx) + 40.0 * inside)
        fray = 0.55 * ends * edge(inside + 0.03, 2.0 * self.pixel)
        (warp, _), (weft, _) = self.clean
        cloth = (((1.0 - torn) * (1.0 - fray) * warp, _INDIGO), ((1.0 - torn) * (weft + fray * (0.9 - weft)), _ECRU))
        return (*cloth, (torn * edge(inside + 0.04, 0.12), _BOARD))

    def stain(self, rng: np.random.Generator, severity: str) -> Layers:
        """Rust water from a machine: turns indigo brown and undyed yarn ochre, hardly darker to a grey camera."""
        gross = severity == GROSS
        size = between(rng, 0.32, 0.42) if gross else between(rng, 0.14, 0.17)
        strength = between(rng, 0.80, 0.95)
        dx, dy = self._spot(rng)
        inside = blob(rng, dx, dy, size, 0.4)
        soaked = strength * edge(inside, 0.06)
        (warp, _), (weft, _) = self.clean
        return (*self.clean, (soaked * warp, _RUST - _INDIGO), (soaked * weft, _OCHRE - _ECRU))
