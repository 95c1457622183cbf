"""A table is judged as its maker judged it: its run, a second model of that, an export, a cell of a grid, `predict`."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from mvtec_tf.data import leaks
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import recorded
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.comparison import contenders
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report.judge import Extras, judge, judge_again
from mvtec_tf.evaluation.table import Predictions, read_predictions, write_predictions
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.jobs.judge import judge_table
from mvtec_tf.jobs.settings import JudgeSettings
from mvtec_tf.serving import batch
from mvtec_tf.serving.journal import Journal

COSTS = Costs(7, 2)
QUICK = Bootstrap(0)
RULES = [Rule(), Rule("smooth_youden"), Rule("target_recall", target=0.9), Rule("least_cost")]
RULES += [Rule("best_f1", "category")]


def _table(seed=0, count=60):
    """Two categories, of which every second image is defective; calibrate and evaluate rows."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    categories = np.where(np.arange(count) < count // 2, "cap", "washer")
    splits = np.where(np.arange(count) % 4 < 2, "calibrate", "evaluate")
    names = [f"{category}/{i}.png" for i, category in enumerate(categories)]
    defects = np.where(labels == 1, "chip", "good")
    return Predictions.from_columns(names, categories, defects, labels, splits, labels + rng.normal(0, 0.8, count))


def _run(folder, rule=None, threshold=None, part=""):
    """A judged run with a record, as a training leaves it; the folder of its table."""
    (folder / part).mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"binary": "fit_probe", "settings": {}}))
    write_predictions(folder / part / "predictions.csv", _table())
    judge(_table(), folder / part, threshold, "run", rule=rule, costs=COSTS, bootstrap=QUICK)
    return folder / part


def _document(folder):
    return json.loads((folder / "metrics.json").read_text())


def _judged_again(path):
    table = read_predictions(path)
    own = recorded.of_table(path, table)
    return assess(table, own.threshold, own.rule, own.costs, QUICK).as_json()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.method)
def test_the_table_of_a_run_comes_to_the_runs_own_threshold_and_costs(rule, tmp_path):
    folder = _run(tmp_path / "run", rule)
    expected = _document(folder)
    found = _judged_again(folder / "predictions.csv")
    for name in ("threshold", "costs", "overall", "confusion"):
        assert found[name] == expected[name]
    others = {json.dumps(assess(_table(), rule=other, bootstrap=QUICK).threshold.as_json()) for other in RULES}
    assert len(others) > 3


def test_a_rule_that_needs_a_defect_is_not_said_to_choose_without_one():
    assert "chosen by youden, if a defect is labelled, one for the model;" in recorded.Judging("the run").in_words()
    wanted = recorded.Judging("the run", rule=Rule("target_recall", target=0.9))
    assert "chosen by target_recall 0.9, one for" in wanted.in_words()


def test_a_second_model_beside_a_runs_main_one_keeps_its_given_threshold(tmp_path):
    folder = _run(tmp_path / "run", threshold=0.25, part="study_head")
    assert _judged_again(folder / "predictions.csv")["threshold"] == _document(folder)["threshold"]


def test_a_run_whose_threshold_was_a_quantile_of_good_images_keeps_it(tmp_path):
    folder = _run(tmp_path / "run")
    document = _document(folder)
    document["threshold"] |= {"method": "good_quantile", "value": 0.625}
    (folder / "metrics.json").write_text(json.dumps(document))
    assert _judged_again(folder / "predictions.csv")["threshold"]["value"] == 0.625


@pytest.mark.parametrize("exported_at", [None, 1.5])
def test_the_table_in_an_export_is_judged_at_the_exports_threshold(tmp_path, exported_at):
    run = _run(tmp_path / "run", Rule("best_f1"))
    extra = tmp_path / "saved_models" / "cap" / "1" / "assets.extra"
    extra.mkdir(parents=True)
    for name in ("predictions.csv", "metrics.json"):
        (extra / name).write_bytes((run / name).read_bytes())
    value = _document(run)["threshold"]["value"] if exported_at is None else exported_at
    (extra / "mvtec_tf.json").write_text(json.dumps({"threshold": value}))
    assert _judged_again(extra / "predictions.csv")["threshold"]["value"] == value


def test_a_cell_of_a_grid_is_judged_by_the_grids_rule_and_costs(tmp_path):
    rule = Rule("target_specificity", target=0.8)
    expected = assess(_table(), rule=rule, costs=COSTS, bootstrap=QUICK).as_json()
    cell = tmp_path / "grid" / "cells" / "cap" / "resnet" / "logistic_0.1_0.csv"
    cell.parent.mkdir(parents=True)
    write_predictions(cell, _table())
    cell.with_suffix(".json").write_text(json.dumps({"threshold_method": rule.method}))
    settings = {"target_specificity": 0.8, "cost_miss": 7.0, "cost_false_alarm": 2.0, "threshold_method": None}
    (tmp_path / "grid" / "run.json").write_text(json.dumps({"settings": settings}))
    found = _judged_again(cell)
    assert (found["threshold"], found["costs"]) == (expected["threshold"], expected["costs"])


