"""Training an encoder on good images only, watched epoch by epoch by heads that it is for, and exporting it frozen."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from mvtec_tf.data import protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import checks, encoders, opening
from mvtec_tf.jobs.fields import STUDY
from mvtec_tf.jobs.settings import PretrainSettings
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.study import protocol as study
from mvtec_tf.training import distribution
from mvtec_tf.training.contrastive import Watch, train_encoder
from mvtec_tf.training.settings import SUPCON

FUSED, NEIGHBOURS = "online_fused", "online_nearest_neighbours"
_HEADS = {FUSED: RECIPES[FEW_LABELS].head, NEIGHBOURS: "nearest_neighbours"}
# Good images that the heads are fitted on: enough to rank encoders by, few enough for every epoch.
_MOST_GOOD = 100


def pretrain(settings: PretrainSettings) -> RunDirectory:
    """Trains and exports the encoder, or goes on where a stopped call left off.

    Returns:
      The finished run; its `saved_model` is the encoder.

    Raises:
      UsageError: settings contradict each other.
      UserError: images or weights cannot be used.
    """
    checks.of_pretraining(settings)
    strategy = distribution.opened(settings.strategy, settings.batch_size, settings.jit)
    budget = protocol.parse_budget(settings.label_budget)
    store = ImageStore(settings.image_size, settings.cache, settings.max_pixels)
    (found, copies), before, labelled = opening.scan(settings), (), ()
    if budget != 0:
        # What `fit` leaves out, it leaves out before it cuts.
        found, before = opening.usable_by_file(settings, (found, copies), settings.max_pixels)
        copies, labelled = (), protocol.clean(found, budget, settings.seed).labelled
    used = (*(record for record in found if record.split == "train"), *labelled)
    used, skipped = opening.usable(settings, (used, copies), store.readable)
    skipped = (*before, *skipped)
    good = tuple(record for record in used if record.split == "train")
    labelled = used[len(good) :]
    if settings.protocol == STUDY:
        used = good = study.pretrain_part(good, settings.seed)
    with opening.opened_together(strategy, "train_simclr", settings, used, skipped, ("saved_model",)) as (run, trains):
        if run.finished:
            return run
        told = f"of test images {len(labelled)} are looked at, with their labels"
        told = told if labelled else "test images are not looked at"
        print(f"{counted(len(good), 'good training image')}; {told}.", flush=True)
        run.note(labels_used=len(labelled), labelled_defects=sum(record.label for record in labelled))
        images = store.load(good)
        watch = labels = None
        if settings.method == SUPCON:
            images = np.concatenate([images, store.load(labelled)])
            labels = np.array([record.label for record in used], np.int64)
        elif budget != 0:
            by = heads_on(good, images, labelled, store.load(labelled), settings.seed)
            watch = Watch(by, FUSED, settings.keep)
        if trains:
            with run.timed("train"):
                encoder = train_encoder(run, settings, images, strategy, watch, labels)
        if not distribution.is_chief(strategy):
            return run
        if trains:
            card = {"run": run.record["settings"], "pretrain_images": encoders.seen_images(used)}
            saved_model.write_encoder(run.saved_model, encoder, card, max_pixels=settings.max_pixels)
        run.finish(f"Encoder: {run.saved_model}")
        return run


def heads_on(
    good: Sequence[Record], images: np.ndarray, labelled: Sequence[Record], labelled_images: np.ndarray, seed: int
) -> Callable[[Backbone], Callable[[], dict[str, float]]]:
    """What watches a backbone by labelled images, each scored by heads that were fitted without its object.

    Args:
      good: N good training images, of which a draw is looked at where they are many.
      images: their pixels, uint8 [N, S, S, 3].
      labelled: M labelled images.
      labelled_images: their pixels, uint8 [M, S, S, 3].
      seed: random seed of the draw, the folds and the heads.

    Returns:
      A backbone -> what gives, for the network as it is then, the ROC-AUC of held-out scores by each head.

    Raises:
      UsageError: a category has fewer than two labelled defective objects, of which none can be held out.
    """
    for category in sorted({record.category for record in labelled}):
        objects = {record.group for record in labelled if record.label and record.category == category}
        if len(objects) < 2:
            raise UsageError(
                f"`label_budget`: {len(objects)} defective object of category {category!r} is labelled, and to watch a "
                "training two at least are needed, each held out in its turn. Raise it, or leave it out."
            )
    drawn = np.sort(np.random.default_rng(seed).permutation(len(good))[:_MOST_GOOD])
    records = [*(good[row] for row in drawn), *labelled]
    pixels = np.concatenate([images[drawn], labelled_images])
    labels = np.array([record.label for record in records])

    def of(backbone: Backbone) -> Callable[[], dict[str, float]]:
        graph = InMemory(backbone.model, RECIPES[FEW_LABELS].settings(backbone.middle_stages))

        def values() -> dict[str, float]:
            features = graph.of(pixels)
            return {name: _held_out(head, features, records, labels, seed) for name, head in _HEADS.items()}

        return values

    return of


def _held_out(head: str, features: Any, records: Sequence[Record], labels: np.ndarray, seed: int) -> float:
    probe = fit_probe(lambda: make_head(HeadSettings(head, seed=seed)), features, records, seed)
    return float(roc_auc_score(labels[probe.calibrate], probe.calibrate_scores))
