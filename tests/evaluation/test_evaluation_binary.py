"""`evaluate` on tables that others made: what it prints, and which status it ends with."""

import json
import subprocess
import sys

import pytest

from tests.conftest import run_binary

HEADER = "path,category,defect,label,split,score"
ROWS = [
    *(f"good{i}.png,bottle,good,0,evaluate,{i / 10}" for i in range(8)),
    *(f"bad{i}.png,bottle,crack,1,evaluate,{0.55 + i / 10}" for i in range(8)),
    *(f"cal{i}.png,bottle,{'crack' if i % 2 else 'good'},{i % 2},calibrate,{0.3 + i % 2}" for i in range(6)),
]


def _evaluate(*arguments, cwd):
    return run_binary("evaluate", *arguments, check=False, cwd=cwd)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER + ",camera", *(f"{row},left" for row in ROWS)]) + "\n")
    return path


def test_a_bare_table_gives_figures_and_a_report_and_the_folder_is_printed_last(table, tmp_path):
    done = _evaluate("--predictions=table.csv", "--out=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["threshold"]["value"] == pytest.approx(0.8)
    lines = done.stdout.splitlines()
    assert lines[0] == "Columns that were not used: camera."
    assert document["summary"] in lines
    assert any(line.startswith("specificity") for line in lines)
    assert lines[-1] == "out"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "table.csv, SHA-256" in page
    assert "camera" in page


def test_a_table_whose_labels_stand_against_its_folders_names_is_said_to_be_perhaps_turned_round(table, tmp_path):
    table.write_text(table.read_text().replace("bottle,good,", "bottle,,").replace("good", "NG/").replace("bad", "ok/"))
    done = _evaluate("--predictions=table.csv", "--out=out", "--resamples=20", cwd=tmp_path)
    said = "16 labels say otherwise than the folder's name, such as 0 for NG/0.png; 0 as the folder."
    assert said in done.stdout
    assert "Are the labels turned round?" in (tmp_path / "out" / "report.html").read_text()


def test_a_given_threshold_is_used(table, tmp_path):
    done = _evaluate("--predictions=table.csv", "--out=out", "--threshold=0.25", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (document["threshold"]["value"], document["threshold"]["method"]) == (0.25, "given")
    assert document["confusion"]["overall"] == {"tn": 3, "fp": 5, "fn": 0, "tp": 8}


def test_costs_resamples_and_the_method_of_the_threshold_are_as_the_flags_say(table, tmp_path):
    wanted = ("--target_specificity=0.6", "--cost_miss=9", "--cost_false_alarm=2", "--resamples=20", "--seed=5")
    done = _evaluate("--predictions=table.csv", "--out=out", "--threshold_per=category", *wanted, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    threshold = document["threshold"]["categories"]["bottle"]
    assert threshold["method"] == "target_specificity"
    assert "at most 40 % of new good parts" in threshold["reason"]
    assert document["threshold"]["per"] == "category"
    assert document["costs"] == {"miss": 9.0, "false_alarm": 2.0}
    assert (document["intervals"]["resamples"], document["intervals"]["seed"]) == (20, 5)
    counts = document["confusion"]["overall"]
    assert document["overall"]["cost"]["value"] == pytest.approx((9 * counts["fn"] + 2 * counts["fp"]) / 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--predictions is missing"),
        (("--predictions=table.csv",), "--out is missing"),
        (("--predictions=table.csv", "--out=out", "--threshold=nan"), "--threshold=nan"),
        (("--predictions=table.csv", "--out=out", "--threshold=high"), "threshold"),
        (("--predictions=table.csv", "--out=out", "--treshold=1"), "treshold"),
        (("table.csv",), "Unexpected arguments"),
        (("--predictions=table.csv", "--out=out", "--threshold=1", "--target_recall=0.9"), "leave it out"),
        (("--predictions=table.csv", "--out=out", "--target_specificity=95"), "--target_specificity=95.0"),
        (("--predictions=table.csv", "--out=out", "--target_recall=1", "--target_specificity=1"), "cannot have both"),
        (("--predictions=table.csv", "--out=out", "--threshold_method=target_recall"), "needs --target_recall"),
        (("--predictions=table.csv", "--out=out", "--threshold_method=youden", "--target_recall=0.9"), "does not go"),
        (("--predictions=table.csv", "--out=out", "--cost_miss=0", "--cost_false_alarm=0"), "costs"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_wrong(table, tmp_path, arguments, message):
    done = _evaluate(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_exits_with_0(tmp_path):
    done = _evaluate("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--predictions" in done.stdout


def test_failures_exit_with_1_and_name_what_failed(table, tmp_path):
    (tmp_path / "leak.csv").write_text("\n".join([HEADER, *ROWS, "bad3.png,bottle,crack,1,fit,0.5"]))
    (tmp_path / "nan.csv").write_text("\n".join([HEADER, *ROWS, "new.png,bottle,crack,1,evaluate,nan"]))
    (tmp_path / "file").write_text("in the way")
    for predictions, out, message in (
        ("nowhere.csv", "out", "nowhere.csv: expected a CSV file, found nothing"),
        ("leak.csv", "out", "bad3.png is also in fit"),
        ("nan.csv", "out", "nan.csv, line 24: score nan"),
        ("table.csv", "file", "--out=file"),
    ):
        done = _evaluate(f"--predictions={predictions}", f"--out={out}", cwd=tmp_path)
        assert done.returncode == 1, predictions
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_judging_needs_neither_tensorflow_nor_global_plot_state(table, tmp_path):
    code = (
        "import sys; from mvtec_tf.evaluation import table\n"
        "from mvtec_tf.evaluation.report import judge\n"
        "judge.judge(table.read_predictions('table.csv'), 'out')\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib.pyplot', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_tables_are_judged_and_compared_without_loading_what_takes_longer_than_they_do(tmp_path):
    defects, splits = ("good", "chip"), ("evaluate", "calibrate")
    for name, divisor in (("table", 9), ("other", 7)):
        rows = [f"{i},cap,{defects[i % 2]},{i % 2},{splits[i // 40]},{i % divisor}" for i in range(80)]
        (tmp_path / f"{name}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    code = (
        "import sys; import mvtec_tf as mt\n"
        "mt.judge('table.csv', out='judged')\n"
        "mt.compare(['a=table.csv', 'b=other.csv'], out='compared')\n"
        "print({'tensorflow', 'keras', 'sklearn', 'scipy.stats', 'scipy.ndimage'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
