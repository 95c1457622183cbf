"""The steps of `fit` (the binary fit_probe) after the features: a head on them, its export, its judgement."""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import defect_types, shift
from mvtec_tf.evaluation.defect_types import Call
from mvtec_tf.evaluation.report import suspects as report_suspects
from mvtec_tf.evaluation.shift import Shift
from mvtec_tf.evaluation.table import Row, rows
from mvtec_tf.features.probe_graph import TYPE_SCORES, Probe, write_probe
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.heads.base import by_ops
from mvtec_tf.heads.defect_types import PerCategoryTypeHead, TypeHead
from mvtec_tf.heads.file import save_head
from mvtec_tf.heads.fitting import FittedProbe, fit_probe
from mvtec_tf.heads.frozen import frozen
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import SCORE_UNITS, HeadSettings
from mvtec_tf.jobs import fineness, judging, probe_features, suspects, unlabelled
from mvtec_tf.jobs.probe_features import Features
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.networks.copies import BFLOAT16, FLOAT32
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training.recipes import SUPCON

# By one graph with other operations around it, which group its own in other ways; bfloat16 has 8 bits.
_ROADS_AGREE = {FLOAT32: 1e-4, BFLOAT16: 5e-2}
# Of the images that the head's own arrays score, so many are scored by the exported graph too.
_CHECKED = 8
_ONE_CLASS = (
    "The literature's: all good training images, no label, and all test images are judged. The threshold comes from "
    "held-out good training images, while published figures at a threshold often choose it on the test images; ROC-AUC "
    "and the figures of heat maps need none and can be compared, at the same images, backbone and size."
)
_TAUGHT = (
    "The encoder was trained with the labels of the labelled images, so that no score of them is held out: threshold "
    "and probability rest on images that look easier to tell than new ones are."
)
_NAMES = (
    f"{defect_types.REPORT_FILE} in this folder says how often the defect was named rightly. An image is named "
    "after its highest score, and so may be called good there and still reach the threshold here."
)


def fit_and_judge(
    run: RunDirectory, settings: FitSettings, features: Features, kind: HeadSettings, recent: Sequence[str] = ()
) -> None:
    """Fits the head on train_good and labelled, exports it, and judges the exported graph.

    A head that names defects is judged twice: once like every other one, by how well its score parts good from
    defective; and by the names. The threshold rests on the files `recent` where they score higher, see `unlabelled`.
    """
    cut, of_types = features.cut, settings.task == "defect_type"

    def make() -> Any:
        return TypeHead(kind.name, kind.c, kind.seed) if of_types else make_head(kind, features.tiled)

    print(f"Fitting the head {kind.name}, and again for held-out scores ...", flush=True)
    with run.timed("fit"):
        fitted, line = on_line(fit_probe(make, features.frozen, cut.fit, kind.seed, of_types), cut)
    head = fitted.head
    save_head(run.path / "head.npz", head, kind, features.key.as_json(), features.tiled)
    for warning in fitted.warnings:
        print(f"Note: {warning}", flush=True)
    if not run.saved_model.exists():
        print("Writing the graph ...", flush=True)
        graph = Probe(features.encoder, features.key, head)
        write_probe(run.saved_model, graph, {"run": run.record["settings"], "head": kind.name})
    print(f"Scoring {counted(len(cut.evaluate) + len(recent), 'image')} by the graph ...", flush=True)
    with run.timed("score"):
        signature = saved_model.load(run.saved_model).signatures["serving_default"]
        served = scoring.run_signature(signature, [record.file for record in cut.evaluate], 32, "scored")
        newest = scoring.run_signature(signature, recent, 32, "scored")["anomaly_score"] if recent else np.empty(0)
        checked = np.unique(np.linspace(0, len(cut.fit) - 1, _CHECKED).astype(int))
        again = scoring.run_signature(signature, [cut.fit[i].file for i in checked], 32, "checked")["anomaly_score"]
    moved, basis = unlabelled.moved(run, newest, [cut.fit[i] for i in fitted.calibrate], fitted)
    scores = head.decision_function(features.frozen)
    check_roads(again, scores[checked], features.precision)
    known = () if of_types else probe_features.pretrained_paths(features.encoder)
    table = table_of(moved, cut, scores, served["anomaly_score"], served.get("probability"), known)
    judging.note_labels(run, cut.labelled, SCORE_UNITS[kind.name])
    notes = [("Labels", " ".join([labels_note(cut), *fitted.warnings]))]
    title = f"Frozen encoder with a {kind.name} head"
    if settings.is_one_class:
        notes.insert(0, ("Protocol one_class", _ONE_CLASS))
    if of_types:
        title += " that names the defect"
        notes.append(("Names of defects", _NAMES))
    if cut.labelled and was_told_labels(features.encoder):
        notes.append(("Labels of the encoder", _TAUGHT))
        print(f"Note: {_TAUGHT}", flush=True)
    notes += note_line(run, line)
    if settings.smallest_defect is not None:
        notes.append(("Smallest defect", fineness.note(settings.smallest_defect, cut.train_good, features)))
        print(notes[-1][1], flush=True)
    maps, basis = _heat_maps(run, settings, cut), basis or shift.basis(line)
    found = suspects.find(cut.fit, features.frozen.pooled, kind.seed)
    report_suspects.write(run.path / report_suspects.FILE, found)
    more = [report_suspects.section(found)]
    judging.judge_run(
        run,
        settings,
        table,
        title,
        notes,
        evaluated=cut.evaluate,
        heat_maps=maps,
        basis=basis,
        more=more,
        calibrate=cut.fit,
        embedded=(features.frozen.pooled, by_ops(head.choose, frozen(features.frozen.pooled), head.arrays())),
    )
    if of_types:
        _judge_names(run, cut, head, served[TYPE_SCORES], title)


