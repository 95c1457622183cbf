"""How a table was judged by who made it: its run, an export of that, or `predict`, so that it is judged so again."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import thresholds
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Chosen, Rule

TABLE_FILE = "predictions.csv"
METRICS_FILE = "metrics.json"
_RUN_FILE = "run.json"
# An export's card, and where it keeps it.
_EXPORT_FILE = "mvtec_tf.json"
# RUN/cells/CATEGORY/ENCODER/CELL.csv
_CELLS = "cells"
# How thresholds from good images alone were chosen before they promised anything.
_FORMER = "good_quantile"
_TARGETS = {name: name for name in (thresholds.TARGET_RECALL, thresholds.TARGET_SPECIFICITY)}


@dataclasses.dataclass(frozen=True)
class Judging:
    """How a table was judged.

    Attributes:
      source: who says so, in words.
      threshold: None: chosen by `rule`.
      rule, costs: see `assessment.assess`.
      basis: what is to be said of the rows that the rule chooses on, see `summary.sentences`.
      says_costs: whether `source` says what mistakes cost.
    """

    source: str
    threshold: float | Chosen | None = None
    rule: Rule = dataclasses.field(default_factory=Rule)
    costs: Costs = dataclasses.field(default_factory=Costs)
    basis: str = ""
    says_costs: bool = True

    def in_words(self) -> str:
        """One sentence."""
        costs = f"a miss costs {self.costs.miss:g}, a false alarm {self.costs.false_alarm:g}"
        costs += "" if self.costs.review is None else f", a person {self.costs.review:g}"
        if not self.says_costs:
            costs = "no costs are said there, such as those of the model's run, so either mistake costs 1"
        return f"Threshold as {self.source} says: {self._threshold()}; {costs}."

    def _threshold(self) -> str:
        if isinstance(self.threshold, Chosen):
            values = sorted({one.value for one in (self.threshold.whole, *self.threshold.categories.values())})
            return ", ".join(f"{value:.4g}" for value in values)
        if self.threshold is not None:
            return f"{self.threshold:.4g}"
        # Of good images alone it is what a threshold promises, whatever the rule without a target is called.
        target = ", if a defect is labelled" if self.rule.target is None else f" {self.rule.target:g}"
        whose = "the model" if self.rule.per == thresholds.PER_MODEL else "each category"
        return f"chosen by {self.rule.method}{target}, one for {whose}"


def of_table(path: files.PathLike, table: Predictions) -> Judging | None:
    """How the maker of a table judged it; None if nothing says so.

    A run's `predictions.csv`, also in a folder of the run for a second model, the same in an export, a cell of a grid,
    or what `predict` wrote.

    Raises:
      UserError: a record that lies beside the table cannot be read.
    """
    path = pathlib.Path(path)
    folder = path.absolute().parent
    if table.thresholds:
        source = "the column threshold"
        third = "; that some were unsure is not counted by it" if table.verdicts else ""
        threshold = thresholds.told(table.thresholds, f"the model called the images by it{third}")
        return Judging(source, threshold, says_costs=False)
    if path.name == TABLE_FILE and (folder / METRICS_FILE).is_file():
        if (folder / _EXPORT_FILE).is_file():
            return _of_export(folder)
        if any((place / _RUN_FILE).is_file() for place in (folder, folder.parent)):
            return of_document(files.read_json(folder / METRICS_FILE), f"the run {path.parent}")
    if path.with_suffix(".json").is_file() and len(path.absolute().parents) > 4 and folder.parents[1].name == _CELLS:
        return _of_cell(path, folder.parents[2])
    return None


def of_document(document: Mapping[str, Any], source: str) -> Judging:
    """How the judgement with this `metrics.json` was made.

    Raises:
      UserError: it is none that this program wrote.
    """
    try:
        wanted, found = document.get("asked"), document["threshold"]
        costs = Costs(**document["costs"])
        own = found.get("categories", {})
        if _FORMER in (found["method"], *(each["method"] for each in own.values())):
            values = {name: each["value"] for name, each in own.items()} or {"": found["value"]}
            return Judging(source, thresholds.told(values, found["reason"]), costs=costs)
        if wanted:
            threshold, basis = _threshold(wanted["threshold"]), wanted.get("basis", "")
            return Judging(source, threshold, Rule(**wanted["rule"]), costs, basis)
        # Written before what was asked for was kept: Youden's rule was then the only one of a run.
        return Judging(source, found["value"] if found["method"] == thresholds.GIVEN else None, Rule(), costs)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: {METRICS_FILE} does not say how the threshold was chosen ({error!r}).") from error


def asked(threshold: float | Chosen | None) -> Any:
    """A threshold in the form of `metrics.json`, which `of_document` reads."""
    if not isinstance(threshold, Chosen):
        return threshold
    own = threshold.categories or {"": threshold.whole}
    return {"values": {name: one.value for name, one in own.items()}, "reason": threshold.whole.reason}


def _threshold(wanted: Any) -> float | Chosen | None:
    return thresholds.told(wanted["values"], wanted["reason"]) if isinstance(wanted, dict) else wanted


def _of_export(folder: pathlib.Path) -> Judging:
    source = f"the export {folder.parent}"
    judged = of_document(files.read_json(folder / METRICS_FILE), source)
    card = files.read_json(folder / _EXPORT_FILE)
    value = files.read_json(folder / METRICS_FILE)["threshold"]["value"]
    # It may have been exported with another threshold than its run found.
    return judged if card.get("threshold") == value else dataclasses.replace(judged, threshold=card.get("threshold"))


def _of_cell(path: pathlib.Path, run: pathlib.Path) -> Judging | None:
    """A cell says the method, its grid the rest."""
    if not (run / _RUN_FILE).is_file():
        return None
    settings = files.read_json(run / _RUN_FILE).get("settings", {})
    method = files.read_json(path.with_suffix(".json")).get("threshold_method")
    if method not in thresholds.METHODS:
        # From good images alone, or none: any rule comes to it.
        method = thresholds.YOUDEN
    rule = Rule(method, target=settings.get(_TARGETS.get(method, "")))
    # Not given means 1.
    costs = {name: settings.get(f"cost_{name}") for name in ("miss", "false_alarm")}
    costs = Costs(**{name: value for name, value in costs.items() if value is not None})
    return Judging(f"the grid {run}", rule=rule, costs=costs)
