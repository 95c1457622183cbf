"""The steps of fit_probe after the features: a head on them, its export, its judgement."""

import pathlib
from collections.abc import Sequence

import numpy as np

from mvtec_tf.data.formats.scan import Record
from mvtec_tf.data.protocol import Cut
from mvtec_tf.evaluation.rows import rows
from mvtec_tf.evaluation.table import Row
from mvtec_tf.features.probe_graph import Probe, write_probe
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.heads.file import save_head
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.make import PerCategoryHead, make_head
from mvtec_tf.heads.settings import SCORE_UNITS, HeadSettings
from mvtec_tf.jobs import judging
from mvtec_tf.jobs.probe_features import Features
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.run_directory import RunDirectory

# float32 features through one matrix product, by two roads.
_ROADS_AGREE = 1e-4


def fit_and_judge(run: RunDirectory, settings: FitSettings, features: Features, head: HeadSettings) -> None:
    """Fits the head on train_good and labelled, exports it, and judges the exported graph."""
    cut, records = features.cut, features.fit_records
    with run.timed("fit"):
        probe = fit_probe(lambda: make_head(head, features.tiled), features.fit_rows, records, head.seed)
    save_head(run.path / "head.npz", probe.head, head, features.key.as_json(), features.tiled)
    for warning in probe.warnings:
        print(f"Note: {warning}", flush=True)
    if not run.saved_model.exists():
        graph = Probe(features.encoder, features.settings, probe.head)
        write_probe(run.saved_model, graph, {"run": run.record["settings"], "head": head.name})
    with run.timed("score"):
        served = scoring.score_files(run.saved_model, [record.file for record in cut.evaluate])
    scores = probe.head.decision_function(features.frozen)
    check_roads(served.score, scores[len(records) :])
    calibrate = [records[i] for i in probe.calibrate]
    pretrained = [record for record in cut.train_good if record.path in _pretrain_paths(features.encoder)]
    good_scores = dict(zip((record.path for record in cut.train_good), scores, strict=False))
    seen = np.array([good_scores[record.path] for record in pretrained], np.float32)
    table = [
        *rows_of(probe.head, pretrained, "pretrain", seen),
        *rows_of(probe.head, records, "fit", scores[: len(records)]),
        *rows_of(probe.head, calibrate, "calibrate", probe.calibrate_scores),
        *rows(cut.evaluate, "evaluate", served.score, served.probability),
    ]
    run.note(score_unit=SCORE_UNITS[head.name])
    run.note(labels_used=len(cut.labelled), labelled_defects=sum(record.label for record in cut.labelled))
    labels = " ".join([labels_note(cut), *probe.warnings])
    title = f"Frozen encoder with a {head.name} head"
    judging.judge_run(run, settings, table, title, [("Labels", labels)], evaluated=cut.evaluate)


def _pretrain_paths(encoder: pathlib.Path) -> set[str]:
    return {image["path"] for image in saved_model.read_card(encoder)["pretrain_images"]}


def check_roads(served: np.ndarray, computed: np.ndarray) -> None:
    """Raises RuntimeError if the exported graph's scores are not those of the fitted head, both [N]."""
    difference = float(np.max(np.abs(served - computed) / (1 + np.abs(computed))))
    if difference > _ROADS_AGREE:
        raise RuntimeError(f"The exported graph's scores differ from the fitted head's by up to {difference:.2g}.")


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Probability of log-odds: float [N] -> float64 [N]."""
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def rows_of(head: PerCategoryHead, records: Sequence[Record], split: str, scores: np.ndarray) -> list[Row]:
    """Rows of the table, each with the probability that its own category's calibration gives the score."""
    categories = np.array([record.category for record in records])
    return rows(records, split, scores, head.probability_of(scores, categories))


def labels_note(cut: Cut) -> str:
    """For the report: which labels the figures rest on."""
    defects = sum(record.label for record in cut.labelled)
    labelled = f"{len(cut.labelled)} test images were labelled, {defects} of them defective." if cut.labelled else ""
    these = "these and of " if cut.labelled else ""
    return (
        f"{labelled or 'No test image was labelled.'} The threshold was chosen on out-of-fold scores of {these}the "
        f"{len(cut.train_good)} good training images. {len(cut.evaluate)} other test images were evaluated."
    )
