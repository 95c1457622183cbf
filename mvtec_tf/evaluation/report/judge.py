"""The whole judgement in one call: a table of predictions in, figures and a report out."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.data import leaks
from mvtec_tf.evaluation import embedding, recorded, table, thresholds, trivial
from mvtec_tf.evaluation.assessment import Assessment, assess
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.localisation import pixel_metrics, pixel_section
from mvtec_tf.evaluation.localisation.heatmaps import GivenMaps, HeatMaps
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.recorded import METRICS_FILE, TABLE_FILE
from mvtec_tf.evaluation.report import diagrams, embedding_pictures, gallery, photographs, summary, suspects
from mvtec_tf.evaluation.report import pictures as figures
from mvtec_tf.evaluation.report import run_report as report
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Section
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Chosen, Rule

CSV_FILE = "metrics.csv"
REPORT_FILE = "report.html"
FIGURES_DIR = "figures"
_CSV_COLUMNS = ("scope", "category", "defect", "metric", "value", "low", "high", *trivial.CLASSIFIERS, "images", "note")
# Kinds of pictures that `Extras` draws.
_MORE_KINDS = (
    pixel_section.KIND,
    *(f"{gallery.KIND}_{name}" for name in ("misses", "false_alarms")),
    *embedding_pictures.KINDS,
    suspects.KIND,
)


@dataclasses.dataclass(frozen=True)
class Extras:
    """Sources of further sections; each may be missing.

    Attributes:
      files: image and mask of every evaluate row, by path; empty if unknown.
      maps: folders of heat maps.
      about_maps: what must be known to read the maps, a sentence each.
      features: float32 [N, D], of the evaluate rows in their order; None if there is no embedding.
      tsne: whether t-SNE of the features is wanted.
      seed: of t-SNE and of the sample.
      projector: folder for TensorBoard's projector; None: none is written.
      say: is told what takes a while.
      about_files: what must be known to read the masks, a sentence each.
      explain: paths of a few images -> their heat maps, made when they are to be shown; None: nothing can make them.
      more: sections that are there already, last.
    """

    files: Mapping[str, ImageFiles] = dataclasses.field(default_factory=dict)
    maps: tuple[HeatMaps, ...] = ()
    about_maps: tuple[str, ...] = ()
    features: np.ndarray | None = None
    tsne: bool = True
    seed: int = 0
    projector: pathlib.Path | None = None
    say: Callable[[str], None] = lambda text: None
    about_files: tuple[str, ...] = ()
    explain: Callable[[Sequence[str]], GivenMaps] | None = None
    more: tuple[Section, ...] = ()

    def sections(self, judged: Assessment, evaluate: Predictions, good: Predictions) -> list[Section]:
        """The sections, in the order of the page.

        Args:
          judged: all figures of the table.
          evaluate: its evaluate rows.
          good: its held-out good rows.

        Raises:
          UserError: an image or a heat map is missing or cannot be used.
        """
        found, levels = [], photographs.levels(evaluate, judged.threshold.each(evaluate.category), good)
        if self.maps:
            figures = [
                pixel_metrics.measure(evaluate, self.files, maps, judged.bootstrap, self._progress(maps.name))
                for maps in self.maps
            ]
            made = pixel_section.section(judged, evaluate, figures, self.files, self.maps, self.about_maps, levels)
            found.append(dataclasses.replace(made, notes=[*made.notes, *self.about_files]))
        found.append(gallery.section(judged, evaluate, self.files, self.maps, self.explain, levels))
        if self.features is not None:
            found.append(self._embedding(evaluate))
        return [*found, *self.more]

    def _embedding(self, evaluate: Predictions) -> Section:
        try:
            points = embedding.reduce(evaluate, self.features, self.tsne, self.seed, self.say)
        except embedding.TooFewPointsError as error:
            return embedding_pictures.without(str(error))
        if self.projector is not None:
            embedding_pictures.write_projector(self.projector, points, self.files)
        return embedding_pictures.section(points, self.projector is not None)

    def _progress(self, name: str) -> Callable[[int, int], None]:
        def tell(done: int, of: int) -> None:
            if done % 1000 == 0 and done < of:
                self.say(f"pixels of {name}: {done:,} of {of:,} steps")

        return tell


def judge(
    predictions: Predictions,
    out_dir: files.PathLike,
    threshold: float | Chosen | None = None,
    title: str = "Defect detection report",
    notes: Iterable[tuple[str, str]] = (),
    provenance: Mapping[str, Any] | None = None,
    rule: Rule | None = None,
    costs: Costs | None = None,
    bootstrap: Bootstrap | None = None,
    allow_leak: bool = False,
    tensorboard: files.PathLike | None = None,
    extras: Extras | None = None,
    heading: str = "",
    basis: str = "",
) -> dict[str, Any]:
    """Judges the evaluate rows and writes `metrics.json`, `metrics.csv`, `figures/*` and `report.html`.

    The report is written last: where it lies, the rest is whole. Pictures of an earlier judgement
    in the same folder that this one does not have are removed; other files are left alone.

    Args:
      predictions: a table of predictions; it is checked first, leaks included.
      out_dir: made if missing; a run directory or any other folder.
      threshold: a score that reaches it is called defective; None: chosen on the calibrate rows.
      title: which model this is, for the sentences.
      notes: (heading, text) each, for the report.
      provenance: the run's record of itself, for the report.
      rule, costs, bootstrap: see `assessment.assess`.
      allow_leak: judges also a table whose evaluated images are in other splits too; the summary,
        in `metrics.json` and in the report, then begins with how many are.
      tensorboard: folder of a TensorBoard log with the same content; None: no log.
      extras: what there is beside the table: images, masks, heat maps, an embedding.
      heading: of the page; "": the title.
      basis: what is to be said of the calibrate rows, see `summary.sentences`.

    Returns:
      The content of `metrics.json`.

    Raises:
      UserError, LeakError: the table cannot be judged, see `table.check`, or an image or a heat map
        of `extras` is missing or cannot be used; nothing is written then.
      ValueError: the threshold is not finite.
    """
    table.check(predictions, title, allow_leak=allow_leak)
    judged = assess(predictions, threshold, rule, costs, bootstrap, allow_leak)
    sentences, notes = summary.sentences(judged, title, basis), list(notes)
    rule = rule or Rule()
    held_out = thresholds.held_out_rows(predictions, rule).rows
    good = held_out.select(held_out.label == 0)
    more = (extras or Extras()).sections(judged, predictions.part(leaks.EVALUATE), good)
    heading = heading or title
    asked = {"title": title, "heading": heading, "notes": [list(note) for note in notes], "basis": basis}
    asked["threshold"] = recorded.asked(threshold)
    asked["rule"] = dataclasses.asdict(rule)
    document = judged.as_json() | {"summary": " ".join(sentences)} | {one.key: one.document for one in more}
    document["asked"] = asked
    pictures = list(figures.pictures(judged))
    drawn = list(diagrams.pictures(provenance, judged.splits, judged.threshold))
    out_dir = pathlib.Path(out_dir)
    others = [picture for one in more for picture in one.pictures]
    kinds = [*figures.KINDS, *diagrams.KINDS, *_MORE_KINDS]
    write_pictures(out_dir / FIGURES_DIR, [*pictures, *drawn, *others], kinds)
    files.write_json(out_dir / METRICS_FILE, document)
    files.write_csv(out_dir / CSV_FILE, _CSV_COLUMNS, _rows(judged))
    if tensorboard is not None:
        # Not above: who wants no log need not load TensorBoard.
        from mvtec_tf.evaluation.report import tensorboard_log

        about = provenance or {}
        shown = [*pictures, *drawn, *others]
        tensorboard_log.write(tensorboard, judged, sentences, shown, about.get("settings"), about.get("part", ""))
    page = report.render(judged, sentences, pictures, heading, notes, provenance, more=more, drawn=drawn)
    files.write_text(out_dir / REPORT_FILE, page)
    return document


def write_pictures(folder: pathlib.Path, pictures: Sequence[Picture], kinds: Iterable[str]) -> None:
    """Writes the pictures, and removes those of `kinds` that an earlier call left and this one does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        files.write_bytes(folder / picture.file_name, picture.png)
    current = {picture.file_name for picture in pictures}
    for kind in kinds:
        for old in [*folder.glob(f"{kind}.png"), *folder.glob(f"{kind}_[0-9][0-9]_*.[pj][np]g")]:
            if old.name not in current:
                old.unlink()


