"""Trains the supervised classifier on labelled images and judges it on images that nobody has seen.

Example:
  python -m mvtec_tf.bin.train_cnn --data_dir=DATA/bottle --run_dir=results/bottle_cnn

--protocol=study repeats what the original study did instead: it evaluates the images that stop the training.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import TrainClassifierSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.train_classifier.train_classifier", TrainClassifierSettings, checks.of_training)
