"""What it costs to judge a table: the very command that a user types, on drawn tables of growing size.

Processor time is counted beside the time on the clock, because a busy machine stretches only the
latter.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.toy.factory import write_toy_factory
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.localisation import heatmaps
from mvtec_tf.evaluation.table import Predictions, Row, write_predictions

_CATEGORIES, _DEFECTS = 5, 4
# One calibrate row for four evaluated ones, about as many as a run has.
_CALIBRATE_SHARE = 0.25
_HEAT_MAP_SIDE = 56
_FEATURES = 512
# Good images, and three defect types, in each of the toy factory's two categories.
_TOY_KINDS, _TOY_CATEGORIES = 4, 2


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call took.

    Attributes:
      what: which call.
      images: evaluated ones.
      wall_seconds: on the clock, start-up of the process included.
      cpu_seconds: of the processor, all its cores together.
      peak_mb: largest resident memory in MB.
      report_mb: size of the report in MB.
    """

    what: str
    images: int
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    report_mb: float


def measure_tables(
    sizes: Sequence[int], folder: pathlib.Path, resamples: int, seed: int, say: Callable[[str], None]
) -> Iterator[Cost]:
    """The cost of figures with intervals and of all pictures that a table alone has, for each size.

    Args:
      sizes: numbers of evaluated images.
      folder: for the tables and reports.
      resamples: of the intervals.
      seed: of the scores and of the resamples.
      say: is told what is being measured.

    Raises:
      UserError: `evaluate` failed.
    """
    for images in sizes:
        say(f"{images:,} images ...")
        path = folder / f"{images}.csv"
        write_predictions(path, _drawn(images, seed))
        arguments = (f"--predictions={path}", f"--resamples={resamples}", f"--seed={seed}")
        yield _cost("table", images, arguments, folder / f"{images}")


def measure_pictures(
    images: int, folder: pathlib.Path, resamples: int, seed: int, say: Callable[[str], None]
) -> Cost:
    """The cost with everything that can be shown but t-SNE: images, masks, heat maps, an embedding, TensorBoard.

    Args:
      images: evaluated ones, at least 16; the toy factory's, as many as are a multiple of eight.
      folder, resamples, seed, say: as in `measure_tables`.

    Raises:
      UserError: `evaluate` failed.
    """
    say(f"Drawing {images:,} images with masks and heat maps ...")
    per_kind = images // (_TOY_KINDS * _TOY_CATEGORIES)
    data = folder / "toy"
    write_toy_factory(data, seed=seed, image_size=128, train_good=1, test_good=per_kind, per_defect=per_kind)
    tests = [record for record in records_lib.scan([data]) if record.split == "test"]
    rng, rows = np.random.default_rng(seed), []
    for record in tests:
        score = float(rng.normal(2 * record.label))
        rows.append(Row(record.path, record.category, record.defect, record.label, "evaluate", score, record.group))
        heatmaps.write(folder / "maps", record.path, rng.random((_HEAT_MAP_SIDE, _HEAT_MAP_SIDE), np.float32))
    table = folder / "pictures.csv"
    write_predictions(table, Predictions.from_rows(rows))
    features = folder / "features.npz"
    vectors = rng.normal(size=(len(tests), _FEATURES)).astype(np.float32)
    np.savez(features, paths=np.array([record.path for record in tests]), features=vectors)
    say(f"{len(tests):,} images with all pictures but t-SNE ...")
    arguments = (
        f"--predictions={table}",
        "--threshold=1",
        f"--resamples={resamples}",
        f"--seed={seed}",
        f"--data_dir={data}",
        f"--heatmaps={folder / 'maps'}",
        f"--features={features}",
        "--notsne",
        f"--tensorboard={folder / 'tensorboard'}",
    )
    return _cost("all pictures but t-SNE", len(tests), arguments, folder / "pictures")


def text_table(costs: Sequence[Cost]) -> str:
    """The costs, a line each; of tables also what each image more than in the line before took."""
    titles = ("CPU s", "wall s", "peak MB", "report MB", "ms per image more")
    lines = ["  ".join([f"{'images':>8}", f"{'what':22}", *titles])]
    before = None
    for cost in costs:
        more = ""
        if before and cost.what == before.what and cost.images > before.images:
            more = f"{1000 * (cost.cpu_seconds - before.cpu_seconds) / (cost.images - before.images):.3f}"
        seconds = (f"{cost.cpu_seconds:.1f}", f"{cost.wall_seconds:.1f}")
        texts = (*seconds, f"{cost.peak_mb:.0f}", f"{cost.report_mb:.2f}", more)
        cells = (text.rjust(len(title)) for text, title in zip(texts, titles, strict=True))
        lines.append("  ".join([f"{cost.images:8,}", f"{cost.what:22}", *cells]).rstrip())
        before = cost
    return "\n".join(lines)


def _drawn(images: int, seed: int) -> Predictions:
    """A table of that many evaluate rows, and calibrate rows beside them, with probabilities."""
    rng = np.random.default_rng(seed)
    count = images + round(_CALIBRATE_SHARE * images)
    label = rng.integers(0, 2, count)
    score = rng.normal(1.5 * label).astype(np.float32)
    kind = rng.integers(0, _DEFECTS, count)
    category = rng.integers(0, _CATEGORIES, count)
    return Predictions.from_columns(
        path=[f"category {which}/{index}.png" for index, which in enumerate(category)],
        category=[f"category {which}" for which in category],
        defect=[f"defect {which}" if bad else "good" for which, bad in zip(kind, label, strict=True)],
        label=label,
        split=["evaluate" if index < images else "calibrate" for index in range(count)],
        score=score,
        probability=1 / (1 + np.exp(-score.astype(float))),
    )


def _cost(what: str, images: int, arguments: Sequence[str], out: pathlib.Path) -> Cost:
    command = [sys.executable, "-m", "mvtec_tf.bin.evaluate", *arguments, f"--out={out}"]
    log = out.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        start = os.times().elapsed
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        # Not process.wait(): only this call says what that one process used.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = os.times().elapsed - start
    if process.returncode:
        raise UserError(f"`{' '.join(command)}` ended with status {process.returncode}; what it said is in {log}.")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return Cost(
        what=what,
        images=images,
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss * unit / 1e6,
        report_mb=(out / "report.html").stat().st_size / 1e6,
    )
