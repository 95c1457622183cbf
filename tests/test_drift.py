"""The sequential test: no alarm where nothing changes, a soon one where something does, the same on every computer."""

import numpy as np
import pytest

from mvtec_tf import drift
from mvtec_tf.drift import Detector


def _parts(rng, count, shift=0.0, which=0):
    parts = rng.normal(size=(count, 5))
    parts[:, which] += shift
    return parts


def _fed(detector, parts):
    for part in parts.tolist():
        detector.add(part)
    return detector


def test_without_a_change_alarms_are_as_rare_as_promised():
    # The promise is 1,000 * 0.001 = 1 run in 1 at most; the bound is far from reached, as of any sum of e-values.
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        alarms += bool(_fed(Detector(_parts(rng, 30), alarm=1e-3), _parts(rng, 1000)).alarms)
    assert alarms <= 5


def test_p_values_are_ranks_among_all_parts_before_as_a_double_loop_counts_them(monkeypatch):
    seen = []
    monkeypatch.setattr(drift._Side, "bet", lambda self, p, value, part: seen.append(p) and False)
    rng = np.random.default_rng(0)
    reference, parts = rng.integers(0, 4, (12, 5)).astype(float), rng.integers(0, 4, (20, 5)).astype(float)
    _fed(Detector(reference), parts)
    chances, expected = np.random.default_rng(0), []
    for number, part in enumerate(parts):
        before = np.concatenate([reference, parts[:number]])
        for column, chance in enumerate(chances.random(5)):
            higher = sum(row[column] > part[column] for row in before)
            equal = sum(row[column] == part[column] for row in before)
            p = (higher + chance * (equal + 1)) / (len(before) + 1)
            # A lower score is no sign of drift.
            expected += [p] if column == 4 else [p, 1 - p]
    np.testing.assert_allclose(seen, expected)


def test_a_bet_is_an_e_value():
    p = (np.arange(1_000_000) + 0.5) / 1_000_000
    side = drift._Side(limit=np.inf)
    gains = []
    for one in p[::1000]:
        side._evidence = 1.0
        side.bet(one, 0.0, 1)
        gains.append(side._evidence)
    expected = (1 - p) + 0.25 / np.sqrt(p)
    np.testing.assert_allclose(gains, expected[::1000])
    assert expected.mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("which", "shift"), [(0, -2.0), (2, 2.0), (3, 3.0), (4, 2.0)])
def test_a_change_is_noticed_with_its_size_and_beginning(which, shift):
    rng = np.random.default_rng(which)
    detector = _fed(Detector(_parts(rng, 100)), np.concatenate([_parts(rng, 499), _parts(rng, 100, shift, which)]))
    (alarm,) = detector.alarms
    assert alarm.statistic == drift.STATISTICS[which]
    assert 500 <= alarm.raised < 550
    assert abs(alarm.since - 500) <= 25
    assert alarm.size == pytest.approx(shift, abs=0.7)
    assert alarm.over is None
    assert f"{alarm.statistic} {alarm.size:+.1f} since part {alarm.since}" == alarm.in_words()


def test_when_it_is_as_before_the_alarm_is_over_and_the_next_one_rises_again():
    rng = np.random.default_rng(1)
    parts = [_parts(rng, 300), _parts(rng, 60, -4.0), _parts(rng, 300), _parts(rng, 60, -4.0)]
    detector = _fed(Detector(_parts(rng, 100)), np.concatenate(parts))
    first, second = detector.alarms
    assert 355 < first.over < 365
    assert first.size == pytest.approx(-4, abs=1)
    assert 660 <= second.raised < 700
    assert second.over is None


def test_a_lower_score_is_no_alarm():
    rng = np.random.default_rng(2)
    assert _fed(Detector(_parts(rng, 100)), _parts(rng, 500, -3.0, which=4)).alarms == []


def test_parts_that_are_all_alike_are_no_drift_among_themselves_but_are_beside_others():
    alike = np.ones((500, 5))
    assert _fed(Detector(alike[:50]), alike).alarms == []
    assert _fed(Detector(), alike).alarms == []
    assert _fed(Detector(_parts(np.random.default_rng(0), 100)), 5 * alike).alarms


def test_without_a_reference_parts_are_set_against_the_ones_before_them():
    rng = np.random.default_rng(3)
    detector = _fed(Detector(), np.concatenate([_parts(rng, 300), _parts(rng, 100, 3.0)]))
    assert [alarm.statistic for alarm in detector.alarms] == ["brightness"]
    assert detector.alarms[0].raised > 300
    # A change before the first part is none.
    assert _fed(Detector(), _parts(rng, 300, 3.0)).alarms == []
