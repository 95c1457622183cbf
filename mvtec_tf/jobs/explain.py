"""The steps of explain: which network, its heat maps and embedding, and the run's report with them."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mvtec_tf import files
from mvtec_tf.data import input_pipeline, leaks
from mvtec_tf.data.formats.scan import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import embedding
from mvtec_tf.evaluation.localisation import heatmaps
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.features.store import ENCODER, FeatureStore, encoder_digest
from mvtec_tf.graphs import grad_cam, rebuild, saved_model, scoring
from mvtec_tf.graphs.rebuild import Rebuilt
from mvtec_tf.graphs.signatures import EXPLAIN, HEAT_MAP
from mvtec_tf.heads.file import read_head, settings_of
from mvtec_tf.jobs.encoders import resolve_encoder
from mvtec_tf.run_directory import read_run

MAPS_DIR = "heatmaps"
EMBEDDING_FILE = "embedding.npz"
# What maps are of; maps of something else are not kept.
_KEY_FILE = "maps.json"
_SPEAK_EVERY = 64
# float32 through one graph, by two roads: with the exported ops and with Keras'.
_ROADS_AGREE = 1e-3


@dataclasses.dataclass(frozen=True)
class Explained:
    """What was made of a run.

    Attributes:
      maps: folders of heat maps of every evaluated image.
      features: float32 [N, D], its embedding; None if there is none to be had.
      about: what must be known to read the maps, a sentence each.
    """

    maps: tuple[HeatMaps, ...]
    features: np.ndarray | None
    about: tuple[str, ...] = ()


def read_explainable(run_dir: pathlib.Path) -> dict[str, Any]:
    """The record of a finished run with a scoring model.

    Raises:
      UserError: it is not finished, or its model gives no scores.
    """
    record = read_run(run_dir)
    if record["status"] != "finished":
        raise UserError(f"--run={run_dir}: that run is not finished. Repeat its command to finish it.")
    if record["binary"] not in ("train_cnn", "fit_probe"):
        raise UserError(f"--run={run_dir}: a run of {record['binary']}. Expected one of train_cnn or fit_probe.")
    return record


def explain_run(
    run_dir: pathlib.Path,
    record: Mapping[str, Any],
    evaluate: Predictions,
    records: Sequence[Record],
    methods: Sequence[str],
    batch_size: int,
    encoder: str | None = None,
) -> Explained:
    """Writes the heat maps and the embedding of the evaluated images into the run, or what is missing of them.

    Args:
      run_dir: the run.
      record: of it.
      evaluate: rows of its table.
      records: of the same images, in their order.
      methods: "gradcam", "gradcam++"; of no effect on a head that draws heat maps of its own.
      batch_size: images at a time.
      encoder: where the encoder of a probe lies now; None: where it lay.

    Raises:
      UserError: the network cannot be rebuilt, or does not give the table's scores.
    """
    if record["binary"] == "train_cnn":
        rebuilt = rebuild.rebuild_classifier(run_dir / "saved_model", record["settings"])
        return _gradcam(run_dir, rebuilt, evaluate, records, methods, batch_size)
    header, arrays = read_head(run_dir / "head.npz")
    if settings_of(header).needs_maps:
        return _own_maps(run_dir, record, header["settings"]["name"], records, batch_size)
    if tuple(header["key"]["tiles"]) != (1, 1):
        raise UserError(f"--run={run_dir}: its images were cut into tiles, and Grad-CAM looks at whole ones.")
    folder = _encoder(run_dir, record, encoder)
    if encoder_digest(folder) != header["key"]["encoder"]:
        raise UserError(f"{folder}: not the encoder that the head of {run_dir} was fitted on. Name it with --encoder.")
    rebuilt = rebuild.rebuild_probe(folder, header["key"]["layers"], arrays)
    return _gradcam(run_dir, rebuilt, evaluate, records, methods, batch_size)


def _encoder(run_dir: pathlib.Path, record: Mapping[str, Any], given: str | None) -> pathlib.Path:
    if given is not None:
        return resolve_encoder(given)
    own, settings = run_dir / "encoder", record["settings"]
    if own.is_dir():
        return own
    if settings.get("encoder"):
        return resolve_encoder(settings["encoder"])
    return pathlib.Path(settings["features"]) / ENCODER


def _gradcam(
    run_dir: pathlib.Path,
    rebuilt: Rebuilt,
    evaluate: Predictions,
    records: Sequence[Record],
    methods: Sequence[str],
    batch_size: int,
) -> Explained:
    digest = encoder_digest(run_dir / "saved_model")
    folders = {method: run_dir / MAPS_DIR / method for method in methods}
    for method, folder in folders.items():
        begin(folder, {"method": method, "layers": list(rebuilt.layers), "saved_model": digest})
    about = _about(rebuilt)
    print(about[0], flush=True)
    found, spoken = [], 0
    for start in range(0, len(records), batch_size):
        part = records[start : start + batch_size]
        maps = rebuilt.run(input_pipeline.load_images(part, rebuilt.image_size))
        _check_scores(run_dir, evaluate, start, rebuilt.score(maps))
        found.append(np.concatenate([one.mean(axis=(1, 2)) for one in maps], axis=1))
        for method, folder in folders.items():
            _write_missing(folder, part, maps, rebuilt.parts, method)
        if start + len(part) - spoken >= _SPEAK_EVERY:
            spoken = start + len(part)
            print(f"explained {spoken:,} of {len(records):,} images", flush=True)
    features = np.concatenate(found)
    embedding.write(run_dir / EMBEDDING_FILE, evaluate.path.tolist(), features)
    maps = tuple(HeatMaps(folder, grad_cam.NAMES[method]) for method, folder in folders.items())
    return Explained(maps, features, about)


def _about(rebuilt: Rebuilt) -> tuple[str, ...]:
    sizes = [f"{name} ({shape[1]} x {shape[2]})" for name, shape in zip(rebuilt.layers, rebuilt.shapes, strict=True)]
    about = (
        f"The maps are taken at {' and '.join(sizes)} and show what speaks for a defect, whatever the image was "
        "called.",
    )
    if len(sizes) == 1:
        return about
    return (
        *about,
        "The layers' maps are added in the unit of the score. What all images share, such as a background, a linear "
        "head takes off again by its bias, of which a map knows nothing: it may be the hottest and mean nothing.",
    )


def begin(folder: pathlib.Path, key: Mapping[str, Any]) -> None:
    """Keeps maps of the same network and method, so that a stopped call goes on; removes others."""
    file = folder / _KEY_FILE
    # Written first and whole, so maps without it are nobody's.
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == key:
        return
    if folder.exists():
        shutil.rmtree(folder)
    files.write_json(file, key)


def _write_missing(
    folder: pathlib.Path, records: Sequence[Record], maps: Sequence[np.ndarray], parts: keras.Model, method: str
) -> None:
    missing = [i for i, record in enumerate(records) if not heatmaps.place(folder, record.path).is_file()]
    if not missing:
        return
    found = grad_cam.heat(parts, [one[missing] for one in maps], method)
    for i, heat in zip(missing, found, strict=True):
        heatmaps.write(folder, records[i].path, heat)


def _check_scores(run_dir: pathlib.Path, evaluate: Predictions, start: int, score: np.ndarray) -> None:
    judged = evaluate.score[start : start + len(score)]
    wrong = np.abs(score - judged) > _ROADS_AGREE * (1 + np.abs(judged))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{run_dir}: the rebuilt network gives {evaluate.path[start + row]} the score {score[row]:.6g}, its table "
            f"{judged[row]:.6g}. Are these the images that were judged (--data_dir)?"
        )


def _own_maps(
    run_dir: pathlib.Path, record: Mapping[str, Any], name: str, records: Sequence[Record], batch_size: int
) -> Explained:
    """Of a patch head: the maps that its exported graph draws, and the features that it was fitted on."""
    folder = run_dir / MAPS_DIR
    folder.mkdir(exist_ok=True)
    missing = [one for one in records if not heatmaps.place(folder, one.path).is_file()]
    if missing:
        signature = saved_model.load(run_dir / "saved_model").signatures[EXPLAIN]
        done = 0
        for outputs in scoring.stream_signature(signature, [one.file for one in missing], batch_size):
            for heat in outputs[HEAT_MAP]:
                heatmaps.write(folder, missing[done].path, heat)
                done += 1
            print(f"heat maps: {done:,} of {len(missing):,}", flush=True)
    print(f"The {name} head draws heat maps of its own; --method has no effect.", flush=True)
    store = run_dir / "features"
    if not store.is_dir():
        store = pathlib.Path(record["settings"].get("features") or store)
    features = FeatureStore(store).of(records).pooled if store.is_dir() else None
    return Explained((HeatMaps(folder, name),), features)


def records_of(evaluate: Predictions, records: Sequence[Record]) -> list[Record]:
    """The records of the table's rows in their order; `image_files.from_records` has found them all."""
    known = {leaks.same_file_key(record.path): record for record in records}
    return [known[leaks.same_file_key(path)] for path in evaluate.path.tolist()]
