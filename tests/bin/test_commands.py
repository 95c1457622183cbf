"""What a newcomer types first: the list of commands, a slip in a name, a flagfile that is not there."""

import ast
import pathlib
import re

import pytest

from mvtec_tf.bin import main as commands
from tests.conftest import run_binary

_BIN = pathlib.Path(commands.__file__).parent


def test_the_list_names_every_command_once_with_a_line_each(capsys):
    runnable = {path.stem for path in _BIN.glob("*.py") if "entry.run(" in path.read_text()}
    assert {binary for binary, _ in commands.COMMANDS.values()} == runnable
    for argv in (["mvtec-tf"], ["mvtec-tf", "--help"]):
        assert commands.main(argv) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert [line.split()[0] for line in lines] == list(commands.COMMANDS)
        assert all(len(line.split()) > 5 for line in lines)


def test_no_name_means_two_commands():
    rows = [{own, *more, binary.replace("_", "-")} for own, (binary, more) in commands.COMMANDS.items()]
    names = [name for row in rows for name in row]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["toy", "make_toy", "make-toy", "toy-factory"])
def test_a_command_goes_by_its_binarys_name_and_by_others(name, tmp_path):
    refused = run_binary("main", name, f"--out={tmp_path / 'toy'}", "--train_good=0", check=False)
    assert refused.returncode == 1
    assert "train_good=0: expected at least 1" in refused.stderr
    assert "Draws the toy factory" in run_binary("main", name, "--help").stdout


@pytest.mark.parametrize(
    ("slip", "meant"), [("fit-prob", "fit-probe"), ("evalute", "evaluate"), ("expl", "explore"), ("Compare", "compare")]
)
def test_a_slip_in_a_commands_name_is_answered_with_the_nearest(capsys, slip, meant):
    assert commands.main(["mvtec-tf", slip, "--help"]) == 2
    assert f"no command {slip!r}. Did you mean {meant}?" in capsys.readouterr().err


def test_what_is_no_command_is_said_with_the_way_to_it(capsys):
    assert commands.main(["mvtec-tf", "tensorflow-serving"]) == 2
    assert "docker compose up" in capsys.readouterr().err
    assert commands.main(["mvtec-tf", "--data_dir=x", "fit"]) == 2
    assert "flags stand behind a command" in capsys.readouterr().err


def test_a_flag_that_stands_twice_in_a_command_is_said_also_where_it_is_a_list(tmp_path):
    twice = ("--data_dir=a", "--data_dir=b", "--seed=1", "--seed=2", "--head=lda")
    done = run_binary("fit_probe", *twice, "--weights=none", f"--run_dir={tmp_path / 'run'}", check=False)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("--data_dir stands there 2 times, and the last one counts: --data_dir=b. Several")
    assert lines[1] == "--seed stands there 2 times, and the last one counts: --seed=2."
    assert "--data_dir=b: expected a folder" in done.stderr
    (tmp_path / "some.flags").write_text("--seed=1\n--data_dir=a\n")
    flags = (f"--flagfile={tmp_path / 'some.flags'}", "--seed=2", "--data_dir=b", f"--run_dir={tmp_path / 'run'}")
    assert "stands there" not in run_binary("fit_probe", "--weights=none", *flags, check=False).stdout


def test_a_file_where_a_run_is_meant_is_said_to_be_none(tmp_path):
    (tmp_path / "predictions.csv").write_text("path")
    flags = (f"--run={tmp_path / 'predictions.csv'}", "--name=m", f"--saved_models={tmp_path / 'models'}")
    done = run_binary("export", *flags, check=False)
    assert done.returncode == 1
    assert "no run directory (no run.json in it)" in done.stderr


def test_a_slip_in_a_flags_name_is_answered_with_the_nearest():
    done = run_binary("make_toy", "--out=x", "--test_god=3", check=False)
    assert done.returncode == 2
    assert "'test_god'. Did you mean: test_good" in done.stderr


@pytest.mark.parametrize(
    ("flagfile", "words"),
    [
        ("flags/toy_prob.flags", "No such file or directory). Did you mean {here}flags/toy_probe.flags?"),
        ("flags/x", "No such file or directory). {here}flags holds toy_probe.flags."),
        ("toy_probe.flags", "No such file or directory). The path begins at"),
        ("flags", "Is a directory). The path begins at"),
        ("latin1", "not readable as text in UTF-8"),
        ("outer", "--flagfile=inner.flags: cannot be read (No such file or directory)"),
    ],
)
def test_a_flagfile_that_cannot_be_read_is_named_with_what_there_is(flagfile, words, tmp_path):
    (tmp_path / "flags").mkdir()
    (tmp_path / "flags" / "toy_probe.flags").touch()
    (tmp_path / "latin1").write_bytes("--title=Größe".encode("latin1"))
    (tmp_path / "outer").write_text("--flagfile=inner.flags\n")
    done = run_binary("fit_probe", f"--flagfile={flagfile}", check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: --flagfile=")
    assert words.format(here="") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_message_names_commands_as_a_user_types_them_not_their_modules():
    # `evaluate` is a word, and the name of a split.
    names = {binary for own, (binary, _) in commands.COMMANDS.items() if binary not in (own, "evaluate")}
    module = re.compile(rf"(?<![\w./`])(?:{'|'.join(sorted(names))})(?![\w./(])")
    found = []
    for file in sorted(_BIN.parent.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        prose = [node for node in texts if " " in node.value and id(node) not in documentation]
        found += [f"{file.name}:{node.lineno}" for node in prose if module.search(node.value)]
    assert not found


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_help_names_commands_where_one_was_typed_and_modules_where_a_module_was_started(command):
    binary = commands.COMMANDS[command][0]
    names = {binary for own, (binary, _) in commands.COMMANDS.items() if binary not in (own, "evaluate")}
    other = re.compile(rf"mvtec_tf[./]bin|`|(?<![\w./-])(?:{'|'.join(names)})(?![\w./])")
    typed, started = (run_binary(*words, "--help").stdout for words in (("main", command), (binary,)))
    assert not other.search(typed)
    # In the examples, and above the flags.
    assert f"mvtec-tf {command} --" in typed
    assert f"\nmvtec-tf {command}:\n" in typed
    # The page has one example, as a user types it.
    assert f"python -m mvtec_tf.bin.{binary} --" in started or command == "serve"
    assert f"bin/{binary}.py:\n" in started
    shown = [re.findall(r"^  --(\S+):", text, re.MULTILINE) for text in (typed, started)]
    assert shown[0] == shown[1]


def test_ctrl_c_while_the_flags_are_loaded_is_told_in_a_sentence(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.runpy, "run_module", interrupted)
    assert commands.main(["mvtec-tf", "fit"]) == 130
    assert capsys.readouterr().err == "ERROR: Interrupted by SIGINT, before anything was begun.\n"
