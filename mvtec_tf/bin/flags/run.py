"""Flags that several binaries share."""

from absl import flags

from mvtec_tf.bin.flags.define import PathsParser

# The flags defined here belong to the binary that asks for them, and show in its --help.
flags.disclaim_key_flags()


def define_data_dir(words: str = "") -> flags.FlagHolder:
    """--data_dir, a list of paths in which a comma may be part of a path that exists.

    Args:
      words: what it is for; "": where the images are.
    """
    words = words or (
        "Category folder (MVTec layout, or good/ and defective/), folder of such, or CSV file; several with commas."
    )
    return flags.DEFINE(PathsParser(), "data_dir", None, words, serializer=flags.CsvListSerializer(","))
