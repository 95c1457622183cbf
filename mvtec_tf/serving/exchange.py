"""An export in a file of another runtime, LiteRT, ONNX Runtime or OpenVINO, asked like every other model.

Needs that runtime, NumPy and Pillow, and no TensorFlow. Beside the file lie `model.json`, which says what it is and
what its answers mean, and `preprocess.py`, which makes pixels of an encoded image.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.graphs.loading import EXTRA
from mvtec_tf.serving.client import BadImageError
from mvtec_tf.serving.preprocess import preprocess
from mvtec_tf.side_by_side import usable_cores

CARD = "model.json"
IMAGES, HEAT_MAP, OVERLAY = "images", "heat_map", "overlay_bytes"
_SIGNATURES = ("serving_default", "explain")
# What the second answers and the first does not.
_EXPLAINED = (HEAT_MAP, "heat_level", "embedding", "category")
# Pixels uint8 [1, height, width, 3] -> every output, [1, ...].
Ask = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Form:
    """One exchange format.

    Attributes:
      name: of the runtime, for messages.
      module: that is imported to run it.
      files: the model's; the first one is what it is opened by.
      open: file, threads -> how it is asked.
    """

    name: str
    module: str
    files: tuple[str, ...]
    open: Callable[[pathlib.Path, int], Ask]


def require(module: str, name: str) -> None:
    """Raises UserError if a module, in words `name`, is not installed."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{name} is not installed. Install it by: pip install {module.replace('_', '-')}")


def _open_litert(file: pathlib.Path, threads: int) -> Ask:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(file), num_threads=threads).get_signature_runner()
    return lambda pixels: runner(images=pixels)


def _open_onnx(file: pathlib.Path, threads: int) -> Ask:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {IMAGES: pixels}), strict=True))


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which forks the process to send what is done; a fork of TensorFlow may hang."""
    # To Python a module that is None is not installed.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def _open_openvino(file: pathlib.Path, threads: int) -> Ask:
    openvino = import_openvino()
    # By itself it computes in bfloat16 where the processor can.
    exactly = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(file), "CPU", exactly)

    def ask(pixels: np.ndarray) -> dict[str, np.ndarray]:
        answer = model({IMAGES: pixels})
        return {name: answer[output].copy() for output in model.outputs for name in output.names}

    return ask


# The keys are those of `settings.OTHER_FORMATS`.
FORMS = {
    "litert": Form("LiteRT", "ai_edge_litert", ("model.tflite",), _open_litert),
    "onnx": Form("ONNX Runtime", "onnxruntime", ("model.onnx",), _open_onnx),
    "openvino": Form("OpenVINO", "openvino", ("model.xml", "model.bin"), _open_openvino),
}
_BY_ENDING = {pathlib.Path(form.files[0]).suffix: name for name, form in FORMS.items()}


def is_file(path: files.PathLike) -> bool:
    """Whether a path is named like a model of another runtime."""
    return pathlib.Path(path).suffix in _BY_ENDING


def export_of(file: files.PathLike) -> pathlib.Path | None:
    """The SavedModel that a file was written beside; None if it lies alone."""
    extra = pathlib.Path(file).absolute().parent.parent
    return extra.parent if extra.name == EXTRA and (extra.parent / "saved_model.pb").is_file() else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What compilers print on stderr, of every op, is thrown away; what is wrong they raise."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def digest(folder: pathlib.Path, form: Form) -> str:
    """SHA-256 (hex) of the model's files."""
    return hashlib.sha256("".join(files.sha256(folder / name) for name in form.files).encode()).hexdigest()


