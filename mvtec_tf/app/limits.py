"""The threshold moved: what passes and what is stopped on the images that a model was judged by, and a new version."""

import dataclasses
import functools
import math
import pathlib
from typing import Any

from mvtec_tf import conformal, files
from mvtec_tf.app import models
from mvtec_tf.app.models import Export
from mvtec_tf.app.wording import WordedError
from mvtec_tf.data import leaks
from mvtec_tf.evaluation import assessment, thresholds
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.recorded import METRICS_FILE
from mvtec_tf.evaluation.thresholds import Rule, Threshold
from mvtec_tf.graphs.loading import EXTRA

# Of a card: who has set the threshold on the page, in place of which, and why.
_SET = "set_on_page"


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a threshold, or a zone around it, does on evaluated images.

    Attributes:
      defects, good: how many there are of each.
      passed: defects that are called good.
      stopped: good ones that are called defective.
      asked_defects, asked_good: those of each that a person is asked about.
      recall, specificity: shares of defects that do not pass and of good ones that are not stopped, with intervals.
      leak: why the figures are no evidence, "" if they are.
    """

    defects: int
    good: int
    passed: int
    stopped: int
    asked_defects: int
    asked_good: int
    recall: Metric
    specificity: Metric
    leak: str

    def as_json(self) -> dict[str, Any]:
        """As programs are told."""
        metrics = {name: getattr(self, name).as_json() for name in ("recall", "specificity")}
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | metrics


def counts(export: Export, value: float, zone: tuple[float, float] | None = None) -> Counts | None:
    """What comes of the evaluated images, as `judge` counts them; None of an export without its table.

    Args:
      export: the model.
      value: a score that reaches it is called defective.
      zone: scores from the first up to the second are unsure.

    Raises:
      WordedError: they are no numbers, or contradict each other.
    """
    low, high = zone or (value, value)
    if not all(map(math.isfinite, (low, value, high))) or not low <= value <= high:
        raise WordedError("no_number" if zone is None else "wrong_zone")
    if models.evaluation(export) is None:
        return None
    below, above = _judged(export, low), _judged(export, high)
    missed, stopped = below.overall.counts, above.overall.counts
    return Counts(
        defects=missed.defective,
        good=missed.good,
        passed=missed.fn,
        stopped=stopped.fp,
        asked_defects=missed.tp - stopped.tp,
        asked_good=missed.fp - stopped.fp,
        recall=below.overall.metrics["recall"],
        specificity=above.overall.metrics["specificity"],
        leak=below.leak.sentence() if below.leak else "",
    )


def wanted(export: Export, rule: Rule, costs: Costs) -> Threshold | None:
    """The threshold that a rule chooses on the export's calibrate rows, one for all; None without a table."""
    table = models.evaluation(export)
    if table is None:
        return None
    categories = table.part(leaks.EVALUATE).categories()
    return thresholds.choose(table, categories, rule, costs, _bootstrap(export)).whole


@functools.lru_cache(maxsize=64)
def _judged(export: Export, value: float) -> Assessment:
    table = models.evaluation(export)
    return assessment.assess(table, value, bootstrap=_bootstrap(export), allow_leak=True)


def _bootstrap(export: Export) -> Bootstrap:
    """Of the run's own intervals."""
    drawn = files.read_json(export.path / EXTRA / METRICS_FILE)["intervals"]
    return Bootstrap(drawn["resamples"], drawn["seed"])


def save(export: Export, value: float, zone: tuple[float, float] | None, reason: str, who: str) -> pathlib.Path:
    """Writes the next version of a model with this threshold; see `export.export_again`."""
    # Not above: the page opens without the half of TensorFlow that only writers need.
    from mvtec_tf.graphs.thresholded import Thresholds
    from mvtec_tf.serving.export import export_again

    counts(export, value, zone)
    by = f" by {who}" if who else ""
    origin = f"it was set on the page{by}, in place of {export.threshold:.6g} of version {export.version}: {reason}"
    unsure = {"": zone} if zone is not None else {}
    facts = {"who": who, "was": export.threshold, "version": export.version, "reason": reason}
    return export_again(export.path, Thresholds(value, origin, {}, unsure), {_SET: facts})


def origin(export: Export) -> tuple[str, dict[str, Any]]:
    """Where a model's threshold comes from, (key of the words, values)."""
    if _SET in export.card:
        return "origin_page", export.card[_SET]
    file, told = export.path / EXTRA / METRICS_FILE, export.card["threshold_origin"]
    form = files.read_json(file)["threshold"] if file.is_file() else {}
    # It is another one where it was given as the run was exported.
    if form.get("reason") != told:
        return "origin_other", {"reason": told}
    return chosen(Threshold.from_json(form), export.card.get("run", {}).get("target_recall"))


def is_above_expected(export: Export, found: Threshold, passed: float) -> bool:
    """Whether a promise to pass this share of good parts lies above the threshold expected to pass as many or more."""
    is_expected = origin(export)[0] == "origin_expected" and passed <= 1 - conformal.FALSE_ALARMS
    return is_expected and found.promised is not None and found.value > export.threshold


def chosen(threshold: Threshold, recall: float | None = None) -> tuple[str, dict[str, Any]]:
    """How a threshold was chosen, (key of the words, values).

    Args:
      threshold: of a run.
      recall: that was wanted, if one was.
    """
    values = {"good": threshold.images - threshold.defects, "defects": threshold.defects}
    if threshold.promised is not None:
        return "origin_promised", values | {"percent": 100 * threshold.promised}
    if threshold.method == thresholds.LIMIT:
        return "origin_expected", values | {"percent": 100 * conformal.FALSE_ALARMS}
    if threshold.method == thresholds.TARGET_RECALL and recall:
        return "origin_recall", values | {"percent": 100 * recall}
    if threshold.method in (thresholds.YOUDEN, thresholds.SMOOTH_YOUDEN):
        return "origin_apart", values
    if threshold.method in (thresholds.BEST_F1, thresholds.LEAST_COST):
        return f"origin_{threshold.method}", values
    return "origin_other", {"reason": threshold.reason}
