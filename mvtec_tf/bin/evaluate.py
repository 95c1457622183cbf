"""Judges a table of predictions of any model: figures, pictures and a report that opens anywhere.

python -m mvtec_tf.bin.evaluate --predictions=FILE.csv --out=DIR [--threshold=X | --target_recall=0.95 ...]

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
_METHOD = flags.DEFINE_enum(
    "threshold_method",
    None,
    ["youden", "best_f1", "target_recall", "target_specificity", "least_cost"],
    "How the threshold is chosen on the calibrate rows. Unset: youden, or what a --target_... flag says.",
)
_PER = flags.DEFINE_enum(
    "threshold_per", "model", ["model", "category"], "One threshold for the model, or one of each category."
)
_TARGET_RECALL = flags.DEFINE_float("target_recall", None, "Share of the defective images to find, e.g. 0.95.")
_TARGET_SPECIFICITY = flags.DEFINE_float("target_specificity", None, "Share of the good images to let pass, e.g. 0.95.")
_COST_MISS = flags.DEFINE_float("cost_miss", 1.0, "What a defective image that is called good costs.", 0)
_COST_FALSE_ALARM = flags.DEFINE_float("cost_false_alarm", 1.0, "What a good image that is stopped costs.", 0)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Resamples for the 95 % intervals; 0: no intervals.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the resamples.", 0)
_ALLOW_LEAK = flags.DEFINE_boolean(
    "allow_leak",
    False,
    "Judge also a table whose evaluated images were used to make the model, and say first that this proves nothing.",
)
_TITLE = flags.DEFINE_string("title", None, "Heading of the report. Unset: the name of the predictions file.")


def main() -> None:
    for flag in (_PREDICTIONS, _OUT):
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing. Expected --predictions=FILE.csv --out=DIR. Try --help.")
    method, target = _method()

    from mvtec_tf.evaluation import summary
    from mvtec_tf.evaluation.intervals import Bootstrap
    from mvtec_tf.evaluation.judge import judge
    from mvtec_tf.evaluation.metrics import Costs
    from mvtec_tf.evaluation.table import read_predictions
    from mvtec_tf.evaluation.thresholds import Rule

    try:
        rule, costs = Rule(method, _PER.value, target), Costs(_COST_MISS.value, _COST_FALSE_ALARM.value)
    except ValueError as error:
        raise UsageError(f"Threshold or costs: {error}") from error
    path = pathlib.Path(_PREDICTIONS.value)
    predictions = read_predictions(path, _ALLOW_LEAK.value)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    notes = [("Predictions", f"{path.name}, SHA-256 {content}.")]
    if predictions.ignored_columns:
        ignored = f"Columns that were not used: {', '.join(predictions.ignored_columns)}."
        notes.append(("Ignored", ignored))
        print(ignored)
    try:
        document = judge(
            predictions,
            _OUT.value,
            _THRESHOLD.value,
            _TITLE.value or path.name,
            notes,
            rule=rule,
            costs=costs,
            bootstrap=Bootstrap(_RESAMPLES.value, _SEED.value),
            allow_leak=_ALLOW_LEAK.value,
        )
    except OSError as error:
        raise UserError(
            f"--out={_OUT.value}: {error.filename} cannot be written ({error.strerror}). Name a folder that can."
        ) from error
    print(document["summary"])
    print(summary.text_table(document))
    print(_OUT.value)


def _method() -> tuple[str, float | None]:
    """How to choose the threshold, and the wanted share, from flags that must not contradict each other."""
    targets = [flag for flag in (_TARGET_RECALL, _TARGET_SPECIFICITY) if flag.value is not None]
    implied = targets[0].name if targets else "youden"
    method = _METHOD.value or implied
    if _THRESHOLD.value is not None:
        if not math.isfinite(_THRESHOLD.value):
            raise UsageError(f"--threshold={_THRESHOLD.value}: expected a finite number.")
        if _METHOD.value or targets or _PER.value != "model":
            raise UsageError("--threshold is given, so none is chosen: leave it out, or the other threshold flags.")
    if len(targets) > 1:
        raise UsageError("--target_recall and --target_specificity: one threshold cannot have both. Give one of them.")
    if targets and method != targets[0].name:
        raise UsageError(f"--{targets[0].name} does not go with --threshold_method={method}. Leave out one of them.")
    if method.startswith("target_") and not targets:
        raise UsageError(f"--threshold_method={method} needs --{method}, a share such as 0.95.")
    if targets and not 0 < targets[0].value <= 1:
        raise UsageError(f"--{targets[0].name}={targets[0].value}: expected a share above 0 and up to 1, such as 0.95.")
    return method, targets[0].value if targets else None


if __name__ == "__main__":
    entry.run(main)
