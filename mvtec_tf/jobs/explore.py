"""Looking at a data set before any training: its page, its tables, and what needs attention."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

from mvtec_tf.data.formats import corrections, scan
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation.report.suspects import Suspect
from mvtec_tf.exploration import report as exploration_report
from mvtec_tf.exploration.images import DECODABLE_FORMATS
from mvtec_tf.exploration.survey import explore
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.files import speaker
from mvtec_tf.jobs import unread
from mvtec_tf.jobs.fields import OF_WEIGHTS
from mvtec_tf.jobs.report_folder import report_folder
from mvtec_tf.jobs.settings import ExploreSettings, ExtractSettings

CORRECTED = "corrected.csv"


def explore_data(settings: ExploreSettings) -> None:
    """Writes the page and the tables about a data set, and prints what needs attention.

    Raises:
      UsageError: settings contradict each other.
      UserError: there are no images, the folder cannot be written, or corrections or features are of other images.
    """
    if settings.weights is None:
        unread.refuse(settings, OF_WEIGHTS, "no `weights` are given, and labels are not looked at without")
    elif settings.features is not None:
        raise UsageError("`features` have an encoder of their own: give these or `weights`.")
    else:
        unread.of_weights(settings)
    records = scan.scan(settings.data_dir, settings.categories, say=print)
    if settings.corrections is not None:
        records, said = corrections.corrected(records, settings.corrections)
        print(said)
    names = ", ".join(pathlib.Path(folder).resolve().name for folder in settings.data_dir)
    with report_folder(settings.out, sources=settings.data_dir):
        print(f"Looking at {counted(len(records), 'image')}.", flush=True)
        speak = speaker()
        found = explore(records, lambda done: speak(f"{done:,} of {len(records):,}"))
        if settings.weights is not None or settings.features is not None:
            seen = [one.record for one in found.looks if one.format in DECODABLE_FORMATS]
            found = dataclasses.replace(found, suspects=tuple(_suspects(settings, seen)))
        document = exploration_report.write_exploration(settings.out, found, f"Exploration of {names}")
        if settings.corrections is not None:
            corrections.write_list(pathlib.Path(settings.out) / CORRECTED, records)
    print(document["summary"])
    if settings.corrections is not None:
        print(f"Corrected list, for `data_dir` of every command: {pathlib.Path(settings.out) / CORRECTED}")
    print(f"Page: {pathlib.Path(settings.out) / exploration_report.PAGE_FILE}")
    print(settings.out)


def _suspects(settings: ExploreSettings, records: Sequence[Record]) -> list[Suspect]:
    """By global features alone: patches are not needed for it, and take a thousand times the room."""
    # Not above: without features nothing here needs TensorFlow.
    from mvtec_tf.features import extract
    from mvtec_tf.features.store import FeatureStore
    from mvtec_tf.graphs import saved_model
    from mvtec_tf.jobs import encoders, opening, recipes, suspects

    if settings.features is not None:
        return suspects.find(records, FeatureStore(settings.features).of(records).pooled)
    recipe = RECIPES[FEW_LABELS]
    asked = {name: getattr(settings, name) for name in OF_WEIGHTS}
    asked |= {"pooling": recipe.pooling, "centre_brightness": recipe.centre_brightness, "on_bad_image": "skip"}
    asked["image_size"] = settings.image_size or recipe.image_size
    asked["image_shape"] = settings.image_shape or recipe.image_shape
    made = recipes.resolved(ExtractSettings(data_dir=settings.data_dir, out=settings.out, **asked))
    usable, _ = opening.usable_by_file(made, (tuple(records), ()), made.max_pixels)
    # Of labels that will change: nothing is kept that another look would take for its own.
    with tempfile.TemporaryDirectory(prefix=".features_", dir=settings.out) as folder:
        encoder, _ = encoders.encoder_of(made, pathlib.Path(folder) / "encoder", usable)
        wanted = recipes.feature_settings(made, saved_model.read_card(encoder)["middle_stages"], maps=False)
        store = extract.extract(encoder, usable, wanted, pathlib.Path(folder) / "features")
        return suspects.find(usable, store.of(usable).pooled)
