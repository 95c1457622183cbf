"""Looks at a data set before any training: what is in it, and what would spoil a result.

python -m mvtec_tf.bin.explore_data --data_dir=DATA --out=DIR [--categories=A,B]

Writes exploration.html (one page that opens anywhere: counts, sizes, brightness, duplicates and
near-duplicates, defect areas, contact sheets), images.csv, duplicates.csv, unreadable.csv,
defect_area.csv and summary.json. What needs attention is also printed; it is no failure.
"""

import pathlib

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.errors import UsageError, UserError

_DATA_DIR = run_flags.define_data_dir()
_CATEGORIES = flags.DEFINE_list("categories", [], "Only these categories; default: all that are found.")
_OUT = flags.DEFINE_string("out", None, "Folder for the page and the tables; made if missing.")

_PROGRESS_STEP = 1000


def main() -> None:
    for flag in (_DATA_DIR, _OUT):
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing. Expected --data_dir=DATA --out=DIR. Try --help.")

    from mvtec_tf.data.formats import scan as records_lib
    from mvtec_tf.exploration import report as exploration_report
    from mvtec_tf.exploration.survey import explore

    records = records_lib.scan(_DATA_DIR.value, _CATEGORIES.value, say=print)
    entry.own(_OUT.value)
    print(f"Looking at {len(records):,} images.", flush=True)
    found = explore(records, lambda done: _say(done, len(records)))
    title = f"Exploration of {', '.join(pathlib.Path(folder).resolve().name for folder in _DATA_DIR.value)}"
    try:
        document = exploration_report.write_exploration(_OUT.value, found, title)
    except OSError as error:
        raise UserError(
            f"--out={_OUT.value}: {error.filename} cannot be written ({error.strerror}). Name a folder that can."
        ) from error
    print(document["summary"])
    print(f"Page: {pathlib.Path(_OUT.value) / exploration_report.PAGE_FILE}")
    print(_OUT.value)


def _say(done: int, images: int) -> None:
    if done % _PROGRESS_STEP == 0 and done < images:
        print(f"{done:,} of {images:,}", flush=True)


if __name__ == "__main__":
    entry.run(main)
