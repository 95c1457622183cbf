"""Draws the rooms of `mvtec_tf` and who imports whom, from the imports themselves: docs/images/rooms.svg.

python -m tools.draw_rooms

A room stands above all that it imports. An arrow that follows from others is left out: where `jobs` imports `features`
and `features` imports `data`, nothing more is said by an arrow from `jobs` to `data`.
"""

import ast
import html
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import mvtec_tf

PACKAGE = pathlib.Path(mvtec_tf.__file__).parent
PICTURE = PACKAGE.parent / "docs" / "images" / "rooms.svg"
# One box on the lowest floor for the small files that serve all rooms.
FOUNDATION = "errors, files, ..."
_FACES = ("__init__", "__main__", "api")
_WIDTH, _HEIGHT, _GAP, _RISE, _MARGIN = 148, 40, 26, 62, 18


def imports(package: pathlib.Path = PACKAGE) -> dict[str, set[str]]:
    """Room -> the rooms that it imports, wherever in a file it does so."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = _room(path.relative_to(package).with_suffix("").parts[0], package)
        if room is not None:
            others = {_room(name, package) for name in imported(path)}
            found.setdefault(room, set()).update(others - {room, None})
    return found


def arrows(rooms: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """(room, a room that it imports), without those that follow from others."""
    beyond = {room: set().union(*(reached(rooms, next_room) for next_room in rooms[room])) for room in rooms}
    return {(room, target) for room in rooms for target in rooms[room] - beyond[room]}


def reached(rooms: Mapping[str, set[str]], start: str) -> set[str]:
    """The rooms that `start` imports, and those that they import, and so on."""
    found: set[str] = set()
    waiting = set(rooms[start])
    while waiting:
        room = waiting.pop()
        found.add(room)
        waiting |= rooms[room] - found
    return found


def floors(rooms: Mapping[str, set[str]]) -> list[list[str]]:
    """The rooms of each floor, the lowest first.

    Raises:
      ValueError: rooms import each other in a circle.
    """
    circle = sorted(room for room in rooms if room in reached(rooms, room))
    if circle:
        raise ValueError(f"{', '.join(circle)} import each other in a circle: there is no floor for them")
    height = {room: len(_longest(rooms, room)) for room in rooms}
    return [sorted(room for room in rooms if height[room] == level) for level in range(max(height.values()) + 1)]


def draw(rooms: Mapping[str, set[str]]) -> str:
    """The picture, as the text of an SVG file."""
    levels = floors(rooms)
    total = max(map(len, levels)) * (_WIDTH + _GAP) - _GAP + 2 * _MARGIN
    high = len(levels) * (_HEIGHT + _RISE) - _RISE + 2 * _MARGIN
    corners = {
        room: ((total - len(level) * (_WIDTH + _GAP) + _GAP) / 2 + place * (_WIDTH + _GAP), top)
        for number, level in enumerate(reversed(levels))
        for top in [_MARGIN + number * (_HEIGHT + _RISE)]
        for place, room in enumerate(level)
    }
    pairs = sorted(arrows(rooms))
    lines = [_line(*_ends(corners, pairs, *pair)) for pair in pairs]
    boxes = [_box(room, *corners[room]) for room in sorted(rooms)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:g} {high:g}" font-family="sans-serif" '
        'font-size="15" text-anchor="middle">\n'
        "<title>Rooms of mvtec_tf; an arrow points to what a room imports</title>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#78909c"/></marker></defs>\n'
        f'<rect width="{total:g}" height="{high:g}" fill="#ffffff"/>'
    )
    return "\n".join([head, *lines, *boxes, "</svg>"]) + "\n"


def _room(first: str, package: pathlib.Path) -> str | None:
    """The room of a module by the first of its names; None of the face, which may know all."""
    if first in _FACES:
        return None
    return first if (package / first).is_dir() else FOUNDATION


def imported(path: pathlib.Path) -> Iterator[str]:
    """The first name below the package of everything of it that a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        full: list[str] = []
        if isinstance(node, ast.Import):
            full = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{one.name}" for one in node.names]
        for name in full:
            parts = name.split(".")
            if parts[0] == mvtec_tf.__name__ and len(parts) > 1:
                yield parts[1] if not parts[1].startswith("_") else "__init__"


def _longest(rooms: Mapping[str, set[str]], room: str) -> list[str]:
    return max(([*_longest(rooms, below), below] for below in rooms[room]), key=len, default=[])


def _ends(
    corners: Mapping[str, tuple[float, float]], pairs: Sequence[tuple[str, str]], room: str, target: str
) -> tuple[float, float, float, float]:
    """Where an arrow begins and ends, x and y; several at one box are spread along its side, in their order."""
    below = sorted((other for one, other in pairs if one == room), key=corners.__getitem__)
    above = sorted((one for one, other in pairs if other == target), key=corners.__getitem__)
    (left, top), (to_left, to_top) = corners[room], corners[target]
    return left + _share(below, target), top + _HEIGHT, to_left + _share(above, room), to_top


def _share(order: Sequence[str], name: str) -> float:
    return _WIDTH * (order.index(name) + 1) / (len(order) + 1)


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    bend = (to_y - y) / 2
    path = f"M{x:g},{y:g} C{x:g},{y + bend:g} {to_x:g},{to_y - bend:g} {to_x:g},{to_y:g}"
    return f'<path d="{path}" fill="none" stroke="#78909c" stroke-width="1.4" marker-end="url(#head)"/>'


def _box(room: str, left: float, top: float) -> str:
    place = f'x="{left:g}" y="{top:g}" width="{_WIDTH}" height="{_HEIGHT}"'
    shape = f'<rect {place} rx="6" fill="#eceff1" stroke="#455a64"/>'
    return f'{shape}<text x="{left + _WIDTH / 2:g}" y="{top + _HEIGHT / 2 + 5:g}">{html.escape(room)}</text>'


def main() -> None:
    """Writes the picture."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(draw(imports()), encoding="utf-8")
    print(PICTURE)


if __name__ == "__main__":
    main()
