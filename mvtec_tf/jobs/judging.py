"""Judging a run: its table of predictions, its report with photographs and heat maps, its end."""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.data.decoding import unreadable
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted, listing
from mvtec_tf.evaluation import shift, table, thresholds
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation import heatmaps, pixel_metrics
from mvtec_tf.evaluation.localisation.heatmaps import EXPORTED, GivenMaps, HeatMaps
from mvtec_tf.evaluation.report.judge import Extras, judge
from mvtec_tf.evaluation.report.page import Section
from mvtec_tf.evaluation.shift import Shift
from mvtec_tf.evaluation.table import Row
from mvtec_tf.features import reference
from mvtec_tf.graphs import scoring
from mvtec_tf.graphs.signatures import HEAT_MAP
from mvtec_tf.heads.fitting import FittedProbe
from mvtec_tf.heads.settings import PLAIN_LOG_ODDS
from mvtec_tf.jobs.fields import ThresholdSettings
from mvtec_tf.jobs.opening import SKIPPED
from mvtec_tf.networks.copies import BFLOAT16, FLOAT32
from mvtec_tf.run_directory import RunDirectory

# So many categories stand in a heading.
_NAMED = 4
# By one graph with other operations around it, which group its own in other ways; bfloat16 has 8 bits.
_ROADS_AGREE = {FLOAT32: 1e-4, BFLOAT16: 5e-2}


