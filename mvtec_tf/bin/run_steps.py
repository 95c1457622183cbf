"""Steps that the training binaries have in common: open a run, judge it, say where things are."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from mvtec_tf.bin import entry, run_flags, threshold_flags
from mvtec_tf.data import records as records_lib
from mvtec_tf.data.records import Record
from mvtec_tf.evaluation import table
from mvtec_tf.evaluation.judge import judge
from mvtec_tf.evaluation.table import Row
from mvtec_tf.training.run_directory import RunDirectory

FLAGS = flags.FLAGS


def scan() -> tuple[Record, ...]:
    """Records of --data_dir and --categories."""
    found = records_lib.scan(FLAGS.data_dir, FLAGS.categories, say=print)
    categories = sorted({record.category for record in found})
    print(f"{len(found)} images in {', '.join(categories)}.", flush=True)
    return found


def open_run(binary: str, records: Sequence[Record]) -> RunDirectory:
    """The run of --run_dir; ends the program at once if it is finished already."""
    data = {
        "fingerprint": records_lib.fingerprint(records),
        "images": len(records),
        "categories": sorted({record.category for record in records}),
    }
    run = RunDirectory(FLAGS.run_dir, binary, run_flags.settings_of(), data, run_flags.flagfile())
    if run.finished:
        print("This run is finished; nothing to do. Choose a new --run_dir to repeat it.")
        print(run.path)
        sys.exit(0)
    # A wrong flag that only shows later must not leave a directory behind that refuses the right one.
    entry.on_refusal(run.discard_if_unused)
    return run


def judge_run(
    run: RunDirectory,
    rows: Iterable[Row],
    title: str,
    notes: Iterable[tuple[str, str]],
    threshold: float | None = None,
    part: str = "",
    allow_leak: bool = False,
) -> dict[str, Any]:
    """Writes the table of predictions, then judges the table as it was written.

    Args:
      run: where to.
      rows: of the table.
      title: of the report.
      notes: (heading, text), for the report.
      threshold: None: chosen on the calibrate rows.
      part: a folder inside the run, for a second model beside the main one.
      allow_leak: labelled images may be among the evaluated ones; the report then begins with that.
    """
    directory = run.path / part
    table.write_predictions(directory / "predictions.csv", table.Predictions.from_rows(rows), allow_leak)
    predictions = table.read_predictions(directory / "predictions.csv", allow_leak)
    document = judge(
        predictions,
        directory,
        threshold,
        title,
        notes,
        run.record | ({"part": part} if part else {}),
        allow_leak=allow_leak,
        tensorboard=run.tensorboard / f"evaluation_{part}".rstrip("_"),
        **threshold_flags.rule_and_costs(),
    )
    print(f"{title}: {document['summary']}", flush=True)
    return document


def finish(run: RunDirectory) -> None:
    """Marks the run as finished and prints where it is, last."""
    run.finish()
    print(f"Report: {run.path / 'report.html'}")
    print(run.path)
