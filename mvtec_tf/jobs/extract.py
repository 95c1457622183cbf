"""Writing what a frozen encoder says of every image to a folder, once, for any number of heads."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from mvtec_tf.data.record import Record
from mvtec_tf.features import extract
from mvtec_tf.features.store import DESCRIPTION, ENCODER, FeatureStore
from mvtec_tf.files import remove_partial
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs import encoders, opening, recipes, unread
from mvtec_tf.jobs.settings import ExtractSettings
from mvtec_tf.ownership import Owned


def extract_features(said: ExtractSettings, records: tuple[Record, ...] | None = None) -> FeatureStore:
    """Computes the features that are missing, and keeps the encoder beside them.

    Args:
      said: what is asked for; what is left unsaid is the recipe's, the encoder's, or the default.
      records: the images; None: those that the settings name.

    Returns:
      The finished store.

    Raises:
      UsageError: settings contradict each other.
      UserError: images or encoder cannot be used.
    """
    said.check_runner()
    settings = recipes.resolved(said)
    recipes.check_source(settings)
    if not settings.maps:
        unread.refuse(said, ["neighbourhood"], "averages patch features, and no `maps` are kept")
    if settings.encoder is not None or settings.weights == "imagenet":
        unread.refuse(said, ["seed"], "of random weights, and there are none")
    limit = settings.max_pixels
    if settings.encoder is not None:
        encoder = encoders.resolve_encoder(settings.encoder)
        limit, card = encoders.max_pixels(limit, [encoder]), saved_model.read_card(encoder)
        settings = recipes.settled(settings, said, card, f"`encoder`={settings.encoder}")
    found = opening.scan(settings) if records is None else (records, ())
    records, _ = opening.usable_by_file(settings, found, limit)
    out = pathlib.Path(settings.out)
    with Owned(settings.out, "`out`"), _nothing_left_unless_begun(out):
        encoder, _ = encoders.encoder_of(settings, out / ENCODER, records)
        stages = saved_model.read_card(encoder)["middle_stages"]
        wanted = recipes.feature_settings(settings, stages, settings.maps)
        store = extract.extract(encoder, records, wanted, out, settings.images_per_shard, settings, end=True)
        extract.keep_encoder(encoder, out)
        # What a killed call left behind.
        remove_partial(out)
    print(store.describe())
    print(out)
    return store


@contextlib.contextmanager
def _nothing_left_unless_begun(out: pathlib.Path) -> Iterator[None]:
    """Removes the encoder again that was made here, if no features follow: the folder may be the user's own."""
    new = not (out / ENCODER).exists()
    try:
        yield
    except Exception:
        if new and not (out / DESCRIPTION).exists():
            shutil.rmtree(out / ENCODER, ignore_errors=True)
        raise
