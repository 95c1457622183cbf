"""The house: nothing imports upwards, absl and the names of flags stay in bin/, and rooms stay small enough to find."""

import ast
import pathlib
import re

import pytest

import mvtec_tf
from tools import draw_rooms

ROOT = pathlib.Path(mvtec_tf.__file__).parent
# A room stands above all that it imports.
FLOORS = (
    {"errors"},
    {"files", "settings", "keras_settings", "conformal", "drift", "stopping", "side_by_side"},
    {"ownership", "beam"},
    {"run_directory"},
    {"data", "networks"},
    {"heads", "graphs", "training", "evaluation"},
    {"features", "exploration"},
    {"study", "label_efficiency", "serving"},
    {"app", "jobs"},
    {"api"},
    {"bin"},
    {"__main__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Command lines of other programs, of our own as a person would type them, and what writes flagfiles.
_COMMANDS = {
    *("settings.py", "data/formats/names.py", "jobs/quickstart.py"),
    *("serving/configs.py", "serving/model_card.py", "app/improving.py"),
}
MOST_LINES = 450


def _modules():
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def _room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_module_lies_in_a_room_of_the_house():
    assert {_room(path) for path in _modules()} == set(FLOOR)


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_stands_above_all_that_it_imports(room):
    upwards = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in _modules()
        if _room(path) == room
        for other in draw_rooms.imported(path)
        if other not in (room, "__init__") and FLOOR[other] >= FLOOR[room]
    ]
    assert upwards == []


def test_only_binaries_know_absl():
    others = [
        str(path.relative_to(ROOT))
        for path in _modules()
        if _room(path) != "bin" and re.search(r"^\s*(from|import) absl", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert others == []


def test_messages_below_the_binaries_name_no_flags():
    found = []
    for path in _modules():
        name = path.relative_to(ROOT).as_posix()
        if _room(path) in ("bin", "__main__") or name in _COMMANDS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)
        }
        found += [
            f"{name}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documented
            and re.search(r"(?<![\w-])--[a-z]\w+", node.value)
        ]
    assert found == []


def test_no_file_grows_until_nobody_finds_anything_in_it():
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in _modules()}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}
