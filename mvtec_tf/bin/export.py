"""Exports a finished run's model, with its threshold, as the next version for TensorFlow Serving.

Writes NAME/VERSION/ below --saved_models, with a model card and warm-up requests inside, and brings
models.config, batching.config, monitoring.config and compose.yaml in that folder up to date.

Example:
  python -m mvtec_tf.bin.export --run=results/bottle_cnn --name=bottle_cnn
"""

from mvtec_tf.bin import entry
from mvtec_tf.serving.settings import ExportSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.export.export", ExportSettings, ExportSettings.check)
