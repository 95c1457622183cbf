"""The steps of export: the run's graph, perhaps with its network in bfloat16, becomes the next version of a model."""

import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.data.formats import scan
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.report import judge
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.features.feature_graph import FeatureKey
from mvtec_tf.features.probe_graph import Probe, write_probe
from mvtec_tf.graphs import rebuild, saved_model, scoring
from mvtec_tf.graphs.thresholded import Thresholds
from mvtec_tf.heads.file import load_head, read_head
from mvtec_tf.jobs.encoders import encoder_of_run
from mvtec_tf.networks.copies import BFLOAT16, FLOAT32, in_bfloat16
from mvtec_tf.run_directory import read_finished
from mvtec_tf.serving import export as export_lib
from mvtec_tf.serving.settings import ExportSettings
from mvtec_tf.training import precision


def export(settings: ExportSettings) -> None:
    """Exports the run and prints where the new version lies."""
    print(export_run(settings))


def export_run(settings: ExportSettings) -> pathlib.Path:
    """Exports the run in the number and file formats that are asked for; see `serving.export.export_run`.

    Returns:
      The new version's directory.

    Raises:
      UsageError: verdicts are to be compared, and nothing says on which images.
      UserError: `precision`=bfloat16, and the run has no network that could compute in it, or some verdict differs; a
        file of another format gives other scores or verdicts, see `formats.write`; or the images are not those of the
        run.
    """
    settings.check()
    beside = _other_formats(settings) if settings.other_formats else None
    with tempfile.TemporaryDirectory() as folder:
        source, facts, why = None, {}, ""
        if settings.precision != FLOAT32:
            source, facts, why = _in_bfloat16(settings, pathlib.Path(folder))
        if why:
            print(f"It computes in float32. {why}", flush=True)
        where = settings.run, settings.name, settings.saved_models
        return export_lib.export_run(*where, settings, source, facts, beside)


def _other_formats(settings: ExportSettings) -> Callable[[pathlib.Path, dict[str, Any]], dict[str, Any]]:
    """What writes the formats beside the SavedModel; see `serving.export.export_run`."""
    from mvtec_tf.serving import formats

    run = pathlib.Path(settings.run)
    record = read_finished(run, f"`run`={run}")
    if saved_model.read_card(run / "saved_model")["kind"] == "encoder":
        raise UserError(f"`run`={run}: an encoder, which gives no verdicts; other formats are for what does.")
    table, images = evaluated_images(settings, run, record)
    trial = formats.Trial([images[path] for path in table.path.tolist()], table.label)

    def write(version: pathlib.Path, card: dict[str, Any]) -> dict[str, Any]:
        return {"formats": formats.write(version, card, settings.other_formats, trial)}

    return write


def _in_bfloat16(
    settings: ExportSettings, folder: pathlib.Path
) -> tuple[pathlib.Path | None, dict[str, Any], str]:
    """The run's graph in bfloat16, in `folder`, and what is to be said of it; or None, nothing, and why it stays in
    float32. Raises as `export_run` where bfloat16 is demanded."""
    run = pathlib.Path(settings.run)
    record = read_finished(run, f"`run`={run}")
    if why := _without_verdicts(run, record):
        if settings.precision == BFLOAT16:
            raise UserError(f"{why} `precision`=bfloat16 is for what gives such; leave it out.")
        return None, {}, why
    table, images = evaluated_images(settings, run, record)
    if precision.of_graph(settings.precision) != BFLOAT16:
        return None, {}, "This processor has no bfloat16."
    print(f"Writing the graph in bfloat16, and comparing it on {len(images)} images ...", flush=True)
    try:
        model = write_in_bfloat16(run, record, folder)
        compared = compare(model, table, images, export_lib.thresholds_of(run, settings.threshold))
    except UserError as error:
        if settings.precision == BFLOAT16:
            raise
        return None, {}, str(error)
    return model, {"precision": BFLOAT16} | compared, ""


