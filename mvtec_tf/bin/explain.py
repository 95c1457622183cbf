"""Shows where a run's model looks: heat maps against the masks, its worst mistakes, its embedding.

Example:
  python -m mvtec_tf.bin.explain --run=results/cnn --data_dir=DATA

For a finished run of train_cnn, fit_probe or fit_baseline. Writes heatmaps/, embedding.npz and tensorboard/projector
into the run, and its figures/, metrics.json and report.html anew, with pixel AUROC, per-region overlap
and the pointing game where there are masks. A stopped call goes on where it stopped.
"""

import pathlib

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import extras as extra_flags
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.errors import UsageError

_METHODS = ("exported", "gradcam", "gradcam++")
_RUN = flags.DEFINE_string("run", None, "Run directory of a finished run of train_cnn, fit_probe or fit_baseline.")
_DATA_DIR = run_flags.define_data_dir("The images of that run, as they were named for it.")
_METHOD = flags.DEFINE_list(
    "method",
    [],
    f"Which maps, out of {', '.join(_METHODS)}: those that the exported graph answers, which every run has, or "
    "tf-keras-vis' of a network with a gradient. Unset: gradcam,gradcam++ of train_cnn, exported of the others.",
)
_ENCODER = flags.DEFINE_string("encoder", None, "Where the encoder of a probe lies, if it is no longer where it was.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images at a time.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of t-SNE, and of the sample of more than 5,000 images.", 0)
extra_flags.define_masks()
extra_flags.define_tsne()


def main() -> None:
    for flag in (_RUN, _DATA_DIR):
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing. Expected --run=DIR --data_dir=DATA. Try --help.")
    unknown = [method for method in _METHOD.value if method not in _METHODS]
    if unknown:
        raise UsageError(f"--method={','.join(_METHOD.value)}: expected some of {', '.join(_METHODS)}.")

    from mvtec_tf.data import leaks
    from mvtec_tf.data.formats import scan as records_lib
    from mvtec_tf.evaluation.report import again
    from mvtec_tf.evaluation.report.extras import Extras
    from mvtec_tf.jobs import explain as explain_steps

    run = pathlib.Path(_RUN.value)
    record = explain_steps.read_explainable(run)
    entry.own(_RUN.value, "--run")
    evaluate = again.predictions_of(run).part(leaks.EVALUATE)
    records = records_lib.scan(_DATA_DIR.value, record["settings"].get("categories", []), say=print)
    files, about_files = extra_flags.image_and_mask_files(evaluate, (), records)
    own = explain_steps.records_of(evaluate, records)
    methods = list(dict.fromkeys(_METHOD.value))
    found = explain_steps.explain_run(run, record, evaluate, own, methods, _BATCH_SIZE.value, _ENCODER.value)
    extras = Extras(
        files=files,
        about_files=about_files,
        maps=found.maps,
        about_maps=found.about,
        features=found.features,
        tsne=flags.FLAGS.tsne,
        seed=_SEED.value,
        projector=run / "tensorboard",
        say=lambda text: print(text, flush=True),
    )
    document = again.judge_again(run, extras, f"Run of {record['binary']}", record)
    for figures in document["pixels"].values():
        print(figures["summary"])
    print(f"Report: {run / 'report.html'}")
    print(run)


if __name__ == "__main__":
    entry.run(main)
