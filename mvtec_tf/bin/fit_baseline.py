"""Judges what no network is needed for: logistic regression on mean brightness or on 16 x 16 grey pixels.

A method that does not beat these has learnt nothing about defects.

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
    from mvtec_tf.heads import baselines
    from mvtec_tf.heads.fitting import fit_probe
    from mvtec_tf.heads.make import LogisticHead
    from mvtec_tf.jobs import run_steps

    store = ImageStore(_IMAGE_SIZE.value, max_pixels=run_flags.FLAGS.max_pixels)
    records, skipped = run_steps.usable(run_steps.scan(), store.readable)
    cut = protocol.clean(records, protocol.parse_budget(_BUDGET.value), _SEED.value)
    run = run_steps.open_run("fit_baseline", records, skipped)
    fit = (*cut.train_good, *cut.labelled)
    everything = (*fit, *cut.evaluate)
    features = getattr(baselines, _FEATURES.value)(store.load(everything))
    probe = fit_probe(LogisticHead, features[: len(fit)], fit, _SEED.value)
    # Told the category, because it could not be read from so little: the baseline gets every help.
    scores = probe.head.decision_function_of(features, np.array([record.category for record in everything]))
    table = [
        *rows(fit, "fit", scores[: len(fit)]),
        *rows([fit[i] for i in probe.calibrate], "calibrate", probe.calibrate_scores),
        *rows(cut.evaluate, "evaluate", scores[len(fit) :]),
    ]
    run.note(labels_used=len(cut.labelled), labelled_defects=sum(record.label for record in cut.labelled))
    note = f"{len(cut.labelled)} labelled test images and {len(cut.train_good)} good training images."
    run_steps.judge_run(run, table, f"Logistic regression on {_FEATURES.value.replace('_', ' ')}", [("Labels", note)])
    run_steps.finish(run)


if __name__ == "__main__":
    entry.run(main)
