"""Judges a table of predictions of any model: figures, pictures and a report that opens anywhere.

python -m mvtec_tf.bin.evaluate --predictions=FILE.csv --out=DIR [--threshold=X | --target_recall=0.95 ...]

The table needs the columns path,category,defect,label,split,score (label 1 = defective, a higher
score = more defective; split is pretrain, fit, calibrate or evaluate), optionally group and
probability. Only evaluate rows are judged. The predictions.csv of a run or of an export, and what
predict wrote, are judged with the threshold and costs that these say, unless a flag says otherwise.
Neither model nor images are needed; with --data_dir the most confident mistakes are shown, with
--heatmaps it is measured how well they find the defect, and with --features the embedding is drawn.
"""

import hashlib
import json
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import extras as extra_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags
from mvtec_tf.errors import UsageError, UserError

if TYPE_CHECKING:
    from mvtec_tf.evaluation.recorded import Judging

_PREDICTIONS = flags.DEFINE_string("predictions", None, "Table of predictions: CSV, or what predict wrote.")
_OUT = flags.DEFINE_string(
    "out", None, "Folder for metrics.json, metrics.csv, figures/ and report.html; made if missing."
)
threshold_flags.define("threshold")
extra_flags.define()
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Resamples for the 95 % intervals; 0: no intervals.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the resamples.", 0)
_ALLOW_LEAK = flags.DEFINE_boolean(
    "allow_leak",
    False,
    "Judge also the table of a run of --protocol=study, whose evaluated images were used to make the model, and say "
    "first that this proves nothing.",
)
_TENSORBOARD = flags.DEFINE_string("tensorboard", None, "Folder for the same as a TensorBoard log. Unset: none.")
_TITLE = flags.DEFINE_string("title", None, "Heading of the report. Unset: the name of the predictions file.")


def main() -> None:
    for flag in (_PREDICTIONS, _OUT):
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing. Expected --predictions=FILE.csv --out=DIR. Try --help.")

    from mvtec_tf.data import leaks
    from mvtec_tf.evaluation import predicted, recorded
    from mvtec_tf.evaluation.intervals import Bootstrap
    from mvtec_tf.evaluation.report import summary
    from mvtec_tf.evaluation.report.judge import judge
    from mvtec_tf.evaluation.table import read_predictions

    path = pathlib.Path(_PREDICTIONS.value)
    if _ALLOW_LEAK.value:
        _check_study(path)
    predictions = read_predictions(path, _ALLOW_LEAK.value)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    notes = [("Predictions", f"{path.name}, SHA-256 {content}.")]
    if predictions.ignored_columns:
        ignored = f"Columns that were not used: {', '.join(predictions.ignored_columns)}."
        notes.append(("Ignored", ignored))
        print(ignored)
    if predictions.left_out:
        notes.append(("Not judged", f"Rows that cannot be judged: {predicted.in_words(predictions.left_out)}."))
        print(notes[-1][1])
    own = recorded.of_table(path, predictions)
    how = threshold_flags.as_judged(own)
    words = _in_words(own, how)
    notes.append(("Threshold", words))
    print(words)
    entry.own(_OUT.value)
    extras = extra_flags.extras(predictions.part(leaks.EVALUATE), _SEED.value, _TENSORBOARD.value)
    try:
        document = judge(
            predictions,
            _OUT.value,
            title=_TITLE.value or path.name,
            notes=notes,
            bootstrap=Bootstrap(_RESAMPLES.value, _SEED.value),
            allow_leak=_ALLOW_LEAK.value,
            tensorboard=_TENSORBOARD.value,
            extras=extras,
            **how,
        )
    except OSError as error:
        raise UserError(
            f"--out={_OUT.value}: {error.filename} cannot be written ({error.strerror}). Name a folder that can."
        ) from error
    print(document["summary"])
    print(summary.text_table(document))
    print(_OUT.value)


def _in_words(own: "Judging | None", how: dict[str, Any]) -> str:
    """Who says how the threshold is chosen."""
    if own is None and how["threshold"] is None and not threshold_flags.method_is_given():
        return (
            f"Threshold by the default, {how['rule'].method}: no run lies beside this table to say how it is chosen. "
            "--threshold and --threshold_method say it."
        )
    if own is None:
        return "Threshold and costs as the flags say."
    if how == {"threshold": own.threshold, "rule": own.rule, "costs": own.costs}:
        return own.in_words()
    return f"Threshold and costs as the flags say, which is not what {own.source} says. There: {own.in_words()}"


def _check_study(predictions: pathlib.Path) -> None:
    """A leak is let pass only where a run says of itself that it repeats the study."""
    record = predictions.parent / "run.json"
    found = "no run.json beside the table"
    if record.is_file():
        protocol = json.loads(record.read_text(encoding="utf-8"))["settings"].get("protocol")
        if protocol == "study":
            return
        found = f"a run of --protocol={protocol}"
    raise UsageError(
        f"--allow_leak: expected the predictions.csv of a run of --protocol=study, found {found}. "
        "Of any other table a leak is an error."
    )


if __name__ == "__main__":
    entry.run(main)
