"""What a newcomer types first: the list of commands, a slip in a name, a flagfile that is not there."""

import pathlib

import pytest

from mvtec_tf import __main__ as commands
from tests.conftest import run_binary

_BIN = pathlib.Path(commands.__file__).parent / "bin"


def test_the_list_names_every_command_once_with_a_line_each(capsys):
    runnable = {path.stem for path in _BIN.glob("*.py") if "entry.run(main" in path.read_text()}
    assert set(commands.COMMANDS) == runnable
    for argv in (["mvtec_tf"], ["mvtec_tf", "--help"]):
        assert commands.main(argv) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert [line.split()[0] for line in lines] == list(commands.COMMANDS)
        assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize(
    ("slip", "meant"), [("fit-probe", "fit_probe"), ("evalute", "evaluate"), ("explore", "explore_data")]
)
def test_a_slip_in_a_commands_name_is_answered_with_the_nearest(capsys, slip, meant):
    assert commands.main(["mvtec_tf", slip, "--help"]) == 2
    assert f"no command {slip!r}. Did you mean {meant}?" in capsys.readouterr().err


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
