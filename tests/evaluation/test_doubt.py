"""The third verdict: where a person is cheaper than a mistake, chosen on calibrate rows, and what it comes to."""

import dataclasses
import json

import numpy as np
import pytest

from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation import doubt
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.doubt import DEFECTIVE, GOOD, UNSURE, Zone
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.recorded import Judging, of_document
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.jobs.fields import ThresholdSettings
from mvtec_tf.jobs.judge import as_judged
from mvtec_tf.jobs.recipes import resolved
from mvtec_tf.jobs.settings import FitSettings, JudgeSettings

COSTS = Costs(10, 2, 0.5)


def _table(seed=0, count=400, apart=2.0, defective=0.25, splits=("calibrate", "evaluate")):
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("path", "category", "defect", "label", "split", "score")}
    for split in splits:
        labels = (np.arange(count) < defective * count).astype(int)
        columns["path"] += [f"{split}/{i}.png" for i in range(count)]
        columns["category"] += ["cap"] * count
        columns["defect"] += ["chip" if label else "good" for label in labels]
        columns["label"] += labels.tolist()
        columns["split"] += [split] * count
        columns["score"] += (rng.normal(size=count) + apart * labels).tolist()
    return Predictions.from_columns(**columns)


def test_the_zone_costs_least_of_all_pairs_of_thresholds_on_the_distributions_that_it_is_chosen_of():
    # Two normal distributions: the costs of every pair are known.
    table = _table(count=4000)
    scores, defective = table.part("calibrate").score, table.part("calibrate").label == 1
    zone = doubt.least_cost(scores, defective, COSTS, 1.5)
    # Chow: a person is asked where the probability of a defect lies between review / miss and 1 - review / false alarm.
    odds = [np.log(p / (1 - p)) for p in (0.5 / 10, 1 - 0.5 / 2)]
    expected = [(one - np.log(0.25 / 0.75) + 2.0) / 2.0 for one in odds]
    assert zone.low == pytest.approx(expected[0], abs=0.2)
    assert zone.high == pytest.approx(expected[1], abs=0.2)


def test_nothing_is_unsure_where_a_person_costs_more_than_any_mistake():
    table = _table()
    scores, defective = table.score, table.label == 1
    # 1 / 1.7 < 1 / 10 + 1 / 2: a person is never cheaper than the smaller of two expected mistakes.
    assert doubt.least_cost(scores, defective, Costs(10, 2, 1.7), 1.0) == Zone(1.0, 1.0)
    assert not doubt.least_cost(scores, defective, Costs(10, 2, 1.6), 1.0).is_empty
    free = doubt.least_cost(scores, defective, Costs(10, 2, 0.0), 1.0)
    assert (free.called(scores) == UNSURE).mean() > 0.9


@pytest.mark.parametrize("threshold", [-7.0, -1.0, 0.1, 1.0, 2.5, 9.0])
@pytest.mark.parametrize("costs", [COSTS, Costs(20, 2, 100), Costs(1, 30, 0.2), Costs(0, 1, 0.1)])
def test_no_verdict_contradicts_the_threshold_wherever_it_lies(threshold, costs):
    table = _table()
    found = assess(table, threshold, costs=costs, bootstrap=Bootstrap(0)).doubt
    zone, scores = found.zones[""], np.append(table.score, [threshold, np.nextafter(threshold, -9)])
    called = zone.called(scores)
    assert (scores[called == DEFECTIVE] >= threshold).all()
    assert (scores[called == GOOD] < threshold).all()
    assert zone.low <= threshold <= zone.high
    # A person who is not asked brings nothing: what he saves is not what another threshold does.
    if zone.is_empty:
        own = found.figures.get("cost_own", found.figures["cost_two_way"])
        assert found.figures["cost"].value == pytest.approx(own.value)


def test_scores_at_the_edges():
    assert Zone(1.0, 2.0).called(np.array([0.9, 1.0, 1.9, 2.0])).tolist() == [GOOD, UNSURE, UNSURE, DEFECTIVE]
    assert Zone(1.0, 1.0).called(np.array([0.9, 1.0])).tolist() == [GOOD, DEFECTIVE]


def test_costs_are_those_of_a_double_loop_at_the_calibrate_rows_share_of_defects():
    table, costs = _table(defective=0.1), Costs(40, 2, 0.5)
    evaluate = table.part("evaluate")
    found = assess(table, costs=costs, bootstrap=Bootstrap(200, 0))
    three = found.doubt.zones[""].called(evaluate.score)
    total = {0: 0.0, 1: 0.0}
    for label, call in zip(evaluate.label, three, strict=True):
        mistake = (40 if call == GOOD else 0) if label else (2 if call == DEFECTIVE else 0)
        total[label] += 0.5 if call == UNSURE else mistake
    expected = 0.1 * total[1] / 40 + 0.9 * total[0] / 360
    figures = found.doubt.figures
    assert found.doubt.share == pytest.approx(0.1)
    assert figures["cost"].value == pytest.approx(expected)
    assert figures["cost_own"].value == pytest.approx(found.overall.metrics["cost"].value)
    least = assess(table, rule=Rule("least_cost"), costs=costs, bootstrap=Bootstrap(0))
    assert figures["cost_two_way"].value == pytest.approx(least.overall.metrics["cost"].value)
    assert figures["cost_two_way"].value != figures["cost_own"].value
    assert "cost_own" not in least.doubt.figures
    assert figures["difference"].value == pytest.approx(expected - figures["cost_two_way"].value)
    assert figures["reviewed"].value == pytest.approx((three == UNSURE).mean())
    for name in doubt.FIGURES:
        assert figures[name].low <= figures[name].value <= figures[name].high
    assert figures["cost"].low < figures["cost"].high


