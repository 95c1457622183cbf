"""An export's files for other runtimes: written, tried on images, kept only if they give its scores and verdicts."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
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
_DIGITS = 6
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
      name -> what the trial found, see `_Gate.facts`.

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
    model = saved_model.load(version)
    said = plain.of_export(model, card["image_size"])
    operations = said.function.get_concrete_function().graph.get_operations()
    rounded = any(one.outputs[0].dtype == tf.float16 for one in operations if one.type == "Cast")
    gate = _Gate(model, card, trial, SCORES_AGREE_ROUNDED if rounded else SCORES_AGREE)
    found = {}
    for name in names:
        folder = version / saved_model.EXTRA / name
        folder.mkdir(parents=True)
        print(f"{exchange.FORMS[name].name}: written, and tried on {len(trial.images)} images.", flush=True)
        _convert(name, said, folder)
        own = {key: card[key] for key in ("name", "version", "threshold", "categories") if key in card}
        own |= {
            "format": name,
            "sha256": exchange.digest(folder, exchange.FORMS[name]),
            "image_size": list(pixels.height_and_width(card["image_size"])),
            "max_pixels": card["max_pixels"],
            "outputs": sorted(said.function.get_concrete_function().structured_outputs),
            "names": said.names,
            "constants": said.constants,
        }
        files.write_json(folder / exchange.CARD, own)
        shutil.copyfile(preprocess.__file__, folder / "preprocess.py")
        found[name] = gate.facts(exchange.ExchangeModel(folder / exchange.FORMS[name].files[0]), name)
        files.write_json(folder / exchange.CARD, own | {"tried": found[name]})
    return found


def _convert(name: str, said: plain.Plain, folder: pathlib.Path) -> None:
    form = exchange.FORMS[name]
    try:
        with exchange.quiet():
            _WRITERS[name](said.function, folder / form.files[0])
    except Exception as error:  # each converter has errors of its own
        ops = _OPS.findall(str(error))
        raise UserError(
            f"{form.name}: the model cannot be said in this format ({'; '.join(ops) or exchange.first_line(error)})."
        ) from error


def _write_litert(function: Any, file: pathlib.Path) -> None:
    with _as_saved_model(function) as folder:
        file.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())


def _write_onnx(function: Any, file: pathlib.Path) -> None:
    import tf2onnx

    # It says by its log alone which op it does not know, and goes on.
    heard = _Heard()
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
    if heard.said:
        raise ValueError(heard.said[-1])


def _select(graph: Any, node: Any, name: str, _: list[str]) -> None:
    """A choice as ONNX has it: tf2onnx makes a sum of products of it, in which what is not chosen must be a number."""
    shapes, types = ([read(one) for one in node.output] for read in (graph.get_shape, graph.get_dtype))
    graph.remove_node(name)
    graph.make_node("Where", node.input, outputs=node.output, name=name, shapes=shapes, dtypes=types)


def _write_openvino(function: Any, file: pathlib.Path) -> None:
    import openvino

    with _as_saved_model(function) as folder:
        openvino.save_model(openvino.convert_model(str(folder)), file, compress_to_fp16=False)


_WRITERS: Mapping[str, Callable[[Any, pathlib.Path], None]] = {
    "litert": _write_litert,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


class _Heard(logging.Handler):
    """What a log says, kept."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Logging's hook."""
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _as_saved_model(function: Any) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, signatures=function)
        yield folder