class ExchangeModel:
    """A file of another runtime in this process; see `client.Model`. May be asked by several threads, one at a time.

    Args:
      file: model.tflite, model.onnx or model.xml of an export.
      threads: of the runtime; None: as many as there are cores for this process.

    Attributes:
      name: the file.
      called: the model in every row of a table: its name, version and format, and what tells it from others of these.
      export: the SavedModel that it was written beside; None if it lies alone.
      bytes: of the model's files.

    Raises:
      UserError: it is not there or no export of this program, or its runtime is not installed or cannot read it.
    """

    def __init__(self, file: files.PathLike, threads: int | None = None) -> None:
        file = pathlib.Path(file)
        self.name = str(file)
        kind = _BY_ENDING[file.suffix]
        form = FORMS[kind]
        if not file.is_file():
            raise UserError(f"{file}: no such file. Expected one that mvtec-tf export wrote for {form.name}.")
        missing = f"{file}: no export of this program (no {CARD} beside it). Copy the whole folder of an export."
        card = self._card = files.read_json(file.parent / CARD, missing=missing)
        gone = [name for name in form.files if not (file.parent / name).is_file()]
        if gone or card.get("format") != kind or card.get("sha256") != digest(file.parent, form):
            why = f"{gone[0]} is missing" if gone else f"{CARD} beside it is of another file"
            raise UserError(f"{file}: not as it was exported ({why}). Copy the whole folder of the export.")
        require(form.module, form.name)
        self.called = f"{card['name']}/{card['version']} {kind} {card['sha256'][:8]}"
        self.export = export_of(file)
        self.bytes = sum((file.parent / name).stat().st_size for name in form.files)
        self._alone = threading.Lock()
        try:
            with quiet():
                self._ask = form.open(file, threads or usable_cores())
                # The first answer makes all else ready; and a card of another image size is found out now.
                self._ask(np.zeros((1, *card["image_size"], 3), np.uint8))
        except Exception as error:  # each runtime has errors of its own
            size = " x ".join(map(str, card["image_size"]))
            raise UserError(
                f"{file}: {form.name} cannot read it, or not with images of {size} pixels, which is what {CARD} says "
                f"({first_line(error)}). Export it anew, or copy the whole folder of the export."
            ) from error

    def __call__(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """See `Model`; of the signatures `serving_default` and `explain`."""
        if signature not in _SIGNATURES:
            raise UserError(f"{self.name}: no signature {signature!r}; it has {', '.join(_SIGNATURES)}.")
        pixels = [self.pixels(image) for image in images]
        answers = [self.of_pixels(one) for one in pixels]
        found = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        if signature == "explain":
            levels = found.get("heat_level", np.ones(len(images)))
            pictures = map(_overlay, images, np.concatenate(pixels), found[HEAT_MAP], levels)
            return found | {OVERLAY: np.array(list(pictures), object)}
        return {name: value for name, value in found.items() if name not in _EXPLAINED}

    def pixels(self, image: bytes) -> np.ndarray:
        """uint8 [1, height, width, 3] of an encoded image. Raises BadImageError."""
        try:
            return preprocess(image, *self._card["image_size"], self._card["max_pixels"])
        except Exception as error:  # whatever Pillow's readers stumble over
            raise BadImageError(first_line(error)) from error

    def of_pixels(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The answer to uint8 [1, height, width, 3], each output [1, ...]."""
        with self._alone:
            answer = self._ask(pixels)
        found = {name: np.array(answer[name]) for name in self._card["outputs"]}
        for name, names in self._card["names"].items():
            found[name] = np.array([names[int(place)] for place in found[name]], object)
        return found | {name: np.array([value]) for name, value in self._card["constants"].items()}


def first_line(error: Exception) -> str:
    """The first line that an error says, or its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _overlay(image: bytes, pixels: np.ndarray, heat_map: np.ndarray, level: float) -> bytes:
    """The photograph, in grey, under its heat map, in colour, as a PNG file of its own aspect ratio; see `heated`."""
    # Not above: a device that asks for verdicts has no matplotlib.
    from PIL import Image, ImageOps

    from mvtec_tf.evaluation.report import photographs

    size = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(image))).size)
    size = np.maximum(np.rint(size * max(heat_map.shape) / size.max()).astype(int), 1)
    target = io.BytesIO()
    photographs.heated(Image.fromarray(pixels), heat_map, float(level)).resize(size.tolist()).save(target, "PNG")
    return target.getvalue()
