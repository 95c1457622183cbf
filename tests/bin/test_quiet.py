"""A user sees what the program says; what libraries say beside it shows with --verbosity=1."""

import contextlib
import os
import subprocess
import sys
import warnings

import pytest

from mvtec_tf.bin import closed_pipe, quiet
from tests.conftest import run_process

SMALL_TOY = ["mvtec_tf", "toy", "--out=toy", "--image_size=32", "--train_good=2", "--test_good=2", "--per_defect=2"]


@pytest.mark.slow
def test_stderr_is_empty_unless_it_is_asked_for(toy, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "PYTHONWARN"))}
    flags = (f"--data_dir={toy}", "--features=mean_brightness", "--image_size=32")
    done = run_process("fit_baseline", *flags, f"--run_dir={tmp_path / 'quiet'}", env=environment)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == str(tmp_path / "quiet")
    loud = run_process("fit_baseline", *flags, f"--run_dir={tmp_path / 'quiet'}", "--verbosity=1", env=environment)
    # Said on every processor; that oneDNN is used is said on some.
    assert "cpu_feature_guard" in loud.stderr


def test_what_is_said_while_tensorflow_is_loaded_shows_if_loading_fails(capfd):
    for fails in (False, True):
        with contextlib.suppress(ImportError), quiet._stderr_led_away():
            os.write(2, b"I0000 cudart_stub.cc:31] Could not find cuda drivers\n")
            if fails:
                raise ImportError("an old processor")
        assert ("cuda drivers" in capfd.readouterr().err) is fails
        os.write(2, b"later\n")
        assert capfd.readouterr().err == "later\n"


def test_python_warnings_of_libraries_are_kept_back_unless_they_are_asked_for(monkeypatch, recwarn):
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for verbosity, seen in ((1, 1), (-1, 0)):
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            quiet.set_up(verbosity)
            warnings.warn("deprecated", FutureWarning, stacklevel=1)
        assert len(said) == seen
        # What the user's environment says is left as it is, unless everything is asked for.
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == ("0" if verbosity == 1 else "2")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("program", [["mvtec_tf", "--help"], ["mvtec_tf", "--version"], SMALL_TOY], ids=str)
def test_a_reader_who_goes_ends_the_program_without_a_traceback(program, unbuffered, tmp_path):
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipes = [sys.executable, "-m", *program], {"stdout": write, "stderr": subprocess.PIPE}
    done = subprocess.run(command, **pipes, env=environment, cwd=tmp_path)
    os.close(write)
    assert (done.returncode, done.stderr) == (closed_pipe.STATUS, b"")


@pytest.mark.parametrize("program", [["mvtec_tf", "--version"], ["mvtec_tf", "fit", "--help"], SMALL_TOY], ids=str)
def test_a_program_whose_output_finds_no_room_says_so_and_fails(program, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", *program]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, cwd=tmp_path, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard output cannot be written (No space left on device)" in done.stderr


@pytest.mark.parametrize("program", ["mvtec_tf --help", "mvtec_tf fit --help", "mvtec_tf.bin.evaluate --help"])
def test_a_program_without_an_output_does_its_work(program):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = f"{sys.executable} -m {program} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_a_program_runs_where_python_keeps_no_docstrings_and_matplotlib_knows_no_such_window(tmp_path):
    """Flags are made of docstrings."""
    (tmp_path / "table.csv").write_text("path,category,defect,label,split,score\na,b,,0,evaluate,1\n")
    environment = os.environ | {"PYTHONOPTIMIZE": "2", "MPLBACKEND": "Qt4Agg"}
    flags = ("--predictions=table.csv", "--out=out", "--threshold=0", "--resamples=0")
    done = run_process("evaluate", *flags, env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)}, cwd=tmp_path)
    assert done.stderr == ""


def test_a_program_whose_output_is_read_says_all_of_it_and_ends_well(tmp_path):
    assert run_process("mvtec_tf.bin.main", "--help").stdout.endswith("--help.\n")
    assert run_process("fit_probe", "--help").returncode == 0
