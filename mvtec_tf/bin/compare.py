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

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import CompareSettings


def main(settings: CompareSettings) -> None:
    from mvtec_tf.jobs.compare import compare

    print("\n".join(compare(settings)))
    print(settings.out)


if __name__ == "__main__":
    entry.run(main, CompareSettings)
