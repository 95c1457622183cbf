"""Exports a finished run's model, with its threshold, as the next version for TensorFlow Serving.

Example:
  python -m mvtec_tf.bin.export --run=results/bottle_cnn --name=bottle_cnn
"""

from absl import flags

from mvtec_tf.bin import entry

_RUN = flags.DEFINE_string("run", None, "Run directory of a finished run.", required=True)
_NAME = flags.DEFINE_string("name", None, "Name of the model.", required=True)
_ROOT = flags.DEFINE_string("saved_models", "saved_models", "Folder of all exported models.")
_THRESHOLD = flags.DEFINE_float("threshold", None, "Overrides the run's own threshold.")

flags.register_validator(
    "name",
    lambda name: name is None or (bool(name) and name == name.strip() and "/" not in name and not name.startswith(".")),
    "a model's name is one folder name",
)


def main() -> None:
    from mvtec_tf.serving.export import export_run

    print(export_run(_RUN.value, _NAME.value, _ROOT.value, _THRESHOLD.value))


if __name__ == "__main__":
    entry.run(main)
