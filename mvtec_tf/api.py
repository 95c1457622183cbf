"""The Python face: what a notebook needs, in a dozen names, as `import mvtec_tf as mt`.

Each function takes the settings of the command of its kind as keyword arguments, under the names that the command line
has too, and calls the same job.
"""

import atexit
import dataclasses
import numbers
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import settings as settings_lib
from mvtec_tf.data import known_images, protocol
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record, listed
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.files import PathLike, read_json
from mvtec_tf.jobs.settings import (
    CompareSettings,
    ExtractSettings,
    FitSettings,
    JudgeSettings,
    PretrainSettings,
    TrainClassifierSettings,
)
from mvtec_tf.serving.settings import ExportSettings

Image = PathLike | np.ndarray


class Images(tuple[Record, ...]):
    """Records of images, which say how many they are where a tuple would list them all."""

    __slots__ = ()

    def __repr__(self) -> str:
        """How many, of what."""
        categories = sorted({record.category for record in self})
        named = ", ".join(categories[:3]) + (", ..." if len(categories) > 3 else "")
        defective = counted(sum(record.label for record in self), "defective one")
        return f"<{counted(len(self), 'image')} of {named}: {defective} among them>"


def scan(data: PathLike | Sequence[PathLike], categories: Sequence[str] = ()) -> Images:
    """Lists the images of folders or lists, one record each; of exact copies one, that in train if one is there.

    Args:
      data: category folder (MVTec layout, or good/ and defective/), folder of such, CSV list; or several of these.
      categories: only these; default: all that are found.

    Raises:
      UserError: there are none, or what a folder or a list says cannot be.
      TypeError: `data` are no folders or lists.

    Example:
      images = mt.scan("DATA/bottle")
    """
    sources, wanted = settings_lib.texts("data", data), settings_lib.texts("categories", categories)
    used, copies = known_images.without_copies(records_lib.scan(sources, wanted, say=print))
    for record, why in copies:
        print(f"Left out: {record.path} ({why}).")
    return Images(used)


