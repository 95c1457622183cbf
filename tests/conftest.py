"""Everything the tests share: how binaries are run, the toy factory, real images where they exist."""

import collections
import gc
import os
import pathlib
import subprocess
import sys
from unittest import mock

import pytest

from tests.support.in_process import run_in_process

# Before any test imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_addoption(parser):
    parser.addoption("--skips_file", help="write the names of all skipped tests to this file, one a line")
    parser.addoption("--slow_file", help="write the names of all tests that took more than 0.7 seconds, likewise")


def pytest_collection_modifyitems(items):
    slow, long = (set(file.read_text(encoding="utf-8").splitlines()) for file in (_SLOW_TESTS, _LONG_TESTS))
    leave_out = pytest.mark.skip(reason=f"long on a processor without AVX-512, and {_RUN_LONG} is not set")
    for item in items:
        if _function(item.nodeid) in long and _is_slow_processor() and _RUN_LONG not in os.environ:
            item.add_marker(leave_out)
        if _function(item.nodeid) in slow:
            item.add_marker(pytest.mark.slow)
        if {"real_data", "real_weights"} & set(item.fixturenames):
            item.add_marker(pytest.mark.real)
        if _MADE_ONCE & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    # The files that take longest first, so that none is left for one process when all others have ended.
    slow_in = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name not in _LONGEST, -slow_in[item.path]))


def pytest_collection_finish():
    """What the modules of tests have loaded, half a million objects, is searched for garbage no more: an eighth of
    the time of tests that make graphs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def pytest_runtest_logreport(report):
    # A long test is named with its reason at the end, and is no part of what every machine skips.
    if report.skipped and not hasattr(report, "wasxfail") and _RUN_LONG not in str(report.longrepr):
        _SKIPPED.add(report.nodeid)
    if report.when == "call" and report.duration > _SLOW_SECONDS:
        _SLOW.add(_function(report.nodeid))


def pytest_collectreport(report):
    if report.skipped:
        _SKIPPED.add(report.nodeid)


def pytest_sessionfinish(session):
    # The process that hands out the tests hears of all of them; its workers know their own only.
    if hasattr(session.config, "workerinput"):
        return
    for option, names in (("--skips_file", _SKIPPED), ("--slow_file", _SLOW)):
        if path := session.config.getoption(option):
            pathlib.Path(path).write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")


def _function(name):
    """A test's name without its parameters."""
    return name.partition("[")[0]


def _is_slow_processor():
    """Whether this processor multiplies matrices at a third of the pace of those that the suite is meant for."""
    about = pathlib.Path("/proc/cpuinfo")
    return about.is_file() and "flags" in (text := about.read_text(encoding="utf-8")) and "avx512f" not in text


# Each takes half a minute or more there, all together a quarter of the whole: `make test` is to end within 40 minutes.
_LONG_TESTS = pathlib.Path(__file__).parent / "long_tests.txt"
_RUN_LONG = "MVTEC_TF_LONG"
# Which tests `make test-fast` leaves out is measured, not guessed.
_SLOW_TESTS = pathlib.Path(__file__).parent / "slow_tests.txt"
_SLOW_SECONDS = 0.7
# What a module trains, fits or exports once, for seconds: its trained runs, its filled grid and so on.
_MADE_ONCE = {"run", "runs", "cnn", "probe", "done", "finished", "killed", "teaching", "everywhere"}
# Of few tests, or of a fixture that takes most of the time: nearly a minute each, or more.
_LONGEST = {
    *("test_documentation.py", "test_notebooks.py", "test_line.py", "test_families.py", "test_distill.py"),
    *("test_killed_export.py", "test_evaluation_cost.py", "test_label_efficiency.py", "test_study.py"),
}
# Objects more; Python's 700 are made by a few ops of a graph.
_COLLECT_AFTER = 20_000
_SKIPPED: set[str] = set()
_SLOW: set[str] = set()
run_binary = run_in_process


def run_process(name, *flags, check=True, **kwargs):
    """Runs a binary in a process of its own: for signals, limits, a start without TensorFlow, and what C++ prints."""
    module = name if "." in name else f"mvtec_tf.bin.{name}"
    command = [sys.executable, "-m", module, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    if check and done.returncode:
        raise AssertionError(f"{name} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session", autouse=True)
def coarse_pictures():
    """Pictures of reports have a fourth of their dots: to draw them all is a tenth of the tests' time."""
    from mvtec_tf.evaluation.report import canvas

    with mock.patch.object(canvas, "DPI", canvas.DPI // 4):
        yield


@pytest.fixture
def fine_pictures(monkeypatch):
    """They have all, for who looks at them."""
    from mvtec_tf.evaluation.report import canvas

    monkeypatch.setattr(canvas, "DPI", 4 * canvas.DPI)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A small toy factory: two categories, 64-pixel images."""
    from mvtec_tf.data.toy.factory import write_toy_factory

    root = tmp_path_factory.mktemp("toy") / "factory"
    write_toy_factory(root, seed=1, image_size=64, train_good=16, test_good=8, per_defect=6)
    return root


@pytest.fixture(scope="session")
def toy_records(toy):
    from mvtec_tf.data.formats import scan as records

    return records.scan([toy])


@pytest.fixture(scope="session")
def real_data():
    """Folder with real photographs, from the environment."""
    return _from_environment("MVTEC_TF_REAL_DATA", "real photographs in the MVTec layout")


@pytest.fixture(scope="session")
def real_weights():
    """Folder with real weights, from the environment."""
    return _from_environment("MVTEC_TF_WEIGHTS", "backbone weights")


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory):
    """An encoder that was never trained, of 48 pixels and two layers: a recipe's own has 448."""
    import keras

    from mvtec_tf.graphs import saved_model
    from mvtec_tf.networks.backbone import build_backbone
    from tests.support.tiny_network import in_place_of_resnet10

    # Whatever was drawn before: by some weights a head finds nothing that speaks for a defect in any image.
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("encoders") / "encoder"
    card = {"run": {"backbone": "resnet10", "image_size": 48}, "pretrain_images": [], "weights": "weights: none."}
    with in_place_of_resnet10():
        saved_model.write_encoder(path, build_backbone("resnet10", 48), card)
    return path


def _from_environment(variable, what):
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder with {what}")
    return pathlib.Path(os.environ[variable])


@pytest.fixture(scope="session")
def small_run(toy_records, tmp_path_factory):
    """(run directory, its network): a very small classifier that was never trained."""
    from tests.support.small_run import write_small_run

    run_dir = tmp_path_factory.mktemp("small") / "run"
    return run_dir, write_small_run(run_dir, toy_records)


@pytest.fixture(scope="session")
def exported(small_run, tmp_path_factory):
    """saved_models/small/1 of `small_run`."""
    from mvtec_tf.serving.export import export_run

    return export_run(small_run[0], "small", tmp_path_factory.mktemp("exported") / "saved_models")
