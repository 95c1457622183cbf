"""Setting runs, or tables of predictions of any models, against each other on the same evaluation images."""

import dataclasses
from collections.abc import Sequence

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation.comparison import report as comparison_report
from mvtec_tf.evaluation.comparison import summary
from mvtec_tf.evaluation.comparison.contenders import common_costs, read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.ownership import Owned
from mvtec_tf.study import report as study_report


def compare(
    runs: Sequence[str],
    out: str,
    study: bool = False,
    title: str = "Comparison",
    cost_miss: float | None = None,
    cost_false_alarm: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[str]:
    """Compares and writes the report, and with `study` the page of methodology and findings.

    Args:
      runs: run directories or CSV files, NAME=PATH, NAME=PATH+PATH for seeds; see `contenders.read_methods`.
      out: folder, made if missing.
      study: whether study.html is written too; the runs must be run directories then.
      title: heading of the report.
      cost_miss, cost_false_alarm: what wrong calls cost; None: as the runs say, or 1.
      resamples: resamples for the 95 % intervals; 0: no intervals.
      seed: random seed of the resamples.

    Returns:
      What counts, a sentence each, and a table.

    Raises:
      UsageError: costs or names make no sense.
      UserError: the runs cannot be compared.
    """
    given = {"miss": cost_miss, "false_alarm": cost_false_alarm}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        Costs(**given)
        methods = read_methods(runs)
        costs = dataclasses.replace(common_costs(methods) or Costs(), **given)
    except ValueError as error:
        raise UsageError(f"`cost_miss`, `cost_false_alarm`: {error}") from error
    print(f"A miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g}.")
    bootstrap, found = Bootstrap(resamples, seed), []
    with Owned(out, "`out`"):
        try:
            if study:
                # First: it refuses bare tables, and nothing half-written should stay behind.
                found += study_report.sentences(study_report.write(methods, out, title, costs, bootstrap))
            compared = comparison_report.write(methods, out, title, costs, bootstrap)
        except OSError as error:
            raise UserError(
                f"`out`={out}: {error.filename} cannot be written ({error.strerror}). Name a folder that can."
            ) from error
    return [*found, *summary.sentences(compared), summary.text_table(compared)]
