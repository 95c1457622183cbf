"""Exports a finished run's model, with its threshold, as the next version for TensorFlow Serving.

Writes NAME/VERSION/ below --saved_models, with a model card and warm-up requests inside, and brings
models.config, batching.config, monitoring.config and compose.yaml in that folder up to date.

Example:
  python -m mvtec_tf.bin.export --run=results/bottle_cnn --name=bottle_cnn
"""

import math

from absl import flags

from mvtec_tf import files
from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError
from mvtec_tf.serving import configs

_RUN = flags.DEFINE_string("run", None, "Run directory of a finished run.", required=True)
_NAME = flags.DEFINE_string("name", None, "Name of the model.", required=True)
_ROOT = flags.DEFINE_string("saved_models", "saved_models", "Folder of all exported models.")
_THRESHOLD = flags.DEFINE_float("threshold", None, "Overrides the run's own threshold.")
_LABELS = flags.DEFINE_list(
    "labels",
    ["canary"],
    "Labels that the new version gets in models.config. A model's first version is also its stable one.",
)
_SERVER_ROOT = flags.DEFINE_string(
    "server_root", "/models", "The folder --saved_models as the server sees it, for models.config and compose.yaml."
)
_DATA_LICENCE = flags.DEFINE_string("data_licence", "not stated", "Licence of the photographs, for the model card.")
_WEIGHTS_LICENCE = flags.DEFINE_string(
    "weights_licence", "not stated", "Licence of the weights that training started from, for the model card."
)

flags.register_validator(
    "name",
    lambda name: name is None or configs.is_name(name),
    "a model's name is one folder name, without any of [ ] \\ * ?",
)
flags.register_validator(
    "server_root",
    lambda root: not files.PATTERN.search(root),
    "TensorFlow Serving takes a folder with any of [ ] \\ * ? in its name for a pattern and finds no model in it",
)


def main() -> None:
    if _THRESHOLD.value is not None and not math.isfinite(_THRESHOLD.value):
        raise UsageError(f"--threshold={_THRESHOLD.value}: expected a finite number.")

    from mvtec_tf.serving.export import Options, export_run
    from mvtec_tf.serving.model_card import Statements

    options = Options(
        threshold=_THRESHOLD.value,
        labels=tuple(_LABELS.value),
        server_root=_SERVER_ROOT.value,
        statements=Statements(_DATA_LICENCE.value, _WEIGHTS_LICENCE.value),
    )
    print(export_run(_RUN.value, _NAME.value, _ROOT.value, options))


if __name__ == "__main__":
    entry.run(main)
