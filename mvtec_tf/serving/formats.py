"""An export's files for other runtimes: written, tried on images, kept only if they give its scores and verdicts."""

import contextlib
import dataclasses
import logging.handlers
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import metrics
from mvtec_tf.graphs import plain, saved_model
from mvtec_tf.graphs.signatures import EXPLAIN, HEAT_MAP
from mvtec_tf.graphs.thresholded import SCORE, VERDICT
from mvtec_tf.networks.copies import FLOAT32
from mvtec_tf.serving import exchange, preprocess
from mvtec_tf.serving.client import BadImageError

# Of scores of the same pixels, as a share of the score and the scores' standard deviation together: float32 on another
# runtime groups sums in other ways.
SCORES_AGREE = 1e-4
# The same where a head looks at maps that are kept in float16: what lies between two of its numbers is rounded to the
# other one there, half a step of it away.
SCORES_AGREE_ROUNDED = 2.0**-11
# Of files as the other road decodes them. One pair of a hundred that changes places is this.
ROC_AUC_AGREES = 0.01
# Of heat maps, as a share of the largest value of each.
HEAT_MAPS_AGREE = 1e-2
_OPS = re.compile(r"(?:TF Select ops|Custom ops|not a registered function/op|Unsupported ops|No conversion rule).*")
_VERDICTS = ("label", VERDICT)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Images on which files are tried.

    Attributes:
      images: N files.
      labels: int [N], 1 defective.
    """

    images: Sequence[str]
    labels: np.ndarray


def write(version: pathlib.Path, card: Mapping[str, Any], names: Sequence[str], trial: Trial) -> dict[str, Any]:
    """Writes an export's files for other runtimes into its `assets.extra`, each format in a folder of its own.

    Args:
      version: folder of the SavedModel.
      card: of the export.
      names: keys of `exchange.FORMS`.
      trial: on which images scores and verdicts are compared.

    Returns:
      name -> what the trial found, for the cards.

    Raises:
      UserError: a runtime or a converter is not installed, the model cannot be said in a format, or a file gives other
        scores or verdicts.
    """
    for name in names:
        exchange.require(exchange.FORMS[name].module, exchange.FORMS[name].name)
    if "onnx" in names:
        exchange.require("tf2onnx", "tf2onnx, which writes ONNX files,")
    if card.get("precision", FLOAT32) != FLOAT32:
        raise UserError(
            f"{', '.join(names)}: the run's network computes in {card['precision']}, which these runtimes do not do "
            "alike. Fit it in float32 first."
        )
    if not trial.images:
        raise UserError(f"{', '.join(names)}: the run has no evaluated image that they could be tried on.")
    print(f"Writing {', '.join(names)}, and trying them on {len(trial.images)} images ...", flush=True)
    model = saved_model.load(version)
    said = plain.of_export(model, card["image_size"])
    others = {}
    for name in names:
        others[name] = put(version / saved_model.EXTRA / name, name, said, card, _WRITERS[name])
    found = _tried(model, card, others, trial, _allowed(said))
    for name, facts in found.items():
        file = version / saved_model.EXTRA / name / exchange.CARD
        files.write_json(file, files.read_json(file) | {"tried": facts})
    return found


def put(
    folder: pathlib.Path,
    name: str,
    said: plain.Plain,
    card: Mapping[str, Any],
    convert: Callable[[Any, pathlib.Path], None],
) -> exchange.ExchangeModel:
    """Writes all that a device needs into a folder, and opens it.

    Args:
      folder: see there.
      name: key of `exchange.FORMS`.
      said: the model.
      card: of the export.
      convert: writes the model's function to a file.

    Raises:
      UserError: the model cannot be said in the format.
    """
    form = exchange.FORMS[name]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with exchange.quiet():
            convert(said.function, folder / form.files[0])
    except Exception as error:  # each converter has errors of its own
        ops = _OPS.findall(str(error))
        raise UserError(
            f"{form.name}: the model cannot be said in this format ({'; '.join(ops) or exchange.first_line(error)})."
        ) from error
    own = {key: card[key] for key in ("name", "version", "threshold", "categories") if key in card}
    own |= {
        "format": name,
        "sha256": exchange.digest(folder, form),
        "image_size": list(pixels.height_and_width(card["image_size"])),
        "max_pixels": card["max_pixels"],
        "outputs": sorted(said.function.get_concrete_function().structured_outputs),
        "names": said.names,
        "constants": said.constants,
    }
    files.write_json(folder / exchange.CARD, own)
    shutil.copyfile(preprocess.__file__, folder / "preprocess.py")
    return exchange.ExchangeModel(folder / form.files[0])


def _allowed(said: plain.Plain) -> float:
    """By how much scores of the same pixels may differ."""
    operations = said.function.get_concrete_function().graph.get_operations()
    rounded = any(one.outputs[0].dtype == tf.float16 for one in operations if one.type == "Cast")
    return SCORES_AGREE_ROUNDED if rounded else SCORES_AGREE


def write_litert(function: Any, file: pathlib.Path) -> None:
    """Writes a function as LiteRT has it."""
    with _as_saved_model(function) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        file.write_bytes(converter.convert())


def _write_onnx(function: Any, file: pathlib.Path) -> None:
    import tf2onnx

    # It says by its log alone which op it does not know, and goes on.
    heard = logging.handlers.BufferingHandler(sys.maxsize)
    heard.setLevel(logging.ERROR)
    log = logging.getLogger("tf2onnx")
    before = log.level, log.propagate
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(heard)
    try:
        tf2onnx.convert.from_function(
            function,
            function.input_signature,
            opset=18,
            custom_op_handlers={"SelectV2": (_select, [])},
            output_path=str(file),
        )
    finally:
        log.removeHandler(heard)
        log.setLevel(before[0])
        log.propagate = before[1]
    if heard.buffer:
        raise ValueError(heard.buffer[-1].getMessage())


def _select(graph: Any, node: Any, name: str, _: list[str]) -> None:
    """A choice as ONNX has it: tf2onnx makes a sum of products of it, in which what is not chosen must be a number."""
    shapes, types = ([read(one) for one in node.output] for read in (graph.get_shape, graph.get_dtype))
    graph.remove_node(name)
    graph.make_node("Where", node.input, outputs=node.output, name=name, shapes=shapes, dtypes=types)


def _write_openvino(function: Any, file: pathlib.Path) -> None:
    openvino = exchange.import_openvino()
    with _as_saved_model(function) as folder:
        openvino.save_model(openvino.convert_model(str(folder)), file, compress_to_fp16=False)


_WRITERS: Mapping[str, Callable[[Any, pathlib.Path], None]] = {
    "litert": write_litert,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


@contextlib.contextmanager
def _as_saved_model(function: Any) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=function)
        yield folder


@dataclasses.dataclass
class _Beside:
    """What one form answers beside the SavedModel, image by image.

    Attributes:
      scores: of the same pixels.
      from_files: of the pixels that the form's own road decodes.
      heat_maps: the largest difference, as a share of the largest value.
      other_verdicts: how many.
    """

    scores: list[float] = dataclasses.field(default_factory=list)
    from_files: list[float] = dataclasses.field(default_factory=list)
    heat_maps: float = 0.0
    other_verdicts: int = 0

    def add(self, other: exchange.ExchangeModel, expected: Mapping[str, Any], image: np.ndarray, file: str) -> None:
        """Takes in an image, its pixels uint8 [1, height, width, 3] by the SavedModel's road, and the answer to them.

        Raises:
          UserError: the form cannot decode the file.
        """
        try:
            decoded = other.pixels(pathlib.Path(file).read_bytes())
        except BadImageError as error:
            raise UserError(f"{file}: the SavedModel reads it, and preprocess.py does not ({error}).") from error
        same = other.of_pixels(image)
        own = same if np.array_equal(decoded, image) else other.of_pixels(decoded)
        self.scores.append(float(same[SCORE][0]))
        self.from_files.append(float(own[SCORE][0]))
        largest = float(np.abs(expected[HEAT_MAP]).max()) or 1.0
        # NumPy's maximum keeps what is no number.
        difference = float(np.abs(expected[HEAT_MAP] - same[HEAT_MAP][0]).max()) / largest
        self.heat_maps = float(np.maximum(self.heat_maps, difference))
        self.other_verdicts += any(int(expected[name]) != int(own[name][0]) for name in _VERDICTS if name in expected)


def _tried(
    model: Any,
    card: Mapping[str, Any],
    others: Mapping[str, exchange.ExchangeModel],
    trial: Trial,
    allowed: float,
) -> dict[str, Any]:
    """What differs from the SavedModel: name -> facts for the card.

    Raises:
      UserError: scores, verdicts or heat maps differ by more than they may.
    """
    found, exact, speak = {name: _Beside() for name in others}, [], files.speaker()
    for number, file in enumerate(trial.images, 1):
        content = tf.io.read_file(os.fsencode(file))
        image = pixels.decode_and_resize(content, card["image_size"], card["max_pixels"])[None].numpy()
        answer = model.signatures[EXPLAIN](image_bytes=content[None])
        kept = [key for key in (SCORE, HEAT_MAP, *_VERDICTS) if key in answer]
        expected = {key: answer[key].numpy()[0] for key in kept}
        exact.append(float(expected[SCORE]))
        for name, other in others.items():
            found[name].add(other, expected, image, file)
        speak(f"{', '.join(others)}: tried on {number} of {counted(len(trial.images), 'image')}")
    return {
        name: _facts(exchange.FORMS[name].name, beside, np.array(exact), trial, allowed)
        | {"megabytes": round(others[name].bytes / 1e6, 1)}
        for name, beside in found.items()
    }


def _facts(runtime: str, beside: _Beside, exact: np.ndarray, trial: Trial, allowed: float) -> dict[str, Any]:
    scale = np.abs(exact) + (exact.std() or 1.0)
    same, own = (np.abs(np.array(scores) - exact) / scale for scores in (beside.scores, beside.from_files))
    areas = [_roc_auc(trial.labels, np.array(scores)) for scores in (beside.from_files, exact)]
    wrong = []
    # A comparison with what is no number is false.
    if not same.max() <= allowed:
        wrong.append(
            f"scores of the same pixels differ by up to {same.max():.2g} of score and spread, allowed is {allowed:.2g}"
        )
    if not beside.heat_maps <= HEAT_MAPS_AGREE:
        wrong.append(
            f"heat maps differ by up to {beside.heat_maps:.2g} of their largest value, allowed is {HEAT_MAPS_AGREE:g}"
        )
    if beside.other_verdicts:
        worst = int(np.argmax(own))
        wrong.append(
            f"{beside.other_verdicts} of {counted(len(exact), 'image')} get another verdict; scores of the files "
            f"differ by up to {own.max():.2g} of score and spread, such as {trial.images[worst]}: {exact[worst]:.6g} "
            f"and {beside.from_files[worst]:.6g}"
        )
    if None not in areas and abs(areas[0] - areas[1]) > ROC_AUC_AGREES:
        wrong.append(f"ROC-AUC is {areas[0]:.3f}, the SavedModel's {areas[1]:.3f}")
    if wrong:
        raise UserError(f"{runtime}: {'; '.join(wrong)}. Nothing was exported; leave this format out.")
    facts = {
        "images": len(exact),
        "largest_difference": same.max(),
        "allowed": allowed,
        "largest_difference_from_files": own.max(),
        "largest_difference_of_heat_maps": beside.heat_maps,
        "other_verdicts": beside.other_verdicts,
        "roc_auc": areas[0],
        "roc_auc_of_saved_model": areas[1],
    }
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in facts.items()}


def _roc_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """None without images of both classes, or with a score that is no number."""
    if not np.isfinite(scores).all():
        return None
    found = metrics.curve(labels, scores)
    area = float(metrics.roc_auc(np.append(0, found.tp)[None], np.append(0, found.fp)[None])[0])
    return None if np.isnan(area) else area
