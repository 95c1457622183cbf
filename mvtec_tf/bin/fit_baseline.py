"""Judges what no network is needed for: logistic regression on mean brightness or on 16 x 16 grey pixels.

Without labels (--label_budget=0) it is the Mahalanobis distance of these from the good images. A method that does not
beat these has learnt nothing about defects.

Example:
  python -m mvtec_tf.bin.fit_baseline --data_dir=DATA/bottle --features=grey_pixels --run_dir=results/bottle_pixels
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import BaselineSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.baseline.fit_baseline", BaselineSettings)
