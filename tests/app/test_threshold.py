"""Threshold: the counts are those of `judge`, and a new version is the old one with another threshold."""

import dataclasses
import html
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.app import limits
from mvtec_tf.app.models import exports
from mvtec_tf.app.wording import Words
from mvtec_tf.data import leaks
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.evaluation.thresholds import Rule, choose, given
from mvtec_tf.files import read_json
from mvtec_tf.graphs import saved_model
from mvtec_tf.graphs.thresholded import ThresholdedModel, Thresholds
from mvtec_tf.jobs.judge import judge_table
from mvtec_tf.jobs.settings import JudgeSettings
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.export import export_again
from tests.app.conftest import Page


@pytest.fixture
def table(exported):
    return exported / "assets.extra" / "predictions.csv"


def test_the_counts_are_those_of_judge_at_that_threshold_with_its_intervals(page, table, tmp_path):
    value = float(np.median(read_predictions(table).part(leaks.EVALUATE).score)) + 1e-6
    document = judge_table(JudgeSettings(predictions=str(table), out=str(tmp_path / "judged"), threshold=value))
    found = page.get("/api/models/small/counts", params={"value": value}).json()
    counts = document["confusion"]["overall"]
    assert (found["passed"], found["stopped"]) == (counts["fn"], counts["fp"])
    assert (found["defects"], found["good"]) == (counts["fn"] + counts["tp"], counts["fp"] + counts["tn"])
    for name in ("recall", "specificity"):
        assert found[name] == document["overall"][name]
    screen = page.get("/threshold", params={"value": value}, headers={"x-fragment": "1"}).text
    assert f'<b id="passed">{counts["fn"]}</b> of {counts["fn"] + counts["tp"]}' in screen
    share = 1 - document["overall"]["recall"]["value"]
    assert f"({100 * share:.1f} %, 95 % interval" in screen
    # No score is both: a person gets what lies between.
    low, high = value - 0.2, value + 0.2
    (export,) = exports(page.site.models.root)
    asked = limits.counts(export, value, (low, high))
    evaluate = read_predictions(table).part(leaks.EVALUATE)
    between = (evaluate.score >= low) & (evaluate.score < high)
    assert asked.asked_defects + asked.asked_good == between.sum()
    assert asked.passed == ((evaluate.score < low) & (evaluate.label == 1)).sum()


def test_a_zone_of_a_model_that_has_none_is_refused_and_not_left_unread(page):
    for zone in ({"low": 0.9, "high": 0.1}, {"low": 0.1, "high": 0.9}, {"high": 0.9}):
        answer = page.get("/api/models/small/counts", params={"value": 0.5} | zone)
        assert (answer.status_code, "small" in answer.json()["error"]) == (422, True)


def test_a_wanted_recall_is_found_on_the_rows_that_were_set_aside_for_it(page, table):
    predictions = read_predictions(table)
    categories = predictions.part(leaks.EVALUATE).categories()
    (export,) = exports(page.site.models.root)
    rule = Rule("target_recall", target=0.8)
    expected = choose(predictions, categories, rule, Costs(), limits._bootstrap(export)).whole
    screen = page.get("/threshold", params={"rule": "target_recall", "target": 80}).text
    assert f"Found: {expected.value:.4g}" in screen
    assert f'name="value" value="{expected.value:.9g}"' in screen
    # It is drawn where the slider stands, which reaches the old one too.
    low, high, drawn = (
        float(re.search(f'{name}="(.+?)"', screen)[1]) for name in ("data-low", "data-high", 'class="threshold" x1')
    )
    assert drawn == pytest.approx(100 * (expected.value - low) / (high - low))
    assert low < export.threshold < high
    assert "above 0 and up to 100" in page.get("/threshold", params={"rule": "target_recall", "target": 900}).text


