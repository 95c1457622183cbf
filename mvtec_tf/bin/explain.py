"""Shows where a run's model looks: heat maps against the masks, its worst mistakes, its embedding.

Example:
  python -m mvtec_tf.bin.explain --run=results/cnn --data_dir=DATA

For a finished run of train_cnn, fit_probe, fit_baseline or distill. Writes heatmaps/, embedding.npz and
tensorboard/projector into the run, and its figures/, metrics.json and report.html anew, with pixel AUROC, per-region
overlap and the pointing game where there are masks. A stopped call goes on where it stopped.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import ExplainSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.explain.explain", ExplainSettings)