class _Gate:
    """The SavedModel's own answers to some images, which those of every other form must be.

    Args:
      model: loaded SavedModel.
      card: of it.
      trial: the images.
      allowed: by how much scores may differ.
    """

    def __init__(self, model: Any, card: Mapping[str, Any], trial: Trial, allowed: float) -> None:
        self._trial = trial
        self._allowed = allowed
        self._answers, self._pixels = [], []
        for file in trial.images:
            content = tf.io.read_file(os.fsencode(file))
            image = pixels.decode_and_resize(content, card["image_size"], card["max_pixels"])
            self._pixels.append(image[None].numpy())
            answer = model.signatures[EXPLAIN](image_bytes=content[None])
            kept = [key for key in (SCORE, HEAT_MAP, *_VERDICTS) if key in answer]
            self._answers.append({key: answer[key].numpy()[0] for key in kept})
        self._scores = np.array([answer[SCORE] for answer in self._answers], np.float64)

    def facts(self, model: exchange.ExchangeModel, name: str) -> dict[str, Any]:
        """What differs from the SavedModel: of the same pixels, and of the files as the other form decodes them.

        Raises:
          UserError: scores, verdicts or heat maps differ by more than they may.
        """
        same = [model.of_pixels(image) for image in self._pixels]
        own = self._from_files(model, same)
        scores, from_files = (np.array([answer[SCORE][0] for answer in some], np.float64) for some in (same, own))
        found = {
            "images": len(scores),
            "largest_difference": self._difference(scores),
            "allowed": self._allowed,
            "largest_difference_from_files": self._difference(from_files),
            "largest_difference_of_heat_maps": max(map(_of_heat_maps, self._answers, same)),
            "other_verdicts": int(sum(map(_other_verdict, self._answers, own))),
            "roc_auc": _roc_auc(self._trial.labels, from_files),
            "roc_auc_of_saved_model": _roc_auc(self._trial.labels, self._scores),
            "megabytes": round(self._megabytes(model), 1),
        }
        found = {key: round(one, _DIGITS + 2) if isinstance(one, float) else one for key, one in found.items()}
        self._refuse(found, exchange.FORMS[name].name, from_files)
        return found

    def _from_files(self, model: exchange.ExchangeModel, same: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
        answers = []
        for file, image, answer in zip(self._trial.images, self._pixels, same, strict=True):
            try:
                decoded = model.pixels(pathlib.Path(file).read_bytes())
            except BadImageError as error:
                raise UserError(f"{file}: the SavedModel reads it, and preprocess.py does not ({error}).") from error
            answers.append(answer if np.array_equal(decoded, image) else model.of_pixels(decoded))
        return answers

    def _difference(self, scores: np.ndarray) -> float:
        scale = np.abs(self._scores) + (self._scores.std() or 1.0)
        return float(np.max(np.abs(scores - self._scores) / scale))

    def _megabytes(self, model: exchange.ExchangeModel) -> float:
        return sum(file.stat().st_size for file in pathlib.Path(model.name).parent.glob("model.*")) / 1e6

    def _refuse(self, found: Mapping[str, Any], runtime: str, scores: np.ndarray) -> None:
        wrong = []
        if not found["largest_difference"] <= self._allowed:
            wrong.append(
                f"scores of the same pixels differ by up to {found['largest_difference']:.2g} of score and spread, "
                f"allowed is {self._allowed:.2g}"
            )
        if not found["largest_difference_of_heat_maps"] <= HEAT_MAPS_AGREE:
            wrong.append(
                f"heat maps differ by up to {found['largest_difference_of_heat_maps']:.2g} of their largest value, "
                f"allowed is {HEAT_MAPS_AGREE:g}"
            )
        if found["other_verdicts"]:
            worst = int(np.argmax(np.abs(scores - self._scores)))
            wrong.append(
                f"{found['other_verdicts']} of {found['images']} images get another verdict; scores of the files "
                f"differ by up to {found['largest_difference_from_files']:.2g} of score and spread, such as "
                f"{self._trial.images[worst]}: {self._scores[worst]:.6g} and {scores[worst]:.6g}"
            )
        areas = found["roc_auc"], found["roc_auc_of_saved_model"]
        if areas[0] is not None and abs(areas[0] - areas[1]) > ROC_AUC_AGREES:
            wrong.append(f"ROC-AUC is {areas[0]:.3f}, the SavedModel's {areas[1]:.3f}")
        if wrong:
            raise UserError(f"{runtime}: {'; '.join(wrong)}. Nothing was exported; leave this format out.")


def _other_verdict(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return any(int(one[name]) != int(other[name][0]) for name in _VERDICTS if name in one)


def _of_heat_maps(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    largest = float(np.abs(one[HEAT_MAP]).max()) or 1.0
    return float(np.abs(one[HEAT_MAP] - other[HEAT_MAP][0]).max()) / largest


def _roc_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """None without images of both classes."""
    found = metrics.curve(labels, scores)
    area = float(metrics.roc_auc(np.append(0, found.tp)[None], np.append(0, found.fp)[None])[0])
    return None if np.isnan(area) else area
