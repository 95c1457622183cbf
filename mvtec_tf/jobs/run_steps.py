"""Steps that the training binaries have in common: open a run, judge it, say where things are."""

import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags

from mvtec_tf import files
from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import features as feature_flags
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags
from mvtec_tf.data import known_images
from mvtec_tf.data.decoding import image_store, unreadable
from mvtec_tf.data.decoding.image_store import Verdict
from mvtec_tf.data.decoding.unreadable import Unreadable
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.formats.scan import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import table
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation import heatmaps
from mvtec_tf.evaluation.localisation.heatmaps import EXPORTED, GivenMaps
from mvtec_tf.evaluation.report.extras import Extras
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Row
from mvtec_tf.graphs import scoring
from mvtec_tf.graphs.signatures import HEAT_MAP
from mvtec_tf.heads.settings import PLAIN_LOG_ODDS
from mvtec_tf.run_directory import RunDirectory, read_run

FLAGS = flags.FLAGS
_SKIPPED = "skipped_images"
# What a training leaves behind, in the order in which it is made.
RESULTS = ("saved_model", "predictions.csv", "metrics.json", "report.html")
# Beside the flags that say which features are wanted: of which images, by which encoder.
_OF_EVERY_FEATURE = ("encoder", "encoders", "features", "seed", "max_pixels", "recipe_image_size", "categories")
# So many categories stand in a heading.
_NAMED = 4


def scan() -> tuple[Record, ...]:
    """Records of --data_dir and --categories."""
    found = records_lib.scan(FLAGS.data_dir, FLAGS.categories, say=print)
    categories = sorted({record.category for record in found})
    print(f"{len(found)} images in {', '.join(categories)}.", flush=True)
    return found


def usable(records: tuple[Record, ...], readable: Callable[[Sequence[Record]], Verdict]) -> Verdict:
    """(records of images that can be used, the others), before anything is cut or written.

    A run that is resumed knows already; otherwise the images are read once.

    Args:
      records: of the scanner.
      readable: looks at all images and says which can be used; see `ImageStore.readable`.

    Raises:
      UserError: an image cannot be used, unless --on_bad_image=skip; or none can.
    """
    known = _verdict_of_the_run(records) if "run_dir" in FLAGS else None
    good, bad = known or readable(records)
    if FLAGS.on_bad_image == run_flags.ERROR:
        unreadable.refuse(bad, len(records))
    if bad:
        print(unreadable.listing([(one.record.path, one.reason) for one in bad]), flush=True)
    if not good:
        raise UserError(f"--data_dir: none of the {len(records)} images can be used; see above.")
    return good, bad


def usable_by_file(records: tuple[Record, ...], max_pixels: int) -> Verdict:
    """Like `usable`, for who reads the files one by one as the first thing it does, and names a bad one itself.

    So only --on_bad_image=skip looks at them before.
    """
    if FLAGS.on_bad_image == run_flags.ERROR:
        return records, ()
    return usable(records, lambda all_of_them: image_store.check(all_of_them, max_pixels))


def _verdict_of_the_run(records: Sequence[Record]) -> Verdict | None:
    if not (pathlib.Path(FLAGS.run_dir) / "run.json").is_file():
        return None
    run = read_run(FLAGS.run_dir)
    reasons = {item["path"]: item["reason"] for item in run.get(_SKIPPED, [])}
    good = tuple(record for record in records if record.path not in reasons)
    bad = tuple(Unreadable(record, reasons[record.path]) for record in records if record.path in reasons)
    same = run["data"]["fingerprint"] == records_lib.fingerprint(good)
    # A repaired image is no longer what was left out.
    same = same and run["data"].get(_SKIPPED) == _fingerprint_of(bad)
    return (good, bad) if same else None


def _fingerprint_of(skipped: Sequence[Unreadable]) -> str | None:
    return records_lib.fingerprint(one.record for one in skipped) if skipped else None


