"""Finding an encoder, by its name, its features or a run that rests on it, or writing one of a backbone as it is."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf import settings as settings_lib
from mvtec_tf.data import leaks, part_shape, protocol
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.decoding.pixels import Size
from mvtec_tf.data.protocol import SplitRow
from mvtec_tf.data.record import TEST, Record
from mvtec_tf.errors import UserError
from mvtec_tf.features.feature_graph import encoder_digest
from mvtec_tf.features.recipe import PARTS
from mvtec_tf.features.store import ENCODER, FeatureStore
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs.fields import EncoderFields
from mvtec_tf.jobs.settings import LabelEfficiencySettings
from mvtec_tf.networks import foundation
from mvtec_tf.networks.backbone import EMBEDDING, build_backbone
from mvtec_tf.run_directory import is_damaged_model, read_finished, read_run
from mvtec_tf.training import loop, precision
from mvtec_tf.training.settings import SUPCON

# What an encoder that is made of weights depends on.
_OF_AN_ENCODER = (
    *("backbone", "weights", "weights_partial", "seed", "image_size", "size", "image_shape", "feature_layers"),
    *("max_pixels", "precision"),
)


def resolve_encoder(name: str, setting: str = "encoder") -> pathlib.Path:
    """The SavedModel of a run of pretrain, or the SavedModel itself.

    Args:
      name: path of either, or of the folder of an export's versions: the newest is taken.
      setting: what it was given as, for the message.

    Raises:
      UserError: neither is there, the run is not finished, or the model is no encoder or damaged.
    """
    path = saved_model.newest(name)
    if (path / "run.json").is_file():
        read_finished(path, f"`{setting}`={name}")
        path = path / "saved_model"
    if not path.is_dir():
        raise UserError(f"`{setting}`={name}: no run directory and no SavedModel there.")
    kind = saved_model.read_card(path)["kind"]
    if kind != "encoder":
        raise UserError(f"`{setting}`={name}: the SavedModel is a {kind}. Name a run of pretrain or its export.")
    if is_damaged_model(path):
        raise UserError(f"`{setting}`={name}: that SavedModel is damaged: a part is missing or empty. Make it anew.")
    return path


def encoder_of(settings: EncoderFields, folder: pathlib.Path, records: Sequence[Record]) -> tuple[pathlib.Path, str]:
    """The encoder that resolved settings name, or that of their weights, written to `folder` if it is not there.

    Args:
      settings: resolved.
      folder: for an encoder that is made of weights.
      records: images whose shape it takes, if the settings ask for that.

    Returns:
      Its SavedModel, and a sentence about its weights ("" for one that was named).
    """
    if settings.encoder is not None:
        return resolve_encoder(settings.encoder), ""
    size = size_of(settings.image_size, settings.image_shape, records, settings.backbone)
    return folder, write_start(folder, settings, settings.image_size, size, settings.seed)


def size_of(side: int, shape: str, records: Sequence[Record], backbone: str) -> Size:
    """The size in pixels of an encoder that is made of weights.

    Args:
      side: of the square, or of a square of the same area.
      shape: `square` or `parts`.
      records: images whose shape it takes.
      backbone: its name; some see squares only.
    """
    if backbone.lower() in foundation.ARCHITECTURES:
        return side
    size = part_shape.size_of_parts(records, side) if shape == PARTS else side
    if size != side:
        print(f"Images are resized to {size[0]} x {size[1]} pixels (height x width), as these parts are shaped.")
    return size


def max_pixels(limit: int, encoders: Iterable[files.PathLike]) -> int:
    """The limit of the settings, or the lowest in the graph of an encoder."""
    return min([limit, *(saved_model.read_card(path).get("max_pixels", limit) for path in encoders)])


def write_start(
    path: pathlib.Path, settings: EncoderFields | LabelEfficiencySettings, side: int, size: Size, seed: int
) -> str:
    """Writes the backbone of the settings' weights as it is, without pretraining here, unless it is there already.

    Args:
      path: a new directory.
      settings: resolved; their feature layers are among the encoder's outputs.
      side: in pixels, as the settings say it.
      size: side, or (height, width), in pixels.
      seed: random seed of what the weights leave open.

    Returns:
      What was loaded of the layers that the features rest on, in words.

    Raises:
      UserError: the one that is there was made otherwise.
    """
    provenance = settings_lib.recorded(settings) | {"image_size": side}
    if path.exists():
        return _made_before(path, provenance, size)
    loop.make_deterministic(seed)
    built = build_backbone(settings.backbone, size, settings.weights, weights_partial=settings.weights_partial)
    layers, words = settings.feature_layers, f"weights: {settings.weights}."
    if built.weights:
        used = [built.stages[-1] if layer == EMBEDDING else layer for layer in layers or built.middle_stages]
        words = built.weights.within(saved_model.part_of(built.model, used)).describe()
    print(words, flush=True)
    card = {"run": provenance, "weights": words, "pretrain_images": []}
    named = [one for one in layers if one != EMBEDDING]
    number_format = precision.of_graph(settings.precision)
    saved_model.write_encoder(path, built, card, named, settings.max_pixels, number_format)
    return words


def _made_before(path: pathlib.Path, asked: Mapping[str, Any], size: Size) -> str:
    """What the encoder in a folder says of its weights, if it is the one that is asked for."""
    card = saved_model.read_card(path)
    there = card["run"] | {"size": list(pixels.height_and_width(card["image_size"]))}
    asked = asked | {"size": list(pixels.height_and_width(size))}
    names = [
        name
        for name in _OF_AN_ENCODER
        if name in there.keys() & asked and (name != "seed" or asked["weights"] == "none")
    ]
    others = [f"{name}: {there[name]} there, {asked[name]} here" for name in names if there[name] != asked[name]]
    if others:
        raise UserError(f"{path}: an encoder lies there that was made otherwise ({'; '.join(others)}). Remove it.")
    return card["weights"]


def encoder_of_store(store: FeatureStore) -> pathlib.Path:
    """The SavedModel that stored features came from: of the folder itself, or of the run that it lies in.

    Raises:
      UserError: it is in neither.
    """
    candidates = [store.path / ENCODER]
    # RUN/features of fit_probe, RUN/features/NAME of label_efficiency.
    for run in store.path.resolve().parents[:2]:
        if not (run / "run.json").is_file():
            continue
        settings = read_run(run)["settings"]
        named = [settings.get("encoder"), *(settings.get("encoders") or [])]
        candidates += [run / ENCODER, *sorted((run / "encoders").glob("*"))]
        candidates += [resolve_encoder(name) for name in named if name and pathlib.Path(name).exists()]
        if settings.get("features"):
            candidates.append(pathlib.Path(settings["features"]) / ENCODER)
    there = [folder for folder in candidates if folder.is_dir() and not is_damaged_model(folder)]
    for folder in there:
        if encoder_digest(folder) == store.key.encoder:
            return folder
    looked = ", ".join(map(str, there or candidates))
    raise UserError(
        f"`features`={store.path}: the encoder that made these features is not with them (looked at {looked}). Name it "
        "with `encoder`, or write the features with mvtec-tf extract-features, which keeps it beside them."
    )


def encoder_of_run(
    run: pathlib.Path, record: Mapping[str, Any], digest: str, given: str | None = None, hint: str = ""
) -> pathlib.Path:
    """The SavedModel of the encoder that a run of fit_probe rests on.

    Args:
      run: its directory.
      record: of it.
      digest: of the encoder that its head was fitted on.
      given: where the encoder lies now; None: where it lay.
      hint: what to do where it is another one.

    Raises:
      UserError: there is none, or another one.
    """
    own, settings = run / ENCODER, record["settings"]
    if given:
        found = resolve_encoder(given)
    elif own.is_dir():
        found = own
    elif settings.get("encoder"):
        found = resolve_encoder(settings["encoder"])
    else:
        found = encoder_of_store(FeatureStore(settings["features"]))
    if encoder_digest(found) != digest:
        raise UserError(f"{found}: not the encoder that the head of {run} was fitted on.{hint}")
    return found


def check_pretraining(encoder: pathlib.Path, evaluated: Sequence[Record]) -> None:
    """Raises LeakError if the encoder was trained on an image that is to be evaluated."""
    card = saved_model.read_card(encoder)
    images, needs = card["pretrain_images"], ""
    if any("label" in image for image in images):
        seed = card["run"]["seed"]
        needs = f", which has learned from labels and so needs the names of folders and the `seed`={seed} of its run"
    seen = [SplitRow(image["path"], image["group"], image["category"], "pretrain") for image in images]
    seen += protocol.split_rows(_again(images, evaluated), "pretrain")
    leaks.check_leaks(seen + protocol.split_rows(evaluated, "evaluate"), source=f"{encoder}{needs}")


def was_told_labels(encoder: pathlib.Path) -> bool:
    """Whether an encoder was trained with the labels of test images, of which no score is held out then."""
    card = saved_model.read_card(encoder)
    return card["run"].get("method") == SUPCON or card.get("told_labels", False)


def seen_images(records: Iterable[Record], told: bool = True) -> list[dict[str, str | int]]:
    """What an encoder's card says of images that it was trained on, or chosen by: of test images the label if it was
    `told`, since that was bought."""
    return [
        {name: getattr(record, name) for name in ("path", "group", "category")}
        | {"sha256": files.sha256(record.file)}
        | ({"label": record.label} if told and record.split == TEST else {})
        for record in records
    ]


def images_besides(encoder: pathlib.Path, records: Sequence[Record]) -> list[dict[str, Any]]:
    """What the card of an encoder, or of a model with one, says of images that the encoder was trained on, and that are
    not among `records`."""
    images = saved_model.read_card(encoder).get("pretrain_images", [])
    known = {name for record in records for name in (record.path, files.sha256(record.file))} if images else set()
    return [image for image in images if not known & {image["path"], image.get("sha256")}]


def labels_besides(encoder: pathlib.Path, labelled: Sequence[Record]) -> dict[str, int]:
    """path -> label of test images whose labels an encoder has used, and which are not among `labelled`."""
    return {image["path"]: image["label"] for image in images_besides(encoder, labelled) if "label" in image}


def pretrained_paths(encoder: pathlib.Path, records: Iterable[Record]) -> frozenset[str]:
    """Paths of the records that an encoder was trained on."""
    return frozenset(record.path for record in _again(saved_model.read_card(encoder)["pretrain_images"], records))


def _again(images: Sequence[Mapping[str, Any]], records: Iterable[Record]) -> list[Record]:
    """The records among images of a card: by path, or in a folder of another name by their bytes."""
    paths = {image["path"] for image in images}
    digests = {image["sha256"] for image in images if "sha256" in image}
    return [record for record in records if record.path in paths or (digests and files.sha256(record.file) in digests)]