def was_told_labels(encoder: pathlib.Path) -> bool:
    """Whether an encoder was trained with the labels of test images, of which no score is held out then."""
    return saved_model.read_card(encoder)["run"].get("method") == SUPCON


def _judge_names(run: RunDirectory, cut: Cut, head: PerCategoryTypeHead, scores: np.ndarray, title: str) -> None:
    called = [head.types[number] for number in scores.argmax(axis=1)]
    calls = [
        Call(record.path, record.category, record.group, record.defect, name)
        for record, name in zip(cut.evaluate, called, strict=True)
    ]
    labelled = {category: own.classes_ for category, own in head.heads.items()}
    print(defect_types.judge_types(calls, labelled, run.path, title)["summary"], flush=True)


def _heat_maps(run: RunDirectory, settings: FitSettings, cut: Cut) -> pathlib.Path | None:
    """Writes the heat maps of the evaluated images, if they are wanted; their folder, if there are masks to compare."""
    masks, folder = any(record.mask for record in cut.evaluate), run.path / "heatmaps"
    if not settings.heatmaps and not (settings.is_one_class and masks):
        return None
    with run.timed("heat_maps"):
        judging.write_heat_maps(run.saved_model, cut.evaluate, folder)
    return folder if masks else None


def on_line(fitted: FittedProbe, cut: Cut) -> tuple[FittedProbe, dict[str, Shift]]:
    """The head with its held-out scores as they are on the line, see `shift.on_line`: threshold and probability rest on
    them."""
    held_out = [cut.fit[i] for i in fitted.calibrate]
    scores, found = shift.on_line(held_out, fitted.calibrate_scores)
    return fitted.with_scores(held_out, scores), found


def note_line(run: RunDirectory, line: Mapping[str, Shift]) -> list[tuple[str, str]]:
    """Prints and records how the labelled good images score beside the training images; for the report's notes."""
    if not line:
        return []
    run.note(shift_of_labelled={name: one.as_json() for name, one in line.items()})
    print(shift.note(line), flush=True)
    return [("Labelled good images beside good training images", shift.note(line))]


def check_roads(served: np.ndarray, computed: np.ndarray, precision: str = FLOAT32) -> None:
    """Raises RuntimeError if the exported graph's scores are not those of the fitted head, both [N]."""
    difference = float(np.max(np.abs(served - computed) / (1 + np.abs(computed))))
    if difference > _ROADS_AGREE[precision]:
        raise RuntimeError(f"The exported graph's scores differ from the fitted head's by up to {difference:.2g}.")


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Probability of log-odds: float [N] -> float64 [N]."""
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def table_of(
    fitted: FittedProbe,
    cut: Cut,
    scores: np.ndarray,
    served: np.ndarray,
    probability: np.ndarray | None,
    pretrained: Collection[str] = (),
) -> list[Row]:
    """The table of predictions of a fitted and exported head.

    Args:
      fitted: the head, with its out-of-fold scores of `cut.fit`.
      cut: who is who.
      scores: float [N], the head's scores of `cut.fit`.
      served: float [M], the exported graph's scores of `cut.evaluate`; these are judged.
      probability: float [M], the graph's, or None if it gives none.
      pretrained: paths of the images that the encoder was pretrained on, which get a row of their own.
    """
    seen = [i for i, record in enumerate(cut.train_good) if record.path in pretrained]
    parts = [
        ("pretrain", seen, scores[seen]),
        ("fit", range(len(cut.fit)), scores),
        ("calibrate", fitted.calibrate, fitted.calibrate_scores),
    ]
    table = []
    for split, which, given in parts:
        records = [cut.fit[i] for i in which]
        # Each with the probability that its own category's calibration gives the score.
        categories = np.array([record.category for record in records])
        table += rows(records, split, given, fitted.head.probability_of(given, categories))
    return table + rows(cut.evaluate, "evaluate", served, probability)


def labels_note(cut: Cut) -> str:
    """For the report: which labels the figures rest on."""
    defects = sum(record.label for record in cut.labelled)
    labelled = f"{len(cut.labelled)} test images were labelled, {defects} of them defective." if cut.labelled else ""
    these = "these and of " if cut.labelled else ""
    return (
        f"{labelled or 'No test image was labelled.'} The threshold was chosen on out-of-fold scores of {these}the "
        f"{counted(len(cut.train_good), 'good training image')}. "
        f"{counted(len(cut.evaluate), 'other test image was', 'other test images were')} evaluated."
    )
