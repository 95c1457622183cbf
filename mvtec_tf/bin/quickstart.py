"""Runs the whole line on the built-in toy factory: two trained, judged and exported models and a table.

Example:
  python -m mvtec_tf.bin.quickstart --run_dir=results/quickstart
"""

from absl import logging

from mvtec_tf.bin import entry
from mvtec_tf.jobs.settings import QuickstartSettings


def main(settings: QuickstartSettings) -> None:
    from mvtec_tf.jobs.quickstart import quickstart

    quickstart(settings, ["--verbosity=1"] if logging.get_verbosity() >= 1 else [])


if __name__ == "__main__":
    entry.run(main, QuickstartSettings)