def predictions_of(folder: files.PathLike) -> Predictions:
    """The checked table of a judged folder. Raises UserError where there is none."""
    return table.read_predictions(pathlib.Path(folder) / TABLE_FILE, allow_leak=bool(_document(folder).get("leak")))


def judge_again(
    folder: files.PathLike, extras: Extras, title: str, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes the folder's metrics, figures and report anew: same threshold, costs and resamples, more sections.

    Args:
      folder: with `predictions.csv` and `metrics.json`.
      extras: what to show now.
      title: of the report, where the old judgement did not keep its own.
      provenance: the run's record of itself.

    Returns:
      The content of the new `metrics.json`.

    Raises:
      UserError: the folder holds no judgement, or `extras` cannot be used.
    """
    document = _document(folder)
    judging = recorded.of_document(document, str(folder))
    asked, drawn = document.get("asked") or {}, document["intervals"]
    return judge(
        predictions_of(folder),
        folder,
        judging.threshold,
        asked.get("title", title),
        [(heading, text) for heading, text in asked.get("notes", [])],
        provenance,
        judging.rule,
        judging.costs,
        Bootstrap(drawn["resamples"], drawn["seed"]),
        allow_leak=bool(document.get("leak")),
        extras=extras,
        heading=asked.get("heading", ""),
        basis=judging.basis,
    )


def _document(folder: files.PathLike) -> dict[str, Any]:
    file = pathlib.Path(folder) / METRICS_FILE
    missing = f"{folder}: not judged yet (no {file.name} in it). Finish the run first."
    return files.read_json(file, missing, "Judge the table again with `evaluate`.")


def _rows(judged: Assessment) -> Iterator[list[Any]]:
    """The rows of `metrics.csv`: overall, the mean over categories, each category, each defect type."""
    for (place, category), (found, idle) in judged.places.items():
        scope = judged.categories.get(category, judged.overall)
        for name, metric in found.items():
            others = [idle[classifier][name].value for classifier in trivial.CLASSIFIERS]
            yield _row((place, category, "", name), metric, others, scope.images)
        for part in scope.parts if category else ():
            unknown = [None] * len(trivial.CLASSIFIERS)
            yield _row(("defect", category, part.name, "recall"), part.recall, unknown, part.images)


def _row(names: tuple[str, ...], metric: Metric, idle: list[float | None], images: int) -> list[Any]:
    return [*names, *metric.numbers, *idle, images, metric.reason or metric.note]
