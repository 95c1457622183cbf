"""Trains an encoder on good images only, by SimCLR or another method, and exports it, frozen.

Example:
  python -m mvtec_tf.bin.train_simclr --data_dir=DATA/bottle --run_dir=results/bottle_simclr
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import PretrainSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.pretrain.pretrain", PretrainSettings, checks.of_pretraining)
