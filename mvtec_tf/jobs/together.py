"""A run that several machines train together: the chief's, of which the others know what it tells them."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import tensorflow as tf

from mvtec_tf.data.decoding.unreadable import Unreadable
from mvtec_tf.data.record import Record
from mvtec_tf.jobs import opening
from mvtec_tf.jobs.fields import RunSettings
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import distribution


@contextlib.contextmanager
def opened(
    strategy: tf.distribute.Strategy,
    job: str,
    settings: RunSettings,
    records: Sequence[Record],
    skipped: Sequence[Unreadable],
    results: Sequence[str],
) -> Iterator[tuple[RunDirectory, bool]]:
    """Yields the run, see `opening.opened`, and whether there is something to train.

    A machine that is not the chief has a run of its own in a temporary folder, of which nothing is left.

    Raises:
      UserError: another machine is gone, or was given something else.
    """
    chief = distribution.is_chief(strategy)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distribution.said_if_gone(strategy))
        if not chief:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            settings = dataclasses.replace(settings, run_dir=str(pathlib.Path(folder) / "run"))
        run = stack.enter_context(opening.opened(job, settings, records, skipped, results))
        with strategy.scope():
            facts = json.dumps([run.record["settings"], run.record["data"]["fingerprint"]], sort_keys=True)
            distribution.check_alike(hashlib.sha256(facts.encode()).hexdigest())
            trains = distribution.said_by_chief(not run.finished and not run.saved_model.exists())
            # What is done at the beginning only must be done by all: augmentation makes variables, of which all talk.
            run.resumed = distribution.said_by_chief(run.resumed)
        if not chief:
            print("The chief writes the run and judges it.", flush=True)
        yield run, trains
