"""Judges a judged folder once more, as it was judged, with more to show."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import recorded, table
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report import judge as judge_lib
from mvtec_tf.evaluation.report.extras import Extras
from mvtec_tf.evaluation.table import Predictions

TABLE_FILE = "predictions.csv"


def predictions_of(folder: judge_lib.PathLike) -> Predictions:
    """The checked table of a judged folder. Raises UserError where there is none."""
    return table.read_predictions(pathlib.Path(folder) / TABLE_FILE, allow_leak=_leaks(_document(folder)))


def judge_again(
    folder: judge_lib.PathLike, extras: Extras, title: str, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes the folder's metrics, figures and report anew: same threshold, costs and resamples, more sections.

    Args:
      folder: with `predictions.csv` and `metrics.json`.
      extras: what to show now.
      title: of the report, where the old judgement did not keep its own.
      provenance: the run's record of itself.

    Returns:
      The content of the new `metrics.json`.

    Raises:
      UserError: the folder holds no judgement, or `extras` cannot be used.
    """
    document = _document(folder)
    judging = recorded.of_document(document, str(folder))
    asked, drawn = document.get("asked") or {}, document["intervals"]
    return judge_lib.judge(
        predictions_of(folder),
        folder,
        judging.threshold,
        asked.get("title", title),
        [(heading, text) for heading, text in asked.get("notes", [])],
        provenance,
        judging.rule,
        judging.costs,
        Bootstrap(drawn["resamples"], drawn["seed"]),
        allow_leak=_leaks(document),
        extras=extras,
        heading=asked.get("heading", ""),
    )


def _document(folder: judge_lib.PathLike) -> dict[str, Any]:
    file = pathlib.Path(folder) / judge_lib.METRICS_FILE
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not judged yet (no {file.name} in it). Finish the run first.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not readable as JSON ({error}). Judge the table again with evaluate.") from error


def _leaks(document: Mapping[str, Any]) -> bool:
    return bool(document.get("leak"))
