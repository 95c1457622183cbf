"""Judges what no network is needed for: logistic regression on mean brightness or on 16 x 16 grey pixels.

Without labels (--label_budget=0) it is the Mahalanobis distance of these from the good images. A method that does not
beat these has learnt nothing about defects.

Example:
  python -m mvtec_tf.bin.fit_baseline --data_dir=DATA/bottle --features=grey_pixels --run_dir=results/bottle_pixels
"""

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags

run_flags.define_data_flags()
run_flags.define_run_dir()
threshold_flags.define()
_FEATURES = flags.DEFINE_enum(
    "features", "grey_pixels", ["grey_pixels", "mean_brightness"], "What the regression sees."
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side in pixels that images are resized to first.", 16)
_BUDGET = flags.DEFINE_string(
    "label_budget", "all", "Share of all test images whose labels may be used; all; or 10d: ten defective objects."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the cut, the labels drawn and the folds.", 0)


def main() -> None:
    import numpy as np

    from mvtec_tf.data import protocol
    from mvtec_tf.data.decoding.image_store import ImageStore
    from mvtec_tf.evaluation.rows import rows
    from mvtec_tf.features.baseline_graph import Baseline, write_baseline
    from mvtec_tf.graphs import scoring
    from mvtec_tf.heads import baselines
    from mvtec_tf.heads.fitting import fit_probe
    from mvtec_tf.heads.make import Logistic, Mahalanobis
    from mvtec_tf.heads.settings import SCORE_UNITS
    from mvtec_tf.jobs import probe as probe_steps
    from mvtec_tf.jobs import run_steps

    store = ImageStore(_IMAGE_SIZE.value, max_pixels=run_flags.FLAGS.max_pixels)
    records, skipped = run_steps.usable(run_steps.scan(), store.readable)
    budget = protocol.parse_budget(_BUDGET.value)
    cut = protocol.clean(records, budget, _SEED.value)
    run = run_steps.open_run("fit_baseline", records, skipped)
    fit = (*cut.train_good, *cut.labelled)
    features = getattr(baselines, _FEATURES.value)(store.load((*fit, *cut.evaluate))).astype(np.float32)
    make, name = (Logistic, "logistic") if cut.labelled else (Mahalanobis, "mahalanobis")
    with run.timed("fit"):
        probe = fit_probe(make, features[: len(fit)], fit, _SEED.value)
    if not run.saved_model.exists():
        side = baselines.SIDES[_FEATURES.value]
        graph = Baseline(side, probe.head, _IMAGE_SIZE.value, run_flags.FLAGS.max_pixels)
        write_baseline(run.saved_model, graph, {"run": run.record["settings"], "head": name})
    store.forget()
    with run.timed("score"):
        served = scoring.score_files(run.saved_model, [record.file for record in cut.evaluate])
    scores = probe.head.decision_function(features)
    probe_steps.check_roads(served.score, scores[len(fit) :])
    calibrate = [fit[i] for i in probe.calibrate]
    table = [
        *probe_steps.rows_of(probe.head, fit, "fit", scores[: len(fit)]),
        *probe_steps.rows_of(probe.head, calibrate, "calibrate", probe.calibrate_scores),
        *rows(cut.evaluate, "evaluate", served.score, served.probability),
    ]
    run.note(score_unit=SCORE_UNITS[name])
    run.note(labels_used=len(cut.labelled), labelled_defects=sum(record.label for record in cut.labelled))
    words = {"logistic": "Logistic regression on", "mahalanobis": "Mahalanobis distance of"}[name]
    title = f"{words} {_FEATURES.value.replace('_', ' ')}"
    run_steps.judge_run(run, table, title, [("Labels", probe_steps.labels_note(cut))], evaluated=cut.evaluate)
    run_steps.finish(run)


if __name__ == "__main__":
    entry.run(main)
