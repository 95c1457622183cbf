"""Watch over: counts by the hour, and the drift that `predict` would tell of the same rows."""

import datetime

import pytest

from mvtec_tf import drift
from mvtec_tf.app import lines
from mvtec_tf.app.models import exports
from mvtec_tf.serving import drifting
from mvtec_tf.serving.drifting import Line

ROW = dict.fromkeys(drift.COLUMNS, 0.1) | {"score": 0.0, "threshold": 0.5, "probability": None, "verdict": "good"}


def _judged(page, count, export, **values):
    """Rows that differ, of so many parts."""
    kept = page.site.kept
    first = len(kept.latest(-1))
    rows = [
        ROW
        | {name: 0.1 * (number % 7) - 0.3 for name in drift.COLUMNS}
        | {"path": f"{number}.png", "sha256": str(number), "model": export.called}
        | values
        for number in range(first, first + count)
    ]
    with kept.all_or_nothing():
        for row in rows:
            kept.add_image(row["sha256"], row["path"], row["path"], (1, 1))
            kept.add_judgement(row, {})
    return rows


def test_a_lamp_that_dims_is_told_as_predict_tells_it_and_nothing_before(page):
    (export,) = exports(page.site.models.root)
    rows = _judged(page, 60, export)
    assert page.get("/api/watch").json()["models"][0]["alarms"] == []
    assert f'mvtec_tf_drift_alarms{{model="{export.called}"}} 0\n' in page.get("/metrics").text
    rows += _judged(page, 60, export, z_brightness=-6.0)
    expected = Line(drifting.read_reference(export.path), order=lines._ORDER)
    expected.add(rows)
    (told,) = page.get("/api/watch").json()["models"]
    assert told["drift"] == expected.summary()
    assert told["judged"] == 120
    (alarm,) = told["alarms"]
    assert (alarm["statistic"], alarm["words"]) == ("brightness", expected.told(expected.alarms[0]))
    assert 50 <= alarm["since"] <= 70
    screen = page.get("/watch").text
    assert "brightness" in screen
    assert 'class="warning"' in screen
    assert "The parts have changed since the model was fitted (120 looked at" in screen
    assert "What to do: see whether lamp, lens, fixture or parts have changed" in screen
    assert "standard deviations of the training images" not in screen
    assert f'mvtec_tf_drift_alarms{{model="{export.called}"}} 1\n' in page.get("/metrics").text


def test_verdicts_are_counted_by_the_hour_and_a_model_that_judged_nothing_says_so(page):
    assert "Nothing was judged yet" in page.get("/watch").text
    (export,) = exports(page.site.models.root)
    _judged(page, 6, export)
    _judged(page, 2, export, verdict="defective")
    changes = [("2026-01-05T07:59:59.999+00:00", 3), ("2026-01-05T09:00:00.000+00:00", 9)]
    for moment, last in reversed(changes):
        page.site.kept._db.execute("UPDATE judgements SET at = ? WHERE id <= ?", (moment, last))
    found = lines.hours(page.site.kept, [export])
    assert [(hour["good"], hour["defective"], hour["unsure"]) for hour in found] == [(3, 0, 0), (3, 2, 0)]
    here = datetime.datetime.fromisoformat(changes[0][0]).astimezone().strftime("%Y-%m-%d %H:00")
    assert found[0]["hour"] == here
    pieces = lines.bars(found)
    assert [verdict for verdict, *_ in pieces] == ["good", "good", "defective"]
    # Five verdicts below an axis that ends at six; a third of a telephone's width further an hour could be named again.
    assert sum(height for _, x, _, _, height in pieces if x) == pytest.approx(500 / 6)
    assert lines.scale(found) == (6, [(0.0, here[5:])])
    assert f">{here[5:]}</text>" in page.get("/watch").text
    assert "8 parts were judged, 2 of them (25.0 %) called defective" in page.get("/watch").text
