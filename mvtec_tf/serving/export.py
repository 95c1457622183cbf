"""From a finished run to `saved_models/NAME/VERSION/`: the judged graph with its threshold beside it."""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from mvtec_tf import drift, files
from mvtec_tf.data import known_images
from mvtec_tf.errors import UserError
from mvtec_tf.features import neighbours, reference
from mvtec_tf.features.reference import Reference, Usual
from mvtec_tf.graphs import saved_model, signatures
from mvtec_tf.graphs.thresholded import ThresholdedModel, Thresholds
from mvtec_tf.run_directory import read_finished
from mvtec_tf.serving import configs, model_card, warmup
from mvtec_tf.serving.settings import ExportOptions

# Of the run, kept with the export: the evaluation's scores, its figures, the flags that repeat it, its images, and what
# is usual.
_KEPT = ("predictions.csv", "metrics.json", "flags.txt", known_images.FILE, drift.REFERENCE_FILE, neighbours.FILE)


def export_run(
    run_dir: files.PathLike,
    name: str,
    root: files.PathLike,
    options: ExportOptions | None = None,
    source: files.PathLike | None = None,
    facts: Mapping[str, Any] | None = None,
    beside: Callable[[pathlib.Path, dict[str, Any]], dict[str, Any]] | None = None,
) -> pathlib.Path:
    """Writes the next version of `name` below `root`, whole or not at all; older ones stay untouched.

    The version is read back and answers its own warm-up requests before it gets its name. Then the server's
    configuration files in `root` are brought up to date.

    Args:
      run_dir: a finished run with a SavedModel in it.
      name: of the model.
      root: folder of all models.
      options: see there.
      source: SavedModel that is exported. None: the run's own.
      facts: that the card says of it.
      beside: writes more into the directory of a version, whose card it is given; returns what the card says of it.

    Returns:
      The new directory.

    Raises:
      UserError: the run is not finished or has no model or no threshold, or its thresholds cannot be served.
    """
    run_dir, options = pathlib.Path(run_dir), options or ExportOptions()
    read_finished(run_dir, f"`run`={run_dir}")
    source = pathlib.Path(source or run_dir / "saved_model")
    card = saved_model.read_card(source) | dict(facts or {})
    thresholds = None if card["kind"] == "encoder" else thresholds_of(run_dir, options.threshold)

    def fill(directory: pathlib.Path, version: int) -> None:
        own = card | {"name": name, "version": version}
        if thresholds is None:
            shutil.copytree(source, directory, dirs_exist_ok=True)
        else:
            print("Writing the graph with its threshold ...", flush=True)
            own = write_thresholded(directory, source, own, thresholds, _usual(run_dir))
        if beside:
            own |= beside(directory, own)
        _write_extra(directory, run_dir, own, lambda card: model_card.build(run_dir, card, options))

    return _next_version(pathlib.Path(root), name, options, fill)


