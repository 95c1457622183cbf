"""`compare` at the command line: what it prints and which status it ends with."""

import json

import pytest

from tests.conftest import run_binary

HEADER = "path,category,defect,label,split,score"


def _table(path, shift):
    rows = [
        f"{split}{i}.png,bottle,{('good', 'crack')[i % 2]},{i % 2},{split},{(i * 7 % 10) / 10 + shift * (i % 2)}"
        for split in ("evaluate", "calibrate")
        for i in range(20)
    ]
    path.write_text("\n".join([HEADER, *rows]) + "\n")


@pytest.fixture
def tables(tmp_path):
    for name, shift in (("a", 0.5), ("b", 0.1)):
        _table(tmp_path / f"{name}.csv", shift)
    return tmp_path


def _compare(*arguments, cwd):
    return run_binary("compare", *arguments, check=False, cwd=cwd)


def test_bare_tables_are_compared_and_the_folder_is_printed_last(tables):
    done = _compare("--runs=first=a.csv,b.csv", "--out=out", "--resamples=50", "--cost_miss=3", cwd=tables)
    assert done.returncode == 0, done.stderr
    document = json.loads((tables / "out" / "comparison.json").read_text())
    assert list(document["methods"]) == ["first", "b.csv"]
    assert document["intervals"]["resamples"] == 50
    assert document["costs"]["miss"] == 3
    assert document["summary"].split(". ")[0] in done.stdout
    assert done.stdout.splitlines()[-1] == "out"
    assert (tables / "out" / "report.html").exists()


def test_wrong_use_exits_with_2_and_wrong_tables_with_1(tables):
    (tables / "other.csv").write_text((tables / "b.csv").read_text().replace("evaluate3.png", "evaluate99.png"))
    (tables / "file").write_text("in the way")
    for arguments, status, message in (
        ((), 2, "--runs is missing"),
        (("--runs=a.csv", "--out=out"), 2, "at least two"),
        (("--runs=a.csv,b.csv", "--out=out", "--cost_miss=0", "--cost_false_alarm=0"), 2, "--cost_miss"),
        (("--runs=a.csv,other.csv", "--out=out"), 1, "evaluate3.png"),
        (("--runs=a.csv,b.csv", "--out=out", "--study"), 1, "--study: a.csv is no run directory"),
        (("--runs=a.csv,b.csv", "--out=file"), 1, "--out=file"),
    ):
        done = _compare(*arguments, cwd=tables)
        assert done.returncode == status, (arguments, done.stderr)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tables / "out").exists()


def test_help_says_how_runs_are_named(tables):
    done = _compare("--help", cwd=tables)
    assert done.returncode == 0
    assert "NAME=PATH+PATH" in done.stdout
