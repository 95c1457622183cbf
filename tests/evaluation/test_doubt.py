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
from mvtec_tf.evaluation.recorded import of_document
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.jobs.fields import ThresholdSettings

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
    zone = doubt.least_cost(scores, defective, COSTS)
    # Chow: a person is asked where the probability of a defect lies between review / miss and 1 - review / false alarm.
    odds = [np.log(p / (1 - p)) for p in (0.5 / 10, 1 - 0.5 / 2)]
    expected = [(one - np.log(0.25 / 0.75) + 2.0) / 2.0 for one in odds]
    assert zone.low == pytest.approx(expected[0], abs=0.2)
    assert zone.high == pytest.approx(expected[1], abs=0.2)


def test_nothing_is_unsure_where_a_person_costs_more_than_any_mistake():
    table = _table()
    scores, defective = table.score, table.label == 1
    zone = doubt.least_cost(scores, defective, Costs(10, 2, 5.0))
    assert zone.low == zone.high
    free = doubt.least_cost(scores, defective, Costs(10, 2, 0.0))
    assert (free.called(scores) == UNSURE).mean() > 0.9


def test_scores_at_the_edges():
    assert Zone(1.0, 2.0).called(np.array([0.9, 1.0, 1.9, 2.0])).tolist() == [GOOD, UNSURE, UNSURE, DEFECTIVE]
    assert Zone(1.0, 1.0).called(np.array([0.9, 1.0])).tolist() == [GOOD, DEFECTIVE]


def test_costs_are_those_of_a_double_loop_at_the_calibrate_rows_share_of_defects():
    table = _table(defective=0.1)
    evaluate = table.part("evaluate")
    found = assess(table, costs=COSTS, bootstrap=Bootstrap(200, 0))
    three = found.doubt.zones[""].called(evaluate.score)
    total = {0: 0.0, 1: 0.0}
    for label, call in zip(evaluate.label, three, strict=True):
        mistake = (10 if call == GOOD else 0) if label else (2 if call == DEFECTIVE else 0)
        total[label] += 0.5 if call == UNSURE else mistake
    expected = 0.1 * total[1] / 40 + 0.9 * total[0] / 360
    figures = found.doubt.figures
    assert found.doubt.share == pytest.approx(0.1)
    assert figures["cost"].value == pytest.approx(expected)
    assert figures["cost_two_way"].value == pytest.approx(found.overall.metrics["cost"].value)
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


def test_the_flag_reaches_the_judgement_and_its_bounds_are_checked():
    assert ThresholdSettings(cost_review=0.5).rule_and_costs()["costs"] == Costs(1, 1, 0.5)
    assert ThresholdSettings().rule_and_costs()["costs"].review is None
    with pytest.raises(UsageError, match="not both 0"):
        ThresholdSettings(cost_miss=0, cost_false_alarm=0, cost_review=1).check_threshold()
    with pytest.raises(ValueError, match="0 or more"):
        Costs(1, 1, -1.0)
