"""Fits a light head on a frozen encoder with few labels, and judges it on images that nobody has seen.

Use --recipe=auto, with the labels there are or with none (--label_budget=0).

Examples:
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --recipe=auto --run_dir=results/bottle_auto
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --encoder=results/bottle_simclr --run_dir=results/bottle_probe
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --run_dir=results/bottle_start
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --head=patchcore --label_budget=0 \
      --heatmaps --run_dir=results/bottle_patches

--protocol=study repeats what the original study did instead: its own head, scored on all test images, the labelled
ones included.
"""

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import features as feature_flags
from mvtec_tf.bin.flags import heads as head_flags
from mvtec_tf.bin.flags import recipes as recipe_flags
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags
from mvtec_tf.errors import UsageError
from mvtec_tf.heads.settings import TYPE_HEADS, check_budget

run_flags.define_data_flags((run_flags.CLEAN, run_flags.STUDY))
run_flags.define_allow_leak()
run_flags.define_run_dir()
threshold_flags.define()
feature_flags.define_encoder_flags()
head_flags.define_head_flags()
recipe_flags.define()
_FEATURES = flags.DEFINE_string(
    "features", None, "Instead of --weights: a folder of extract_features, or features/ of a run. Its encoder is used."
)
_BUDGET = flags.DEFINE_string(
    "label_budget", "0.1", "Share of all test images whose labels may be used; all; or 10d: ten defective objects."
)
_TASK = flags.DEFINE_enum(
    "task", "defect", ["defect", "defect_type"], "defect_type: also name the defect, by linear heads of many classes."
)
_HEATMAPS = flags.DEFINE_boolean(
    "heatmaps", False, "Write a heat map of every evaluated image to RUN_DIR/heatmaps; the report shows mistakes'."
)
_STUDY_HEAD = flags.DEFINE_boolean(
    "study_head", False, "Also fit the original study's head (30 epochs of Adam) and report it as it is."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the cut, the labels drawn, the folds, and what a head draws.", 0)


def main() -> None:
    recipe_flags.apply()
    feature_flags.check_encoder_flags()
    is_study = run_flags.is_study()
    if is_study and recipe_flags.chosen():
        raise UsageError("--recipe: --protocol=study fits the study's own head. Leave it out.")
    if is_study and run_flags.FLAGS["head"].present:
        raise UsageError("--head: --protocol=study fits the study's own head. Leave it out.")
    settings = head_flags.head_settings(_SEED.value)
    of_types = _TASK.value == "defect_type"
    if of_types and settings.name not in TYPE_HEADS:
        raise UsageError(f"--task=defect_type: --head={settings.name} names no defects. Use {', '.join(TYPE_HEADS)}.")
    if of_types and is_study:
        raise UsageError("--task=defect_type: --protocol=study tells good from defective only.")
    maps = settings.needs_maps

    from mvtec_tf.data import protocol

    budget = protocol.parse_budget(_BUDGET.value)
    if is_study and not (isinstance(budget, float) and budget):
        raise UsageError(f"--label_budget={_BUDGET.value}: --protocol=study needs a share above 0, such as 0.1.")
    check_budget(settings.name, budget)
    if _STUDY_HEAD.value and budget == 0:
        raise UsageError("--study_head: it learns from labels, and --label_budget=0 buys none. Leave it out.")

    from mvtec_tf.jobs import defect_types as type_steps
    from mvtec_tf.jobs import probe as probe_steps
    from mvtec_tf.jobs import probe_features, run_steps
    from mvtec_tf.jobs import study_head as study_steps
    from mvtec_tf.study import protocol as study

    records, skipped = run_steps.usable_by_file(run_steps.scan(), feature_flags.max_pixels())
    if is_study:
        cut, labels_used = study.probe_cut(records, budget, _SEED.value, run_flags.FLAGS.allow_leak)
    else:
        cut = protocol.clean(records, budget, _SEED.value)
    # Before the run directory is made: a wrong name leaves nothing behind.
    source = probe_features.find_source(feature_flags.FLAGS.encoder, _FEATURES.value, maps)
    if source is not None:
        named = f"--encoder={feature_flags.FLAGS.encoder}" if source.store is None else f"--features={_FEATURES.value}"
        if source.store is not None:
            recipe_flags.check_store(_FEATURES.value, source.store.key, source.untrained)
        feature_flags.settle(source.card, named, source.store and source.store.key)
    run = run_steps.open_run("fit_probe", records, skipped)
    if source is None:
        encoder, words = feature_flags.encoder(run.path / "encoder")
        run.note(network={"weights": words})
        source = probe_features.Source(encoder)
    features = source.features(run, cut, lambda stages: feature_flags.feature_settings(stages, maps))
    if is_study:
        run.note(labels_used=labels_used)
        study_steps.fit_and_judge_by_the_study(run, features, labels_used, _SEED.value)
    elif of_types:
        type_steps.fit_and_judge_types(run, features, settings)
    else:
        probe_steps.fit_and_judge(run, features, settings)
        if _HEATMAPS.value:
            with run.timed("heat_maps"):
                run_steps.write_heat_maps(run.saved_model, cut.evaluate, run.path / "heatmaps")
        if _STUDY_HEAD.value and cut.labelled:
            study_steps.fit_and_judge_study_head(run, features, _SEED.value)
    run_steps.finish(run)


if __name__ == "__main__":
    entry.run(main)
