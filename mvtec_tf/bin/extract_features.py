"""Writes what a frozen encoder says of every image to a folder, once, for any number of heads.

The folder holds the encoder, a table of the images, and shards of NumPy arrays; fit_probe --features=FOLDER reads it.
A killed call goes on with the next shard when it is repeated. Memory does not grow with the number of images.

Examples:
  python -m mvtec_tf.bin.extract_features --data_dir=DATA --weights=imagenet --recipe=auto --out=results/auto_features
  python -m mvtec_tf.bin.extract_features --data_dir=DATA --weights=imagenet --maps --out=results/features
  python -m mvtec_tf.bin.extract_features --data_dir=DATA --encoder=results/simclr --out=results/simclr_features
"""

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import features as feature_flags
from mvtec_tf.bin.flags import recipes as recipe_flags
from mvtec_tf.bin.flags import run as run_flags

run_flags.define_data_flags()
feature_flags.define_encoder_flags()
recipe_flags.define()
_OUT = flags.DEFINE_string("out", None, "Folder of the features; an unfinished one of the same kind is completed.")
_MAPS = flags.DEFINE_boolean(
    "maps", False, "Also keep patch features, which the patch heads need: some MB an image, see the line it prints."
)
_SHARD = flags.DEFINE_integer("images_per_shard", 128, "Images a shard: how much of the work a killed call repeats.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the random numbers of --weights=none.", 0)
flags.mark_flag_as_required("out")


def main() -> None:
    recipe_flags.apply()
    feature_flags.check_encoder_flags()

    import pathlib

    from mvtec_tf.features import extract
    from mvtec_tf.features.store import ENCODER
    from mvtec_tf.graphs import saved_model
    from mvtec_tf.jobs import encoders, run_steps

    if feature_flags.FLAGS.encoder is not None:
        card = saved_model.read_card(encoders.resolve_encoder(feature_flags.FLAGS.encoder))
        feature_flags.settle(card, f"--encoder={feature_flags.FLAGS.encoder}")
    records, _ = run_steps.usable_by_file(run_steps.scan(), feature_flags.max_pixels())
    out = pathlib.Path(_OUT.value)
    entry.own(_OUT.value)
    encoder, _ = feature_flags.encoder(out / ENCODER)
    settings = feature_flags.feature_settings(saved_model.read_card(encoder)["middle_stages"], _MAPS.value)
    store = extract.extract(encoder, records, settings, out, _SHARD.value)
    extract.keep_encoder(encoder, out)
    print(store.describe())
    print(out)


if __name__ == "__main__":
    entry.run(main)
