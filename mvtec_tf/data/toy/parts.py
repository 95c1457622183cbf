"""The two products of the toy factory, drawn as vectorised NumPy: a turned flange and a piece of denim.

Positions and lengths are in half image widths: x and y run from -1 to 1, whatever the size in
pixels, so one seed shows the same scene at every size. Colours are RGB reflectances, 0 to 1.
"""

import dataclasses

import numpy as np

SUBTLE = "subtle"
GROSS = "gross"

# What a camera sees is a sum of shade [S, S] x colour [3], over all layers. Kept apart because one
# shade is three times cheaper to draw and to shrink than one RGB picture.
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres of a square image: x [1, size] and y [size, 1], float64, -1 to 1, y downwards."""
    centres = (2.0 * np.arange(size) + 1.0) / size - 1.0
    return centres[None, :], centres[:, None]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number drawn evenly from [low, high)."""
    return low + (high - low) * rng.random()


def _edge(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 where the signed distance is positive, 0 where negative, a ramp `softness` wide between."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def _waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, count: int, frequency: float) -> np.ndarray:
    """A smooth random field [S, S], about -1 to 1: `count` plane waves of at most `frequency` rad per unit."""
    direction, rate, phase = rng.random((3, count, 1, 1))
    wave_number = frequency * (0.3 + 0.7 * rate)
    along_x = wave_number * np.cos(2.0 * np.pi * direction) * x
    along_y = wave_number * np.sin(2.0 * np.pi * direction) * y + 2.0 * np.pi * phase
    # sin(a + b) of a row and a column needs no sine of the whole image.
    rows = np.concatenate([np.cos(along_y), np.sin(along_y)])[:, :, 0]
    columns = np.concatenate([np.sin(along_x), np.cos(along_x)])[:, 0, :]
    return np.einsum("ky,kx->yx", rows, columns) / np.sqrt(count)


def _blob(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, radius: float, roughness: float) -> np.ndarray:
    """Signed distance, positive inside, to an irregular blot of mean `radius` around the origin."""
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for order, (size, phase) in enumerate(rng.random((4, 2)), start=2):
        outline += roughness * (0.4 + 0.6 * size) / order * np.cos(order * angle + 2.0 * np.pi * phase)
    return radius * outline - np.sqrt(x * x + y * y)


# --- flange -----------------------------------------------------------------------------------

FLANGE_DEFECTS = ("blocked_hole", "chip", "scratch")
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


def flange(rng: np.random.Generator, size: int, defect: str, severity: str) -> tuple[Layers, Layers]:
    """A turned and plated flange with a bore, a keyway and six bolt holes, lying on a dark mat at any angle.

    Args:
      rng: the source of everything that differs from one part to the next.
      size: side of the drawing in pixels.
      defect: one of `FLANGE_DEFECTS`, or "good".
      severity: "subtle" or "gross"; without effect on a good one.

    Returns:
      The part as it should be, and with its defect; the very same object twice if there is none.
    """
    x, y = grid(size)
    mat = 0.15 + 0.012 * _waves(rng, x, y, 4, 9.0)
    part = _Flange(rng, x, y)
    surface = part.surface()
    clean = part.on_mat(mat, surface)
    if defect == "good":
        return clean, clean
    damage = {"blocked_hole": part.block_hole, "chip": part.chip, "scratch": part.scratch}[defect]
    return clean, part.on_mat(mat, damage(rng, severity, surface))


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


class _Flange:
    """Geometry and shading of one flange in its pose; its defects return a damaged surface."""

    def __init__(self, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> None:
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

    def surface(self) -> _Surface:
        """The part as it left the lathe."""
        # Turned grooves reflect along two opposite fans, the bow tie seen on any lathe part.
        square = self.toward_lamp * self.toward_lamp
        metal = 0.56 + self.gloss * square * square * square + self.grooves
        metal += 0.05 * _edge(_HUB - self.radius, self.pixel)
        for ring, sign in ((_RIM - _BEVEL / 2, 1.0), (_HUB, 1.0), (_BORE + _BEVEL / 2, -1.0)):
            on_bevel = _edge(_BEVEL / 2 - np.abs(self.radius - ring), self.pixel)
            metal += on_bevel * (sign * 0.20 * self.toward_lamp - 0.04)
        from_hole, toward_lamp = self._from_hole()
        on_chamfer = _edge(_BEVEL / 2 - np.abs(from_hole - _BOLT_HOLE - _BEVEL / 2), self.pixel)
        metal += on_chamfer * (0.06 - 0.14 * toward_lamp)
        holes = np.maximum(_edge(_BORE - self.radius, self.pixel), self._keyway())
        cover = _edge(_RIM - self.radius, self.pixel) * _edge(from_hole - _BOLT_HOLE, self.pixel) * (1.0 - holes)
        return _Surface(metal, cover)

    def _keyway(self) -> np.ndarray:
        along = self.x * np.cos(self.turn) + self.y * np.sin(self.turn)
        across = self.y * np.cos(self.turn) - self.x * np.sin(self.turn)
        inside = np.minimum(_BORE + 0.07 - along, np.minimum(along, 0.05 - np.abs(across)))
        return _edge(inside, self.pixel)

    def on_mat(self, mat: np.ndarray, surface: _Surface) -> Layers:
        """The part over the mat, with its contact shadow on the side away from the lamp."""
        dx, dy = self.x + 0.05 * np.cos(self.lamp), self.y + 0.05 * np.sin(self.lamp)
        shaded = 1.0 - self.shadow * _edge(_RIM - np.sqrt(dx * dx + dy * dy), 0.12)
        metal, below = surface.cover * surface.metal, ((1.0 - surface.cover) * shaded * mat, _RUBBER)
        if surface.bare is None:
            return (metal, _STEEL), below
        return (metal * (1.0 - surface.bare), _STEEL), (metal * surface.bare, _BRASS), below

    def scratch(self, rng: np.random.Generator, severity: str, surface: _Surface) -> _Surface:
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
        metal = surface.metal + depth * inside * (0.8 * lip - groove)
        return _Surface(metal, surface.cover, 0.3 * inside * lip)

    def chip(self, rng: np.random.Generator, severity: str, surface: _Surface) -> _Surface:
        """Pieces broken out of the outer edge where the part was dropped; the fracture glints."""
        gross = severity == GROSS
        place = 2.0 * np.pi * rng.random()
        bite = np.full_like(surface.metal, -1.0)
        for _ in range(6 if gross else 3):
            size = between(rng, 0.10, 0.16) if gross else between(rng, 0.055, 0.075)
            reach = _RIM - between(rng, -0.2, 0.3) * size
            one = _blob(rng, self.x - reach * np.cos(place), self.y - reach * np.sin(place), size, 0.35)
            bite = np.maximum(bite, one)
            place += between(rng, 0.16, 0.24)
        glint = _edge(0.022 - np.abs(bite + 0.022), 2.0 * self.pixel)
        return _Surface(surface.metal + 0.34 * glint, surface.cover * _edge(-bite, self.pixel), 0.3 * glint)

    def block_hole(self, rng: np.random.Generator, severity: str, surface: _Surface) -> _Surface:
        """A nest of brass swarf caught in a bolt hole: wound chips, bright and dark."""
        gross = severity == GROSS
        hole_x, hole_y = self._hole_centre(int(_BOLTS * rng.random()))
        side = 2.0 * np.pi * rng.random()
        size = between(rng, 0.20, 0.26) if gross else between(rng, 0.105, 0.125)
        dx, dy = self.x - hole_x - 0.05 * np.cos(side), self.y - hole_y - 0.05 * np.sin(side)
        plug = _edge(_blob(rng, dx, dy, size, 0.4), 2.0 * self.pixel)
        arc = np.sqrt((dx - 0.09 * np.sin(side)) ** 2 + (dy + 0.09 * np.cos(side)) ** 2)
        curls = 0.50 + 0.40 * np.sin(between(rng, 62.0, 82.0) * arc)
        metal = surface.metal + plug * (curls - surface.metal)
        return _Surface(metal, np.maximum(surface.cover, plug), 0.7 * plug)


# --- denim ------------------------------------------------------------------------------------

DENIM_DEFECTS = ("broken_yarn", "hole", "stain")
_YARNS = 20  # across the image; at 64 pixels a yarn is still 3.2 pixels wide
_TABLE = 64  # yarns with a colour of their own; more than fit into any pose
_INDIGO = np.array([0.25, 0.33, 0.50])
_ECRU = np.array([0.76, 0.75, 0.70])
_RUST = np.array([0.54, 0.26, 0.09])
_BOARD = np.array([0.66, 0.25, 0.07])
_OCHRE = np.array([0.82, 0.58, 0.28])


def denim(rng: np.random.Generator, size: int, defect: str, severity: str) -> tuple[Layers, Layers]:
    """Denim, a 2/1 twill: indigo warp over undyed weft, the weft showing as diagonals of pale specks.

    Args:
      rng: the source of everything that differs from one piece to the next.
      size: side of the drawing in pixels.
      defect: one of `DENIM_DEFECTS`, or "good".
      severity: "subtle" or "gross"; without effect on a good one.

    Returns:
      The cloth as it should be, and with its defect; the very same object twice if there is none.
    """
    cloth = _Denim(rng, *grid(size))
    clean = cloth.woven()
    if defect == "good":
        return clean, clean
    damage = {"broken_yarn": cloth.break_yarn, "hole": cloth.tear_hole, "stain": cloth.stain}[defect]
    return clean, damage(rng, severity, clean)


class _Denim:
    """One piece of cloth as it lies under the camera; its defects return the damaged picture."""

    def __init__(self, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.pixel = 2.0 / len(y)
        angle = between(rng, -0.08, 0.08)
        pitch = 2.0 / _YARNS * between(rng, 0.98, 1.02)
        phase_u, phase_v = rng.random(2) * 6.0 + _YARNS
        # Cloth is never stretched evenly: up to a fifth of a yarn of drift.
        u = (x * np.cos(angle) + y * np.sin(angle)) / pitch + phase_u + 0.12 * _waves(rng, x, y, 3, 4.0)
        v = (y * np.cos(angle) - x * np.sin(angle)) / pitch + phase_v + 0.12 * _waves(rng, x, y, 3, 4.0)
        warp, weft = np.floor(u), np.floor(v)
        self.v = v
        self.across_warp, self.across_weft = u - warp - 0.5, v - weft - 0.5
        self.warp, self.weft = warp.astype(np.intp), weft.astype(np.intp)
        self.warp_dye = 1.0 + 0.05 * rng.standard_normal(_TABLE)
        self.weft_dye = 1.0 + 0.04 * rng.standard_normal(_TABLE)
        self.streaks = 0.04 * rng.standard_normal((_TABLE, _TABLE))
        self.fibres = 1.0 + 0.07 * rng.standard_normal((_TABLE, _TABLE))
        self.wash = 1.0 + 0.03 * _waves(rng, x, y, 3, 5.0)

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

    def break_yarn(self, rng: np.random.Generator, severity: str, clean: Layers) -> Layers:
        """A stretch of warp yarn is gone and the pale weft lies bare."""
        gross = severity == GROSS
        length = between(rng, 10.0, 15.0) if gross else between(rng, 6.5, 9.0)
        dx, dy = self._spot(rng)
        centre = np.unravel_index(np.argmin(dx * dx + dy * dy), self.v.shape)
        first = self.warp[centre]
        in_yarn = (self.warp >= first) & (self.warp < first + (2 if gross else 1))
        return self.woven(missing=in_yarn & (np.abs(self.v - self.v[centre]) < length / 2.0))

    def tear_hole(self, rng: np.random.Generator, severity: str, clean: Layers) -> Layers:
        """A hole with pale frayed ends; the orange inspection board shows through it."""
        size = between(rng, 0.20, 0.28) if severity == GROSS else between(rng, 0.09, 0.11)
        dx, dy = self._spot(rng)
        inside = _blob(rng, dx, dy, size, 0.45)
        torn = _edge(inside, 2.0 * self.pixel)
        ends = 0.5 + 0.5 * np.sin(9.0 * np.arctan2(dy, dx) + 40.0 * inside)
        fray = 0.55 * ends * _edge(inside + 0.03, 2.0 * self.pixel)
        (warp, _), (weft, _) = clean
        cloth = (((1.0 - torn) * (1.0 - fray) * warp, _INDIGO), ((1.0 - torn) * (weft + fray * (0.9 - weft)), _ECRU))
        return (*cloth, (torn * _edge(inside + 0.04, 0.12), _BOARD))

    def stain(self, rng: np.random.Generator, severity: str, clean: Layers) -> Layers:
        """Rust water from a machine: turns indigo brown and undyed yarn ochre, hardly darker to a grey camera."""
        gross = severity == GROSS
        size = between(rng, 0.32, 0.42) if gross else between(rng, 0.14, 0.17)
        strength = between(rng, 0.80, 0.95)
        dx, dy = self._spot(rng)
        inside = _blob(rng, dx, dy, size, 0.4)
        soaked = strength * _edge(inside, 0.06)
        (warp, _), (weft, _) = clean
        return (*clean, (soaked * warp, _RUST - _INDIGO), (soaked * weft, _OCHRE - _ECRU))
