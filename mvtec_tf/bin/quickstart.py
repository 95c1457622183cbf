"""Runs the whole line on the built-in toy factory: two trained, judged and exported models and a table.

Example:
  python -m mvtec_tf.bin.quickstart --run_dir=results/quickstart
"""

import dataclasses
import pathlib

from absl import flags, logging

from mvtec_tf.bin import entry

_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Directory of all its runs; what is finished there is not repeated.", required=True
)
_SAVED_MODELS = flags.DEFINE_string("saved_models", "saved_models", "Folder of all exported models.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the toy factory and of every step.", 0)


def main() -> None:
    from mvtec_tf.jobs import quickstart

    run_dir = pathlib.Path(_RUN_DIR.value)
    entry.own(_RUN_DIR.value, "--run_dir")
    print(
        "Quickstart on drawn images. To end in minutes on a CPU it uses a small backbone (resnet10) from random\n"
        "weights at a small image size; the real recipes are in flags/ and use ResNet-50 at 224 px."
    )
    steps = quickstart.steps(run_dir, _SAVED_MODELS.value, _SEED.value)
    if logging.get_verbosity() >= 1:
        steps = [dataclasses.replace(step, arguments=(*step.arguments, "--verbosity=1")) for step in steps]
    quickstart.run(steps)
    table = quickstart.format_table(run_dir)
    print(f"\nOn the same evaluation images (toy factory, seed {_SEED.value}):\n\n{table}\n")
    print(
        f"Reports:      {run_dir}/cnn/report.html, {run_dir}/probe/report.html, {run_dir}/probe/study_head/report.html"
    )
    models = ", ".join(f"{_SAVED_MODELS.value}/toy_{name}" for name in ("cnn", "probe", "simclr"))
    print(f"SavedModels:  {models}")
    print(f"TensorBoard:  tensorboard --logdir={run_dir}")
    print(run_dir)


if __name__ == "__main__":
    entry.run(main)
