"""The whole judgement in one call: a table of predictions in, figures and a report out."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.data import leaks
from mvtec_tf.evaluation import recorded, table
from mvtec_tf.evaluation.assessment import Assessment, assess
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import diagrams, metrics_csv, summary
from mvtec_tf.evaluation.report import extras as extras_lib
from mvtec_tf.evaluation.report import pictures as figures
from mvtec_tf.evaluation.report import run_report as report
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.extras import Extras
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.evaluation.thresholds import Chosen, Rule

PathLike = str | os.PathLike[str]

METRICS_FILE = "metrics.json"
CSV_FILE = "metrics.csv"
REPORT_FILE = "report.html"
FIGURES_DIR = "figures"


def judge(
    predictions: Predictions,
    out_dir: PathLike,
    threshold: float | Chosen | None = None,
    title: str = "Defect detection report",
    notes: Iterable[tuple[str, str]] = (),
    provenance: Mapping[str, Any] | None = None,
    rule: Rule | None = None,
    costs: Costs | None = None,
    bootstrap: Bootstrap | None = None,
    allow_leak: bool = False,
    tensorboard: PathLike | None = None,
    extras: Extras | None = None,
    heading: str = "",
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

    Returns:
      The content of `metrics.json`.

    Raises:
      UserError, LeakError: the table cannot be judged, see `table.check`, or an image or a heat map
        of `extras` is missing or cannot be used; nothing is written then.
      ValueError: the threshold is not finite.
    """
    table.check(predictions, title, allow_leak=allow_leak)
    judged = assess(predictions, threshold, rule, costs, bootstrap, allow_leak)
    sentences, notes = summary.sentences(judged, title), list(notes)
    more = (extras or Extras()).sections(judged, predictions.part(leaks.EVALUATE))
    rule = rule or Rule()
    heading = heading or title
    asked = {"title": title, "heading": heading, "notes": [list(note) for note in notes]}
    asked["threshold"] = recorded.asked(threshold)
    asked["rule"] = dataclasses.asdict(rule)
    document = judged.as_json() | {"summary": " ".join(sentences)} | {one.key: one.document for one in more}
    document["asked"] = asked
    pictures = list(figures.pictures(judged))
    drawn = list(diagrams.pictures(provenance, judged.splits, judged.threshold))
    out_dir = pathlib.Path(out_dir)
    others = [picture for one in more for picture in one.pictures]
    kinds = [*figures.KINDS, *diagrams.KINDS, *extras_lib.KINDS]
    write_pictures(out_dir / FIGURES_DIR, [*pictures, *drawn, *others], kinds)
    files.write_json(out_dir / METRICS_FILE, document)
    metrics_csv.write(out_dir / CSV_FILE, judged)
    if tensorboard is not None:
        _log(tensorboard, judged, sentences, [*pictures, *drawn, *others], provenance)
    page = report.render(judged, sentences, pictures, heading, notes, provenance, more=more, drawn=drawn)
    files.write_text(out_dir / REPORT_FILE, page)
    return document


def _log(
    folder: PathLike,
    judged: Assessment,
    sentences: Sequence[str],
    pictures: Sequence[Picture],
    provenance: Mapping[str, Any] | None,
) -> None:
    # Not above: who wants no log need not load TensorBoard.
    from mvtec_tf.evaluation.report import tensorboard_log

    about = provenance or {}
    tensorboard_log.write(folder, judged, sentences, pictures, about.get("settings"), about.get("part", ""))


def write_pictures(folder: pathlib.Path, pictures: Sequence[Picture], kinds: Iterable[str]) -> None:
    """Writes the pictures, and removes those of `kinds` that an earlier call left and this one does not have."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        with files.replacing(folder / picture.file_name) as temporary:
            temporary.write_bytes(picture.png)
    current = {picture.file_name for picture in pictures}
    for kind in kinds:
        for old in [*folder.glob(f"{kind}.png"), *folder.glob(f"{kind}_[0-9][0-9]_*.[pj][np]g")]:
            if old.name not in current:
                old.unlink()
