"""A finished run that somebody has damaged is completed, not called finished; files that vanish are named."""

import os
import pathlib
import re
import shutil
import signal

import pytest

from mvtec_tf.graphs import scoring
from mvtec_tf.run_directory import read_run
from tests.conftest import run_binary

_FLAGS = ("--features=mean_brightness", "--image_size=32")


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """(flags, run directory) of a finished run."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    flags = (f"--data_dir={toy / 'flange'}", f"--run_dir={run_dir}", *_FLAGS)
    run_binary("fit_baseline", *flags)
    return flags, run_dir


def test_what_is_missing_of_a_finished_run_is_said_and_made_anew(finished):
    flags, run_dir = finished
    table = (run_dir / "predictions.csv").read_bytes()
    (run_dir / "predictions.csv").unlink()
    (run_dir / "metrics.json").write_bytes(b"")
    shutil.rmtree(run_dir / "saved_model")
    (run_dir / "saved_model").mkdir()
    said = re.search("This run was finished, but (.*) is missing or empty", run_binary("fit_baseline", *flags).stdout)
    assert sorted(said[1].split(", ")) == ["metrics.json", "predictions.csv", "saved_model"]
    assert (run_dir / "predictions.csv").read_bytes() == table
    assert read_run(run_dir)["status"] == "finished"
    assert "nothing to do" in run_binary("fit_baseline", *flags).stdout


def test_sigterm_in_the_middle_of_a_write_leaves_nothing_half_written_and_the_command_goes_on(
    finished, tmp_path, monkeypatch
):
    flags, replace, calls = (finished[0][0], f"--run_dir={tmp_path / 'run'}", *_FLAGS), os.replace, []

    def stop(*paths):
        calls.append(paths)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGTERM)
        replace(*paths)

    monkeypatch.setattr(os, "replace", stop)
    done = run_binary("fit_baseline", *flags, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.startswith("ERROR: Interrupted by SIGTERM. ")
    assert not list(tmp_path.rglob("*partial*"))
    assert "report.html" not in [path.name for path in (tmp_path / "run").iterdir()]
    run_binary("fit_baseline", *flags)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (finished[1] / "predictions.csv").read_bytes()


def test_a_report_does_not_say_that_its_run_is_running(finished):
    _, run_dir = finished
    page = (run_dir / "report.html").read_text()
    assert "fingerprint" in page
    assert ">running<" not in page
    assert "status" not in page.split("Where the data came from")[1]


@pytest.mark.parametrize("how", ["deleted", "emptied", "a folder"])
def test_a_file_that_vanishes_while_others_are_scored_is_a_bad_file_with_its_name(exported, toy, tmp_path, how):
    files = []
    for number, source in enumerate(sorted(pathlib.Path(toy).rglob("test/*/*.png"))[:5]):
        files.append(str(shutil.copy(source, tmp_path / f"{number}.png")))
    gone = pathlib.Path(files[3])
    gone.unlink()
    if how != "deleted":
        gone.touch() if how == "emptied" else gone.mkdir()
    with pytest.raises(scoring.UserError, match=rf"^{gone}: .*Repair or remove it"):
        scoring.score_files(exported, files, batch_size=2)


def test_a_file_that_vanishes_before_it_is_hashed_is_named(toy, tmp_path, monkeypatch):
    from mvtec_tf.data.formats import scan

    data = shutil.copytree(toy, tmp_path / "data")
    records = scan.scan([data])
    pathlib.Path(records[5].file).unlink()
    with pytest.raises(scoring.UserError, match=f"{records[5].file}: cannot be read"):
        scan.fingerprint(records)