def test_evaluated_images_have_no_say_in_the_zone():
    table = _table()
    other = dataclasses.replace(table, score=np.where(table.split == "evaluate", 7.0, table.score))
    zones = [assess(one, costs=COSTS, bootstrap=Bootstrap(0)).doubt.zones for one in (table, other)]
    assert zones[0] == zones[1]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (_table(splits=("evaluate",)), "there is no calibrate row"),
        (_table(defective=0.0), "there is no defective row"),
        (dataclasses.replace(_table(), score=np.ones(800)), "all alike"),
    ],
)
def test_where_no_zone_can_be_chosen_that_is_said_and_nothing_is_unsure(table, words, tmp_path):
    document = judge(table, tmp_path, costs=COSTS, bootstrap=Bootstrap(10))
    assert document["doubt"]["zones"] == {}
    assert words in document["doubt"]["reason"]
    assert f"No verdict is unsure: {document['doubt']['reason']}." in document["summary"]


def test_the_report_shows_it_beside_the_two_way_rule_and_it_is_judged_so_again(tmp_path):
    document = judge(_table(), tmp_path, costs=COSTS, bootstrap=Bootstrap(100))
    assert "With a third verdict a person looks at" in document["summary"]
    assert "with two at this threshold, which is another" in document["summary"]
    page = (tmp_path / "report.html").read_text()
    for words in ("Unsure from", "Cost of a part, three verdicts", "Cost of a part, two verdicts"):
        assert words in page
    again = of_document(json.loads((tmp_path / "metrics.json").read_text()), "run")
    assert again.costs == COSTS
    assert "a person 0.5" in again.in_words()
    plain = judge(_table(), tmp_path, bootstrap=Bootstrap(100))
    assert "doubt" not in plain
    assert "review" not in plain["costs"]
    assert "Unsure" not in (tmp_path / "report.html").read_text()


def test_where_a_person_never_pays_that_is_said_and_no_saving_of_another_threshold(tmp_path):
    document = judge(_table(), tmp_path, costs=Costs(20, 2, 100), bootstrap=Bootstrap(0))
    assert "A person never pays at this price, 100: no verdict is unsure; where 25 %" in document["summary"]
    assert "With a third verdict" not in document["summary"]
    assert ">none<" in (tmp_path / "report.html").read_text()
    own = judge(_table(), tmp_path, rule=Rule("least_cost"), costs=Costs(20, 2, 100), bootstrap=Bootstrap(0))
    assert own["doubt"]["figures"]["difference"]["value"] == 0
    assert "A person never pays at this price, 100: no verdict is unsure. " in own["summary"]


def test_a_category_without_a_labelled_defect_has_no_zone_and_that_is_said(tmp_path):
    known, other = _table(count=200), _table(seed=1, count=200, defective=0.1)
    # The scores of the other are of another scale, and none of its calibrate rows is defective.
    other = dataclasses.replace(
        other,
        path=np.array([f"washer/{path}" for path in other.path], object),
        category=np.full(len(other), "washer", object),
        score=100 + 10 * other.score,
    )
    other = other.select((other.split == "evaluate") | (other.label == 0))
    both = Predictions.from_rows([*known.rows(), *other.rows()])
    document = judge(both, tmp_path, rule=Rule("least_cost", "category"), costs=COSTS, bootstrap=Bootstrap(0))
    own = {name: one["value"] for name, one in document["threshold"]["categories"].items()}
    zones = {name: Zone(**zone) for name, zone in document["doubt"]["zones"].items()}
    assert not zones["cap"].is_empty
    assert zones["washer"] == Zone(own["washer"], own["washer"])
    assert zones[""].is_empty
    assert document["doubt"]["without"] == {"washer": "there is no defective row to choose it on"}
    assert "No verdict of washer is unsure: there is no defective row to choose it on." in document["summary"]
    assert "washer: there is no defective row" in (tmp_path / "report.html").read_text()
    alone = judge(other, tmp_path, rule=Rule("least_cost", "category"), costs=COSTS, bootstrap=Bootstrap(0))
    assert "No verdict is unsure: of no category" in alone["summary"]


def test_the_threshold_is_that_of_the_least_cost_where_nobody_says_how_it_is_chosen():
    assert ThresholdSettings(cost_review=0.5).rule_and_costs()["rule"] == Rule("least_cost")
    assert ThresholdSettings(cost_review=0.5, target_recall=0.9).rule_and_costs()["rule"].method == "target_recall"
    fit = FitSettings(data_dir=("line",), run_dir="run", recipe="few_labels", cost_review=0.5)
    assert resolved(fit).rule_and_costs()["rule"].method == "least_cost"
    asked = JudgeSettings(predictions="t.csv", out="out", cost_review=0.5)
    for method, target, expected in (("smooth_youden", None, "least_cost"), ("target_recall", 0.9, "target_recall")):
        rule = as_judged(asked, Judging("a run", rule=Rule(method, "category", target)))["rule"]
        assert (rule.method, rule.per) == (expected, "category")


def test_the_flag_reaches_the_judgement_and_its_bounds_are_checked():
    assert ThresholdSettings(cost_review=0.5).rule_and_costs()["costs"] == Costs(1, 1, 0.5)
    assert ThresholdSettings().rule_and_costs()["costs"].review is None
    with pytest.raises(UsageError, match="not both 0"):
        ThresholdSettings(cost_miss=0, cost_false_alarm=0, cost_review=1).check_threshold()
    with pytest.raises(ValueError, match="0 or more"):
        Costs(1, 1, -1.0)