def test_a_model_of_good_parts_alone_says_that_nothing_is_known_of_defects(settings, root, table):
    lines = table.read_text().splitlines(keepends=True)
    label = lines[0].split(",").index("label")
    good = [line for line in lines[1:] if line.split(",")[label] == "0"]
    (root / "small" / "1" / "assets.extra" / "predictions.csv").write_text("".join([lines[0], *good]))
    with Page(dataclasses.replace(settings, models=str(root))) as browser:
        for rule in ("target_recall", "least_cost", "target_specificity"):
            screen = browser.get("/threshold", params={"rule": rule, "target": 50}).text
            assert "unknown: no labelled defect" in screen
            assert '<i class="defective">' not in screen
            assert "of 0" not in screen
            assert ("This cannot be found" in screen) == ("Found:" not in screen) == (rule != "target_specificity")
            assert "cannot be had" not in screen
        browser.site.kept.close()


def test_a_promise_above_the_expected_threshold_is_explained_where_it_is_found(settings, root, table):
    predictions = read_predictions(table)
    good = predictions.select(predictions.label == 0)
    expected = choose(good, good.categories(), Rule(), Costs(), Bootstrap(20)).whole
    promised = choose(good, good.categories(), Rule("target_specificity", target=0.9), Costs(), Bootstrap(20)).whole
    assert (expected.method, promised.promised is None) == ("prediction_limit", False)
    extra = root / "small" / "1" / "assets.extra"
    card, metrics = read_json(extra / "mvtec_tf.json"), read_json(extra / "metrics.json")
    (extra / "metrics.json").write_text(json.dumps(metrics | {"threshold": expected.as_json()}))
    for moved, target, language in ((-0.1, 90, "en"), (-0.1, 90, "de"), (0.1, 90, "en"), (-0.1, 99, "en")):
        changed = {"threshold": promised.value + moved, "threshold_origin": expected.reason}
        (extra / "mvtec_tf.json").write_text(json.dumps(card | changed))
        with Page(dataclasses.replace(settings, models=str(root), language=language)) as browser:
            screen = browser.get("/threshold", params={"rule": "target_specificity", "target": target}).text
            said = html.unescape(screen)
            assert (Words(language)("above_expected") in said) == (moved < 0 and target == 90), (moved, target)
            browser.site.kept.close()


def test_every_way_to_choose_a_threshold_is_said_in_words_of_the_page(table):
    predictions = read_predictions(table)
    good = predictions.select(predictions.label == 0)
    rules = [(predictions, Rule(method)) for method in ("youden", "smooth_youden", "best_f1", "least_cost")]
    rules += [(predictions, Rule("target_recall", target=0.8)), (predictions, Rule("target_specificity", target=0.8))]
    said = {"en": set(), "de": set()}
    for rows, rule in [*rules, (good, Rule())]:
        found = choose(rows, rows.categories(), rule, Costs(), Bootstrap(20)).whole
        key, values = limits.chosen(found, rule.target)
        assert key != "origin_other", rule
        for language, sentences in said.items():
            sentences.add(Words(language)(key, **values))
            assert found.reason not in sentences
    assert [len(sentences) for sentences in said.values()] == [6, 6]
    assert limits.chosen(given(0.5)) == ("origin_other", {"reason": "it was given"})


