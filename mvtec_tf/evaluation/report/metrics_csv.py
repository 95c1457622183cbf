"""The figures of `metrics.json` as a table for a spreadsheet, one row a figure."""

from collections.abc import Iterator, Mapping
from typing import Any

from mvtec_tf import files
from mvtec_tf.evaluation import trivial
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.metrics import Metric

COLUMNS = ("scope", "category", "defect", "metric", "value", "low", "high", *trivial.CLASSIFIERS, "images", "note")


def write(path: files.PathLike, judged: Assessment) -> None:
    """Writes the table: overall, the mean over categories, each category, each defect type; empty where unknown."""
    files.write_csv(path, COLUMNS, rows(judged))


def rows(judged: Assessment) -> Iterator[list[Any]]:
    """The rows of the table."""
    overall = judged.overall
    yield from _figures("overall", "", overall.metrics, overall.trivial, overall.images)
    yield from _figures("mean_over_categories", "", judged.mean, judged.mean_trivial, overall.images)
    for name, scope in judged.categories.items():
        yield from _figures("category", name, scope.metrics, scope.trivial, scope.images)
        for part in scope.parts:
            unknown = [None] * len(trivial.CLASSIFIERS)
            yield _row(("defect", name, part.name, "recall"), part.recall, unknown, part.images)


def _figures(
    scope: str, category: str, found: Mapping[str, Metric], idle: Mapping[str, Mapping[str, Metric]], images: int
) -> Iterator[list[Any]]:
    for name, metric in found.items():
        others = [idle[classifier][name].value for classifier in trivial.CLASSIFIERS]
        yield _row((scope, category, "", name), metric, others, images)


def _row(names: tuple[str, ...], metric: Metric, idle: list[float | None], images: int) -> list[Any]:
    return [*names, metric.value, metric.low, metric.high, *idle, images, metric.reason or metric.note]
