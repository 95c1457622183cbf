"""Looks at a data set before any training: what is in it, and what would spoil a result.

python -m mvtec_tf.bin.explore_data --data_dir=DATA --out=DIR [--categories=A,B] [--weights=FILE]

Writes exploration.html (one page that opens anywhere: counts, sizes, brightness, duplicates and
near-duplicates, defect areas, contact sheets), images.csv, duplicates.csv, unreadable.csv,
defect_area.csv and summary.json. With --weights also suspects.csv, the labels that other images speak against; with its
column label filled in it goes back as --corrections, and corrected.csv comes out, a list for --data_dir. What needs
attention is also printed; it is no failure.
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import ExploreSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.explore.explore_data", ExploreSettings)
