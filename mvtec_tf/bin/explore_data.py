"""Looks at a data set before any training: what is in it, and what would spoil a result.

python -m mvtec_tf.bin.explore_data --data_dir=DATA --out=DIR [--categories=A,B]

Writes exploration.html (one page that opens anywhere: counts, sizes, brightness, duplicates and
near-duplicates, defect areas, contact sheets), images.csv, duplicates.csv, unreadable.csv,
defect_area.csv and summary.json. What needs attention is also printed; it is no failure.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import ExploreSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.explore.explore_data", ExploreSettings)
