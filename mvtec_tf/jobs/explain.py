"""The steps of explain: which network, its heat maps and embedding, and the run's report with them."""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.data import leaks
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.record import MAX_PIXELS, Record
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation import embedding, image_files
from mvtec_tf.evaluation.localisation import heatmaps
from mvtec_tf.evaluation.localisation.heatmaps import EXPORTED, HeatMaps
from mvtec_tf.evaluation.report import judge, suspects
from mvtec_tf.evaluation.report.judge import Extras
from mvtec_tf.evaluation.report.page import Section
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.features.feature_graph import encoder_digest
from mvtec_tf.graphs import grad_cam, rebuild, saved_model, scoring
from mvtec_tf.graphs.rebuild import Rebuilt
from mvtec_tf.graphs.signatures import EMBED, HEAT_MAP
from mvtec_tf.graphs.thresholded import SCORE
from mvtec_tf.heads.file import read_head, settings_of
from mvtec_tf.jobs import unread
from mvtec_tf.jobs.encoders import encoder_of_run
from mvtec_tf.jobs.judge import image_and_mask_files
from mvtec_tf.jobs.settings import ExplainSettings
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.copies import BFLOAT16, FLOAT32
from mvtec_tf.ownership import Owned
from mvtec_tf.run_directory import read_finished

MAPS_DIR = "heatmaps"
EXPORTED_METHOD = "exported"
METHODS = (EXPORTED_METHOD, *grad_cam.NAMES)
_BINARIES = ("train_cnn", "fit_probe", "fit_baseline", "distill")
_USE_EXPORTED = "Use `method`=exported."
EMBEDDING_FILE = "embedding.npz"
# What maps are of; maps of something else are not kept.
_KEY_FILE = "maps.json"
# Through one graph, by two roads: with the exported ops and with Keras'.
_ROADS_AGREE = {FLOAT32: 1e-3, BFLOAT16: 5e-2}


def explain(settings: ExplainSettings) -> dict[str, Any]:
    """Writes heat maps and embedding into a finished run, and its report anew with them.

    Returns:
      The content of `metrics.json`.

    Raises:
      UsageError: there is no such method.
      UserError: the run or its images cannot be used.
    """
    unknown = [method for method in settings.method if method not in METHODS]
    if unknown:
        raise UsageError(f"`method`={','.join(settings.method)}: expected some of {', '.join(METHODS)}.")
    run = pathlib.Path(settings.run)
    record = read_explainable(run)
    if record["binary"] != "fit_probe" or not set(settings.method) & set(grad_cam.NAMES):
        unread.refuse(settings, ["encoder"], "only Grad-CAM of a probe looks into its encoder")
    with Owned(run, "`run`"):
        files.remove_partial(run)
        table = judge.predictions_of(run)
        evaluate = table.part(leaks.EVALUATE)
        records = records_lib.scan(settings.data_dir, record["settings"].get("categories", []), say=print)
        files_of, about_files = image_and_mask_files(settings, table, (), records)
        own = image_files.records_of(records, evaluate, "`data_dir`")
        methods = list(dict.fromkeys(settings.method))
        found = explain_run(run, record, evaluate, own, methods, settings.batch_size, settings.encoder)
        extras = dataclasses.replace(
            found,
            files=files_of,
            about_files=about_files,
            tsne=settings.tsne,
            seed=settings.seed,
            projector=run / "tensorboard",
            say=lambda text: print(text, flush=True),
            more=_suspects(run, records),
        )
        document = judge.judge_again(run, extras, f"Run of {record['binary']}", record)
    for figures in document["pixels"].values():
        print(figures["summary"])
    print(f"Report: {run / 'report.html'}")
    print(run)
    return document


def read_explainable(run_dir: pathlib.Path) -> dict[str, Any]:
    """The record of a finished run with a scoring model.

    Raises:
      UserError: it is not finished, or its model gives no scores.
    """
    record = read_finished(run_dir, f"`run`={run_dir}")
    if record["binary"] not in _BINARIES:
        expected = ", ".join(f"`{name}`" for name in _BINARIES)
        raise UserError(f"`run`={run_dir}: a run of `{record['binary']}`. Expected one of {expected}.")
    return record


def explain_run(
    run_dir: pathlib.Path,
    record: Mapping[str, Any],
    evaluate: Predictions,
    records: Sequence[Record],
    methods: Sequence[str],
    batch_size: int,
    encoder: str | None = None,
) -> Extras:
    """Writes the heat maps and the embedding of the evaluated images into the run, or what is missing of them.

    Args:
      run_dir: the run.
      record: of it.
      evaluate: rows of its table.
      records: of the same images, in their order.
      methods: "exported" (what the exported graph answers), "gradcam", "gradcam++"; none: the library's of a network
        with a gradient, else the exported one.
      batch_size: images at a time.
      encoder: where the encoder of a probe lies now; None: where it lay.

    Returns:
      Maps, what must be known to read them, and embedding.

    Raises:
      UserError: the network cannot be rebuilt, or does not give the table's scores.
    """
    methods = methods or (list(grad_cam.NAMES) if record["binary"] == "train_cnn" else [EXPORTED_METHOD])
    found = []
    if EXPORTED_METHOD in methods:
        file = run_dir / "head.npz"
        head = settings_of(read_head(file)[0]) if file.is_file() else None
        # After a head that draws its own.
        name = head.name if head and head.needs_maps else EXPORTED
        found.append(_exported(run_dir, name, evaluate, records, batch_size))
    if rest := [method for method in methods if method != EXPORTED_METHOD]:
        found.append(_gradcam(run_dir, _rebuilt(run_dir, record, encoder), evaluate, records, rest, batch_size))
    maps = tuple(maps for one in found for maps in one.maps)
    about = tuple(sentence for one in found for sentence in one.about_maps)
    return Extras(maps=maps, about_maps=about, features=found[-1].features)


