"""Trains the supervised classifier on labelled images and judges it on images that nobody has seen.

Example:
  python -m mvtec_tf.bin.train_cnn --data_dir=DATA/bottle --run_dir=results/bottle_cnn

--protocol=study repeats what the original study did instead: it evaluates the images that stop the training.
"""

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import define
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import TrainClassifierSettings

define.define(TrainClassifierSettings)


def main() -> None:
    settings = define.read(TrainClassifierSettings)
    checks.of_training(settings)

    from mvtec_tf.jobs.train_classifier import train_classifier

    train_classifier(settings)


if __name__ == "__main__":
    entry.run(main)
