"""What the disk refuses ends in one message that names the flag and the folder, whoever ran into it."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from absl import flags

from mvtec_tf import files
from mvtec_tf.bin import entry, failures
from mvtec_tf.errors import UsageError, UserError

# Every way in which this project writes, into a disk on which no file may exceed 100 kB.
_WRITE_TOO_MUCH = """
import pathlib, resource, sys
import keras, matplotlib, numpy as np, tensorflow as tf
from absl import flags
from mvtec_tf import files as atomic
from mvtec_tf.bin import failures
from mvtec_tf.networks import weights

folder = pathlib.Path(sys.argv[1])
values = flags.FlagValues()
flags.DEFINE_string("run_dir", str(folder), "", flag_values=values)
flags.DEFINE_string("cache", "memory", "", flag_values=values)
values(["program"])
noise = np.random.default_rng(0).random(100_000)
network = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300)])
module = tf.Module()
module.noise = tf.Variable(noise)
module.serve = tf.function(lambda: {"x": module.noise}, input_signature=[])
figure = matplotlib.figure.Figure()
figure.figimage(noise.reshape(200, 500))

def memory_map(path):
    np.lib.format.open_memmap(path / "images.npy", mode="w+", dtype=np.uint8, shape=(10**6,))[:] = 1

WAYS = {
    "text": lambda path: atomic.write_text(path / "x.json", "x" * 10**6),
    "numpy": lambda path: np.savez(path / "x.npz", noise=noise),
    "memory map": memory_map,
    "keras": lambda path: weights.save_weights(network, path / "x.weights.h5"),
    "tensorflow": lambda path: tf.saved_model.save(module, str(path), signatures={"serve": module.serve}),
    "checkpoint": lambda path: tf.train.Checkpoint(x=module.noise).write(str(path / "x")),
    "matplotlib": lambda path: figure.savefig(path / "x.png", dpi=300),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for name, write in WAYS.items():
    try:
        with atomic.new_directory(folder / "part") as directory:
            write(directory)
    except Exception as error:
        print(f"{name}: {failures.describe(error, values)}")
"""
_WAYS = ("text", "numpy", "memory map", "keras", "tensorflow", "checkpoint", "matplotlib")


@pytest.fixture
def values(tmp_path):
    values = flags.FlagValues()
    for name, value in (("run_dir", "run"), ("cache", "run/cache"), ("title", "x")):
        flags.DEFINE_string(name, str(tmp_path / value) if name != "title" else value, "", flag_values=values)
    flags.DEFINE_list("data_dir", [str(tmp_path / "a"), str(tmp_path / "b")], "", flag_values=values)
    values(["program"])
    return values


def _be_a_program(monkeypatch, values):
    monkeypatch.setattr(entry.flags, "FLAGS", values)
    monkeypatch.setattr(entry.app, "define_help_flags", lambda: None)
    monkeypatch.setattr(sys, "argv", ["program"])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def _run(main, monkeypatch, capsys, values):
    """Exit status and what stood on stderr."""
    _be_a_program(monkeypatch, values)
    with pytest.raises(SystemExit) as ended:
        entry.run(main)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.ENOTDIR])
def test_the_disk_refusing_a_file_is_status_1_and_names_flag_and_folder(monkeypatch, capsys, values, tmp_path, number):
    def main():
        raise OSError(number, os.strerror(number), str(tmp_path / "run" / "checkpoints" / ".1.partial.w.h5"))

    code, text = _run(main, monkeypatch, capsys, values)
    assert code == 1
    assert text.startswith(f"ERROR: --run_dir={tmp_path / 'run'}: ")
    assert os.strerror(number) in text
    assert str(tmp_path) in text.split(":", 2)[2]


def test_an_error_that_names_no_file_names_all_flags_for_output(values, tmp_path):
    message = failures.describe(OSError(errno.ENOSPC, "No space left on device"), values)
    assert f"--run_dir={tmp_path / 'run'}, --cache={tmp_path / 'run' / 'cache'}: no room" in message
    assert "MiB are free" in message


def test_of_nested_folders_the_inner_ones_flag_is_named(values, tmp_path):
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "run" / "cache" / "images.npy"))
    assert failures.describe(error, values).startswith(f"--cache={tmp_path / 'run' / 'cache'}: ")


def test_a_data_folder_that_cannot_be_read_is_named(values, tmp_path):
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "b" / "0.png"))
    assert failures.describe(error, values).startswith(f"--data_dir={tmp_path / 'b'}: ")


def test_what_was_raised_while_handling_the_error_does_not_hide_it(values, tmp_path):
    error = RuntimeError("cannot close")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run" / "x"))
    assert "No space left on device" in failures.describe(error, values)


@pytest.mark.parametrize("error", [ValueError("a bug; File too large"), FileNotFoundError(2, "No such file")])
def test_a_bug_keeps_its_traceback(monkeypatch, capsys, values, error):
    def main():
        raise error

    assert failures.describe(error, values) is None
    _be_a_program(monkeypatch, values)
    with pytest.raises(type(error)):
        entry.run(main)


@pytest.mark.parametrize(("error", "status"), [(UserError("wrong file"), 1), (UsageError("wrong flag"), 2)])
def test_a_refusal_is_a_message_and_a_status(monkeypatch, capsys, values, error, status):
    def main():
        raise error

    code, text = _run(main, monkeypatch, capsys, values)
    assert (code, text) == (status, f"ERROR: {error}\n")


@pytest.fixture
def no_job_of_a_shell():
    """A shell starts background jobs with Ctrl-C ignored, which the program respects: not so here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_sentence_with_the_command_to_go_on_and_the_usual_status(
    monkeypatch, capsys, values, tmp_path, no_job_of_a_shell, number, swallowed
):
    def main():
        with files.new_directory(tmp_path / "model"), files.replacing(tmp_path / "table.csv") as temporary:
            temporary.touch()
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                if swallowed:  # as TensorFlow does while it is loaded
                    raise ImportError("initialization failed") from None
                raise

    monkeypatch.setattr(sys, "orig_argv", ["python", "/bin/mvtec-tf", "fit", "--run_dir=a b"])
    code, text = _run(main, monkeypatch, capsys, values)
    assert code == 128 + number
    assert text.startswith(f"ERROR: Interrupted by {number.name}. ")
    assert text.endswith("To go on: mvtec-tf fit '--run_dir=a b'\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_signal_that_was_ignored_stays_so(monkeypatch, values):
    monkeypatch.setattr(sys, "exit", lambda status: None)
    _be_a_program(monkeypatch, values)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        entry.run(lambda: signal.raise_signal(signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_not_lost_while_an_object_is_thrown_away(monkeypatch, capsys, values, no_job_of_a_shell):
    class Thrown:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def main():
        thrown = Thrown()
        del thrown  # Python prints "Exception ignored" and goes on
        reached.append(1)
        threading.Event().wait(60)
        reached.append(2)

    reached = []
    status, _ = _run(main, monkeypatch, capsys, values)
    assert status == 130
    assert reached == [1]


def test_every_way_of_writing_is_understood_and_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-c", _WRITE_TOO_MUCH, str(tmp_path)]
    root = pathlib.Path(failures.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    messages = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert tuple(messages) == _WAYS
    for message in messages.values():
        assert message.startswith(f"--run_dir={tmp_path}: a file in {tmp_path} is larger than the system allows")
    assert list(tmp_path.iterdir()) == []
