"""What the README and docs/ say is so: their commands and flags exist, and what a newcomer types runs."""

import ast
import dataclasses
import os
import re
import shlex
import shutil
import subprocess

import pytest

from mvtec_tf.bin.main import COMMANDS
from mvtec_tf.features import recipe
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10
from tools import draw_rooms

# What makes a documented command small enough for a test; flags behind those of the documentation override them.
SMALL = {
    "toy": ["--image_size=64", "--train_good=16", "--test_good=6", "--per_defect=5"],
    "fit": ["--backbone=resnet10"],
    "pretrain": ["--epochs=1", "--image_size=64", "--projection_hidden=32", "--projection_dimensions=16"],
}
# A test has no network.
VARIABLES = {"WEIGHTS": "none"}
SMALL_IN_PYTHON = {
    r'weights="imagenet", epochs=\d+': 'weights="none", backbone="resnet10", epochs=1, image_size=64',
    r'weights="imagenet"': 'weights="none", backbone="resnet10"',
}


def blocks(page, language="sh"):
    """The texts of a page's blocks of code."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(block):
    """The lines of a block of shell, without comments, each that goes on in the next one joined to it."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def pages(root):
    return [root / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((root / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.fixture(scope="module")
def known_flags():
    """Command -> the names of its flags, as its --help says them."""
    found = {}
    for command, (binary, _) in COMMANDS.items():
        text = run_binary(binary, "--help").stdout
        found[command] = {"flagfile", "verbosity", "help"}
        for no, name in re.findall(r"^ +--(\[no\])?(\w+):", text, re.MULTILINE):
            found[command] |= {name, f"no{name}"} if no else {name}
    return found


def test_the_readme_fits_on_a_screen_or_two(root):
    text = (root / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text) <= 9000


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_every_command_is_listed_in_the_order_of_the_help(root, page):
    text = (root / page).read_text("utf-8")
    table = text[text.index("| command | what it does |") :].split("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(COMMANDS)


def test_every_documented_command_and_flag_exists(root, known_flags):
    seen = 0
    for page in pages(root):
        text = page.read_text("utf-8")
        typed = [line for block in blocks(page) for line in commands(block)]
        typed += re.findall(r"`(mvtec-tf [^`]+)`", text)
        for line in typed:
            for command, rest in re.findall(r"mvtec-tf ([a-z][\w-]*)([^;|&]*)", line):
                assert command in COMMANDS, f"{page.name}: {line}"
                # What stands in quotes is the value of a flag, perhaps another program's options.
                for flag in re.findall(r"(?:^|\s)--(\w+)", re.sub(r'"[^"]*"', "", rest)):
                    assert flag in known_flags[command], f"{page.name}: {command} has no --{flag}: {line}"
                    seen += 1
    assert seen > 50


def test_every_flagfile_names_a_command_that_has_its_flags(root, known_flags):
    for file in sorted((root / "flags").glob("*.flags")):
        text = file.read_text("utf-8")
        command = re.search(rf"^# mvtec-tf ([\w-]+) .*--flagfile=flags/{file.name} ", text, re.MULTILINE)[1]
        flags = {re.fullmatch(r"--(\w+)(=.+)?", line)[1] for line in text.splitlines() if not line.startswith("#")}
        assert flags, file.name
        assert flags <= known_flags[command], file.name


def test_every_flag_that_a_page_speaks_of_exists(root, known_flags):
    known = set().union(*known_flags.values()) | {"what", "strict", "allow_leak"}
    for page in pages(root):
        for flag in re.findall(r"`--(\w+)", page.read_text("utf-8")):
            assert flag in known or flag.endswith("_"), f"{page.name}: --{flag}"


def test_every_file_that_the_architecture_names_exists(root):
    named = re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", (root / "docs" / "architecture.md").read_text("utf-8"))
    missing = [name for name in named if not any((root / base / name).exists() for base in (".", "mvtec_tf"))]
    assert named
    assert missing == []


def test_the_diagram_of_rooms_shows_the_imports_as_they_are(root):
    drawn = (root / "docs" / "images" / "rooms.svg").read_text("utf-8")
    assert drawn == draw_rooms.draw(draw_rooms.imports()), "python -m tools.draw_rooms draws it anew"


def test_rooms_that_import_each_other_have_no_floor_and_are_named():
    assert draw_rooms.floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [["c"], ["b"], ["a"]]
    assert draw_rooms.arrows({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {("a", "b"), ("b", "c")}
    with pytest.raises(ValueError, match="a, b import each other"):
        draw_rooms.floors({"a": {"b"}, "b": {"a"}, "c": set()})


class Newcomer:
    """Somebody who types what a page says, in an empty folder beside `flags/`."""

    def __init__(self, root, folder):
        self.root, self.folder, self.variables = root, folder, {}
        shutil.copytree(root / "flags", folder / "flags")

    def type(self, line):
        """Does one line of a page: commands within this process, the rest by a shell."""
        if line.startswith("make "):
            subprocess.run([*shlex.split(line), "--dry-run"], cwd=self.root, check=True, capture_output=True)
        elif line.startswith("export "):
            self.variables |= dict(pair.split("=", 1) for pair in shlex.split(line)[1:]) | VARIABLES
        elif line.startswith("mvtec-tf "):
            for name, value in self.variables.items():
                line = re.sub(rf"\${name}\b", value, line)
            _, command, *rest = shlex.split(line)
            if not command.startswith("-"):
                run_binary(COMMANDS[command][0], *rest, *self._small(command, rest), cwd=self.folder)
        elif line != ". .venv/bin/activate":
            subprocess.run(line, shell=True, cwd=self.folder, check=True, env=os.environ | self.variables)

    def _small(self, command, rest):
        # An encoder brings its own backbone, whose layers are called so here.
        encoder = any(flag.startswith("--encoder") for flag in rest)
        return ["--feature_layers=relu0,relu1"] if encoder else SMALL.get(command, [])


@pytest.fixture
def newcomer(root, tmp_path, monkeypatch):
    """Somebody for whom the recipe's own encoder sees 64 pixels, and whose resnet10 has two layers."""
    small = dataclasses.replace(recipe.RECIPES[recipe.FEW_LABELS], image_size=64)
    monkeypatch.setitem(recipe.RECIPES, recipe.FEW_LABELS, small)
    with in_place_of_resnet10():
        yield Newcomer(root, tmp_path)


@pytest.mark.slow
def test_every_command_of_first_steps_runs_as_printed(root, newcomer):
    for line in _lines(root / "docs" / "first-steps.md"):
        newcomer.type(line)
    lines = (newcomer.folder / "results" / "new.csv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + 5


def test_every_command_of_the_readme_is_one_of_first_steps_which_are_run(root):
    first_steps = {" ".join(line.split()) for line in _lines(root / "docs" / "first-steps.md")}
    readme = [" ".join(line.split()) for line in _lines(root / "README.md")]
    assert len(readme) >= 8
    assert [line for line in readme if line not in first_steps] == []


def test_every_call_of_the_readmes_python_is_one_of_the_page_whose_python_is_run(root):
    readme, page = (_calls(root / name) for name in ("README.md", "docs/python-api.md"))
    assert len(readme) >= 6
    for name, settings in readme.items():
        if name != "print":
            assert name in page
            assert settings <= page[name], name


@pytest.mark.slow
def test_the_python_of_its_page_runs_as_printed(root, newcomer, monkeypatch):
    newcomer.type("mvtec-tf toy --out=toy --products=flange")
    monkeypatch.chdir(newcomer.folder)
    names = {}
    for block in blocks(root / "docs" / "python-api.md", "python"):
        for pattern, small in SMALL_IN_PYTHON.items():
            block = re.sub(pattern, small, block)
        exec(block, names)
    assert names["report"].metrics["balanced_accuracy"] >= 0


def _lines(page):
    return [line for block in blocks(page) for line in commands(block)]


def _calls(page):
    """What a page's Python calls, and the names that it subscripts: name -> the settings that it gives."""
    found = {}
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                found.setdefault(name, set()).update(keyword.arg for keyword in node.keywords)
            elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
                found.setdefault(node.value.attr, set())
    return found
