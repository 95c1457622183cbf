"""Trains the supervised classifier on labelled images and judges it on images that nobody has seen.

Example:
  python -m mvtec_tf.bin.train_cnn --data_dir=DATA/bottle --run_dir=results/bottle_cnn

--protocol=study repeats what the original study did instead: it evaluates the images that stop the training.
"""

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags
from mvtec_tf.errors import UsageError
from mvtec_tf.training.recipes import SupervisedSettings

run_flags.define_data_flags((run_flags.CLEAN, run_flags.STUDY))
run_flags.define_allow_leak()
run_flags.define_run_dir()
threshold_flags.define()
run_flags.define_cache()
run_flags.define_recipe(SupervisedSettings)
_BUDGET = flags.DEFINE_string(
    "label_budget",
    "all",
    "Share of all test images whose labels may be used; all: the whole pool (half); or 10d: ten defective objects.",
)
_VALIDATION = flags.DEFINE_float(
    "validation_share", 0.2, "Share of the labelled images kept for early stopping and the threshold.", 0.01, 0.9
)


def main() -> None:
    settings = run_flags.recipe_from_flags(SupervisedSettings)
    if is_study := run_flags.is_study():
        _refuse_in_study("label_budget", "validation_share")

    import numpy as np

    from mvtec_tf.data import protocol
    from mvtec_tf.data.decoding.image_store import ImageStore
    from mvtec_tf.evaluation.rows import rows
    from mvtec_tf.graphs import saved_model, scoring
    from mvtec_tf.heads.settings import PLAIN_LOG_ODDS
    from mvtec_tf.jobs import run_steps, supervised_parts
    from mvtec_tf.training.supervised import train_classifier

    budget = protocol.parse_budget(_BUDGET.value)
    store = ImageStore(settings.image_size, run_flags.FLAGS.cache, run_flags.FLAGS.max_pixels)
    records, skipped = run_steps.usable(run_steps.scan(), store.readable)
    if is_study:
        parts = supervised_parts.of_the_study(records, settings.seed, run_flags.FLAGS.allow_leak)
    else:
        parts = supervised_parts.clean(records, budget, _VALIDATION.value, settings.seed)
    run = run_steps.open_run("train_cnn", records, skipped)
    run.note(labels_used=len(parts.labelled), labelled_defects=sum(record.label for record in parts.labelled))
    print(parts.words, flush=True)

    def pixels_and_labels(part: list) -> tuple[np.ndarray, np.ndarray]:
        return store.load(part), np.array([record.label for record in part])

    if not run.saved_model.exists():
        with run.timed("train"):
            network = train_classifier(run, settings, pixels_and_labels(parts.fit), pixels_and_labels(parts.calibrate))
        card = {"run": run.record["settings"]}
        saved_model.write_classifier(run.saved_model, network, card, run_flags.FLAGS.max_pixels)
    store.forget()  # those that only the exported graph will read
    with run.timed("score"):
        files = [record.file for part in parts.by_split.values() for record in part]
        scores = scoring.score_files(run.saved_model, files)
    start, table = 0, []
    for split, part in parts.by_split.items():
        which = slice(start, start + len(part))
        table += rows(part, split, scores.score[which], scores.probability[which])
        start += len(part)
    run.note(score_unit=PLAIN_LOG_ODDS)
    run_steps.judge_run(
        run,
        table,
        f"Supervised {settings.backbone}",
        [("Labels", parts.note)],
        threshold=parts.threshold,
        allow_leak=is_study,
        evaluated=parts.by_split["evaluate"],
    )
    run_steps.finish(run)


def _refuse_in_study(*names: str) -> None:
    for name in names:
        if run_flags.FLAGS[name].present:
            raise UsageError(f"--{name}: --protocol=study fixes its own split of the images. Leave it out.")


if __name__ == "__main__":
    entry.run(main)
