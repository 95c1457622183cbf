"""One cell of the label-efficiency grid: a head fitted, its threshold chosen, its figures on the evaluated images."""

import dataclasses
import pathlib
import re
import resource
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mvtec_tf.data.protocol import Cut
from mvtec_tf.evaluation import shift, trivial
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.table import Predictions, rows
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.label_efficiency.grid import Cell

if TYPE_CHECKING:
    # Not at run time: figures are read and reported without TensorFlow.
    from mvtec_tf.features.store import FeatureStore

METRICS = ("roc_auc", "pr_auc", "balanced_accuracy", "f1", "recall", "specificity")
_STATUS = pathlib.Path("/proc/self/status")
_RESET = pathlib.Path("/proc/self/clear_refs")
# Resets the peak alone (proc(5)); pages are left as they are.
_PEAK = "5"


@dataclasses.dataclass(frozen=True)
class Method:
    """A head on an encoder's features.

    Attributes:
      store: of the features of all images.
      make_head: seed -> an unfitted head.
      rule: by which its threshold is chosen.
      pretrained: paths of images that the encoder was pretrained on, which are not held out.
    """

    store: "FeatureStore"
    make_head: Callable[[int], Any]
    rule: Rule
    pretrained: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class CellResult:
    """What came out.

    Attributes:
      cell: which.
      labelled_images, labelled_defects: test images whose labels were used, and the defective ones among them.
      evaluated_images, evaluated_defects: test images that were judged.
      pool_images: test images from which the labels were drawn.
      metrics: name -> value, None where it does not exist; those of `METRICS`.
      always_defective_f1: of calling every evaluated image defective.
      threshold: a score that reaches it is called defective; None if there is none.
      threshold_method: how it was chosen.
      fit_seconds: of the fit, out-of-fold fits and calibration included; scoring is not.
      peak_mb: peak resident memory of the whole process during fit and scoring, see `PeakMemory`.
      warnings: what the labels were too few for.
    """

    cell: Cell
    labelled_images: int
    labelled_defects: int
    evaluated_images: int
    evaluated_defects: int
    pool_images: int
    metrics: dict[str, float | None]
    always_defective_f1: float
    threshold: float | None
    threshold_method: str
    fit_seconds: float
    peak_mb: float
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "CellResult":
        """The inverse of `as_json`."""
        return cls(**value | {"cell": Cell(**value["cell"]), "warnings": tuple(value["warnings"])})


def compute(
    cell: Cell,
    cut: Cut,
    features: FrozenFeatures,
    method: Method,
    costs: Costs,
    pool_images: int,
) -> tuple[CellResult, Predictions]:
    """Fits, scores and judges, as `fit_probe` does.

    Args:
      cell: which.
      cut: who is who.
      features: of train_good, labelled and evaluate, in this order.
      method: the head; its rule chooses the threshold on the out-of-fold scores.
      costs: of wrong calls, for a rule that needs them.
      pool_images: test images from which the labels were drawn.

    Returns:
      The figures, and the table of predictions that they were taken from: pretrain, calibrate and evaluate rows.

    Raises:
      UserError: the head cannot be fitted on these images.
    """
    records = cut.fit
    memory = PeakMemory()
    start = time.monotonic()
    probe = fit_probe(lambda: method.make_head(cell.seed), features.select(np.arange(len(records))), records, cell.seed)
    calibrate = [records[i] for i in probe.calibrate]
    probe = probe.with_scores(calibrate, shift.on_line(calibrate, probe.calibrate_scores)[0])
    fit_seconds = time.monotonic() - start
    evaluated = features.select(np.arange(len(records), len(features)))
    scores = probe.head.decision_function(evaluated)
    peak_mb = memory.megabytes()
    probability = probe.head.probability_of(scores, np.full(len(scores), cell.category))
    known = [i for i, record in enumerate(cut.train_good) if record.path in method.pretrained]
    known_scores = probe.head.decision_function(features.select(np.array(known, int)))
    table = rows([records[i] for i in known], "pretrain", known_scores)
    table += rows(calibrate, "calibrate", probe.calibrate_scores) + rows(cut.evaluate, "evaluate", scores, probability)
    predictions = Predictions.from_rows(table)
    judged = assess(predictions, rule=method.rule, costs=costs, bootstrap=Bootstrap(resamples=0))
    threshold = judged.threshold.of(cell.category)
    result = CellResult(
        cell=cell,
        labelled_images=len(cut.labelled),
        labelled_defects=sum(record.label for record in cut.labelled),
        evaluated_images=len(cut.evaluate),
        evaluated_defects=sum(record.label for record in cut.evaluate),
        pool_images=pool_images,
        metrics={name: judged.overall.metrics[name].value for name in METRICS},
        always_defective_f1=judged.overall.trivial[trivial.ALWAYS_DEFECTIVE]["f1"].value,
        threshold=threshold.value,
        threshold_method=threshold.method,
        fit_seconds=round(fit_seconds, 3),
        peak_mb=round(peak_mb, 1),
        warnings=probe.warnings,
    )
    return result, predictions


class PeakMemory:
    """The peak of this process' resident memory from now on.

    Of the whole process: the interpreter, TensorFlow and everything that was loaded before are in it, so that it says
    how large a machine must be. Where the kernel does not let the peak be reset (no /proc, as on macOS), it is the
    peak since the process began, an upper limit.
    """

    def __init__(self) -> None:
        try:
            _RESET.write_text(_PEAK)
            self._resets = True
        except OSError:
            self._resets = False

    def megabytes(self) -> float:
        """So far, in units of 2^20 bytes."""
        if self._resets:
            return int(re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)[1]) / 1024
        # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1024 if _STATUS.exists() else peak / 2**20
