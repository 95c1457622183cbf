"""Measures what this program costs on this machine, by its own commands on drawn data.

Examples:
  python -m tools.benchmark --what=evaluation --out=results/benchmark
  python -m tools.benchmark --what=patch_memory --out=results/patch_memory
"""

import dataclasses
import os
import pathlib

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.ownership import LOCK_FILE

# What is measured, and on how many images if --sizes does not say.
_DEFAULT_SIZES = {
    "evaluation": ["2000", "5000", "10000", "20000", "50000", "100000"],
    "patch_memory": ["500", "1000", "2000", "5000"],
}
_WHAT = flags.DEFINE_enum(
    "what",
    "evaluation",
    list(_DEFAULT_SIZES),
    "What is measured. evaluation: `evaluate` on tables of any size; patch_memory: the head patchcore on any number of "
    "training images, and its greedy choice beside a random one.",
)
_OUT = flags.DEFINE_string("out", None, "New folder for costs.json and what was judged.")
_SIZES = flags.DEFINE_list(
    "sizes", [], "Numbers of evaluated (or training) images, ascending. Unset: some that suit what is measured."
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 2000, "Images of a report with all pictures but t-SNE: mistakes, heat maps, embedding; 0: none.", 0
)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Resamples for the 95 % intervals.", 0)
_FEATURES = flags.DEFINE_string(
    "features",
    None,
    "For patch_memory: a folder of extract_features --maps, to compare greedy and random on photographs.",
)
_DATA = run_flags.define_data_dir("For --features: where the images are.")
_SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn.", 0)


def main() -> None:
    """Measures what the flags name and writes it to the folder."""
    if not _OUT.value:
        raise UsageError("--out is missing. Expected --out=DIR. Try --help.")
    given = _SIZES.value or _DEFAULT_SIZES[_WHAT.value]
    try:
        sizes = [int(text) for text in given]
    except ValueError:
        sizes = []
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 2:
        raise UsageError(f"--sizes={','.join(given)}: expected numbers of images of 2 or more, ascending.")
    if 0 < _PICTURES.value < 16:
        raise UsageError(f"--pictures={_PICTURES.value}: expected 16 or more, or 0 for none.")
    if bool(_FEATURES.value) != bool(_DATA.value) or (_FEATURES.value and _WHAT.value != "patch_memory"):
        raise UsageError("--features and --data_dir go together, and with --what=patch_memory.")
    folder = pathlib.Path(_OUT.value)
    entry.own(_OUT.value)
    if any(item.name != LOCK_FILE for item in folder.iterdir()):
        raise UserError(f"--out={folder}: not an empty folder. Name a new one.")

    from mvtec_tf import files

    machine = {"cores": os.cpu_count(), "load_at_start": os.getloadavg()[0]}
    document, words = _MEASURED[_WHAT.value](sizes, folder)
    files.write_json(folder / "costs.json", machine | document | {"seed": _SEED.value})
    print(f"\nSeed {_SEED.value}, {machine['cores']} cores, load {machine['load_at_start']:.1f} at the start.\n{words}")
    print(folder)


def _say(text: str) -> None:
    print(text, flush=True)


def _evaluation(sizes: list[int], folder: pathlib.Path) -> tuple[dict, str]:
    from tools import evaluation_cost

    costs = list(evaluation_cost.measure_tables(sizes, folder, _RESAMPLES.value, _SEED.value, _say))
    if _PICTURES.value:
        costs.append(evaluation_cost.measure_pictures(_PICTURES.value, folder, _RESAMPLES.value, _SEED.value, _say))
    document = {"resamples": _RESAMPLES.value, "costs": [dataclasses.asdict(cost) for cost in costs]}
    return document, f"`evaluate`, {_RESAMPLES.value:,} resamples:\n{evaluation_cost.text_table(costs)}"


def _patch_memory(sizes: list[int], folder: pathlib.Path) -> tuple[dict, str]:
    del folder  # nothing but the costs is kept
    from tools import patch_memory

    tables = {
        "Patch memory of 2,000 patches": list(patch_memory.measure_sizes(sizes, _SEED.value, _say)),
        "2,000 of 100,000 patches of 512 numbers": list(patch_memory.measure_choice(_SEED.value, _say)),
    }
    if _FEATURES.value:
        from mvtec_tf.data.formats import scan as records
        from mvtec_tf.features.store import FeatureStore

        found = records.scan(_DATA.value)
        worth = patch_memory.measure_worth(FeatureStore(_FEATURES.value), found, _SEED.value, _say)
        tables["All test images by 2,000 patches of good training images"] = list(worth)
    document = {title: [dataclasses.asdict(one) for one in rows] for title, rows in tables.items()}
    return document, "\n\n".join(f"{title}:\n{patch_memory.text_table(rows)}" for title, rows in tables.items())


_MEASURED = {"evaluation": _evaluation, "patch_memory": _patch_memory}


if __name__ == "__main__":
    entry.run(main)
