"""The steps of fit_probe after the features: a head on them, its export, its judgement."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mvtec_tf.data.formats.scan import Record
from mvtec_tf.data.protocol import Cut
from mvtec_tf.evaluation import shift
from mvtec_tf.evaluation.rows import rows
from mvtec_tf.evaluation.shift import Shift
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.features.probe_graph import Probe, write_probe
from mvtec_tf.graphs import scoring
from mvtec_tf.heads.file import save_head
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.make import PerCategoryHead, make_head
from mvtec_tf.heads.settings import SCORE_UNITS, HeadSettings
from mvtec_tf.jobs import judging, probe_features
from mvtec_tf.jobs.probe_features import Features
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.run_directory import RunDirectory

# float32 features through one matrix product, by two roads.
_ROADS_AGREE = 1e-4
_ONE_CLASS = (
    "The literature's: all good training images, no label, and all test images are judged. The threshold comes from "
    "held-out good training images, while published figures at a threshold often choose it on the test images; ROC-AUC "
    "and the figures of heat maps need none and can be compared, at the same images, backbone and size."
)


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
    known = probe_features.pretrained_paths(features.encoder)
    pretrained = [record for record in cut.train_good if record.path in known]
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
    notes = [("Labels", " ".join([labels_note(cut), *probe.warnings]))]
    if settings.is_one_class:
        notes.insert(0, ("Protocol one_class", _ONE_CLASS))
    if line := labelled_shifts(calibrate, probe.calibrate_scores):
        run.note(shift_of_labelled={name: one.as_json() for name, one in line.items()})
        notes.append(("Labelled good images beside good training images", shift_note(line)))
        print(notes[-1][1], flush=True)
    maps = _heat_maps(run, settings, cut)
    title = f"Frozen encoder with a {head.name} head"
    judging.judge_run(run, settings, table, title, notes, evaluated=cut.evaluate, heat_maps=maps)


def _heat_maps(run: RunDirectory, settings: FitSettings, cut: Cut) -> pathlib.Path | None:
    """Writes the heat maps of the evaluated images, if they are wanted; their folder, if there are masks to compare."""
    masks, folder = any(record.mask for record in cut.evaluate), run.path / "heatmaps"
    if not settings.heatmaps and not (settings.is_one_class and masks):
        return None
    with run.timed("heat_maps"):
        judging.write_heat_maps(run.saved_model, cut.evaluate, folder)
    return folder if masks else None


def labelled_shifts(calibrate: Sequence[Record], scores: np.ndarray) -> dict[str, Shift]:
    """category -> how its labelled good test images score beside the good training images, all of them held out.

    Args:
      calibrate: images with an out-of-fold score.
      scores: float [N], these.
    """
    table = Predictions.from_rows(rows(calibrate, "calibrate", scores))
    of_line = np.array([record.split == "test" for record in calibrate], bool)
    categories = dict.fromkeys(table.categories())
    return shift.by_category(table.select(~of_line), table.select(of_line), categories)


def shift_note(found: Mapping[str, Shift]) -> str:
    """For the report: whether the labelled good images, which are the line as it is, are like the training images."""
    sentences = []
    for name, one in found.items():
        where = f"In category {name} labelled" if len(found) > 1 else "Labelled"
        sentences.append(one.in_words(f"{where} good test images", "the held-out good training images") + ".")
    return " ".join([*sentences, "The threshold rests on both."])


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
