"""What there is to show beside a table of predictions: images, masks, heat maps, an embedding."""

import pathlib
from collections.abc import Sequence

from mvtec_tf.data import leaks, masks
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation import embedding, image_files
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.report.judge import Extras
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.jobs import unread
from mvtec_tf.jobs.settings import ExtraSettings, JudgeSettings


def extras(settings: JudgeSettings, table: Predictions) -> Extras:
    """What the settings name.

    Args:
      settings: see there.
      table: of which the evaluate rows will be judged.

    Raises:
      UsageError: settings that miss each other.
      UserError: what they name is not there or cannot be used.
    """
    if settings.heatmaps and not settings.data_dir and settings.masks is None:
        raise UsageError("`heatmaps`: with what are they to be compared? Give `data_dir`, or `masks`.")
    if not settings.data_dir:
        unread.refuse(settings, ["categories"], "they are those of `data_dir`, which is not given")
        if not settings.heatmaps:
            unread.refuse(settings, ["masks"], "neither images (`data_dir`) nor `heatmaps` are there to be shown with")
    maps, evaluate = heat_maps(settings.heatmaps), table.part(leaks.EVALUATE)
    files, about_files = {}, ()
    if settings.data_dir or settings.masks is not None:
        files, about_files = image_and_mask_files(settings, table, settings.categories)
    features = None if settings.features is None else embedding.read(settings.features, evaluate)
    return Extras(
        files=files,
        about_files=about_files,
        maps=maps,
        features=features,
        tsne=settings.tsne,
        seed=settings.seed,
        projector=None if settings.tensorboard is None else pathlib.Path(settings.tensorboard),
        say=lambda text: print(text, flush=True),
    )


def image_and_mask_files(
    settings: ExtraSettings, table: Predictions, categories: Sequence[str], records: Sequence[Record] | None = None
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """The files of a table's evaluate rows, by path, and what must be known of the masks, in sentences, also printed.

    Args:
      settings: where images and masks are.
      table: its other rows have masks of their own.
      categories: only these of the images; empty: all.
      records: the images, where they are known already.

    Raises:
      UserError: the folder of images or of masks holds other images or none.
    """
    files, about, evaluate = {}, (), table.part(leaks.EVALUATE)
    if settings.data_dir:
        found = records_lib.scan(settings.data_dir, categories, say=print) if records is None else records
        files = image_files.from_records(found, evaluate, f"`data_dir`={','.join(settings.data_dir)}")
        about = tuple(masks.sentences(masks.unclaimed(found)))
    if settings.masks is not None:
        files = image_files.with_masks(settings.masks, evaluate, files)
        about = tuple(image_files.unclaimed(settings.masks, table))
    for sentence in about:
        print(sentence)
    return files, about


def heat_maps(texts: Sequence[str]) -> tuple[HeatMaps, ...]:
    """The folders that these texts name, each DIR or NAME=DIR.

    Raises:
      UsageError: two of one name.
      UserError: a folder is missing.
    """
    found = []
    for text in texts:
        # A folder that itself holds "=" is taken as it is.
        name, equals, folder = text.partition("=")
        if not equals or pathlib.Path(text).is_dir():
            name, folder = pathlib.Path(text).name or text, text
        if not name or not folder:
            raise UsageError(f"`heatmaps`={text}: expected DIR or NAME=DIR.")
        if name in {other.name for other in found}:
            raise UsageError(f"`heatmaps`: two folders are called {name!r}. Name them apart with NAME=DIR.")
        found.append(HeatMaps(folder, name))
    return tuple(found)