def _without_verdicts(run: pathlib.Path, record: Mapping[str, Any]) -> str:
    """Why a finished run has no verdicts of a network, "" if it has."""
    kind = saved_model.read_card(run / "saved_model")["kind"]
    if kind == "encoder":
        return f"`run`={run}: a run of `{record['binary']}`, an encoder, which gives no verdicts."
    if kind == "classifier" or (kind == "probe" and (run / "head.npz").is_file()):
        return ""
    return f"`run`={run}: a run of `{record['binary']}`, whose export gives no verdicts of a network."


def write_in_bfloat16(run: pathlib.Path, record: Mapping[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Writes the graph of a finished run with the maps of its network in bfloat16.

    The head, and all that is a score, stays in float32.

    Args:
      run: of train_cnn or fit_probe, with a network that gives verdicts.
      record: of it.
      folder: for what is made on the way.

    Returns:
      The SavedModel, in `folder`.

    Raises:
      UserError: the encoder beside the head is another one.
    """
    source, target = run / "saved_model", folder / "model"
    card = saved_model.read_card(source)
    if card["kind"] == "classifier":
        network = rebuild.classifier_of(source, record["settings"])
        saved_model.write_folded(target, in_bfloat16(network), card)
        return target
    key = read_head(run / "head.npz")[0]["key"]
    encoder, head = encoder_of_run(run, record, key["encoder"]), load_head(run / "head.npz", key)
    faster = folder / "encoder"
    saved_model.write_folded(
        faster, in_bfloat16(rebuild.encoder_of(encoder)), saved_model.read_card(encoder)
    )
    write_probe(target, Probe(faster, FeatureKey.from_json(key), head), card)
    return target


def evaluated_images(
    settings: ExportSettings, run: pathlib.Path, record: Mapping[str, Any]
) -> tuple[Predictions, dict[str, str]]:
    """The rows of a run's evaluated images, and path -> file of each.

    Args:
      settings: of the export.
      run: its directory.
      record: of the run.

    Raises:
      UsageError: nothing says where they are.
      UserError: they are not there, or others of the same names are.
    """
    if not settings.data_dir:
        raise UsageError(
            "Another number format or file format is tried on the run's evaluated images. Say with `data_dir` where "
            "they are."
        )
    where = f"`data_dir`={','.join(settings.data_dir)}"
    table = judge.predictions_of(run).part(leaks.EVALUATE)
    records = scan.scan(settings.data_dir, record["settings"].get("categories") or [], say=print)
    return table, {path: one.image for path, one in image_files.from_records(records, table, where).items()}


def compare(
    model: pathlib.Path, table: Predictions, images: Mapping[str, str], thresholds: Thresholds
) -> dict[str, float | int]:
    """What differs between the scores of a SavedModel and those of the run that it was made of, on evaluated images.

    Args:
      model: the SavedModel.
      table: of the run, the rows of its evaluated images.
      images: see `evaluated_images`.
      thresholds: of the verdicts.

    Raises:
      UserError: some verdict differs.
    """
    scores = scoring.score_files(model, [images[path] for path in table.path.tolist()]).score
    named = table.category.tolist()
    cuts = [np.array([thresholds.categories.get(name, thresholds.value) for name in named])]
    if thresholds.unsure:
        zones = [thresholds.unsure.get(name, thresholds.unsure[""]) for name in named]
        cuts += list(np.array(zones, np.float64).T)
    for limits in cuts:
        _refuse_other_verdicts(table, scores, limits)
    return {
        "compared_images": len(scores),
        "largest_difference": float(np.abs(scores - table.score).max()),
        "standard_deviation_of_scores": float(table.score.std()),
    }


def _refuse_other_verdicts(table: Predictions, scores: np.ndarray, limits: np.ndarray) -> None:
    other = np.flatnonzero((scores >= limits) != (table.score >= limits))
    if not len(other):
        return
    worst = other[np.argmax(np.abs(scores[other] - table.score[other]))]
    raise UserError(
        f"In bfloat16 {len(other)} of the {len(scores)} evaluated images get another verdict, such as "
        f"{table.path[worst]}: {table.score[worst]:.6g} in float32, {scores[worst]:.6g} in bfloat16, threshold "
        f"{limits[worst]:.6g}. Nothing was exported in bfloat16."
    )
