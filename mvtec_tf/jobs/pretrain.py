"""Training an encoder on good images only, and exporting it frozen."""

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.words import counted
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs import checks, opening, together, watching
from mvtec_tf.jobs.fields import STUDY
from mvtec_tf.jobs.settings import PretrainSettings
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.study import protocol as study
from mvtec_tf.training import distribution
from mvtec_tf.training.contrastive import Watch, train_encoder
from mvtec_tf.training.recipes import SUPCON


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
    found = opening.scan(settings)
    labelled = protocol.clean(found, budget, settings.seed).labelled if budget != 0 else ()
    used = (*(record for record in found if record.split == "train"), *labelled)
    used, skipped = opening.usable(settings, used, store.readable)
    good = tuple(record for record in used if record.split == "train")
    labelled = used[len(good) :]
    if settings.protocol == STUDY:
        used = good = study.pretrain_part(good, settings.seed)
    with together.opened(strategy, "train_simclr", settings, used, skipped, ("saved_model",)) as (run, trains):
        if run.finished:
            return run
        told = f"of test images {len(labelled)} are looked at, with their labels"
        told = told if labelled else "test images are not looked at"
        print(f"{counted(len(good), 'good training image')}; {told}.", flush=True)
        images = store.load(good)
        watch = labels = None
        if settings.method == SUPCON:
            images = np.concatenate([images, store.load(labelled)])
            labels = np.array([record.label for record in used], np.int64)
        elif budget != 0:
            by = watching.heads_on(good, images, labelled, store.load(labelled), settings.seed)
            watch = Watch(by, watching.FUSED, settings.keep)
        if trains:
            with run.timed("train"):
                encoder = train_encoder(run, settings, images, strategy, watch, labels)
        if not distribution.is_chief(strategy):
            return run
        if trains:
            seen = [{"path": record.path, "group": record.group, "category": record.category} for record in used]
            card = {"run": run.record["settings"], "pretrain_images": seen}
            saved_model.write_encoder(run.saved_model, encoder, card, max_pixels=settings.max_pixels)
        run.finish()
        print(f"Encoder: {run.saved_model}")
        print(run.path)
        return run
