"""What exporting and predicting are asked for, as plain data; nothing heavy is imported."""

import dataclasses
import os
import pathlib
from typing import Literal

from mvtec_tf import drift, files
from mvtec_tf import settings as settings_lib
from mvtec_tf.beam.settings import RunnerSettings
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.serving import configs
from mvtec_tf.settings import field

NOT_STATED = "not stated"
# Images in one request: a server takes those of several clients together; here more were measured to take memory and
# hardly less time.
_OF_A_SERVER, _HERE = 8, 16
SAVED_MODEL = "saved_model"
OTHER_FORMATS = ("litert", "onnx", "openvino")
# Of a student, as LiteRT files.
FLOAT16, INT8 = "float16", "int8"
STUDENT_FORMS = (FLOAT16, INT8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export adds to a run.

    Attributes:
      threshold: a score that reaches it is called defective. Unset: the run's own threshold.
      labels: labels that the new version gets in models.config. A model's first version is also its stable one.
      server_root: the folder of all models as the server sees it, for models.config and compose.yaml.
      data_licence: licence of the photographs, for the model card.
      weights_licence: licence of the weights that training started from, for the model card.
    """

    threshold: float | None = None
    labels: tuple[str, ...] = (configs.CANARY,)
    server_root: str = configs.SERVER_ROOT
    data_licence: str = NOT_STATED
    weights_licence: str = NOT_STATED

    def __post_init__(self) -> None:
        """Raises UsageError for what is no label."""
        if wrong := [label for label in self.labels if not configs.is_label(label)]:
            raise UsageError(
                f"`labels`={','.join(self.labels)}: {wrong[0]!r} is no label. Expected words of ASCII letters, digits, "
                "_ . and -, and no whole numbers, which are versions."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings(ExportOptions):
    """A finished run that becomes the next version of a served model.

    Attributes:
      run: run directory of a finished run.
      name: name of the model.
      saved_models: folder of all exported models.
      precision: number format of the network: float32, as it was judged, or bfloat16, which processors that have it
        compute faster. It is exported only if every evaluated image keeps its verdict; auto: then, and where this
        processor has it, else float32, as what gives no verdicts, such as an encoder.
      formats: saved_model, which is always written, and what is written beside it for other runtimes: litert, onnx,
        openvino. Each is tried on the run's evaluated images, and nothing is exported if a score or a verdict differs.
      data_dir: where the run's images are, on which another number format or file format is tried.
    """

    run: str
    name: str
    saved_models: str = "saved_models"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    formats: tuple[str, ...] = (SAVED_MODEL,)
    data_dir: tuple[str, ...] = field((), paths=True)

    @property
    def other_formats(self) -> tuple[str, ...]:
        """Those beside the SavedModel, each once."""
        return tuple(dict.fromkeys(name for name in self.formats if name != SAVED_MODEL))

    def check(self) -> None:
        """Raises UsageError for what a server could not find or answer, or what does not go together."""
        known = (SAVED_MODEL, *OTHER_FORMATS)
        if wrong := [name for name in self.formats if name not in known]:
            raise UsageError(f"`formats`={','.join(self.formats)}: no {wrong[0]!r}; there are {', '.join(known)}.")
        if self.other_formats and self.precision != "float32":
            raise UsageError(f"`formats`={','.join(self.formats)}: they compute in float32. Leave `precision` out.")
        if self.precision == "float32" and not self.other_formats:
            settings_lib.refuse_unread(self, ["data_dir"], "float32 in a SavedModel is what was judged already")
        if not configs.is_name(self.name):
            raise UsageError(f"`name`={self.name}: a model's name is one folder name, without any of [ ] \\ * ?")
        if files.PATTERN.search(self.server_root):
            raise UsageError(
                f"`server_root`={self.server_root}: TensorFlow Serving takes a folder with any of [ ] \\ * ? in its "
                "name for a pattern and finds no model in it."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictSettings(RunnerSettings):
    """Image files that are to be judged by an exported model.

    Attributes:
      paths: files, folders and patterns.
      out: table to write, FILE.csv or FILE.jsonl.
      model: SavedModel of an export, saved_models/NAME/VERSION; without the version the newest. Or a file that an
        export wrote for another runtime: model.tflite, model.onnx, model.xml.
      server: instead of model: grpc://HOST:PORT/NAME or http://HOST:PORT/NAME, then perhaps /VERSION or /LABEL.
      list: file with one path a line, or a CSV list with a column path; - for standard input. Besides the paths given.
      watch: folder to watch: every file that comes is judged once, also across restarts; until SIGTERM or Ctrl-C.
      data_dir: where records of these images are, as for training: what they say of an image goes into its row. Unset:
        what the export's own list or the folders around an image say beyond doubt.
      overlays: folder for a picture of each image under its heat map.
      relative_to: folder that the paths in the table are relative to. Unset: as they were given.
      batch_size: images in one request. Unset: 8 for a server, 16 for a model in this process.
      concurrency: requests at a time. Unset: 1 for a server or a file for another runtime, else one for each core, 4 at
        most.
      timeout: seconds that a server may take for one request.
      poll_seconds: seconds between two looks into the watched folder.
      patience: looks without change after which a file in the watched folder that cannot be read is called bad.
      drift_alarm: probability of a false alarm of drift for every part that is judged.
      images_per_shard: with a runner: images that a worker judges in one go, and judges again if it is killed.
    """

    paths: tuple[str, ...] = field((), arguments=True)
    out: str
    model: str | None = None
    server: str | None = None
    list: str | None = None
    watch: str | None = None
    data_dir: tuple[str, ...] = field((), paths=True)
    overlays: str | None = None
    relative_to: str = ""
    batch_size: int | None = field(None, least=1)
    concurrency: int | None = field(None, least=1)
    timeout: float = field(60.0, least=0.001)
    poll_seconds: float = field(1.0, least=0.001)
    patience: int = field(10, least=2)
    drift_alarm: float = field(drift.ALARM, above=0, most=1)
    images_per_shard: int = field(512, least=1)

    @property
    def images_asked(self) -> int:
        """How many images one request has."""
        return self.batch_size or (_OF_A_SERVER if self.server else _HERE)

    def check(self) -> None:
        """Raises UsageError for settings that do not go together, UserError if there is nothing to watch."""
        if bool(self.model) == bool(self.server):
            raise UsageError(
                "Give either `model`=saved_models/NAME/VERSION or `server`=grpc://HOST:PORT/NAME."
            )
        if self.watch and (self.paths or self.list):
            raise UsageError("`watch` judges what comes into its folder; leave the paths and `list` out.")
        if self.watch and not pathlib.Path(self.watch).is_dir():
            raise UserError(f"`watch`={self.watch}: no such folder. Make it first.")
        if self.watch:
            settings_lib.refuse_unread(self, ["concurrency"], "`watch` asks for one batch after the other")
        else:
            settings_lib.refuse_unread(self, ["poll_seconds", "patience"], "`watch` is not given")
        if not self.server:
            settings_lib.refuse_unread(self, ["timeout"], "`server` is not given")
        if self.watch and self.runner:
            raise UsageError("`watch` judges what comes, and `runner` what is there: leave one of them out.")
        if self.runner:
            why = "each worker of `runner` asks for one batch after the other"
            settings_lib.refuse_unread(self, ["concurrency"], why)
        else:
            settings_lib.refuse_unread(self, ["images_per_shard"], "`runner` is not given")
        self.check_runner()
        if not self.watch and not self.paths and not self.list:
            raise UsageError(
                "Nothing to judge: give files, folders or patterns, `list`=FILE or `watch`=FOLDER."
            )
        if self.overlays:
            self._refuse_overlays_among_photographs()

    def _refuse_overlays_among_photographs(self) -> None:
        """A folder that is watched would have overlays of overlays without end, another one at the next call."""
        given = [*self.paths, *([self.watch] if self.watch else [])]
        for folder in dict.fromkeys(path if os.path.isdir(path) else os.path.dirname(path) or "." for path in given):
            name = os.path.relpath(folder, self.relative_to) if self.relative_to else os.path.normpath(folder)
            photographs, whole = os.path.realpath(folder), folder in given
            for place in (os.path.join(self.overlays, name.lstrip("/")), *([self.overlays] if whole else [])):
                real = os.path.realpath(place)
                if real == photographs or (whole and os.path.commonpath([real, photographs]) == photographs):
                    raise UsageError(
                        f"`overlays`={self.overlays}: the pictures would lie among the photographs in {folder}, and be "
                        "judged as such later. Name a folder outside of it."
                    )
