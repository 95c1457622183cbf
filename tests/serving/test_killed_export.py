"""An export that is killed at any moment leaves whole versions only, and never touches an older one."""

import pathlib
import signal
import subprocess
import sys

import pytest

from mvtec_tf.graphs import saved_model
from mvtec_tf.serving import warmup
from mvtec_tf.serving.export import export_run

pytestmark = pytest.mark.slow

MOMENTS = 8

# One process imports TensorFlow and starts none of it; its children each begin an export and are ended by the kernel
# after a share of the processor time that a whole one takes: while reading the run, tracing, writing, renaming.
# SIGPROF is caught by nobody here, so no line of Python and no destructor runs afterwards, as with SIGKILL.
_CHILDREN = """
import os, random, signal, sys
from mvtec_tf.serving.export import export_run

run, root, moments = sys.argv[1], sys.argv[2], int(sys.argv[3])

def child(name, seconds):
    pid = os.fork()
    if pid:
        _, status, used = os.wait4(pid, 0)
        return status, used.ru_utime + used.ru_stime
    signal.setitimer(signal.ITIMER_PROF, seconds)
    export_run(run, name, root)
    os._exit(0)

status, total = child("whole", 0)
assert status == 0
rng = random.Random(0)
for number in range(moments):
    status, _ = child("killed", 0.98 * total * (number + rng.random()) / moments)
    print("ended", os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status), flush=True)
"""


@pytest.fixture(scope="module")
def killed(small_run, tmp_path_factory):
    """(folder of all models, signals that ended the children, contents of version 1 before)."""
    root = tmp_path_factory.mktemp("killed")
    first = export_run(small_run[0], "killed", root)
    before = _contents(first)
    command = [sys.executable, "-c", _CHILDREN, small_run[0], root, str(MOMENTS)]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # Between what the exports say of themselves.
    ends = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ended ")]
    return root, list(map(int, ends)), before


def test_exports_were_killed_at_many_moments(killed):
    ends = killed[1]
    assert len(ends) == MOMENTS
    # One that took less time than the first may have come to its end; none failed.
    assert set(ends) <= {signal.SIGPROF, 0}
    assert ends.count(signal.SIGPROF) >= MOMENTS // 2


def test_only_whole_versions_are_there_and_the_older_one_is_untouched(killed, toy_records):
    root, _, before = killed
    versions = [path for path in (root / "killed").iterdir() if not path.name.startswith(".")]
    assert _contents(root / "killed" / "1") == before
    whole = sorted(path.relative_to(root / "whole" / "1") for path in (root / "whole" / "1").rglob("*"))
    for version in versions:
        assert version.name.isdigit()
        assert sorted(path.relative_to(version) for path in version.rglob("*")) == whole
        model = saved_model.load(version)
        assert list(warmup.replay(model, version / "assets.extra" / "tf_serving_warmup_requests"))


def test_the_next_export_clears_away_what_was_left(killed, small_run):
    root, _, before = killed
    (root / "killed" / ".9.partial.left").mkdir()
    newest = max(int(path.name) for path in (root / "killed").iterdir() if path.name.isdigit())
    version = export_run(small_run[0], "killed", root)
    assert int(version.name) == newest + 1
    assert all(path.name.isdigit() for path in (root / "killed").iterdir())
    assert _contents(root / "killed" / "1") == before
    assert [path.name for path in root.iterdir() if "partial" in path.name] == []


def _contents(folder: pathlib.Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
