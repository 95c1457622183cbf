"""Measures what this program costs on this machine, by its own commands on drawn data.

Examples:
  python -m tools.benchmark --what=evaluation --out=results/benchmark
  python -m tools.benchmark --what=patch_memory --out=results/patch_memory
  python -m tools.benchmark --job=infer,cnn,simclr,probe,few_labels --data_dir=$DATA --categories=bottle --out=jobs.json
"""

import dataclasses
import os
import pathlib
from typing import Literal

from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.ownership import LOCK_FILE, Owned

# What is measured, and on how many images if --sizes does not say.
_JOBS = ("infer", "cnn", "simclr", "probe", "few_labels")
_DEFAULT_SIZES = {
    "evaluation": ["2000", "5000", "10000", "20000", "50000", "100000"],
    "patch_memory": ["500", "1000", "2000", "5000"],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What is measured.

    Attributes:
      what: what is measured. evaluation: `evaluate` on tables of any size; patch_memory: the head patchcore on any
        number of training images, and its greedy choice beside a random one.
      job: instead of what: some of infer, cnn, simclr, probe and few_labels, on the photographs of data_dir.
      out: new folder for costs.json and what was judged; of jobs a new file, FILE.json.
      sizes: numbers of evaluated (or training) images, ascending. Unset: some that suit what is measured.
      pictures: images of a report with all pictures but t-SNE: mistakes, heat maps, embedding; 0: none.
      resamples: resamples for the 95 % intervals.
      features: for patch_memory: a folder of extract_features with maps, to compare greedy and random on photographs.
      data_dir: for features and jobs: where the images are.
      categories: for jobs: only these categories.
      weights: for jobs: weights of the networks; unset: none, which take the same time.
      backbone: for jobs: of the networks.
      image_size: for jobs: side in pixels of what they see; the recipe few_labels has its own.
      precision: for jobs: number format of the networks; auto: bfloat16 where this processor has it.
      rounds: for jobs: measurements, of which the median counts.
      peer: for jobs: command that is run with --job JOB after each measurement, and prints {"job": JOB, "value": V}.
      seed: random seed of what is drawn.
    """

    what: Literal["evaluation", "patch_memory"] = "evaluation"
    job: tuple[str, ...] = ()
    out: str
    sizes: tuple[str, ...] = ()
    pictures: int = dataclasses.field(default=2000, metadata={"least": 0})
    resamples: int = dataclasses.field(default=1000, metadata={"least": 0})
    features: str | None = None
    data_dir: tuple[str, ...] = dataclasses.field(default=(), metadata={"paths": True})
    categories: tuple[str, ...] = ()
    weights: str = "none"
    backbone: str = "resnet50"
    image_size: int = dataclasses.field(default=224, metadata={"least": 32})
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    rounds: int = dataclasses.field(default=5, metadata={"least": 1})
    peer: str = ""
    seed: int = dataclasses.field(default=0, metadata={"least": 0})

    @property
    def numbers(self) -> list[int]:
        """`sizes`, [] if they make no sense."""
        try:
            found = [int(text) for text in self.sizes or _DEFAULT_SIZES[self.what]]
        except ValueError:
            return []
        return found if found == sorted(set(found)) and found[0] >= 2 else []

    def check(self) -> None:
        """Raises UsageError for settings that make no sense."""
        if self.job:
            unknown = [name for name in self.job if name not in _JOBS]
            if unknown:
                raise UsageError(f"`job`={','.join(self.job)}: expected some of {', '.join(_JOBS)}.")
            if not self.data_dir or not self.out.endswith(".json"):
                raise UsageError("`job` needs photographs, `data_dir`, and a file for its figures, `out`=FILE.json.")
            return
        if not self.numbers:
            raise UsageError(f"`sizes`={','.join(self.sizes)}: expected numbers of images of 2 or more, ascending.")
        if 0 < self.pictures < 16:
            raise UsageError(f"`pictures`={self.pictures}: expected 16 or more, or 0 for none.")
        if bool(self.features) != bool(self.data_dir) or (self.features and self.what != "patch_memory"):
            raise UsageError("`features` and `data_dir` go together, and with `what`=patch_memory.")


def main(asked: BenchmarkSettings) -> None:
    """Measures what is asked for and writes it to the folder, or to the file."""
    if asked.job:
        _measure_jobs(asked)
        return
    with Owned(asked.out, "`out`"):
        _measure(asked, pathlib.Path(asked.out))


def _measure_jobs(asked: BenchmarkSettings) -> None:
    from mvtec_tf import files
    from mvtec_tf.data.formats import scan
    from tools import job_cost

    machine = {"cores": os.cpu_count(), "load_at_start": os.getloadavg()[0], "seed": asked.seed}
    work = job_cost.Work(
        scan.scan(asked.data_dir, asked.categories), asked.data_dir, asked.categories, asked.weights, asked.backbone,
        asked.image_size, asked.precision, asked.seed,
    )
    files.write_json(asked.out, machine | job_cost.measure(asked.job, work, asked.rounds, asked.peer, _say))
    print(asked.out)


def _measure(asked: BenchmarkSettings, folder: pathlib.Path) -> None:
    if any(item.name != LOCK_FILE for item in folder.iterdir()):
        raise UserError(f"`out`={folder}: not an empty folder. Name a new one.")

    from mvtec_tf import files

    machine = {"cores": os.cpu_count(), "load_at_start": os.getloadavg()[0]}
    document, words = _MEASURED[asked.what](asked, folder)
    files.write_json(folder / "costs.json", machine | document | {"seed": asked.seed})
    print(f"\nSeed {asked.seed}, {machine['cores']} cores, load {machine['load_at_start']:.1f} at the start.\n{words}")
    print(folder)


def _say(text: str) -> None:
    print(text, flush=True)


def _evaluation(asked: BenchmarkSettings, folder: pathlib.Path) -> tuple[dict, str]:
    from tools import evaluation_cost

    costs = list(evaluation_cost.measure_tables(asked.numbers, folder, asked.resamples, asked.seed, _say))
    if asked.pictures:
        costs.append(evaluation_cost.measure_pictures(asked.pictures, folder, asked.resamples, asked.seed, _say))
    document = {"resamples": asked.resamples, "costs": [dataclasses.asdict(cost) for cost in costs]}
    return document, f"`evaluate`, {asked.resamples:,} resamples:\n{evaluation_cost.text_table(costs)}"


def _patch_memory(asked: BenchmarkSettings, folder: pathlib.Path) -> tuple[dict, str]:
    del folder  # nothing but the costs is kept
    from tools import patch_memory

    tables = {
        "Patch memory of 2,000 patches": list(patch_memory.measure_sizes(asked.numbers, asked.seed, _say)),
        "2,000 of 100,000 patches of 512 numbers": list(patch_memory.measure_choice(asked.seed, _say)),
    }
    if asked.features:
        from mvtec_tf.data.formats import scan as records
        from mvtec_tf.features.store import FeatureStore

        found = records.scan(asked.data_dir)
        worth = patch_memory.measure_worth(FeatureStore(asked.features), found, asked.seed, _say)
        tables["All test images by 2,000 patches of good training images"] = list(worth)
    document = {title: [dataclasses.asdict(one) for one in rows] for title, rows in tables.items()}
    return document, "\n\n".join(f"{title}:\n{patch_memory.text_table(rows)}" for title, rows in tables.items())


_MEASURED = {"evaluation": _evaluation, "patch_memory": _patch_memory}


if __name__ == "__main__":
    entry.run(main, BenchmarkSettings, BenchmarkSettings.check)
