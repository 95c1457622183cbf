"""An export that is killed at any moment leaves whole versions only, and never touches an older one."""

import os
import pathlib
import shutil
import sys

import pytest

from mvtec_tf.graphs import saved_model
from mvtec_tf.serving import warmup
from mvtec_tf.serving.export import export_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed(small_run, tmp_path_factory):
    """(folder of all models, as one left it that was killed before its version had its name; what versions there were
    whenever it was about to touch the disk: a kill leaves what is there; contents of versions 1 and 2)."""
    root, left = (tmp_path_factory.mktemp(name) for name in ("whole", "killed"))
    first = export_run(small_run[0], "killed", root)
    before, moments, watching = _contents(first), [], [True]

    def watch(event, arguments):
        # Whoever looks opens files too.
        if watching and event.partition(".")[0] in ("open", "os", "shutil") and str(root) in str(arguments):
            watching.clear()
            moments.append({path.name: _contents(path) for path in first.parent.glob("[!.]*")})
            if event == "os.rename" and os.fspath(arguments[1]) == str(first.parent / "2"):
                shutil.copytree(root, left, dirs_exist_ok=True)
            watching.append(True)

    sys.addaudithook(watch)
    second = export_run(small_run[0], "killed", root)
    watching.clear()
    return left, moments, {"1": before, "2": _contents(second)}


def test_only_whole_versions_are_there_and_the_older_one_is_untouched(killed):
    root, moments, whole = killed
    assert len(moments) > 20
    assert [set(moment) for moment in (moments[0], moments[-1])] == [{"1"}, {"1", "2"}]
    assert all(contents == whole[version] for moment in moments for version, contents in moment.items())
    assert whole["1"].keys() == whole["2"].keys()
    assert [path.name.split(".")[2] for path in (root / "killed").glob(".*.*")] == ["partial"]


def test_the_next_export_clears_away_what_was_left(killed, small_run):
    root, _, whole = killed
    version = export_run(small_run[0], "killed", root)
    assert version.name == "2"
    assert {path.name for path in version.parent.glob("[!.]*")} == {"1", "2"}
    assert list(root.rglob("*partial*")) == []
    assert _contents(root / "killed" / "1") == whole["1"]
    model = saved_model.load(version)
    assert list(warmup.replay(model, version / "assets.extra" / "tf_serving_warmup_requests"))


def _contents(folder: pathlib.Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
