"""Trains the supervised classifier on labelled images and judges it on images that nobody has seen.

Example:
  python -m mvtec_tf.bin.train_cnn --data_dir=DATA/bottle --run_dir=results/bottle_cnn
"""

from absl import flags

from mvtec_tf.bin import entry, run_flags
from mvtec_tf.training.recipes import SupervisedSettings

run_flags.define_data_flags()
run_flags.define_run_dir()
run_flags.define_cache()
run_flags.define_recipe(SupervisedSettings)
_BUDGET = flags.DEFINE_string(
    "label_budget", "all", "Share of all test images whose labels may be used, or all: the whole pool (half)."
)
_VALIDATION = flags.DEFINE_float(
    "validation_share", 0.2, "Share of the labelled images kept for early stopping and the threshold.", 0.01, 0.9
)


def main() -> None:
    settings = run_flags.recipe_from_flags(SupervisedSettings)

    import numpy as np

    from mvtec_tf.bin import run_steps
    from mvtec_tf.data import pipeline, protocol
    from mvtec_tf.evaluation.rows import rows
    from mvtec_tf.serving import saved_model, scoring
    from mvtec_tf.training.supervised import train_classifier

    budget = protocol.parse_budget(_BUDGET.value)
    records = run_steps.scan()
    cut = protocol.clean(records, budget, settings.seed)
    fit, calibrate = protocol.hold_out(cut.labelled + cut.train_good, _VALIDATION.value, settings.seed)
    run = run_steps.open_run("train_cnn", records)
    run.note(labels_used=len(cut.labelled), labelled_defects=sum(record.label for record in cut.labelled))
    print(
        f"{len(fit)} images to fit, {len(calibrate)} to stop early and set the threshold "
        f"({len(cut.labelled)} labelled test images among them), {len(cut.evaluate)} to evaluate.",
        flush=True,
    )

    def pixels_and_labels(part: list) -> tuple[np.ndarray, np.ndarray]:
        images = pipeline.load_images(part, settings.image_size, run_flags.FLAGS.cache)
        return images, np.array([record.label for record in part])

    if not run.saved_model.exists():
        with run.timed("train"):
            network = train_classifier(run, settings, pixels_and_labels(fit), pixels_and_labels(calibrate))
        saved_model.write_classifier(run.saved_model, network, {"run": run.record["settings"]})
    parts = {"fit": fit, "calibrate": calibrate, "evaluate": list(cut.evaluate)}
    with run.timed("score"):
        files = [record.file for part in parts.values() for record in part]
        scores = scoring.score_files(run.saved_model, files)
    start, table = 0, []
    for split, part in parts.items():
        which = slice(start, start + len(part))
        table += rows(part, split, scores.score[which], scores.probability[which])
        start += len(part)
    run_steps.judge_run(run, table, f"Supervised {settings.backbone}", [("Labels", _labels_note(cut))])
    run_steps.finish(run)


def _labels_note(cut: object) -> str:
    defects = sum(record.label for record in cut.labelled)
    return (
        f"{len(cut.labelled)} test images were labelled, {defects} of them defective; with {len(cut.train_good)} good "
        f"training images they were used for fitting, early stopping and the threshold. {len(cut.evaluate)} other "
        "test images were evaluated."
    )


if __name__ == "__main__":
    entry.run(main)
