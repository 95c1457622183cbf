"""Setting runs, or tables of predictions of any models, against each other on the same evaluation images."""

import dataclasses

from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation.comparison import report as comparison_report
from mvtec_tf.evaluation.comparison.contenders import common_costs, read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.jobs.report_folder import report_folder
from mvtec_tf.jobs.settings import CompareSettings
from mvtec_tf.study import report as study_report


def compare(settings: CompareSettings) -> list[str]:
    """Compares and writes the report, and with `study` the page of methodology and findings.

    Returns:
      What counts, a sentence each, and a table.

    Raises:
      UsageError: costs or names make no sense.
      UserError: the runs cannot be compared.
    """
    given = {"miss": settings.cost_miss, "false_alarm": settings.cost_false_alarm}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        Costs(**given)
        methods = read_methods(settings.runs)
        costs = dataclasses.replace(common_costs(methods) or Costs(), **given)
    except ValueError as error:
        raise UsageError(f"`cost_miss`, `cost_false_alarm`: {error}") from error
    print(f"A miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g}.")
    how, found = (settings.out, settings.title, costs, Bootstrap(settings.resamples, settings.seed)), []
    with report_folder(settings.out):
        if settings.study:
            # First: it refuses bare tables, and nothing half-written should stay behind.
            found += study_report.sentences(study_report.write(methods, *how))
        compared = comparison_report.write(methods, *how)
    return [*found, *comparison_report.sentences(compared), comparison_report.text_table(compared)]
