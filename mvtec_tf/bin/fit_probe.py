r"""Fits a light head on a frozen encoder with few labels, and judges it on images that nobody has seen.

Use --recipe=few_labels, with the labels there are or with none (--label_budget=0).

Examples:
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --recipe=few_labels \
      --run_dir=results/bottle
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --encoder=results/bottle_simclr --run_dir=results/bottle_probe
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --run_dir=results/bottle_start
  python -m mvtec_tf.bin.fit_probe --data_dir=DATA/bottle --weights=imagenet --head=patchcore --label_budget=0 \
      --heatmaps --run_dir=results/bottle_patches

--protocol=study repeats what the original study did instead: its own head, scored on all test images, the labelled
ones included.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import FitSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.fit.fit", FitSettings, checks.of_fit)
