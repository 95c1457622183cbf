"""Unpacks the original MVTec AD archive, verified, into a folder for --data_dir; downloads it if it is not given.

The data set is MVTec Software GmbH's, under CC BY-NC-SA 4.0: not for commercial use. The archive has 5.3 GB.

Examples:
  python -m mvtec_tf.bin.fetch_mvtec --archive=mvtec_anomaly_detection.tar.xz --out=DATA/mvtec_ad
  python -m mvtec_tf.bin.fetch_mvtec --out=DATA/mvtec_ad
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import FetchSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.data_sets.fetch_mvtec", FetchSettings)
