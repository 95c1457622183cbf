"""The original study's head: beside a better one under `clean`, or as the study itself fitted and judged it."""

import dataclasses

import numpy as np

from mvtec_tf.evaluation.table import rows
from mvtec_tf.features.probe_graph import Probe, write_probe
from mvtec_tf.graphs import scoring
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.linear import StudyHead
from mvtec_tf.heads.probability import Platt
from mvtec_tf.heads.settings import PLAIN_LOG_ODDS
from mvtec_tf.jobs import judging
from mvtec_tf.jobs.probe_features import Features
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.run_directory import RunDirectory

# The likelier class is called, which is a threshold of 0 on the log-odds.
_LIKELIER = 0.0


def fit_and_judge_study_head(run: RunDirectory, settings: FitSettings, features: Features) -> None:
    """Fits the study's head on the labelled images alone and reports it, in a folder of the run."""
    head = _fit(features, settings.seed)
    scores = head.decision_function(features.embedding[len(features.cut.train_good) :])
    notes = [("Head", _head_note(head, features)), ("Labels", judging.labels_note(features.cut))]
    title = "The original study's head"
    judging.judge_run(
        run,
        settings,
        _table(features, scores),
        title,
        notes,
        threshold=_LIKELIER,
        part="study_head",
        evaluated=features.cut.evaluate,
    )


def fit_and_judge_by_the_study(
    run: RunDirectory, settings: FitSettings, features: Features, labels_used: int
) -> None:
    """Fits the study's head, exports it and judges the export on all test images, labelled ones included."""
    cut = features.cut
    head = _fit(features, settings.seed)
    if not run.saved_model.exists():
        seen = dataclasses.replace(features.key, layers=(EMBEDDING,), maps=False)
        # Its score is a log-odds, and its probability is reported as it is: not calibrated.
        graph = Probe(
            features.encoder, seen, PerCategoryHead.of_one(head, features.embedding.shape[1], Platt(1.0, 0.0))
        )
        write_probe(run.saved_model, graph, {"run": run.record["settings"], "head": "study"})
    with run.timed("score"):
        served = scoring.score_files(run.saved_model, [record.file for record in cut.evaluate])
    scores = head.decision_function(features.embedding[len(cut.train_good) :])
    judging.check_roads(served.score, scores[len(cut.labelled) :], features.precision)
    note = (
        f"The protocol of the original study: {labels_used} test images were labelled, {len(cut.labelled)} of them "
        f"fitted, and all {len(cut.evaluate)} test images evaluated, the labelled ones among them."
    )
    notes = [("Head", _head_note(head, features)), ("Labels", note)]
    run.note(score_unit=PLAIN_LOG_ODDS)
    judging.judge_run(
        run,
        settings,
        _table(features, np.concatenate([scores[: len(cut.labelled)], served.score])),
        "The original study, repeated",
        notes,
        threshold=_LIKELIER,
        allow_leak=True,
        evaluated=cut.evaluate,
    )


def _fit(features: Features, seed: int) -> StudyHead:
    first, last = len(features.cut.train_good), len(features.cut.fit)
    labels = np.array([record.label for record in features.cut.labelled])
    return StudyHead(seed).fit(features.embedding[first:last], labels)


def _table(features: Features, scores: np.ndarray) -> list:
    """Rows of the labelled and of the evaluated images, whose scores come in this order."""
    labelled, evaluate = features.cut.labelled, features.cut.evaluate
    fit, judged = scores[: len(labelled)], scores[len(labelled) :]
    return [*rows(labelled, "fit", fit, _sigmoid(fit)), *rows(evaluate, "evaluate", judged, _sigmoid(judged))]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """Probability of log-odds: float [N] -> float64 [N]."""
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def _head_note(head: StudyHead, features: Features) -> str:
    return (
        f"The study's own head on the encoder's last output: {head.epochs} epochs of Adam at {head.learning_rate:g} in "
        f"batches of {head.batch_size} on {len(features.cut.labelled)} labelled images, no good training images, and "
        "the likelier class as its call (a threshold of 0 on the log-odds). So few steps hardly move it from its "
        "random start; it is reported as it is."
    )