@pytest.mark.slow
def test_a_saved_threshold_is_a_new_version_of_the_same_graph_and_the_old_one_stays(settings, root, photographs):
    before = {path: path.read_bytes() for path in (root / "small" / "1").rglob("*") if path.is_file()}
    with Page(dataclasses.replace(settings, models=str(root))) as browser:
        browser.get("/threshold")
        asked = {"model": "small", "value": "9.5", "reason": "<b>too many</b> stops", "who": "Eva"}
        browser.show(photographs[0])
        assert browser.post("/threshold", data=asked).status_code == 403
        saved = browser.form("/threshold", asked)
        assert (saved.status_code, saved.headers["location"]) == (303, "/threshold?model=small&saved=2")
        screen = browser.get(saved.headers["location"]).text
        assert "Saved as version 2" in screen
        assert "Eva set it on this page, in place of" in screen
        assert "<b>too many" not in screen
        # What the version before has said stays said, until the new one is asked.
        (part,) = browser.site.kept.latest(9)
        for screen in (browser.get("/review").text, browser.get("/").text):
            assert part["sha256"] in screen
            assert "version 1" in screen
            assert f"threshold {part['threshold']:.4g}." in screen
        told = browser.get("/api/watch").json()
        assert [(one["version"], one["judged"]) for one in told["models"]] == [(2, 0), (1, 1)]
        assert sum(hour[part["verdict"]] for hour in told["hours"]) == 1
        judged = browser.show(photographs[0]).text
        assert "threshold 9.5." in judged
        for screen in (browser.get("/review").text, browser.get("/").text):
            assert "threshold 9.5." in screen
            assert f"threshold {part['threshold']:.4g}." not in screen
        assert [one["judged"] for one in browser.get("/api/watch").json()["models"]] == [1, 1]
        assert browser.site.kept.latest(1)[0]["verdict"] == "good"
        assert len(browser.site.kept.latest(9)) == 2
        for wrong in ({"reason": " "}, {"who": ""}, {"value": "nan"}, {"value": "inf"}, {"value": "much"}):
            assert browser.form("/threshold", asked | wrong).status_code == 422, wrong
        given = {"value": 0.5, "reason": "", "who": "cell 4"}
        refused = browser.post("/api/models/small/versions", json=given, headers={"x-mvtec-tf": "1"})
        assert (refused.status_code, "reason" in refused.json()["error"]) == (422, True)
        browser.site.kept.close()
    assert before == {path: path.read_bytes() for path in (root / "small" / "1").rglob("*") if path.is_file()}
    old, new = (LocalModel(root / "small" / number) for number in ("1", "2"))
    content = [file.read_bytes() for file in photographs]
    answers = old("explain", content), new("explain", content)
    assert set(answers[0]) == set(answers[1])
    # How hot a picture is drawn says how far a score is on the way to the threshold.
    for name in set(answers[0]) - {"threshold", "label", "heat_level", "overlay_bytes"}:
        assert answers[0][name].tolist() == answers[1][name].tolist(), name
    assert answers[1]["threshold"].tolist() == [9.5, 9.5]
    assert answers[1]["label"].tolist() == [0, 0]
    assert (answers[1]["heat_level"] < np.maximum(answers[0]["heat_level"], 1e-9)).all()
    extra = root / "small" / "2" / "assets.extra"
    assert read_json(extra / "model_card.json")["threshold"]["value"] == 9.5
    assert read_json(extra / "model_card.json")["model"]["version"] == 2
    assert re.search(r'"canary"\s+value: 2', (root / "models.config").read_text())
    assert (extra / "predictions.csv").read_bytes() == (root / "small/1/assets.extra/predictions.csv").read_bytes()


@pytest.mark.slow
def test_a_zone_moves_with_its_threshold_and_may_not_contradict_it(root, small_run, photographs):
    thresholds = Thresholds(0.2, "as chosen", {}, {"": (0.1, 0.3)})
    model = ThresholdedModel(saved_model.load(small_run[0] / "saved_model"), thresholds)
    path = root / "small" / "1"
    shutil.rmtree(path / "variables")
    tf.saved_model.save(model, str(path), signatures=model.signatures())
    card = read_json(path / "assets.extra" / "mvtec_tf.json")
    card["thresholds"]["unsure"] = {"": [0.1, 0.3]}
    (path / "assets.extra" / "mvtec_tf.json").write_text(json.dumps(card))
    for wrong in (Thresholds(0.2, "", {}, {}), Thresholds(0.9, "", {}, {"": (0.1, 0.3)})):
        with pytest.raises(UserError, match=r"zone|unsure"):
            export_again(path, wrong)
    (export,) = exports(root)
    assert export.zone == (0.1, 0.3)
    newer = limits.save(export, 0.3, (-9.0, 9.0), "nobody knows", "Eva")
    answer = LocalModel(newer)("serving_default", [photographs[0].read_bytes()])
    assert answer["verdict"].tolist() == [2]
    assert exports(root)[0].zone == (-9.0, 9.0)
    assert sorted(child.name for child in (root / "small").iterdir()) == ["1", "2"]