def open_run(
    binary: str, records: Sequence[Record], skipped: Sequence[Unreadable] = (), results: Sequence[str] | None = RESULTS
) -> RunDirectory:
    """The run of --run_dir; ends the program at once if it is finished already and whole.

    Args:
      binary: name of the program.
      records: of the images that are used.
      skipped: images that were left out; they are listed in run.json and in the report.
      results: what a finished run must have, or it is completed; None: the program looks for itself.
    """
    data = {
        "fingerprint": records_lib.fingerprint(records),
        "images": len(records),
        "categories": sorted({record.category for record in records}),
    }
    if skipped:
        data[_SKIPPED] = _fingerprint_of(skipped)
    settings, defaults = run_flags.settings_of(), run_flags.defaults()
    of_features = (*feature_flags.OF_FEATURES, *_OF_EVERY_FEATURE)
    run = RunDirectory(FLAGS.run_dir, binary, settings, data, run_flags.flagfile(), defaults, of_features)
    entry.at_end(run.close)
    if run.finished and results is not None:
        damaged = run.damaged(results)
        if not damaged:
            print("This run is finished; nothing to do. Choose a new --run_dir to repeat it.")
            print(run.path)
            sys.exit(0)
        print(f"This run was finished, but {', '.join(damaged)} is missing or empty. It is made anew.", flush=True)
        run.note(status="running")
    elif run.resumed:
        run.damaged(())
    # A wrong flag that only shows later must not leave a directory behind that refuses the right one.
    entry.on_refusal(run.discard_if_unused)
    if skipped:
        run.note(**{_SKIPPED: [{"path": one.record.path, "reason": one.reason} for one in skipped]})
    # An export knows its images again by their contents, wherever they lie then.
    if not (run.path / known_images.FILE).exists():
        known_images.write(run.path / known_images.FILE, records)
    return run


def judge_run(
    run: RunDirectory,
    rows: Iterable[Row],
    title: str,
    notes: Iterable[tuple[str, str]],
    threshold: float | None = None,
    part: str = "",
    allow_leak: bool = False,
    evaluated: Sequence[Record] = (),
) -> dict[str, Any]:
    """Writes the table of predictions, then judges the table as it was written.

    The mistakes are shown as photographs, with the heat maps of the run's exported model.

    Args:
      run: where to.
      rows: of the table.
      title: of the report.
      notes: (heading, text), for the report.
      threshold: None: chosen on the calibrate rows.
      part: a folder inside the run, for a second model beside the main one.
      allow_leak: labelled images may be among the evaluated ones; the report then begins with that.
      evaluated: the evaluated images, to be shown; none: there are no photographs.
    """
    directory = run.path / part
    skipped = [(item["path"], item["reason"]) for item in run.record.get(_SKIPPED, [])]
    notes = [*notes, *([("Images left out", unreadable.listing(skipped))] if skipped else [])]
    table.write_predictions(directory / "predictions.csv", table.Predictions.from_rows(rows), allow_leak)
    predictions = table.read_predictions(directory / "predictions.csv", allow_leak)
    document = judge(
        predictions,
        directory,
        threshold,
        title,
        notes,
        run.record | ({"part": part, "score_unit": PLAIN_LOG_ODDS} if part else {}),
        allow_leak=allow_leak,
        extras=_photographs(run, evaluated, part),
        heading=_heading(run, title, part),
        tensorboard=run.tensorboard,
        **threshold_flags.rule_and_costs(),
    )
    print(f"{title}: {document['summary']}", flush=True)
    return document


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
    more = f" and {len(categories) - _NAMED} more" if len(categories) > _NAMED else ""
    parts = ", ".join(categories[:_NAMED]) + more
    name = f"{run.path.resolve().name}/{part}".rstrip("/")
    return f"{title}: {parts}, label budget {run.record['settings']['label_budget']}, run {name}"


def _photographs(run: RunDirectory, evaluated: Sequence[Record], part: str) -> Extras:
    """The evaluated images, and what draws heat maps of a few of them; a second model of a run was not exported."""
    places = {record.path: record.file for record in evaluated}

    def explain(paths: Sequence[str]) -> GivenMaps:
        answers = scoring.explained(run.saved_model, [places[path] for path in paths])
        return GivenMaps(EXPORTED, {path: answer[HEAT_MAP] for path, answer in zip(paths, answers, strict=True)})

    shown = {record.path: ImageFiles(record.file, record.mask) for record in evaluated}
    return Extras(shown, explain=None if part or not evaluated else explain)


def finish(run: RunDirectory) -> None:
    """Marks the run as finished and prints where it is, last."""
    run.finish()
    print(f"Report: {run.path / 'report.html'}")
    print(run.path)
