"""The figures of `metrics.json` as a table for a spreadsheet, one row a figure."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mvtec_tf import files
from mvtec_tf.evaluation import trivial
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.metrics import Metric

COLUMNS = (
    "scope",
    "category",
    "defect",
    "metric",
    "value",
    "low",
    "high",
    *trivial.CLASSIFIERS,
    "images",
    "note",
)


def write(path: str | os.PathLike[str], judged: Assessment) -> None:
    """Writes the table: overall, the mean over categories, each category, each defect type; empty where unknown."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(judged))
    files.write_text(path, buffer.getvalue())


def rows(judged: Assessment) -> Iterator[dict[str, Any]]:
    """The rows of the table."""
    overall = judged.overall
    yield from _figures("overall", "", overall.metrics, overall.trivial, overall.images)
    yield from _figures("mean_over_categories", "", judged.mean, judged.mean_trivial, overall.images)
    for name, scope in judged.categories.items():
        yield from _figures("category", name, scope.metrics, scope.trivial, scope.images)
        for part in scope.parts:
            yield _row("defect", name, "recall", part.recall, part.images) | {"defect": part.name}


def _figures(
    scope: str,
    category: str,
    found: Mapping[str, Metric],
    idle: Mapping[str, Mapping[str, Metric]],
    images: int,
) -> Iterator[dict[str, Any]]:
    for name, metric in found.items():
        others = {classifier: each[name].value for classifier, each in idle.items()}
        yield _row(scope, category, name, metric, images) | others


def _row(scope: str, category: str, name: str, metric: Metric, images: int) -> dict[str, Any]:
    return {
        "scope": scope,
        "category": category,
        "metric": name,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "images": images,
        "note": metric.reason or metric.note,
    }
