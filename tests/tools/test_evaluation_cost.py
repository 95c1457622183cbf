"""The benchmark of judging runs the command that a user types, and says what it took."""

import json

import pytest

from mvtec_tf.data.toy.factory import write_toy_factory
from mvtec_tf.errors import UserError
from tests.conftest import run_process
from tests.support.tiny_network import in_place_of_resnet10
from tools import benchmark, evaluation_cost
from tools.benchmark import BenchmarkSettings
from tools.evaluation_cost import Cost


def test_tables_and_pictures_are_judged_by_the_command_and_measured(tmp_path):
    out = tmp_path / "out"
    done = run_process("tools.benchmark", f"--out={out}", "--sizes=40", "--pictures=16", "--resamples=5")
    table, pictures = json.loads((out / "costs.json").read_text())["costs"]
    assert (table["images"], pictures["images"]) == (40, 16)
    for cost in (table, pictures):
        assert cost["cpu_seconds"] > 0.1
        assert cost["peak_mb"] > 30  # NumPy and matplotlib alone take more
        assert cost["report_mb"] > 0.1
    judged = json.loads((out / "40" / "metrics.json").read_text())
    assert judged["counts"]["evaluate"]["images"] == 40
    assert judged["intervals"]["resamples"] == 5
    page = (out / "pictures" / "report.html").read_text()
    assert "t-SNE" not in "".join(path.name for path in (out / "pictures" / "figures").iterdir())
    assert list((out / "pictures" / "figures").glob("pca_*"))
    assert "heat map" in page
    assert list((out / "tensorboard").glob("*tfevents*"))
    lines = done.stdout.splitlines()
    assert lines[-1] == str(out)
    assert "all pictures but t-SNE" in lines[-2]
    again = run_process("tools.benchmark", f"--out={out}", check=False)
    assert again.returncode == 1
    assert "not an empty folder" in again.stderr


@pytest.mark.parametrize(
    "flag",
    ["--sizes=many", "--sizes=20,10", "--sizes=1", "--pictures=3", "--out=", "--job=inference", "--job=infer"],
)
def test_wrong_use_is_refused(flag, tmp_path):
    done = run_process("tools.benchmark", f"--out={tmp_path / 'out'}", flag, check=False)
    assert done.returncode == 2
    assert flag.partition("=")[0] in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_growth_is_the_time_of_each_image_more():
    first, second = Cost("table", 1000, 9.0, 2.0, 100, 0.5), Cost("table", 3000, 9.0, 2.5, 100, 0.5)
    lines = evaluation_cost.text_table([first, second, Cost("other", 9000, 9.0, 3.0, 100, 0.5)]).splitlines()
    assert lines[2].split() == ["3,000", "table", "2.5", "9.0", "100", "0.50", "0.250"]
    assert lines[1].split()[-1] == lines[3].split()[-1] == "0.50"  # nothing before it to be set against


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match="ended with status 2; what it said is in"):
        evaluation_cost._cost("table", 1, ("--no_such_flag",), tmp_path / "out")
    assert "no_such_flag" in (tmp_path / "out.log").read_text()


@pytest.mark.slow
def test_jobs_are_measured_beside_a_peer_that_is_run_in_turn(tmp_path):
    toy = tmp_path / "toy"
    write_toy_factory(toy, seed=0, image_size=32, train_good=6, test_good=4, per_defect=2)
    log = tmp_path / "asked"
    peer = tmp_path / "peer.sh"
    peer.write_text(f'#!/bin/sh\necho "$2" >> {log}\nprintf \'loading\\n{{"job": "%s", "value": 2.0}}\\n\' "$2"\n')
    peer.chmod(0o755)
    asked = {"data_dir": (str(toy),), "categories": ("flange",), "backbone": "resnet10", "image_size": 32}
    found = {}
    for jobs, rounds in ((("infer",), 2), (("cnn", "simclr", "probe"), 1)):
        out = tmp_path / f"{rounds}.json"
        with in_place_of_resnet10():
            benchmark.main(BenchmarkSettings(job=jobs, out=str(out), rounds=rounds, peer=str(peer), **asked))
        found |= json.loads(out.read_text())
    assert log.read_text().split() == ["infer", "infer", "cnn", "simclr", "probe"]
    for job in ("infer", "cnn", "simclr", "probe"):
        assert found[job]["precision"] in ("float32", "bfloat16")
        assert found[job]["peak_mb"] > 100
    for job in ("infer", "cnn", "simclr"):
        assert found[job]["ratio"] == found[job]["images_per_second"] / 2.0
        assert 0 < found[job]["share_of_peak"] < 1
    assert found["probe"]["ratio"] == 2.0 / found["probe"]["seconds"]
    assert set(found["cnn"]["seconds_of_a_step"]) == {"input", "forward", "backward", "update"}
    assert found["simclr"]["step_over_resident"] > 0
