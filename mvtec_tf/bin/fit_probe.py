"""Fits a light head on a frozen encoder with few labels, and judges it on images that nobody has seen.

Examples:
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --encoder=results/bottle_simclr --run_dir=results/bottle_probe
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --run_dir=results/bottle_start

--protocol=study repeats what the original study did instead: its own head, scored on all test images, the labelled
ones included.
"""

from absl import flags

from mvtec_tf.bin import entry, run_flags, threshold_flags
from mvtec_tf.errors import UsageError
from mvtec_tf.models import head_settings
from mvtec_tf.models.head_settings import HEADS, HeadSettings

run_flags.define_data_flags((run_flags.CLEAN, run_flags.STUDY))
run_flags.define_allow_leak()
run_flags.define_run_dir()
threshold_flags.define()
_ENCODER = flags.DEFINE_string("encoder", None, "Run directory of train_simclr, or a SavedModel of an encoder.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Instead of --encoder: a backbone as it is, with weights imagenet, none, or of a file."
)
_PARTIAL = flags.DEFINE_boolean("weights_partial", False, "Load what fits of a weights file that is another network's.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet50", "Backbone for --weights.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side in pixels for --weights; an encoder has its own.", 1)
_BUDGET = flags.DEFINE_string("label_budget", "0.1", "Share of all test images whose labels may be used, or all.")
_LAYERS = flags.DEFINE_list(
    "feature_layers", [], "The encoder's outputs that make the features; default: the two stages before the last."
)
_HEAD = flags.DEFINE_enum(
    "head", "logistic", list(HEADS), "; ".join(f"{name}: {words}" for name, words in HEADS.items()) + "."
)
_HEAD_C = flags.DEFINE_float("head_c", 1.0, "Inverse strength of the penalty of logistic regression and SVMs.", 1e-9)
_NEIGHBOURS = flags.DEFINE_integer("neighbours", 1, "Nearest neighbours whose distances are averaged.", 1)
_STUDY_HEAD = flags.DEFINE_boolean(
    "study_head", True, "Also fit the original study's head (30 epochs of Adam) and report it as it is."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the cut, the labels drawn and the folds.", 0)


def main() -> None:
    if (_ENCODER.value is None) == (_WEIGHTS.value is None):
        raise UsageError("Give either --encoder or --weights.")
    is_study = run_flags.is_study()
    if is_study and run_flags.FLAGS["head"].present:
        raise UsageError("--head: --protocol=study fits the study's own head. Leave it out.")

    from mvtec_tf.data import protocol

    budget = protocol.parse_budget(_BUDGET.value)
    if is_study and not budget:
        raise UsageError(f"--label_budget={_BUDGET.value}: --protocol=study needs a share above 0, such as 0.1.")
    head_settings.check_budget(_HEAD.value, budget)

    from mvtec_tf.bin import probe_steps, run_steps, study_steps
    from mvtec_tf.data import study

    records = run_steps.scan()
    if is_study:
        cut, labels_used = study.probe_cut(records, budget, _SEED.value, run_flags.FLAGS.allow_leak)
    else:
        cut = protocol.clean(records, budget, _SEED.value)
    encoder = None if _ENCODER.value is None else probe_steps.resolve_encoder(_ENCODER.value)
    run = run_steps.open_run("fit_probe", records)
    if encoder is None:
        encoder = probe_steps.export_starting_encoder(
            run, _BACKBONE.value, _IMAGE_SIZE.value, _WEIGHTS.value, _PARTIAL.value, _SEED.value
        )
    features = probe_steps.Features.of(run, encoder, cut, _LAYERS.value)
    if is_study:
        run.note(labels_used=labels_used)
        study_steps.fit_and_judge_by_the_study(run, features, labels_used, _SEED.value)
    else:
        settings = HeadSettings(_HEAD.value, _HEAD_C.value, _NEIGHBOURS.value, seed=_SEED.value)
        probe_steps.fit_and_judge(run, features, settings)
        if _STUDY_HEAD.value and cut.labelled:
            study_steps.fit_and_judge_study_head(run, features, _SEED.value)
    run_steps.finish(run)


if __name__ == "__main__":
    entry.run(main)
