"""Finding an encoder, or writing one of a backbone as it is."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mvtec_tf import settings as settings_lib
from mvtec_tf.data.decoding.pixels import MAX_PIXELS
from mvtec_tf.errors import UserError
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs.fields import EncoderFields
from mvtec_tf.networks.simclr import EMBEDDING
from mvtec_tf.run_directory import read_run
from mvtec_tf.training.contrastive import starting_encoder
from mvtec_tf.training.recipes import ContrastiveSettings


def resolve_encoder(name: str, setting: str = "encoder") -> pathlib.Path:
    """The SavedModel of a run of train_simclr, or the SavedModel itself.

    Args:
      name: path of either, or of the folder of an export's versions: the newest is taken.
      setting: what it was given as, for the message.

    Raises:
      UserError: neither is there, the run is not finished, or the model is no encoder.
    """
    path = saved_model.newest(name)
    if (path / "run.json").is_file():
        if read_run(path)["status"] != "finished":
            raise UserError(f"`{setting}`={name}: that run is not finished. Repeat its command to finish it.")
        path = path / "saved_model"
    if not path.is_dir():
        raise UserError(f"`{setting}`={name}: no run directory and no SavedModel there.")
    kind = saved_model.read_card(path)["kind"]
    if kind != "encoder":
        raise UserError(f"`{setting}`={name}: the SavedModel is a {kind}. Name a run of train_simclr or its export.")
    return path


def encoder_of(settings: EncoderFields, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """The encoder that resolved settings name, or that of their weights, written to `folder` if it is not there.

    Returns:
      Its SavedModel, and a sentence about its weights ("" for one that was named).
    """
    if settings.encoder is not None:
        return resolve_encoder(settings.encoder), ""
    start = starting_settings(
        settings.backbone, settings.image_size, settings.weights, settings.weights_partial, settings.seed
    )
    provenance = settings_lib.recorded(settings)
    return folder, export_starting_encoder(folder, start, provenance, settings.feature_layers, settings.max_pixels)


def max_pixels(settings: EncoderFields) -> int:
    """The limit of the settings, or that in the graph of their encoder where that is lower."""
    if settings.encoder is None:
        return settings.max_pixels
    card = saved_model.read_card(resolve_encoder(settings.encoder))
    return min(settings.max_pixels, card.get("max_pixels", settings.max_pixels))


def starting_settings(backbone: str, image_size: int, weights: str, partial: bool, seed: int) -> ContrastiveSettings:
    """The recipe of an encoder without any pretraining on the images at hand."""
    return ContrastiveSettings(
        backbone=backbone, image_size=image_size, weights=weights, weights_partial=partial, seed=seed
    )


def export_starting_encoder(
    path: pathlib.Path,
    settings: ContrastiveSettings,
    provenance: Mapping[str, Any],
    layers: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
) -> str:
    """Writes a backbone as it is, without pretraining here, unless it is there already.

    Args:
      path: a new directory.
      settings: of the backbone.
      provenance: for the SavedModel's card.
      layers: that features are made of; none: the middle stages.
      max_pixels: see `saved_model.write_encoder`.

    Returns:
      What was loaded of the layers that the features rest on, in words.
    """
    if path.exists():
        return saved_model.read_card(path)["weights"]
    built = starting_encoder(settings)
    words = f"weights: {settings.weights}."
    if built.weights:
        used = [built.stages[-1] if layer == EMBEDDING else layer for layer in layers or built.middle_stages]
        words = built.weights.within(saved_model.part_of(built.model, used)).describe()
    print(words, flush=True)
    card = {"run": dict(provenance), "weights": words, "pretrain_images": []}
    saved_model.write_encoder(path, built, card, [layer for layer in layers if layer != EMBEDDING], max_pixels)
    return words
