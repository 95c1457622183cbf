"""Measures what this program costs on this machine, by its own commands on drawn data.

Example:
  python -m mvtec_tf.bin.benchmark --what=evaluation --out=results/benchmark
"""

import dataclasses
import os
import pathlib

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError, UserError

_WHAT = flags.DEFINE_enum("what", "evaluation", ["evaluation"], "What is measured: `evaluate` on tables of any size.")
_OUT = flags.DEFINE_string("out", None, "New folder for costs.json and what was judged.")
_SIZES = flags.DEFINE_list(
    "sizes", ["2000", "5000", "10000", "20000", "50000", "100000"], "Numbers of evaluated images, ascending."
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 2000, "Images of a report with all pictures but t-SNE: mistakes, heat maps, embedding; 0: none.", 0
)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Resamples for the 95 % intervals.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn.", 0)


def main() -> None:
    if not _OUT.value:
        raise UsageError("--out is missing. Expected --out=DIR. Try --help.")
    try:
        sizes = [int(text) for text in _SIZES.value]
    except ValueError:
        sizes = []
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 2:
        raise UsageError(f"--sizes={','.join(_SIZES.value)}: expected numbers of images of 2 or more, ascending.")
    if 0 < _PICTURES.value < 16:
        raise UsageError(f"--pictures={_PICTURES.value}: expected 16 or more, or 0 for none.")
    folder = pathlib.Path(_OUT.value)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out={folder}: not an empty folder. Name a new one.")

    from mvtec_tf import atomic
    from mvtec_tf.benchmark import evaluation_cost

    def say(text: str) -> None:
        print(text, flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    cores, load = os.cpu_count(), os.getloadavg()[0]
    costs = list(evaluation_cost.measure_tables(sizes, folder, _RESAMPLES.value, _SEED.value, say))
    if _PICTURES.value:
        costs.append(evaluation_cost.measure_pictures(_PICTURES.value, folder, _RESAMPLES.value, _SEED.value, say))
    document = {"cores": cores, "load_at_start": load, "resamples": _RESAMPLES.value, "seed": _SEED.value}
    document["costs"] = [dataclasses.asdict(cost) for cost in costs]
    atomic.write_json(folder / "costs.json", document)
    how = f"{_RESAMPLES.value:,} resamples, seed {_SEED.value}, {cores} cores, load {load:.1f} at the start"
    print(f"\n`evaluate`, {how}:")
    print(evaluation_cost.text_table(costs))
    print(folder)


if __name__ == "__main__":
    entry.run(main)
