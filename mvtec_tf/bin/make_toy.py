"""Draws the toy factory: a small data set in the MVTec layout, from a seed, without a download.

Example:
  python -m mvtec_tf.bin.make_toy --out=results/toy --seed=0
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import ToySettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.data_sets.make_toy", ToySettings)