def test_a_table_alone_says_nothing_and_one_beside_a_strangers_metrics_neither(tmp_path):
    alone = tmp_path / "alone" / "predictions.csv"
    write_predictions(alone, _table())
    assert recorded.of_table(alone, read_predictions(alone)) is None
    (alone.parent / "metrics.json").write_text("{}")
    assert recorded.of_table(alone, read_predictions(alone)) is None
    (alone.parent / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics\.json"):
        recorded.of_table(alone, read_predictions(alone))


def test_compare_takes_a_runs_table_as_it_takes_the_run(tmp_path):
    first, second = (_run(tmp_path / name, Rule("best_f1")) for name in ("a", "b"))
    methods = contenders.read_methods([str(first), f"table={second / 'predictions.csv'}"])
    values = [method.runs[0].threshold.whole.value for method in methods]
    assert values[0] == values[1] == _document(first)["threshold"]["value"]
    assert contenders.common_costs(methods) == COSTS
    judge(_table(), second, rule=Rule("best_f1"), costs=Costs(1, 1), bootstrap=QUICK)
    assert contenders.common_costs(contenders.read_methods([str(first), str(second)])) is None


def _predicted(file, thresholds, unsure_from=None):
    """What `predict` writes of the evaluate rows of `_table`, with rows that nobody can judge between them."""
    rows = []
    for row in _table().part(leaks.EVALUATE).rows():
        threshold = thresholds[row.category]
        verdict = "defective" if isinstance(threshold, float) and row.score >= threshold else "good"
        if unsure_from is not None and unsure_from <= row.score < threshold:
            verdict = "unsure"
        known = dataclasses.asdict(row) | {"threshold": threshold, "verdict": verdict, "error": ""}
        rows.append({name: known.get(name, "") for name in batch.COLUMNS})
    rows[3]["error"] = "the overlay cannot be written: File name too long"
    empty = dict.fromkeys(batch.COLUMNS, "") | {"score": None, "probability": None, "threshold": None, "label": None}
    scored = {"score": 0.5, "threshold": 0.5, "verdict": "good"}
    labelled = {"category": "cap", "defect": "chip", "label": 1}
    rows.insert(2, empty | {"path": "bad.png", "error": "not a readable image: torn", "split": "evaluate"} | labelled)
    rows.insert(5, empty | scored | {"path": "unknown.png"})
    rows.insert(7, empty | scored | labelled | {"path": "by_a_server.png"})
    with Journal(file, batch.COLUMNS, file.suffix) as table:
        table.append(rows)


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
@pytest.mark.parametrize("thresholds", [{"cap": 0.4, "washer": 0.4}, {"cap": 0.4, "washer": 0.9}])
def test_what_predict_wrote_is_judged_at_the_models_thresholds_without_the_rows_that_lack_something(
    form, thresholds, tmp_path
):
    file = tmp_path / f"judged{form}"
    _predicted(file, thresholds)
    table = read_predictions(file)
    expected = _table().part(leaks.EVALUATE)
    assert table.path.tolist() == expected.path.tolist()
    assert table.score.tolist() == expected.score.tolist()
    assert dict(table.left_out) == {
        "bad.png": "no score (not a readable image: torn)",
        "unknown.png": "no label",
        "by_a_server.png": "not known whether the model was made with it",
    }
    own = recorded.of_table(file, table)
    document = judge(table, tmp_path / "out", own.threshold, "predicted", bootstrap=QUICK)
    limits = np.array([thresholds[category] for category in expected.category])
    called = expected.score >= limits
    counts = document["confusion"]["overall"]
    assert (counts["tp"], counts["fp"]) == (sum(called & (expected.label == 1)), sum(called & (expected.label == 0)))
    # Judged once more with more to show, it is judged at the same thresholds.
    write_predictions(tmp_path / "out" / "predictions.csv", table)
    assert judge_again(tmp_path / "out", Extras(), "again")["confusion"] == document["confusion"]


@pytest.mark.parametrize("review", [None, 0.3])
def test_unsure_verdicts_that_predict_wrote_are_judged_as_such_and_the_other_figures_said_to_be_two_way(
    review, tmp_path, capsys
):
    file = tmp_path / "judged.csv"
    _predicted(file, {"cap": 0.9, "washer": 0.9}, unsure_from=0.1)
    costs = {"cost_miss": 5, "cost_false_alarm": 1, "cost_review": review} if review else {}
    document = judge_table(JudgeSettings(predictions=str(file), out=str(tmp_path / "out"), resamples=50, **costs))
    table = _table().part(leaks.EVALUATE)
    unsure = (table.score >= 0.1) & (table.score < 0.9)
    missed, stopped = (table.score < 0.1) & (table.label == 1), (table.score >= 0.9) & (table.label == 0)
    figures = {name: metric["value"] for name, metric in document["doubt"]["figures"].items()}
    assert figures["reviewed"] == pytest.approx(unsure.mean())
    assert figures["missed"] == pytest.approx(missed.sum() / table.label.sum())
    two_way = document["confusion"]["overall"]
    assert two_way["fn"] == ((table.score < 0.9) & (table.label == 1)).sum() > missed.sum()
    summary = document["summary"]
    assert f"By the table's own column verdict a person looks at {100 * unsure.mean():.1f} % of the parts" in summary
    assert "All other figures are of two verdicts" in summary
    assert summary.index("own column verdict") < summary.index("ROC-AUC")
    assert "is unsure:" not in summary
    page = (tmp_path / "out" / "report.html").read_text()
    assert "As the column verdict of the table says." in page
    assert "are stopped, where 50 % of the parts are defective, as of the evaluated images" in summary
    told = capsys.readouterr().out
    if review:
        assert "Threshold as the column threshold says: 0.9; a miss costs 5, a false alarm 1, a person 0.3." in told
        expected = (5 * missed + stopped + 0.3 * unsure).mean()
        assert figures["cost"] == pytest.approx(expected)
        assert figures["cost_own"] == pytest.approx(document["overall"]["cost"]["value"])
    else:
        assert figures["cost"] is None
        assert "`cost_review` does" in summary
        assert "no costs are said there" in told
        assert recorded.of_document(document, "run").costs == Costs()


def test_a_verdict_in_a_table_of_predict_that_is_none_is_named_with_its_line(tmp_path):
    file = tmp_path / "judged.csv"
    _predicted(file, {"cap": 0.4, "washer": 0.4})
    file.write_text(file.read_text().replace(",defective,", ",perhaps,"))
    with pytest.raises(UserError, match=r"judged\.csv, line \d+: verdict 'perhaps'"):
        read_predictions(file)


@pytest.mark.parametrize("threshold", ["nan", "inf", "0,5", "1_0"])
def test_a_threshold_in_a_table_of_predict_that_is_no_number_is_named_with_its_line(threshold, tmp_path):
    file = tmp_path / "judged.csv"
    _predicted(file, {"cap": threshold, "washer": 0.4})
    with pytest.raises(UserError, match=r"judged\.csv, line \d+: threshold"):
        read_predictions(file)


def test_a_table_with_rows_of_two_models_is_not_judged_as_one(tmp_path):
    file = tmp_path / "judged.jsonl"
    _predicted(file, {"cap": 0.4, "washer": 0.4})
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[-1] = lines[-1].replace('"model": ""', '"model": "cap/2 0badcafe"')
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=r"rows of several models, .*cap/2 0badcafe"):
        read_predictions(file)


