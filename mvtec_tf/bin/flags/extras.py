"""Flags of what there is to show beside a table of predictions, and how they become it."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Sequence

from absl import flags

from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.errors import UsageError

if typing.TYPE_CHECKING:
    from mvtec_tf.data.record import Record
    from mvtec_tf.evaluation.image_files import ImageFiles
    from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
    from mvtec_tf.evaluation.report.extras import Extras
    from mvtec_tf.evaluation.table import Predictions

FLAGS = flags.FLAGS
flags.disclaim_key_flags()


def define() -> None:
    """--heatmaps, --data_dir, --categories, --masks, --features, --tsne."""
    flags.DEFINE_list(
        "heatmaps",
        [],
        "Folder of heat maps, PATH.npy for the image PATH (or its suffix replaced by .npy): float32 [h, w], higher is "
        "more defective; NAME=DIR to name them, several with commas. Needs --data_dir or --masks.",
    )
    run_flags.define_data_dir("Where the table's images and masks are, as for training. Unset: no images.")
    flags.DEFINE_list("categories", [], "Only these categories of --data_dir; default: all that are found.")
    define_masks()
    flags.DEFINE_string(
        "features", None, "Embedding of the images: .npz with paths, str [N], and features, float32 [N, D]."
    )
    define_tsne()


def define_masks() -> None:
    """--masks."""
    flags.DEFINE_string(
        "masks",
        None,
        "Folder of masks instead of those of --data_dir. That of the image PATH is PATH, or PATH with _mask.png or any "
        "other suffix of images in place of its own.",
    )


def define_tsne() -> None:
    """--tsne."""
    flags.DEFINE_boolean("tsne", True, "Also t-SNE of the embedding, which takes a while for thousands of images.")


def extras(evaluate: Predictions, seed: int, tensorboard: str | None) -> Extras:
    """What the flags name.

    Args:
      evaluate: rows that will be judged.
      seed: of t-SNE and of samples.
      tensorboard: folder for the projector; None: none.

    Raises:
      UsageError: flags that miss each other.
      UserError: what they name is not there or cannot be used.
    """
    if FLAGS.heatmaps and not FLAGS.data_dir and FLAGS.masks is None:
        raise UsageError("--heatmaps: with what are they to be compared? Give --data_dir, or --masks.")

    from mvtec_tf.evaluation import embedding
    from mvtec_tf.evaluation.report.extras import Extras

    maps = heat_maps(FLAGS.heatmaps)
    files, about_files = {}, ()
    if FLAGS.data_dir or FLAGS.masks is not None:
        files, about_files = image_and_mask_files(evaluate, FLAGS.categories)
    features = None if FLAGS.features is None else embedding.read(FLAGS.features, evaluate)
    return Extras(
        files=files,
        about_files=about_files,
        maps=maps,
        features=features,
        tsne=FLAGS.tsne,
        seed=seed,
        projector=None if tensorboard is None else pathlib.Path(tensorboard),
        say=lambda text: print(text, flush=True),
    )


def image_and_mask_files(
    evaluate: Predictions, categories: Sequence[str], records: Sequence[Record] | None = None
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """The files of a table's rows, by path, and what must be known of the masks, a sentence each, also printed.

    Args:
      evaluate: the rows.
      categories: of --data_dir; empty: all.
      records: of --data_dir, where they are known already.

    Raises:
      UserError: --data_dir or --masks holds other images or none.
    """
    from mvtec_tf.data import masks
    from mvtec_tf.data.formats import scan as records_lib
    from mvtec_tf.evaluation import image_files

    files, about = {}, ()
    if FLAGS.data_dir:
        found = records_lib.scan(FLAGS.data_dir, categories, say=print) if records is None else records
        files = image_files.from_records(found, evaluate, f"--data_dir={','.join(FLAGS.data_dir)}")
        about = tuple(masks.sentences(masks.unclaimed(found)))
    if FLAGS.masks is not None:
        files, about = image_files.with_masks(FLAGS.masks, evaluate, files), ()
    for sentence in about:
        print(sentence)
    return files, about


def heat_maps(texts: list[str]) -> tuple[HeatMaps, ...]:
    """The folders that these texts name, each DIR or NAME=DIR.

    Raises:
      UsageError: two of one name.
      UserError: a folder is missing.
    """
    from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps

    found = []
    for text in texts:
        # A folder that itself holds "=" is taken as it is.
        name, equals, folder = text.partition("=")
        if not equals or pathlib.Path(text).is_dir():
            name, folder = pathlib.Path(text).name or text, text
        if not name or not folder:
            raise UsageError(f"--heatmaps={text}: expected DIR or NAME=DIR.")
        if name in {other.name for other in found}:
            raise UsageError(f"--heatmaps: two folders are called {name!r}. Name them apart with NAME=DIR.")
        found.append(HeatMaps(folder, name))
    return tuple(found)