def judge_run(
    run: RunDirectory,
    settings: ThresholdSettings,
    rows: Iterable[Row],
    title: str,
    notes: Iterable[tuple[str, str]],
    threshold: float | None = None,
    part: str = "",
    allow_leak: bool = False,
    evaluated: Sequence[Record] = (),
    heat_maps: pathlib.Path | None = None,
    basis: str = "",
    more: Sequence[Section] = (),
    calibrate: Sequence[Record] = (),
    embedded: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Writes the table of predictions, then judges the table as it was written.

    The mistakes are shown as photographs, with the heat maps of the run's exported model.

    Args:
      run: where to.
      settings: how the threshold is chosen.
      rows: of the table.
      title: of the report.
      notes: (heading, text), for the report.
      threshold: None: chosen on the calibrate rows.
      part: a folder inside the run, for a second model beside the main one.
      allow_leak: labelled images may be among the evaluated ones; the report then begins with that.
      evaluated: the evaluated images, to be shown; none: there are no photographs.
      heat_maps: folder with those of all evaluated images, to be measured against their masks; None: only a few are
        drawn.
      basis: what is to be said of the rows that the threshold rests on, see `summary.sentences`.
      more: further sections of the report.
      calibrate: images of calibrate rows, of which the good ones say what is usual; none: nothing does.
      embedded: embedding and category of `calibrate`, see `reference.keep`.
    """
    directory = run.path / part
    skipped = [(item["path"], item["reason"]) for item in run.record.get(SKIPPED, [])]
    notes = [*notes, *([("Images left out", unreadable.listing(skipped))] if skipped else [])]
    table.write_predictions(directory / "predictions.csv", table.Predictions.from_rows(rows), allow_leak)
    predictions = table.read_predictions(directory / "predictions.csv", allow_leak)
    print("Judging, and drawing the report ...", flush=True)
    # Images are decoded while diagrams are drawn: neither fills the cores.
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        kept = beside.submit(_keep_reference, run, settings, predictions, calibrate, embedded) if calibrate else None
        document = judge(
            predictions,
            directory,
            threshold,
            title,
            notes,
            run.record | ({"part": part, "score_unit": PLAIN_LOG_ODDS} if part else {}),
            allow_leak=allow_leak,
            extras=dataclasses.replace(_photographs(run, evaluated, part, heat_maps), more=tuple(more)),
            heading=_heading(run, title, part),
            tensorboard=run.tensorboard,
            basis=basis,
            **settings.rule_and_costs(),
        )
        if kept is not None:
            kept.result()
    print(f"{title}: {document['summary']}", flush=True)
    for name, pixels in document.get("pixels", {}).items():
        print(pixels["summary"], flush=True)
        areas = {"pixel ROC-AUC": pixel_metrics.AUROC, "PRO": pixel_metrics.PRO}
        values = {words: pixels["overall"][key]["value"] for words, key in areas.items()}
        told = ", ".join(f"{words} {value:.4f}" for words, value in values.items() if value is not None)
        print(f"{name}: {told}.", flush=True)
    return document


def _keep_reference(
    run: RunDirectory,
    settings: ThresholdSettings,
    predictions: table.Predictions,
    calibrate: Sequence[Record],
    embedded: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """Keeps what the good images that the threshold rests on say is usual, see `reference.keep`."""
    held_out = thresholds.held_out_rows(predictions, settings.rule_and_costs()["rule"]).rows
    good, places = held_out.select(held_out.label == 0), {one.path: row for row, one in enumerate(calibrate)}
    rows_of = np.array([places[path] for path in good.path.tolist()], int)
    known = embedded and tuple(one[rows_of] for one in embedded)
    reference.keep(run.path, [calibrate[row].file for row in rows_of], good.score, good.objects, known)


def write_heat_maps(model: files.PathLike, records: Sequence[Record], folder: pathlib.Path) -> None:
    """Writes the heat map of every image by the exported graph, float32 [height, width], where there is none yet.

    Args:
      model: SavedModel with the signature `explain`.
      records: the images.
      folder: see `heatmaps.HeatMaps`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [record for record in records if not heatmaps.place(folder, record.path).is_file()]
    answers = scoring.explained(model, [record.file for record in missing])
    for record, answer in zip(missing, answers, strict=True):
        heatmaps.write(folder, record.path, answer[HEAT_MAP])


def _heading(run: RunDirectory, title: str, part: str) -> str:
    """Which model, of which parts, with how many labels, in which run."""
    categories = run.record["data"]["categories"]
    name = f"{run.path.resolve().name}/{part}".rstrip("/")
    budget = run.record["settings"].get("label_budget", "of its teacher")
    return f"{title}: {listing(categories, _NAMED)}, label budget {budget}, run {name}"


def _photographs(
    run: RunDirectory, evaluated: Sequence[Record], part: str, heat_maps: pathlib.Path | None
) -> Extras:
    """The evaluated images, and what draws heat maps of a few of them; a second model of a run was not exported."""
    places = {record.path: record.file for record in evaluated}

    def explain(paths: Sequence[str]) -> GivenMaps:
        answers = scoring.explained(run.saved_model, [places[path] for path in paths])
        return GivenMaps(EXPORTED, {path: answer[HEAT_MAP] for path, answer in zip(paths, answers, strict=True)})

    shown = {record.path: ImageFiles(record.file, record.mask) for record in evaluated}
    measured = () if heat_maps is None else (HeatMaps(heat_maps, EXPORTED),)
    return Extras(shown, measured, explain=None if part or not evaluated else explain)


def note_labels(run: RunDirectory, labelled: Sequence[Record], unit: str, besides: Mapping[str, int] = {}) -> None:
    """Adds to the run's record what the score is measured in, and what labels were bought, `besides` by its encoder."""
    labels = [*(record.label for record in labelled), *besides.values()]
    run.note(score_unit=unit, labels_used=len(labels), labelled_defects=sum(labels))


def finish(run: RunDirectory) -> None:
    """Marks the run as finished and prints where it is, last."""
    run.finish(f"Report: {run.path / 'report.html'}")


def on_line(fitted: FittedProbe, cut: Cut) -> tuple[FittedProbe, dict[str, Shift]]:
    """The head with its held-out scores as they are on the line, see `shift.on_line`: threshold and probability rest on
    them."""
    held_out = [cut.fit[i] for i in fitted.calibrate]
    scores, found = shift.on_line(held_out, fitted.calibrate_scores)
    return fitted.with_scores(held_out, scores), found


def note_line(run: RunDirectory, line: Mapping[str, Shift]) -> list[tuple[str, str]]:
    """Prints and records how the labelled good images score beside the training images; for the report's notes."""
    if not line:
        return []
    run.note(shift_of_labelled={name: one.as_json() for name, one in line.items()})
    print(shift.note(line), flush=True)
    return [("Labelled good images beside good training images", shift.note(line))]


def check_roads(served: np.ndarray, computed: np.ndarray, precision: str = FLOAT32) -> None:
    """Raises RuntimeError if the exported graph's scores are not those of the fitted head, both [N]."""
    difference = float(np.max(np.abs(served - computed) / (1 + np.abs(computed))))
    if difference > _ROADS_AGREE[precision]:
        raise RuntimeError(f"The exported graph's scores differ from the fitted head's by up to {difference:.2g}.")


def table_of(
    fitted: FittedProbe,
    cut: Cut,
    features: Any,
    served: np.ndarray,
    probability: np.ndarray | None,
    pretrained: Collection[str] = (),
) -> list[Row]:
    """The table of predictions of a fitted and exported head.

    Args:
      fitted: the head, with its out-of-fold scores of `cut.fit`.
      cut: who is who.
      features: of `cut.fit`, for the scores of those that were not held out.
      served: float [M], the exported graph's scores of `cut.evaluate`; these are judged.
      probability: float [M], the graph's, or None if it gives none.
      pretrained: paths of the images that the encoder was pretrained on, which get a row of their own.
    """
    scores = fitted.scores(features)
    seen = [i for i, record in enumerate(cut.train_good) if record.path in pretrained]
    parts = [
        ("pretrain", seen, scores[seen]),
        ("fit", range(len(cut.fit)), scores),
        ("calibrate", fitted.calibrate, fitted.calibrate_scores),
    ]
    found = []
    for split, which, given in parts:
        records = [cut.fit[i] for i in which]
        # Each with the probability that its own category's calibration gives the score.
        categories = np.array([record.category for record in records])
        found += table.rows(records, split, given, fitted.head.probability_of(given, categories))
    return found + table.rows(cut.evaluate, "evaluate", served, probability)


def labels_note(cut: Cut, besides: Mapping[str, int] = {}) -> str:
    """For the report: which labels the figures rest on, `besides` by the encoder."""
    defects = sum(record.label for record in cut.labelled)
    labelled = f"{len(cut.labelled)} test images were labelled, {defects} of them defective." if cut.labelled else ""
    these = "these and of " if cut.labelled else ""
    return (
        f"{labelled or 'No test image was labelled.'} The threshold was chosen on out-of-fold scores of {these}the "
        f"{counted(len(cut.train_good), 'good training image')}. "
        f"{counted(len(cut.evaluate), 'other test image was', 'other test images were')} evaluated."
        f"{of_encoder(besides)}"
    )


def of_encoder(besides: Mapping[str, int]) -> str:
    """What must be known of labels that were bought for the encoder alone; "" if there are none."""
    if not besides:
        return ""
    return (
        f" The encoder has used the labels of {counted(len(besides), 'more test image')}, {sum(besides.values())} of "
        "them defective, which this `label_budget` does not buy: the figures rest on them too, and they are counted."
    )
