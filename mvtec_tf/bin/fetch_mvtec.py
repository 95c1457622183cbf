"""Unpacks the original MVTec AD archive, verified, into a folder for --data_dir; downloads it if it is not given.

The data set is MVTec Software GmbH's, under CC BY-NC-SA 4.0: not for commercial use. The archive has 5.3 GB.

Examples:
  python -m mvtec_tf.bin.fetch_mvtec --archive=mvtec_anomaly_detection.tar.xz --out=DATA/mvtec_ad
  python -m mvtec_tf.bin.fetch_mvtec --out=DATA/mvtec_ad
"""

import pathlib

from absl import flags

from mvtec_tf.bin import entry

_OUT = flags.DEFINE_string("out", None, "New folder for the categories; left as it is if it exists.", required=True)
_ARCHIVE = flags.DEFINE_string(
    "archive", None, "mvtec_anomaly_detection.tar.xz, got by hand. Unset: it is downloaded to beside --out, and kept."
)


def main() -> None:
    from mvtec_tf.data.formats import mvtec_archive

    out = pathlib.Path(_OUT.value)
    entry.own(_OUT.value, new=True)
    if not out.is_dir():
        archive = _ARCHIVE.value or mvtec_archive.download(out.parent / mvtec_archive.FILE)
        mvtec_archive.unpack(archive, out)
    print(out)


if __name__ == "__main__":
    entry.run(main)
