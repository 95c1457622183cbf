"""Sets runs, or tables of predictions of any models, against each other on the same evaluation images.

python -m mvtec_tf.bin.compare --runs=A,B,... --out=DIR

Each of A, B, ... is a run directory (with predictions.csv and metrics.json) or a CSV file of
predictions, as `evaluate` reads it. The first is the one that the others are measured against.
NAME=PATH gives a method a name, NAME=PATH+PATH+... are several seeds of one method, and methods
named NAME@1, NAME@2, ... are points of one label-efficiency curve. Neither models nor images are
needed. Runs that were judged on different images, labels or categories are refused, and so is a table whose
evaluated images were used before; a run that repeats the study is set beside the others as no evidence.

--study also writes study.html, the page of methodology and findings: what few labels can do beside
a supervised network with all of them, from the records of the runs, which must be run directories.
"""

import dataclasses

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError, UserError

_RUNS = flags.DEFINE_list("runs", None, "Run directories or CSV files, as described above; at least two.")
_OUT = flags.DEFINE_string("out", None, "Folder for comparison.json, comparison.csv, figures/ and report.html.")
_STUDY = flags.DEFINE_boolean("study", False, "Also write study.html, study.json and study.csv: methodology, findings.")
_TITLE = flags.DEFINE_string("title", "Comparison", "Heading of the report.")
_COSTS_UNSET = "Unset: as all runs were judged, or 1 if they were judged differently."
_COST_MISS = flags.DEFINE_float(
    "cost_miss", None, f"What a defective image that is called good costs. {_COSTS_UNSET}", 0
)
_COST_FALSE_ALARM = flags.DEFINE_float(
    "cost_false_alarm", None, f"What a good image that is stopped costs. {_COSTS_UNSET}", 0
)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Resamples for the 95 % intervals; 0: no intervals.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the resamples.", 0)


def main() -> None:
    for flag in (_RUNS, _OUT):
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing. Expected --runs=A,B,... --out=DIR. Try --help.")

    from mvtec_tf.evaluation.comparison import report as comparison_report
    from mvtec_tf.evaluation.comparison import summary as comparison_summary
    from mvtec_tf.evaluation.comparison.contenders import common_costs, read_methods
    from mvtec_tf.evaluation.intervals import Bootstrap
    from mvtec_tf.evaluation.metrics import Costs
    from mvtec_tf.study import report as study_report

    given = {"miss": _COST_MISS.value, "false_alarm": _COST_FALSE_ALARM.value}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        Costs(**given)
        methods = read_methods(_RUNS.value)
        costs = dataclasses.replace(common_costs(methods) or Costs(), **given)
    except ValueError as error:
        raise UsageError(f"--cost_miss, --cost_false_alarm: {error}") from error
    print(f"A miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g}.")
    entry.own(_OUT.value)
    try:
        bootstrap = Bootstrap(_RESAMPLES.value, _SEED.value)
        if _STUDY.value:
            # First: it refuses bare tables, and nothing half-written should stay behind.
            found = study_report.write(methods, _OUT.value, _TITLE.value, costs, bootstrap)
        compared = comparison_report.write(methods, _OUT.value, _TITLE.value, costs, bootstrap)
    except OSError as error:
        raise UserError(
            f"--out={_OUT.value}: {error.filename} cannot be written ({error.strerror}). Name a folder that can."
        ) from error
    if _STUDY.value:
        print("\n".join(study_report.sentences(found)))
    print("\n".join(comparison_summary.sentences(compared)))
    print(comparison_summary.text_table(compared))
    print(_OUT.value)


if __name__ == "__main__":
    entry.run(main)
