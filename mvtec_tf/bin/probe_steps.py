"""The steps of fit_probe: which encoder, its features, a head on them, its judgement."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from mvtec_tf.bin import run_steps
from mvtec_tf.data import leaks, protocol
from mvtec_tf.data.protocol import Cut, SplitRow
from mvtec_tf.data.records import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.rows import rows
from mvtec_tf.evaluation.table import Row
from mvtec_tf.features import extract
from mvtec_tf.models.head_settings import HeadSettings
from mvtec_tf.models.heads import PerCategoryHead, make_head
from mvtec_tf.models.simclr import EMBEDDING
from mvtec_tf.serving import saved_model, scoring
from mvtec_tf.training.contrastive import starting_encoder
from mvtec_tf.training.probe import fit_probe
from mvtec_tf.training.recipes import ContrastiveSettings
from mvtec_tf.training.run_directory import RunDirectory, read_run

# float32 features through one matrix product, by two roads.
_ROADS_AGREE = 1e-4


@dataclasses.dataclass(frozen=True)
class Features:
    """Frozen features of a cut.

    Attributes:
      encoder: SavedModel that they came from.
      layers: outputs that were joined.
      cut: who is who.
      joined: float32 [N, D], of train_good, labelled and evaluate, in this order.
      embedding: float32 [N, C], the encoder's last output alone.
    """

    encoder: pathlib.Path
    layers: tuple[str, ...]
    cut: Cut
    joined: np.ndarray
    embedding: np.ndarray

    @classmethod
    def of(cls, run: RunDirectory, encoder: pathlib.Path, cut: Cut, layers: Sequence[str]) -> "Features":
        """Reads them from the run, or computes and keeps them."""
        card = saved_model.read_card(encoder)
        _check_pretraining(card, cut, encoder)
        layers = tuple(layers or card["middle_stages"])
        print(f"Features: {', '.join(layers)} of {encoder}, at {card['image_size']} px.", flush=True)
        run.note(
            architecture=card.get("architecture", []),
            encoder={
                "image_size": card["image_size"],
                "layers": layers,
                "pretrain_images": len(card["pretrain_images"]),
                "settings": card["run"],
            },
        )
        records = (*cut.train_good, *cut.labelled, *cut.evaluate)
        with run.timed("features"):
            outputs = extract.encoder_features(encoder, records, run.path / "features.npz")
        return cls(encoder, layers, cut, extract.join(outputs, layers), outputs[EMBEDDING])

    @property
    def fit_records(self) -> tuple[Record, ...]:
        """train_good and labelled, the first rows of the features."""
        return (*self.cut.train_good, *self.cut.labelled)


def resolve_encoder(name: str) -> pathlib.Path:
    """The SavedModel of a run of train_simclr, or the SavedModel itself.

    Raises:
      UserError: neither is there, the run is not finished, or the model is no encoder.
    """
    path = pathlib.Path(name)
    if (path / "run.json").is_file():
        if read_run(path)["status"] != "finished":
            raise UserError(f"--encoder={name}: that run is not finished. Repeat its command to finish it.")
        path = path / "saved_model"
    if not path.is_dir():
        raise UserError(f"--encoder={name}: no run directory and no SavedModel there.")
    kind = saved_model.read_card(path)["kind"]
    if kind != "encoder":
        raise UserError(f"--encoder={name}: the SavedModel is a {kind}. Name a run of train_simclr or its export.")
    return path


def export_starting_encoder(
    run: RunDirectory, backbone: str, image_size: int, weights: str, partial: bool, seed: int
) -> pathlib.Path:
    """Writes a backbone as it is, without pretraining here, into the run."""
    path = run.path / "encoder"
    if not path.exists():
        settings = ContrastiveSettings(
            backbone=backbone, image_size=image_size, weights=weights, weights_partial=partial, seed=seed
        )
        built = starting_encoder(settings)
        words = built.weights.describe() if built.weights else f"weights: {weights}."
        print(words, flush=True)
        run.note(network={"weights": words})
        saved_model.write_encoder(path, built, {"run": run.record["settings"], "pretrain_images": []})
    return path


def fit_and_judge(run: RunDirectory, features: Features, settings: HeadSettings) -> None:
    """Fits the head on train_good and labelled, exports it, and judges the exported graph."""
    cut, records = features.cut, features.fit_records
    with run.timed("fit"):
        probe = fit_probe(lambda: make_head(settings), features.joined[: len(records)], records, settings.seed)
    for warning in probe.warnings:
        print(f"Note: {warning}", flush=True)
    if not run.saved_model.exists():
        graph = saved_model.Probe(features.encoder, features.layers, probe.head)
        saved_model.write_probe(run.saved_model, graph, {"run": run.record["settings"]})
    with run.timed("score"):
        served = scoring.score_files(run.saved_model, [record.file for record in cut.evaluate])
    scores = probe.head.decision_function(features.joined)
    check_roads(served.score, scores[len(records) :])
    calibrate = [records[i] for i in probe.calibrate]
    pretrained = [record for record in cut.train_good if record.path in _pretrain_paths(features.encoder)]
    good_scores = dict(zip((record.path for record in cut.train_good), scores, strict=False))
    seen = np.array([good_scores[record.path] for record in pretrained], np.float32)
    table = [
        *_rows(probe.head, pretrained, "pretrain", seen),
        *_rows(probe.head, records, "fit", scores[: len(records)]),
        *_rows(probe.head, calibrate, "calibrate", probe.calibrate_scores),
        *rows(cut.evaluate, "evaluate", served.score, served.probability),
    ]
    run.note(labels_used=len(cut.labelled), labelled_defects=sum(record.label for record in cut.labelled))
    labels = " ".join([labels_note(cut), *probe.warnings])
    run_steps.judge_run(run, table, f"Frozen encoder with a {settings.name} head", [("Labels", labels)])


def _check_pretraining(card: dict, cut: Cut, encoder: pathlib.Path) -> None:
    seen = [SplitRow(image["path"], image["group"], image["category"], "pretrain") for image in card["pretrain_images"]]
    leaks.check_leaks(seen + protocol.split_rows(cut.evaluate, "evaluate"), source=str(encoder))


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


def _rows(head: PerCategoryHead, records: Sequence[Record], split: str, scores: np.ndarray) -> list[Row]:
    categories = np.array([record.category for record in records])
    return rows(records, split, scores, head.probability_of(scores, categories))


def labels_note(cut: Cut) -> str:
    """For the report: which labels the figures rest on."""
    defects = sum(record.label for record in cut.labelled)
    return (
        f"{len(cut.labelled)} test images were labelled, {defects} of them defective. The threshold was chosen on "
        f"out-of-fold scores of these and of the {len(cut.train_good)} good training images. {len(cut.evaluate)} "
        "other test images were evaluated."
    )
