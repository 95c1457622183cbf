"""What the page has done over time: verdicts an hour, and whether the parts have drifted, model by model."""

import collections
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from mvtec_tf.app import store
from mvtec_tf.app.models import Export
from mvtec_tf.app.store import Store
from mvtec_tf.evaluation.predicted import VERDICTS
from mvtec_tf.serving import drifting
from mvtec_tf.serving.drifting import Line

# So many hours in which something was judged are drawn.
_HOURS = 48
# Per cent of the width of a telephone that the name of one takes.
_NAMED = 24
_ORDER = "the time at which they were judged"


class Lines:
    """The judged parts of each model in use, in their order, tested for drift as `predict` does; parts are added once.

    Args:
      kept: what was judged.
    """

    def __init__(self, kept: Store) -> None:
        self._kept = kept
        self._lines: dict[str, tuple[Line, int]] = {}
        self._lock = threading.Lock()

    def of(self, export: Export) -> Line:
        """The line of a model up to the newest judgement."""
        with self._lock:
            line, seen = self._lines.get(export.called) or (None, 0)
            if line is None:
                line = Line(drifting.read_reference(export.path), order=_ORDER)
            query = (
                "SELECT id, row, name FROM judgements JOIN images USING (sha256) WHERE model = ? AND id > ? ORDER BY id"
            )
            new = self._kept.ask(query, (export.called, seen))
            # A person knows a part by the name that it came under.
            line.add(row["row"] | {"path": row["name"]} for row in new)
            self._lines[export.called] = line, new[-1]["id"] if new else seen
            return line

    def told(self, export: Export) -> dict[str, Any]:
        """What is to be said of a model: its verdicts, and its drift in words and alarm by alarm."""
        counts = {row["verdict"]: row["count"] for row in self._kept.counts() if row["model"] == export.called}
        line = self.of(export)
        alarms = [
            vars(alarm) | {"words": line.told(alarm), "since_path": line.names[alarm.since - 1]}
            for alarm in line.alarms
        ]
        return {
            "name": export.name,
            "version": export.version,
            "judged": sum(counts.values()),
            "verdicts": {verdict: counts.get(verdict, 0) for verdict in VERDICTS},
            "drift": line.summary(),
            "drift_state": line.state,
            "parts": len(line.names),
            "fewest": line.lacking,
            "alarms": alarms,
        }


def hours(kept: Store, exports: Sequence[Export]) -> list[dict[str, Any]]:
    """The newest hours in which these models judged something, the oldest first: `hour` here, and how many verdicts."""
    marks = ", ".join("?" * len(exports))
    query = (
        "SELECT substr(at, 1, 13) AS hour, verdict, count(*) AS count FROM judgements "
        f"WHERE model IN ({marks}) GROUP BY 1, 2 ORDER BY 1"
    )
    found: dict[str, collections.Counter] = {}
    for row in kept.ask(query, [one.called for one in exports]):
        found.setdefault(row["hour"], collections.Counter())[row["verdict"]] += row["count"]
    return [
        {"hour": store.here(f"{hour}:00:00+00:00")} | {one: count[one] for one in VERDICTS}
        for hour, count in list(found.items())[-_HOURS:]
    ]


def scale(shown: Sequence[Mapping[str, Any]]) -> tuple[int, list[tuple[float, str]]]:
    """The top of a drawing of `hours`, an even number with one digit of its own, and (x in per cent, hour) of the bars
    whose hours stand below it, as far as a telephone has room for them."""
    most = max((sum(hour[one] for one in VERDICTS) for hour in shown), default=1)
    unit = 10 ** (len(str(most)) - 1)
    top = next(top for top in (2 * unit, 4 * unit, 6 * unit, 8 * unit, 10 * unit) if top >= most)
    places = [(number * _step(shown), hour["hour"][5:]) for number, hour in enumerate(shown)]
    return top, [place for place in places[:: math.ceil(_NAMED / _step(shown))] if place[0] <= 100 - _NAMED]


def bars(shown: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float, float, float]]:
    """(verdict, x, y, width, height) of each piece of a drawing of `hours`, in per cent."""
    most, step = scale(shown)[0], _step(shown)
    found = []
    for number, hour in enumerate(shown):
        top = 100.0
        for verdict in VERDICTS:
            height = 100 * hour[verdict] / most
            top -= height
            if height:
                found.append((verdict, number * step, top, 0.85 * step, height))
    return found


def _step(shown: Sequence[Mapping[str, Any]]) -> float:
    return 100 / max(len(shown), 12)
