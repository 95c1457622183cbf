"""Opening a run: its images, which of them can be used, its directory."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from mvtec_tf import files
from mvtec_tf import settings as settings_lib
from mvtec_tf.data import known_images
from mvtec_tf.data.decoding import image_store, unreadable
from mvtec_tf.data.decoding.image_store import Verdict
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.record import Record, Unreadable
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.features.feature_graph import encoder_digest
from mvtec_tf.features.store import DESCRIPTION
from mvtec_tf.graphs.saved_model import newest
from mvtec_tf.jobs.checks import START
from mvtec_tf.jobs.fields import ERROR, ImageSettings, RunSettings
from mvtec_tf.jobs.report_folder import refuse_among_photographs
from mvtec_tf.networks import foundation
from mvtec_tf.run_directory import SOURCES, RunDirectory, read_run
from mvtec_tf.training import distribution

SKIPPED = "skipped_images"
# What a setting that takes a path takes too.
_NO_PATHS = ("imagenet", foundation.PRESET, "none", START)
# What a training leaves behind, in the order in which it is made.
RESULTS = ("saved_model", "predictions.csv", "metrics.json", "report.html")
# The settings that say which features are wanted: of which images, by which encoder, how made.
_OF_FEATURES = (
    *("encoder", "encoders", "features", "seed", "max_pixels", "recipe_image_size", "categories"),
    *("feature_layers", "pooling", "centre_brightness", "tiles", "neighbourhood"),
    *("weights", "weights_partial", "backbone", "image_size", "image_shape", "precision"),
)


def scan(settings: ImageSettings) -> Verdict:
    """(records of the images that the settings name, exact copies of these, which are left out)."""
    found = records_lib.scan(settings.data_dir, settings.categories, say=print)
    categories = sorted({record.category for record in found})
    print(f"{counted(len(found), 'image')} in {', '.join(categories)}.", flush=True)
    used, copies = known_images.without_copies(found)
    return used, tuple(Unreadable(record, why) for record, why in copies)


def usable(settings: ImageSettings, found: Verdict, readable: Callable[[Sequence[Record]], Verdict]) -> Verdict:
    """(records of images that can be used, the others), before anything is cut or written.

    A run that is resumed knows already; otherwise the images are read once.

    Args:
      settings: what is done about an image that cannot be used.
      found: of `scan`.
      readable: looks at all images and says which can be used; see `ImageStore.readable`.

    Raises:
      UserError: an image cannot be used, unless such are skipped; or none can.
    """
    records, copies = found
    known = _verdict_of_the_run(settings.run_dir, records, copies) if isinstance(settings, RunSettings) else None
    good, bad = known or readable(records)
    if settings.on_bad_image == ERROR:
        unreadable.refuse(bad, len(records))
    if left_out := (*bad, *copies):
        print(unreadable.listing([(one.record.path, one.reason) for one in left_out]), flush=True)
    if not good:
        raise UserError(f"`data_dir`: none of the {len(records)} images can be used; see above.")
    return good, left_out


def usable_by_file(settings: ImageSettings, found: Verdict, max_pixels: int) -> Verdict:
    """Like `usable`, for who reads the files one by one as the first thing it does, and names a bad one itself.

    So they are looked at before only where bad ones are skipped.
    """
    if settings.on_bad_image == ERROR:
        return usable(settings, found, lambda records: (tuple(records), ()))
    return usable(settings, found, lambda records: image_store.check(records, max_pixels))


def _verdict_of_the_run(run_dir: str, records: Sequence[Record], copies: Sequence[Unreadable]) -> Verdict | None:
    if not (pathlib.Path(run_dir) / "run.json").is_file():
        return None
    run = read_run(run_dir)
    reasons = {item["path"]: item["reason"] for item in run.get(SKIPPED, [])}
    good, bad = image_store.verdict(records, reasons)
    same = run["data"]["fingerprint"] == records_lib.fingerprint(good)
    # A repaired image is no longer what was left out.
    same = same and run["data"].get(SKIPPED) == _fingerprint_of((*bad, *copies))
    return (good, bad) if same else None


def _fingerprint_of(skipped: Sequence[Unreadable]) -> str | None:
    return records_lib.fingerprint(one.record for one in skipped) if skipped else None


@contextlib.contextmanager
def opened(
    job: str,
    settings: RunSettings,
    records: Sequence[Record],
    skipped: Sequence[Unreadable] = (),
    results: Sequence[str] | None = RESULTS,
    beside: Sequence[str] = (),
    sources: Mapping[str, str] = {},
) -> Iterator[RunDirectory]:
    """Yields the run of the settings, this process' own until the block ends.

    A run that is finished and whole comes back as finished, and the job has nothing to do. What is refused within the
    block leaves no directory behind that would refuse the right settings.

    Args:
      job: name of the job, as run.json has it.
      settings: everything that was asked for.
      records: the images that are used.
      skipped: images that were left out; they are listed in run.json and in the report.
      results: what a finished run must have, or it is completed; None: the job looks for itself.
      beside: files that are no images of the run and yet decide what comes out: photographs without labels, masks.
      sources: setting -> digest of what it points to, where that is no one file, encoder or store of features.
    """
    refuse_among_photographs(settings.run_dir, "`run_dir`", settings.data_dir)
    fingerprint = records_lib.fingerprint(records)
    if beside:
        contents = "".join([fingerprint, *sorted(map(files.sha256, beside))])
        fingerprint = hashlib.sha256(contents.encode()).hexdigest()
    data = {
        "fingerprint": fingerprint,
        "images": len(records),
        "categories": sorted({record.category for record in records}),
        SOURCES: _sources(settings) | dict(sources),
    }
    if skipped:
        data[SKIPPED] = _fingerprint_of(skipped)
    run = RunDirectory(
        settings.run_dir,
        job,
        settings_lib.recorded(settings),
        data,
        settings_lib.flagfile(settings),
        settings_lib.defaults(type(settings)),
        _OF_FEATURES,
    )
    try:
        _look_at_results(run, results)
        if not run.finished:
            _note_images(run, records, skipped)
        yield run
    except UserError:
        run.discard_if_unused()
        raise
    finally:
        run.close()


def _sources(settings: RunSettings) -> dict[str, str]:
    """Setting -> digest of what lies where it points to. What is no path has none."""
    named = {name: getattr(settings, name, None) for name in ("weights", "defect_patches", "encoder", "features")}
    named |= {f"encoders={item}": item for item in getattr(settings, "encoders", ())}
    paths = {name: pathlib.Path(value) for name, value in named.items() if value and value not in _NO_PATHS}
    digests = {name: _digest(path) for name, path in paths.items()}
    return {name: digest for name, digest in digests.items() if digest is not None}


def _digest(path: pathlib.Path) -> str | None:
    model = newest(path)
    model = model / "saved_model" if (model / "run.json").is_file() else model
    if (model / "saved_model.pb").is_file():
        return encoder_digest(model)
    path = path / DESCRIPTION if (path / DESCRIPTION).is_file() else path
    if not path.is_dir():
        return files.sha256(path) if path.is_file() else None
    # Weights may be a folder, a preset.
    parts = [file for file in sorted(path.rglob("*")) if file.is_file()]
    contents = "".join(f"{file.relative_to(path).as_posix()} {files.sha256(file)}\n" for file in parts)
    return hashlib.sha256(contents.encode()).hexdigest()


def _look_at_results(run: RunDirectory, results: Sequence[str] | None) -> None:
    if run.finished and results is not None:
        damaged = run.damaged(results)
        if not damaged:
            print("This run is finished; nothing to do. Choose a new run directory to repeat it.")
            print(run.path)
            return
        print(f"This run was finished, but {', '.join(damaged)} is missing or empty. It is made anew.", flush=True)
        run.note(status="running")
    elif run.resumed:
        run.damaged(())


def _note_images(run: RunDirectory, records: Sequence[Record], skipped: Sequence[Unreadable]) -> None:
    if skipped:
        run.note(**{SKIPPED: [{"path": one.record.path, "reason": one.reason} for one in skipped]})
    # An export knows its images again by their contents, wherever they lie then.
    if not (run.path / known_images.FILE).exists():
        known_images.write(run.path / known_images.FILE, records)


@contextlib.contextmanager
def opened_together(
    strategy: tf.distribute.Strategy,
    job: str,
    settings: RunSettings,
    records: Sequence[Record],
    skipped: Sequence[Unreadable],
    results: Sequence[str],
    beside: Sequence[str] = (),
) -> Iterator[tuple[RunDirectory, bool]]:
    """Yields the run, see `opened`, and whether there is something to train.

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
        run = stack.enter_context(opened(job, settings, records, skipped, results, beside))
        with strategy.scope():
            facts = json.dumps([run.record["settings"], run.record["data"]["fingerprint"]], sort_keys=True)
            distribution.check_alike(hashlib.sha256(facts.encode()).hexdigest())
            trains = distribution.said_by_chief(not run.finished and not run.saved_model.exists())
            # What is done at the beginning only must be done by all: augmentation makes variables, of which all talk.
            run.resumed = distribution.said_by_chief(run.resumed)
        if not chief:
            print("The chief writes the run and judges it.", flush=True)
        yield run, trains