def test_lines_of_json_may_begin_with_a_mark_and_what_no_report_can_hold_is_refused_by_its_line(tmp_path):
    file = tmp_path / "judged.jsonl"
    _predicted(file, {"cap": 0.4, "washer": 0.4})
    text = file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8-sig")
    assert len(read_predictions(file))
    for odd in ('{"path": "\\ud800.png"}', "[" * 100_000):
        file.write_text(text + odd, encoding="utf-8")
        with pytest.raises(UserError, match=rf"line {len(text.splitlines()) + 1}: not readable as JSON"):
            read_predictions(file)


def test_a_table_of_predict_in_which_nothing_can_be_judged_says_why(tmp_path):
    file = tmp_path / "judged.csv"
    row = dict.fromkeys(batch.COLUMNS, "") | {"path": "a.png", "score": 0.5, "threshold": 0.5, "verdict": "defective"}
    with Journal(file, batch.COLUMNS, ".csv") as table:
        table.append([row])
    with pytest.raises(UserError, match="1 \\(no label\\)"):
        read_predictions(file)


def test_another_makers_table_with_an_empty_label_is_refused_as_ever(tmp_path):
    file = tmp_path / "theirs.csv"
    file.write_text("path,category,defect,label,split,score,error\na.png,cap,,,evaluate,0.5,none\n")
    with pytest.raises(UserError, match="label ''"):
        read_predictions(file)
    with file.open(newline="") as content:
        assert next(csv.DictReader(content))["label"] == ""
