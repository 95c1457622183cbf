"""Looking at a data set before any training: its page, its tables, and what needs attention."""

import pathlib

from mvtec_tf.data.formats import scan
from mvtec_tf.exploration import report as exploration_report
from mvtec_tf.exploration.survey import explore
from mvtec_tf.files import speaker
from mvtec_tf.jobs.settings import ExploreSettings
from mvtec_tf.ownership import Owned


def explore_data(settings: ExploreSettings) -> None:
    """Writes the page and the tables about a data set, and prints what needs attention.

    Raises:
      UserError: there are no images, or the folder cannot be written.
    """
    records = scan.scan(settings.data_dir, settings.categories, say=print)
    names = ", ".join(pathlib.Path(folder).resolve().name for folder in settings.data_dir)
    with Owned(settings.out, "`out`"):
        print(f"Looking at {len(records):,} images.", flush=True)
        speak = speaker()
        found = explore(records, lambda done: speak(f"{done:,} of {len(records):,}"))
        document = exploration_report.write_exploration(settings.out, found, f"Exploration of {names}")
    print(document["summary"])
    print(f"Page: {pathlib.Path(settings.out) / exploration_report.PAGE_FILE}")
    print(settings.out)
