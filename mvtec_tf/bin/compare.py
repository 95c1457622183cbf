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

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError

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

    from mvtec_tf.jobs.compare import compare

    words = compare(
        _RUNS.value,
        _OUT.value,
        study=_STUDY.value,
        title=_TITLE.value,
        cost_miss=_COST_MISS.value,
        cost_false_alarm=_COST_FALSE_ALARM.value,
        resamples=_RESAMPLES.value,
        seed=_SEED.value,
    )
    print("\n".join(words))
    print(_OUT.value)


if __name__ == "__main__":
    entry.run(main)