def _rebuilt(run_dir: pathlib.Path, record: Mapping[str, Any], encoder: str | None) -> Rebuilt:
    """The network in Keras. Raises UserError where the run's score has no gradient at whole maps."""
    if record["binary"] == "train_cnn":
        return rebuild.rebuild_classifier(run_dir / "saved_model", record["settings"])
    if record["binary"] != "fit_probe":
        raise UserError(f"`run`={run_dir}: holds no network for Grad-CAM to look into. {_USE_EXPORTED}")
    header, arrays = read_head(run_dir / "head.npz")
    key = header["key"]
    plain = tuple(key["tiles"]) == (1, 1) and key.get("pooling", ["mean"]) == ["mean"]
    if settings_of(header).needs_maps or not plain or key.get("centre_brightness", False):
        raise UserError(
            f"`run`={run_dir}: Grad-CAM explains a head on averages of whole images as they are; this one sees "
            f"patches, tiles, other pooling or shifted brightness. {_USE_EXPORTED}"
        )
    folder = encoder_of_run(run_dir, record, key["encoder"], encoder, " Name it with `encoder`.")
    return rebuild.rebuild_probe(folder, key["layers"], arrays)


def _gradcam(
    run_dir: pathlib.Path,
    rebuilt: Rebuilt,
    evaluate: Predictions,
    records: Sequence[Record],
    methods: Sequence[str],
    batch_size: int,
) -> Extras:
    digest = encoder_digest(run_dir / "saved_model")
    card = saved_model.read_card(run_dir / "saved_model")
    limit, agreement = card.get("max_pixels", MAX_PIXELS), _agreement(card)
    folders = {method: run_dir / MAPS_DIR / method for method in methods}
    for method, folder in folders.items():
        begin(folder, {"method": method, "layers": list(rebuilt.layers), "saved_model": digest})
    about = _about(rebuilt)
    print(about[0], flush=True)
    found, speak = [], files.speaker()
    for start in range(0, len(records), batch_size):
        part = records[start : start + batch_size]
        maps = rebuilt.run(ImageStore(rebuilt.image_size, max_pixels=limit).load(part))
        _check_scores(run_dir, evaluate, start, rebuilt.score(maps), agreement)
        found.append(np.concatenate([one.mean(axis=(1, 2)) for one in maps], axis=1))
        for method, folder in folders.items():
            _write_missing(folder, part, maps, rebuilt.parts, method)
        speak(f"explained {start + len(part):,} of {len(records):,} images")
    features = np.concatenate(found)
    embedding.write(run_dir / EMBEDDING_FILE, evaluate.path.tolist(), features)
    maps = tuple(HeatMaps(folder, grad_cam.NAMES[method]) for method, folder in folders.items())
    return Extras(maps=maps, about_maps=about, features=features)


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
    if file.is_file() and files.read_json(file) == key:
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


def _agreement(card: Mapping[str, Any]) -> float:
    return _ROADS_AGREE[card.get("precision", FLOAT32)]


def _check_scores(
    run_dir: pathlib.Path, evaluate: Predictions, start: int, score: np.ndarray, agreement: float
) -> None:
    judged = evaluate.score[start : start + len(score)]
    wrong = np.abs(score - judged) > agreement * (1 + np.abs(judged))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{run_dir}: its model gives {evaluate.path[start + row]} the score {score[row]:.6g}, its table "
            f"{judged[row]:.6g}. Are these the images that were judged (`data_dir`)?"
        )


def _exported(
    run_dir: pathlib.Path, name: str, evaluate: Predictions, records: Sequence[Record], batch_size: int
) -> Extras:
    """The maps that the run's exported graph answers, and the features that its head sees."""
    model, folder = run_dir / "saved_model", run_dir / MAPS_DIR
    folder.mkdir(exist_ok=True)
    missing = [i for i, one in enumerate(records) if not heatmaps.place(folder, one.path).is_file()]
    agreement = _agreement(saved_model.read_card(model))
    answers = scoring.explained(model, [records[i].file for i in missing], batch_size)
    for i, answer in zip(missing, answers, strict=True):
        _check_scores(run_dir, evaluate, i, answer[SCORE][None], agreement)
        heatmaps.write(folder, records[i].path, answer[HEAT_MAP])
    signature = saved_model.load(model).signatures[EMBED]
    embedded = scoring.run_signature(signature, [one.file for one in records], "embedded", batch_size)
    features = embedded["embedding"]
    embedding.write(run_dir / EMBEDDING_FILE, evaluate.path.tolist(), features)
    return Extras(maps=(HeatMaps(folder, name),), features=features)


def _suspects(run: pathlib.Path, records: Sequence[Record]) -> tuple[Section, ...]:
    file = run / suspects.FILE
    return (suspects.section(suspects.read(file, records)),) if file.is_file() else ()
