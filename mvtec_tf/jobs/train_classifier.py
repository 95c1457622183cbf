"""Training the supervised network on labelled images, and judging it on images that nobody has seen."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.data import leaks, protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.defect_patches import read as read_patches
from mvtec_tf.data.protocol import SplitRow
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import rows
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.heads.settings import PLAIN_LOG_ODDS
from mvtec_tf.jobs import checks, judging, opening
from mvtec_tf.jobs.settings import TrainClassifierSettings
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.study import protocol as study
from mvtec_tf.training import distribution, supervised


@dataclasses.dataclass(frozen=True)
class Parts:
    """Images by use.

    Attributes:
      fit: the network is fitted on them.
      calibrate: they stop the training and, where it is not fixed, set the threshold.
      evaluate: they are judged.
      labelled: all images whose labels had to be bought.
      threshold: a fixed one, or None: chosen on `calibrate`.
      note: for the report, what the figures rest on.
    """

    fit: list[Record]
    calibrate: list[Record]
    evaluate: list[Record]
    labelled: list[Record]
    threshold: float | None
    note: str


def clean_parts(
    records: Sequence[Record], budget: float | None, validation_share: float, seed: int, synthetic: bool
) -> Parts:
    """The protocol `clean`: early stopping and the threshold pay their labels from the budget.

    Args:
      records: images of one or more categories.
      budget: see `protocol.clean`.
      validation_share: of the labelled images and of train/good, kept for early stopping.
      seed: of all draws.
      synthetic: whether defects are drawn too, so that no real one is needed.
    """
    cut = protocol.clean(records, budget, seed)
    needed = frozenset((0,) if synthetic else (0, 1))
    fit, calibrate = protocol.hold_out(cut.labelled + cut.train_good, validation_share, seed, needed)
    defects = sum(record.label for record in cut.labelled)
    note = (
        f"{counted(len(cut.labelled), 'test image was', 'test images were')} labelled, {defects} of them defective; "
        f"with {len(cut.train_good)} good training images they were used for fitting, early stopping and the "
        f"threshold. {len(cut.evaluate)} other test images were evaluated."
    )
    if synthetic:
        note += " Good images with drawn defects were fitted as defective ones."
    return Parts(fit, calibrate, list(cut.evaluate), list(cut.labelled), None, note)


def parts_of_the_study(records: Sequence[Record], seed: int, allow_leak: bool) -> Parts:
    """The original study's split: see `study.supervised_parts`."""
    fit, evaluate = study.supervised_parts(records, seed, allow_leak)
    labelled = [record for record in records if record.split == "test"]
    note = (
        f"The protocol of the original study: {len(fit)} of all images, good training images among them, were fitted, "
        f"and the training was stopped on the other {len(evaluate)}, which are the ones evaluated here. A defect is "
        "called where it is the likelier class (a threshold of 0 on the log-odds)."
    )
    return Parts(fit, evaluate, evaluate, labelled, 0.0, note)


def train_classifier(said: TrainClassifierSettings) -> RunDirectory:
    """Trains, exports and judges the network, or goes on where a stopped call left off.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: images or weights cannot be used.
    """
    settings = checks.of_training(said)
    budget = protocol.parse_budget(settings.label_budget)
    strategy = distribution.opened(settings.strategy, settings.batch_size, settings.jit)
    store = ImageStore(settings.image_size, settings.cache, settings.max_pixels)
    records, skipped = opening.usable(settings, opening.scan(settings), store.readable)
    if settings.is_study:
        parts = parts_of_the_study(records, settings.seed, settings.allow_leak)
    else:
        synthetic = settings.synthetic_defects > 0
        parts = clean_parts(records, budget, settings.validation_share, settings.seed, synthetic)
    beside = [settings.defect_patches] if settings.defect_patches else []
    if beside:
        _check_patches(settings.defect_patches, parts)
    with opening.opened_together(
        strategy, "train_cnn", settings, records, skipped, opening.RESULTS, beside
    ) as (run, trains):
        if not run.finished:
            judging.note_labels(run, parts.labelled, PLAIN_LOG_ODDS)
            print(
                f"{counted(len(parts.fit), 'image')} to fit, {len(parts.calibrate)} to stop early and set the "
                f"threshold ({len(parts.labelled)} labelled images in all), {len(parts.evaluate)} to evaluate.",
                flush=True,
            )
            if trains:
                _train(run, settings, store, parts, strategy)
            store.forget()  # those that only the exported graph will read
            if distribution.is_chief(strategy):
                _judge(run, settings, parts)
                judging.finish(run)
        return run


def _check_patches(file: str, parts: Parts) -> None:
    """Refuses patches that come from an image that is evaluated or stops the training, or from labels not bought here.

    Raises:
      LeakError: the former.
      UserError: the latter.
    """
    needs = f"`defect_patches`={file}, which needs the `seed`, `label_budget` and `validation_share` of this training"
    sources = [SplitRow(path, group, category, leaks.PRETRAIN) for path, group, category in read_patches(file).sources]
    held_out = {record.path: record for record in (*parts.calibrate, *parts.evaluate)}.values()
    judged = [SplitRow(record.path, record.group, record.category, leaks.EVALUATE) for record in held_out]
    leaks.check_leaks([*sources, *judged], needs)
    fitted = {record.path for record in parts.fit if record.label}
    if others := [source.path for source in sources if source.path not in fitted]:
        raise UserError(
            f"{needs}: the patches come from {counted(len(others), 'labelled image')} that this training does not fit, "
            f"such as {others[0]}, so labels would be used that are not counted. Draw patches anew with these settings."
        )


def _train(
    run: RunDirectory,
    settings: TrainClassifierSettings,
    store: ImageStore,
    parts: Parts,
    strategy: tf.distribute.Strategy,
) -> None:
    def pixels_and_labels(part: list) -> tuple[np.ndarray, np.ndarray]:
        return store.load(part), np.array([record.label for record in part])

    with run.timed("train"):
        network = supervised.train_classifier(
            run, settings, pixels_and_labels(parts.fit), pixels_and_labels(parts.calibrate), strategy
        )
    if network is not None:
        card = {"run": run.record["settings"]}
        saved_model.write_classifier(run.saved_model, network, card, settings.max_pixels)


def _judge(run: RunDirectory, settings: TrainClassifierSettings, parts: Parts) -> None:
    by_split = {"fit": parts.fit, "calibrate": parts.calibrate, "evaluate": parts.evaluate}
    with run.timed("score"):
        files = [record.file for part in by_split.values() for record in part]
        scores = scoring.score_files(run.saved_model, files)
    start, table = 0, []
    for split, part in by_split.items():
        which = slice(start, start + len(part))
        table += rows(part, split, scores.score[which], scores.probability[which])
        start += len(part)
    judging.judge_run(
        run,
        settings,
        table,
        f"Supervised {settings.backbone}",
        [("Labels", parts.note)],
        threshold=parts.threshold,
        allow_leak=settings.is_study,
        evaluated=parts.evaluate,
        calibrate=parts.calibrate,
    )
