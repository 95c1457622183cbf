"""Flags of the binaries that look at images through a frozen encoder: which one, and which of its features."""

import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from mvtec_tf.bin.flags import recipes as recipe_flags
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.errors import UsageError

if TYPE_CHECKING:
    from mvtec_tf.features.feature_graph import FeatureSettings
    from mvtec_tf.features.store import FeatureKey

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
# The flags that decide what features are; a store of features has decided them already.
OF_FEATURES = (
    *("feature_layers", "pooling", "centre_brightness", "tiles", "neighbourhood"),
    *("weights", "weights_partial", "backbone", "image_size"),
)
# They make an encoder; one that is there has its own.
_OF_WEIGHTS = ("weights", "weights_partial")


def define_encoder_flags() -> None:
    """--encoder, or --weights with --backbone and --image_size; and those of `define_feature_flags`."""
    flags.DEFINE_string("encoder", None, "Run directory of train_simclr, or a SavedModel of an encoder.")
    define_weights_flags()
    define_feature_flags()


def define_weights_flags() -> None:
    """--weights with --weights_partial, --backbone and --image_size."""
    flags.DEFINE_string(
        "weights", None, "Instead of --encoder: a backbone as it is, with weights imagenet, none, or of a file."
    )
    flags.DEFINE_boolean("weights_partial", False, "Load what fits of a weights file that is another network's.")
    flags.DEFINE_string("backbone", "resnet50", "Backbone for --weights.")
    flags.DEFINE_integer("image_size", 224, "Side in pixels for --weights; an encoder has its own.", 1)


def define_feature_flags() -> None:
    """--feature_layers, --pooling, --centre_brightness, --tiles, --neighbourhood."""
    flags.DEFINE_list(
        "feature_layers", [], "The encoder's outputs that make the features; default: the two stages before the last."
    )
    flags.DEFINE_list(
        "pooling",
        ["mean"],
        "How maps become global features: mean, gem8 (generalised mean of power 8: a small defect moves it), or both.",
    )
    flags.DEFINE_boolean(
        "centre_brightness", False, "Shift every image to one mean brightness first: another exposure is no anomaly."
    )
    flags.DEFINE_string(
        "tiles", "1x1", "ROWSxCOLUMNS: cut each image into tiles that fill the encoder's input, for small defects."
    )
    flags.DEFINE_integer(
        "neighbourhood", 3, "Side of the neighbourhood over which patch features are averaged; odd, 1 is none.", 1
    )


def parse_tiles(text: str) -> tuple[int, int]:
    """(rows, columns) of "RxC".

    Raises:
      UsageError: it is nothing of the kind.
    """
    match = re.fullmatch(r"([1-9]\d?)[xX]([1-9]\d?)", text)
    if not match:
        raise UsageError(f"--tiles={text}: expected ROWSxCOLUMNS, such as 2x2, each from 1 to 99.")
    return int(match[1]), int(match[2])


def check_feature_flags() -> None:
    """Raises UsageError for a number that makes no sense."""
    parse_tiles(FLAGS.tiles)
    if FLAGS.neighbourhood % 2 == 0:
        raise UsageError(f"--neighbourhood={FLAGS.neighbourhood}: expected an odd number.")


def check_encoder_flags() -> None:
    """Raises UsageError for flags that do not go together, before anything heavy is imported."""
    check_feature_flags()
    if _features() is None:
        if (FLAGS.encoder is None) == (FLAGS.weights is None):
            raise UsageError("Give either --encoder or --weights.")
        return
    given = [name for name in _OF_WEIGHTS if FLAGS[name].value != FLAGS[name].default]
    if given:
        raise UsageError(
            f"--features: what is stored there was made with its own encoder. Leave out --{', --'.join(given)}."
        )


def settle(encoder_card: Mapping[str, Any], source: str, key: "FeatureKey | None" = None) -> None:
    """Puts into the flags what an encoder, or features that are stored, have settled: what is recorded is what is run.

    Args:
      encoder_card: what the encoder says of itself.
      source: the flag that named it, with its value, for the message.
      key: what stored features are of; None: features are yet to be made.

    Raises:
      UsageError: a flag was given, and says something else.
    """
    own = {"image_size": encoder_card["image_size"], "weights_partial": False}
    own["backbone"] = encoder_card["run"].get("backbone", FLAGS.backbone)
    if key is not None:
        own |= {"tiles": "{}x{}".format(*key.tiles), "pooling": list(key.pooling), "feature_layers": list(key.layers)}
        own |= {"centre_brightness": key.centre_brightness, "neighbourhood": key.neighbourhood}
    other = [
        f"--{name}={recipe_flags.in_words(FLAGS[name].value)} (it has {recipe_flags.in_words(value)})"
        for name, value in own.items()
        # An empty list of layers says nothing.
        if FLAGS[name].present and FLAGS[name].value not in (value, [])
    ]
    if other:
        raise UsageError(
            f"{source} cannot be had with another {', '.join(other)}. Leave these flags out, or name the --weights of "
            "a backbone to make such features of."
        )
    for name, value in own.items():
        FLAGS[name].value = value


def feature_settings(middle_stages: list[str], maps: bool) -> "FeatureSettings":
    """As the command line says.

    Args:
      middle_stages: the layers if none are named.
      maps: whether patch maps are wanted.
    """
    from mvtec_tf.features.feature_graph import FeatureSettings

    layers = tuple(FLAGS.feature_layers or middle_stages)
    tiles = parse_tiles(FLAGS.tiles)
    return FeatureSettings(layers, maps, FLAGS.neighbourhood, tiles, tuple(FLAGS.pooling), FLAGS.centre_brightness)


def encoder(folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The encoder of --encoder, or that of --weights, written to `folder` if it is not there.

    Returns:
      Its SavedModel, and a sentence about its weights ("" for --encoder).
    """
    from mvtec_tf.jobs import encoders

    if FLAGS.encoder is not None:
        return encoders.resolve_encoder(FLAGS.encoder), ""
    seed = FLAGS["seed"].value if "seed" in FLAGS else 0
    settings = encoders.starting_settings(FLAGS.backbone, FLAGS.image_size, FLAGS.weights, FLAGS.weights_partial, seed)
    provenance = run_flags.settings_of()
    words = encoders.export_starting_encoder(folder, settings, provenance, FLAGS.feature_layers, FLAGS.max_pixels)
    return folder, words


def max_pixels() -> int:
    """--max_pixels, or the limit in the graph of --encoder where that is lower."""
    from mvtec_tf.graphs import saved_model
    from mvtec_tf.jobs import encoders

    if FLAGS.encoder is None:
        return FLAGS.max_pixels
    card = saved_model.read_card(encoders.resolve_encoder(FLAGS.encoder))
    return min(FLAGS.max_pixels, card.get("max_pixels", FLAGS.max_pixels))


def _features() -> str | None:
    return FLAGS["features"].value if "features" in FLAGS else None
