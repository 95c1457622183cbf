"""Writes what a frozen encoder says of every image to a folder, once, for any number of heads.

The folder holds the encoder, a table of the images, and shards of NumPy arrays; `fit_probe` --features=FOLDER reads it.
A killed call goes on with the next shard when it is repeated. Memory does not grow with the number of images.

Examples:
  python -m mvtec_tf.bin.extract_features --data_dir=DATA --weights=imagenet --recipe=few_labels --out=results/features
  python -m mvtec_tf.bin.extract_features --data_dir=DATA --weights=imagenet --maps --out=results/features
  python -m mvtec_tf.bin.extract_features --data_dir=DATA --encoder=results/simclr --out=results/simclr_features
"""

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import ExtractSettings

if __name__ == "__main__":
    entry.run("mvtec_tf.jobs.extract.extract_features", ExtractSettings)