def split(images: Sequence[Record], label_budget: float | str = 0.1, seed: int = 0) -> Cut:
    """Decides who may see which image, by the protocol `clean`.

    Args:
      images: records, see `scan`.
      label_budget: share of all test images whose labels may be used, "all" (the pool, half of them), or "10d": ten
        defective objects.
      seed: random seed of the cut and of the labels that are drawn.

    Returns:
      `fit` with `fit_labels` to fit on, `evaluate` with `evaluate_labels` to judge by.

    Raises:
      UserError: there are no images, one stands there twice, or they are too few for the cut or the budget.
      TypeError: they are no records.

    Example:
      cut = mt.split(images, label_budget=0.1, seed=0)
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"`seed`={seed!r}: expected a whole number, 0 or more.")
    return protocol.clean(listed(images), protocol.parse_budget(str(label_budget)), int(seed))


def extract_features(images: Sequence[Record], *, cache: PathLike, **settings: Any) -> Any:
    """Computes what a frozen encoder says of images, once, and keeps it in a folder.

    Args:
      images: records, see `scan`.
      cache: folder of the features; an unfinished one of the same kind is completed, a finished one only read.
      **settings: as of `mvtec-tf extract-features`: weights or encoder, recipe, image_size, maps, pooling, ...

    Returns:
      A `FeatureStore`; `features.of(records)` are the features of some of its images, which every head takes.

    Example:
      features = mt.extract_features(images, weights="imagenet", recipe="few_labels", cache="features")
    """
    from mvtec_tf.jobs.extract import extract_features as job

    asked = settings_lib.of_keywords(ExtractSettings, settings, {"data_dir": (), "categories": (), "out": cache})
    return _run(job, asked, listed(images))


def fit(data: PathLike | Sequence[PathLike], *, run_dir: PathLike, **settings: Any) -> "Model":
    """Fits a head on a frozen encoder with few labels or none, exports and judges it: the whole job.

    Args:
      data: as of `scan`.
      run_dir: directory of the run; an unfinished one of the same settings is resumed, a finished one read.
      **settings: as of `mvtec-tf fit`: weights or encoder, recipe, head, label_budget, seed, ...

    Example:
      model = mt.fit("DATA/bottle", weights="imagenet", recipe="few_labels", label_budget=0.1, run_dir="results/bottle")
    """
    from mvtec_tf.jobs.fit import fit as job

    asked = settings_lib.of_keywords(FitSettings, settings, {"data_dir": data, "run_dir": run_dir})
    return Model(_run(job, asked).path)


def train_classifier(data: PathLike | Sequence[PathLike], *, run_dir: PathLike, **settings: Any) -> "Model":
    """Trains the supervised network on labelled images, exports and judges it.

    Args:
      data, run_dir: as of `fit`.
      **settings: as of `mvtec-tf train-cnn`: backbone, weights, epochs, label_budget, seed, augment_hue, ...

    Example:
      model = mt.train_classifier("DATA/bottle", weights="imagenet", run_dir="results/cnn")
    """
    from mvtec_tf.jobs.train_classifier import train_classifier as job

    asked = settings_lib.of_keywords(TrainClassifierSettings, settings, {"data_dir": data, "run_dir": run_dir})
    return Model(_run(job, asked).path)


def pretrain(data: PathLike | Sequence[PathLike], *, run_dir: PathLike, **settings: Any) -> pathlib.Path:
    """Trains an encoder on good images only, by SimCLR or another method.

    Args:
      data, run_dir: as of `fit`.
      **settings: as of `mvtec-tf pretrain`: method, backbone, weights, epochs, seed, ...

    Returns:
      The run, which `fit(..., encoder=...)` takes.

    Example:
      encoder = mt.pretrain("DATA/bottle", weights="imagenet", run_dir="results/simclr")
    """
    from mvtec_tf.jobs.pretrain import pretrain as job

    return _run(job, settings_lib.of_keywords(PretrainSettings, settings, {"data_dir": data, "run_dir": run_dir})).path


def judge(predictions: PathLike, *, out: PathLike | None = None, **settings: Any) -> "Report":
    """Judges a table of predictions of any model.

    Args:
      predictions: CSV file with the columns path, category, defect, label, split, score.
      out: folder for report.html and all that belongs to it; None: a temporary one, kept until the process ends.
      **settings: as of `mvtec-tf judge`: threshold, target_recall, cost_miss, data_dir, heatmaps, ...

    Example:
      report = mt.judge("theirs.csv")
      report.metrics["roc_auc"]
    """
    from mvtec_tf.jobs.judge import judge_table

    if out is None:
        folder = tempfile.TemporaryDirectory(prefix="mvtec_tf_judged_")
        # Not before the end: of `judge(...).html` nobody holds the report.
        atexit.register(folder.cleanup)
        out = folder.name
    where = pathlib.Path(out)
    asked = settings_lib.of_keywords(JudgeSettings, settings, {"predictions": predictions, "out": where})
    return Report(where, judge_table(asked))


def compare(runs: Mapping[str, PathLike] | Sequence[PathLike], *, out: PathLike, **settings: Any) -> dict[str, Any]:
    """Sets runs, or tables of predictions, against each other on the same evaluated images.

    Args:
      runs: name -> run directory or CSV file, or these alone; the first is what the others are measured against.
      out: folder for comparison.json, figures/ and report.html.
      **settings: title, cost_miss, cost_false_alarm, resamples, seed.

    Returns:
      The content of `comparison.json`.

    Example:
      mt.compare({"network": "results/cnn", "few labels": "results/bottle"}, out="results/comparison")
    """
    from mvtec_tf.jobs.compare import compare as job

    if isinstance(runs, Mapping):
        texts = [f"{name}={os.fspath(path)}" for name, path in runs.items()]
    else:
        texts = settings_lib.texts("runs", runs)
    job(settings_lib.of_keywords(CompareSettings, settings, {"runs": texts, "out": out}))
    return read_json(pathlib.Path(out) / "comparison.json")


def load(path: PathLike) -> "Model":
    """Opens an export, `saved_models/NAME` or `saved_models/NAME/VERSION`, or a finished run.

    Raises:
      UserError: there is neither, or the run is not finished.

    Example:
      model = mt.load("saved_models/bottle")
    """
    return Model(path)


@dataclasses.dataclass(frozen=True)
class Report:
    """A judged table.

    Attributes:
      path: folder of report.html.
      document: the content of `metrics.json`.
    """

    path: pathlib.Path
    document: dict[str, Any]

    def __repr__(self) -> str:
        """The first sentence of the summary, and where the page lies."""
        return f"<Report: {self.summary.partition('. ')[0].rstrip('.')}. Page: {self.html}>"

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metric name -> value over all categories; None where it does not exist, see `document` for the reason."""
        return {name: metric["value"] for name, metric in self.document["overall"].items()}

    @property
    def summary(self) -> str:
        """What counts, in sentences."""
        return self.document["summary"]

    @property
    def html(self) -> pathlib.Path:
        """The page."""
        return self.path / "report.html"


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Where the score of an image comes from.

    Attributes:
      heat_map: float32 [height, width], higher is more defective.
      overlay: PNG file: the image under its heat map.
      image: as it was given.
    """

    heat_map: np.ndarray
    overlay: bytes
    image: Any = None

    def __repr__(self) -> str:
        """Its size and the highest value."""
        height, width = self.heat_map.shape
        return f"<Explanation: heat map of {height} x {width}, up to {self.heat_map.max():.4g}; save() writes a PNG>"

    def save(self, path: PathLike) -> pathlib.Path:
        """Writes the overlay to a PNG file.

        Raises:
          UserError: it would have the name of another kind, or take the photograph's place.
        """
        path = pathlib.Path(path)
        given = self.image if isinstance(self.image, (list, tuple)) else [self.image]
        if path.resolve() in [pathlib.Path(one).resolve() for one in given if isinstance(one, (str, os.PathLike))]:
            raise UserError(f"{path}: that is the photograph itself, which would be lost. Give another name.")
        if path.suffix.lower() not in ("", ".png"):
            raise UserError(f"{path}: what is written is a PNG file. Give it the suffix .png.")
        path.write_bytes(self.overlay)
        return path

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.overlay


class Model:
    """A fitted model, of a run or of an export; it answers as its served graph does.

    Args:
      path: run directory, or export with or without its version.

    Attributes:
      path: the folder.
      saved_model: its SavedModel.
    """

    def __init__(self, path: PathLike) -> None:
        from mvtec_tf.graphs import saved_model
        from mvtec_tf.run_directory import read_finished

        path = saved_model.newest(path)
        self.path, self._run = path, (path / "run.json").is_file()
        # A notebook may go to another folder meanwhile.
        self._place = path.absolute()
        if self._run:
            read_finished(path)
        self.saved_model = path / "saved_model" if self._run else path
        self.card = saved_model.read_card(self.saved_model)
        self._signatures = saved_model.load(self.saved_model).signatures
        if "anomaly_score" not in self._signatures["serving_default"].structured_outputs:
            raise UserError(f"{path}: it gives no scores. Of an encoder `mvtec_tf.fit` makes a model, as `encoder`.")

    def __reduce__(self) -> tuple[type["Model"], tuple[pathlib.Path]]:
        """For another process, which opens it anew."""
        return Model, (self._place,)

    def __repr__(self) -> str:
        """Where it lies."""
        return f"Model({os.fspath(self.path)!r})"

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metric name -> value over all categories of the evaluated images of the run.

        Raises:
          UserError: it is an export, which has them in its card.
        """
        document = read_json(self._of_run("metrics") / "metrics.json")
        return {name: metric["value"] for name, metric in document["overall"].items()}

    def score(self, images: Image | Iterable[Image]) -> np.ndarray:
        """Scores images.

        Args:
          images: files or arrays, uint8 [height, width, 3] in RGB or [height, width] grey; one or several.

        Returns:
          float32 [N], higher is more defective. An array has the score of the PNG file that holds it.

        Raises:
          UserError: an image cannot be read, is named.
        """
        return self._answers("serving_default", images)["anomaly_score"]

    def predict(self, images: Image | Iterable[Image]) -> np.ndarray:
        """Calls images, at the threshold that the model was judged with: int64 [N], 1 = defective. Args of `score`."""
        answers = self._answers("serving_default", images)
        if "label" in answers:
            return answers["label"]
        threshold = read_json(self._place / "metrics.json")["threshold"]
        if threshold.get("value") is None:
            raise UserError(f"{self.path}: the run has no single threshold. Export it; the export calls by its own.")
        return (answers["anomaly_score"] >= np.float32(threshold["value"])).astype(np.int64)

    def predict_proba(self, images: Image | Iterable[Image]) -> np.ndarray:
        """Calibrated probabilities of a defect, float32 [N]. Args as of `score`.

        Raises:
          UserError: the model gives none.
        """
        answers = self._answers("serving_default", images)
        if "probability" not in answers:
            raise UserError(
                f"{self.path}: this model gives no probability: that takes two labelled defects or more, which score, "
                "held out, above good images. `label_budget` buys more."
            )
        return answers["probability"]

    def explain(self, image: Image) -> Explanation:
        """Where an image's score comes from; of an export it is coloured as far as that is on the way to the threshold.

        Raises:
          UserError: it cannot be read, or there are several.
        """
        answers = self._answers("explain", image)
        if len(answers.get("heat_map", ())) != 1:
            raise UserError(f"`image`: {len(answers.get('heat_map', ()))} images; expected one. Explain one by one.")
        return Explanation(answers["heat_map"][0], answers["overlay_bytes"][0], image)

    def report(self) -> pathlib.Path:
        """The page about the run: open it in a browser."""
        return self._of_run("report") / "report.html"

    def export(self, name: str, saved_models: PathLike = "saved_models", **options: Any) -> "Model":
        """Writes the next version of `saved_models/NAME`, for TensorFlow Serving, with the threshold inside.

        Args:
          name: name of the model.
          saved_models: folder of all models.
          **options: as of `mvtec-tf export`: threshold, precision, labels, server_root, data_licence, weights_licence.
        """
        from mvtec_tf.jobs.export import export_run

        own = {"run": self._of_run("export"), "name": name, "saved_models": saved_models}
        return Model(_run(export_run, settings_lib.of_keywords(ExportSettings, options, own)))

    def _of_run(self, what: str) -> pathlib.Path:
        if not self._run:
            raise UserError(f"{self.path}: an export has no {what} of its own. Open the run that it was made of.")
        return self._place

    def _answers(self, signature: str, images: Image | Iterable[Image]) -> dict[str, np.ndarray]:
        from mvtec_tf.graphs import scoring

        if isinstance(images, np.ndarray) and images.dtype.kind in "OU":  # names of a table's column
            images = images.ravel().tolist()
        single = isinstance(images, (str, os.PathLike)) or (isinstance(images, np.ndarray) and images.ndim < 4)
        if isinstance(images, bytes) or not (single or isinstance(images, Iterable)):
            raise TypeError(f"images: expected files or arrays, found {type(images).__name__}.")
        with tempfile.TemporaryDirectory(prefix="mvtec_tf_arrays_") as folder:
            named = enumerate([images] if single else images)
            files = [_file_of(image, pathlib.Path(folder) / f"{index}.png") for index, image in named]
            return scoring.run_signature(self._signatures[signature], files, "judged")


def _run(job: Callable[..., Any], *arguments: Any) -> Any:
    """What a job returns, which builds networks: by Keras as they need it, not as a notebook has set it meanwhile."""
    from mvtec_tf import keras_settings

    with keras_settings.kept():
        return job(*arguments)


def _file_of(image: Image, place: pathlib.Path) -> str:
    """The file itself, or for an array the PNG file `place`, so that both go the same way."""
    if not isinstance(image, np.ndarray):
        if not isinstance(image, (str, os.PathLike)):
            raise TypeError(f"images: expected files or arrays, found {type(image).__name__} among them.")
        return os.fspath(image)
    colours = image.shape[2:] in ((), (3,)) and image.ndim > 1
    if image.dtype != np.uint8 or not colours or not image.size:
        deep = " Files of 16 bits are read as numpy.rint(image / 257)." if image.dtype == np.uint16 else ""
        found = f"An array of {image.dtype} {list(image.shape)}"
        raise UserError(f"{found}: expected uint8 [height, width, 3] in RGB, or [height, width].{deep}")
    from PIL import Image as Pillow
    Pillow.fromarray(image).save(place)
    return str(place)