def export_again(
    export: files.PathLike, thresholds: Thresholds, facts: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Writes an export once more with other thresholds, as the next version of its name; older ones stay untouched.

    The graph is the same to the last weight. As with `export_run`, the version is whole or not there, and read back.

    Args:
      export: saved_models/NAME/VERSION.
      thresholds: one for all categories, whatever the export has; with a zone if and only if the export has one.
      facts: that the card says of it.

    Returns:
      The new directory.

    Raises:
      UserError: it is no such export, or its verdicts and these thresholds do not go together.
    """
    export = pathlib.Path(export)
    folder = export.absolute().parent
    card = saved_model.read_card(export) | dict(facts or {})
    # Files for other runtimes have the threshold in them: the new version has none.
    card.pop("formats", None)
    before = card.get("thresholds")
    if not before or thresholds.categories or bool(thresholds.unsure) != bool(before["unsure"]):
        raise UserError(f"{export}: expected an export with thresholds, and a zone only where it has one.")
    zone = thresholds.unsure.get("", (thresholds.value,) * 2)
    if not zone[0] <= thresholds.value <= zone[1]:
        raise UserError(
            f"Scores from {zone[0]:.6g} up to {zone[1]:.6g} would be unsure. The threshold, {thresholds.value:.6g}, "
            "is not among them, so verdicts would contradict it. Move one of them."
        )

    def fill(directory: pathlib.Path, version: int) -> None:
        # Read by itself: what `loading` remembers of this version must go on answering by its own thresholds.
        model = tf.saved_model.load(str(export))
        model._thresholds.assign(tf.fill(model._thresholds.shape, thresholds.value))
        if thresholds.unsure:
            model._unsure.assign(tf.broadcast_to(tf.constant(zone, tf.float32), model._unsure.shape))
        tf.saved_model.save(model, str(directory), signatures=dict(model.signatures))
        about = files.read_json(export / saved_model.EXTRA / "model_card.json")
        own = _thresholded(card | {"name": folder.name, "version": version}, thresholds)
        about |= {"model": about["model"] | {"name": folder.name, "version": version}, "threshold": own["thresholds"]}
        about["formats"] = {}
        _write_extra(directory, export / saved_model.EXTRA, own, lambda _: about)

    return _next_version(folder.parent, folder.name, ExportOptions(), fill)


def _next_version(
    root: pathlib.Path, name: str, options: ExportOptions, fill: Callable[[pathlib.Path, int], None]
) -> pathlib.Path:
    """The next version of `name`, whole or not at all, filled in its directory; the server's files know it."""
    files.check_text(root, "`saved_models`=")
    folder = root / name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file of this name is in the way. Choose another `name`.")
    with files.alone_in(folder):
        # What killed exports left.
        for child in folder.iterdir():
            if re.fullmatch(r"\.\d+\.partial\..*", child.name):
                shutil.rmtree(child)
        version = max(files.versions(folder), default=0) + 1
        with files.new_directory(folder / str(version)) as directory:
            fill(directory, version)
        if not configs.write(root, (name, version), options.labels, options.server_root):
            path = folder / str(version)
            print(f"{path} has no label, so a server does not load it. Give it one in {configs.MODELS}.")
    return folder / str(version)


def write_thresholded(
    directory: pathlib.Path,
    source: pathlib.Path,
    card: dict[str, Any],
    thresholds: Thresholds,
    usual: Usual | None,
) -> dict[str, Any]:
    """Writes the model with its thresholds; returns the card with what is new in it."""
    draw = signatures.overlays(card["image_size"], card["max_pixels"])
    model = ThresholdedModel(saved_model.load(source), thresholds, tuple(card.get("categories", ())), usual, draw)
    tf.saved_model.save(model, str(directory), signatures=model.signatures())
    return _thresholded(card, thresholds)


def _thresholded(card: Mapping[str, Any], thresholds: Thresholds) -> dict[str, Any]:
    return dict(card) | {
        "threshold": thresholds.value,
        "threshold_origin": thresholds.origin,
        "thresholds": dataclasses.asdict(thresholds),
    }


def _write_extra(
    directory: pathlib.Path, kept: pathlib.Path, card: dict[str, Any], about: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Fills `assets.extra`, and sends the warm-up requests through the model as it lies on the disk.

    Args:
      directory: of the version.
      kept: folder with the files that go with it.
      card: of the export.
      about: the same -> its model card.
    """
    extra = directory / saved_model.EXTRA
    extra.mkdir(exist_ok=True)
    print("Reading the export back, and sending it requests ...", flush=True)
    model = saved_model.load(directory)
    card = card | {"signatures": sorted(model.signatures)}
    for name in _KEPT:
        if (kept / name).is_file():
            shutil.copyfile(kept / name, extra / name)
    warmup.write(extra / warmup.FILE, model.signatures, card["name"], card["image_size"])
    answers = list(warmup.replay(model, extra / warmup.FILE))
    if card["kind"] != "encoder":
        card |= {"gives_probability": any("probability" in answer for _, answer in answers)}
    files.write_json(extra / saved_model.CARD, card)
    model_card.write(extra, about(card))


def _usual(run_dir: pathlib.Path) -> Usual | None:
    """What the run says is usual; None of a run of before, or with too few held-out good images."""
    file = run_dir / reference.FILE
    return Usual(Reference.load(file)) if file.is_file() else None


def thresholds_of(run_dir: pathlib.Path, given: float | None) -> Thresholds:
    """The given threshold, or those of a finished run. Raises UserError: it is not finished, or has none."""
    if given is not None:
        return Thresholds(given, "given on the command line")
    file = run_dir / "metrics.json"
    if not file.is_file():
        raise UserError(f"{run_dir}: the run is not finished (no metrics.json). Repeat its command to finish it.")
    document = files.read_json(file)
    threshold: dict[str, Any] = document["threshold"]
    if threshold["value"] is None:
        raise UserError(f"{file}: the run has no threshold ({threshold['reason']}). Give one with `threshold`.")
    own = {category: chosen["value"] for category, chosen in threshold.get("categories", {}).items()}
    zones = document.get("doubt", {}).get("zones", {})
    unsure = {category: (zone["low"], zone["high"]) for category, zone in zones.items()}
    for category, (low, high) in unsure.items():
        if not low <= own.get(category, threshold["value"]) <= high:
            raise UserError(
                f"{file}: scores from {low:.6g} up to {high:.6g} are unsure, and the threshold is not among them, so "
                "verdicts would contradict it: another version wrote it. Make the run anew, or give `threshold`, with "
                "which there are two verdicts."
            )
    return Thresholds(threshold["value"], threshold["reason"], own, unsure)
