"""Learns what labelled defects look like by a small diffusion model, and draws more for train-cnn.

Patches are cut around the masks of those labelled defects that train-cnn would fit with the same seed and budget.

Example:
  python -m mvtec_tf.bin.generate_defects --data_dir=DATA/bottle --label_budget=0.1 --run_dir=results/bottle_defects
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import GenerateSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.generate_defects.generate_defects", GenerateSettings, checks.of_generating)
