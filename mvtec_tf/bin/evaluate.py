"""Judges a table of predictions of any model: figures, pictures and a report that opens anywhere.

python -m mvtec_tf.bin.evaluate --predictions=FILE.csv --out=DIR [--threshold=X]

The table needs the columns path,category,defect,label,split,score (label 1 = defective, a higher
score = more defective; split is pretrain, fit, calibrate or evaluate), optionally group and
probability. Only evaluate rows are judged. Neither model nor images are needed.
"""

import hashlib
import math
import pathlib

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError, UserError

_PREDICTIONS = flags.DEFINE_string("predictions", None, "CSV file of predictions.")
_OUT = flags.DEFINE_string("out", None, "Folder for metrics.json, figures/ and report.html; made if missing.")
_THRESHOLD = flags.DEFINE_float(
    "threshold", None, "A score that reaches it is called defective. Unset: chosen on the calibrate rows."
)
_TITLE = flags.DEFINE_string("title", None, "Heading of the report. Unset: the name of the predictions file.")


def main() -> None:
    for flag in (_PREDICTIONS, _OUT):
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing. Expected --predictions=FILE.csv --out=DIR. Try --help.")
    if _THRESHOLD.value is not None and not math.isfinite(_THRESHOLD.value):
        raise UsageError(f"--threshold={_THRESHOLD.value}: expected a finite number.")

    from mvtec_tf.evaluation import summary
    from mvtec_tf.evaluation.judge import judge
    from mvtec_tf.evaluation.table import read_predictions

    path = pathlib.Path(_PREDICTIONS.value)
    predictions = read_predictions(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    notes = [("Predictions", f"{path.name}, SHA-256 {content}.")]
    if predictions.ignored_columns:
        ignored = f"Columns that were not used: {', '.join(predictions.ignored_columns)}."
        notes.append(("Ignored", ignored))
        print(ignored)
    try:
        document = judge(predictions, _OUT.value, _THRESHOLD.value, _TITLE.value or path.name, notes)
    except OSError as error:
        raise UserError(
            f"--out={_OUT.value}: {error.filename} cannot be written ({error.strerror}). Name a folder that can."
        ) from error
    print(document["summary"])
    print(summary.text_table(document))
    print(_OUT.value)


if __name__ == "__main__":
    entry.run(main)
