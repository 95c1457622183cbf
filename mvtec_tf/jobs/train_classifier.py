"""Training the supervised network on labelled images, and judging it on images that nobody has seen."""

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.evaluation.rows import rows
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.heads.settings import PLAIN_LOG_ODDS
from mvtec_tf.jobs import checks, judging, opening, supervised_parts
from mvtec_tf.jobs.settings import TrainClassifierSettings
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import supervised


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
    store = ImageStore(settings.image_size, settings.cache, settings.max_pixels)
    records, skipped = opening.usable(settings, opening.scan(settings), store.readable)
    if settings.is_study:
        parts = supervised_parts.of_the_study(records, settings.seed, settings.allow_leak)
    else:
        parts = supervised_parts.clean(records, budget, settings.validation_share, settings.seed)
    with opening.opened("train_cnn", settings, records, skipped) as run:
        if not run.finished:
            _train_and_judge(run, settings, store, parts)
            judging.finish(run)
        return run


def _train_and_judge(
    run: RunDirectory, settings: TrainClassifierSettings, store: ImageStore, parts: supervised_parts.Parts
) -> None:
    run.note(labels_used=len(parts.labelled), labelled_defects=sum(record.label for record in parts.labelled))
    print(parts.words, flush=True)

    def pixels_and_labels(part: list) -> tuple[np.ndarray, np.ndarray]:
        return store.load(part), np.array([record.label for record in part])

    if not run.saved_model.exists():
        with run.timed("train"):
            network = supervised.train_classifier(
                run, settings, pixels_and_labels(parts.fit), pixels_and_labels(parts.calibrate)
            )
        card = {"run": run.record["settings"]}
        saved_model.write_classifier(run.saved_model, network, card, settings.max_pixels)
    store.forget()  # those that only the exported graph will read
    with run.timed("score"):
        files = [record.file for part in parts.by_split.values() for record in part]
        scores = scoring.score_files(run.saved_model, files)
    start, table = 0, []
    for split, part in parts.by_split.items():
        which = slice(start, start + len(part))
        table += rows(part, split, scores.score[which], scores.probability[which])
        start += len(part)
    run.note(score_unit=PLAIN_LOG_ODDS)
    judging.judge_run(
        run,
        settings,
        table,
        f"Supervised {settings.backbone}",
        [("Labels", parts.note)],
        threshold=parts.threshold,
        allow_leak=settings.is_study,
        evaluated=parts.by_split["evaluate"],
    )
