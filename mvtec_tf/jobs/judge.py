"""Judging a table of predictions of any model: figures, pictures and a report that opens anywhere."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.data import leaks, masks, words
from mvtec_tf.data.formats import scan as records_lib
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation import embedding, image_files, predicted, recorded
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.recorded import Judging
from mvtec_tf.evaluation.report import judge
from mvtec_tf.evaluation.report.judge import Extras
from mvtec_tf.evaluation.table import Predictions, read_predictions
from mvtec_tf.evaluation.thresholds import LEAST_COST, SMOOTH_YOUDEN, YOUDEN, Rule
from mvtec_tf.jobs import unread
from mvtec_tf.jobs.report_folder import report_folder
from mvtec_tf.jobs.settings import ExtraSettings, JudgeSettings
from mvtec_tf.run_directory import read_run


def judge_table(settings: JudgeSettings) -> dict[str, Any]:
    """Judges the evaluate rows, and writes the report and what belongs to it.

    Returns:
      The content of `metrics.json`.

    Raises:
      UsageError: settings contradict each other.
      UserError: the table, or what is to be shown beside it, cannot be used.
    """
    settings.check_threshold()
    path = pathlib.Path(settings.predictions)
    if settings.allow_leak:
        _check_study(path)
    predictions = read_predictions(path, settings.allow_leak)
    notes = [("Predictions", f"{path.name}, SHA-256 {files.sha256(path)}.")]
    if predictions.ignored_columns:
        ignored = f"Columns that were not used: {', '.join(predictions.ignored_columns)}."
        notes.append(("Ignored", ignored))
        print(ignored)
    if predictions.columns_unsaid:
        notes.append(("Columns", f"The table has {predictions.columns_unsaid}."))
        print(notes[-1][1])
    if predictions.labels_read:
        notes.append(("Labels read", f"Labels that were read: {predictions.labels_read}."))
        print(notes[-1][1])
    rows = zip(predictions.path, predictions.category, predictions.label.tolist(), strict=True)
    said, others, agree = words.against_folders(
        (path.removeprefix(f"{category}/"), label) for path, category, label in rows
    )
    if others:
        turned = " Are the labels turned round? 1 is defective here." if agree < others else ""
        notes.append(("Labels", f"{said}; {agree} as the folder. The table is believed.{turned}"))
        print(notes[-1][1])
    if predictions.left_out:
        notes.append(("Not judged", f"Rows that cannot be judged: {predicted.in_words(predictions.left_out)}."))
        print(notes[-1][1])
    own = recorded.of_table(path, predictions)
    how = as_judged(settings, own)
    by_whom = _in_words(settings, own, how)
    notes.append(("Threshold", by_whom))
    print(by_whom)
    with report_folder(settings.out, path.parent, settings.data_dir):
        return judge.judge(
            predictions,
            settings.out,
            title=settings.title or path.name,
            notes=notes,
            bootstrap=Bootstrap(settings.resamples, settings.seed),
            allow_leak=settings.allow_leak,
            tensorboard=settings.tensorboard,
            extras=extras(settings, predictions),
            basis=own.basis if own and how["threshold"] is None else "",
            **how,
        )


def as_judged(settings: JudgeSettings, own: Judging | None) -> dict[str, Any]:
    """The arguments `threshold`, `rule` and `costs` of `judge`: as the settings say, and where they do not as `own`.

    Args:
      settings: what was asked for.
      own: how the maker of the table judged it.
    """
    found = {"threshold": settings.threshold} | settings.rule_and_costs()
    if own is None:
        return found
    if settings.threshold is None and settings.threshold_per is None and not settings.threshold_is_given:
        found["threshold"] = own.threshold
        # What was chosen for balanced accuracy gives way to what a person costs; a promise does not.
        if settings.cost_review is None or own.rule.method not in (YOUDEN, SMOOTH_YOUDEN):
            found["rule"] = own.rule
        else:
            found["rule"] = Rule(LEAST_COST, own.rule.per)
    given = {name: getattr(settings, f"cost_{name}") for name in ("miss", "false_alarm", "review")}
    costs = dataclasses.replace(own.costs, **{name: value for name, value in given.items() if value is not None})
    return found | {"costs": costs}


def _in_words(settings: JudgeSettings, own: Judging | None, how: dict[str, Any]) -> str:
    """Who says how the threshold is chosen."""
    with_person = "" if settings.cost_review is None else " where a person's cost is given"
    if own is None and how["threshold"] is None and not settings.threshold_is_given:
        return (
            f"Threshold by the default{with_person}, {how['rule'].method}: no run lies beside this table to say how it "
            "is chosen. Say it with a threshold or a method."
        )
    if own is None:
        return "Threshold and costs as asked for."
    if how == {"threshold": own.threshold, "rule": own.rule, "costs": own.costs}:
        return own.in_words()
    if how["threshold"] is own.threshold and not own.says_costs:
        return dataclasses.replace(own, costs=how["costs"], says_costs=True).in_words()
    return f"Threshold and costs as asked for, which is not what {own.source} says. There: {own.in_words()}"


def _check_study(predictions: pathlib.Path) -> None:
    """A leak is let pass only where a run says of itself that it repeats the study."""
    record = predictions.parent / "run.json"
    found = "no run.json beside the table"
    if record.is_file():
        protocol = read_run(record.parent)["settings"].get("protocol")
        if protocol == "study":
            return
        found = f"a run of the protocol {protocol}"
    raise UsageError(
        f"`allow_leak`: expected the predictions.csv of a run of the protocol study, found {found}. "
        "Of any other table a leak is an error."
    )


def extras(settings: JudgeSettings, table: Predictions) -> Extras:
    """What there is to show beside a table of predictions: images, masks, heat maps, an embedding.

    Args:
      settings: see there.
      table: of which the evaluate rows will be judged.

    Raises:
      UsageError: settings that miss each other.
      UserError: what they name is not there or cannot be used.
    """
    if settings.heatmaps and not settings.data_dir and settings.masks is None:
        raise UsageError("`heatmaps`: with what are they to be compared? Give `data_dir`, or `masks`.")
    if not settings.data_dir:
        unread.refuse(settings, ["categories"], "they are those of `data_dir`, which is not given")
        if not settings.heatmaps:
            unread.refuse(settings, ["masks"], "neither images (`data_dir`) nor `heatmaps` are there to be shown with")
    maps, evaluate = heat_maps(settings.heatmaps), table.part(leaks.EVALUATE)
    files, about_files = {}, ()
    if settings.data_dir or settings.masks is not None:
        files, about_files = image_and_mask_files(settings, table, settings.categories)
    features = None if settings.features is None else embedding.read(settings.features, evaluate)
    return Extras(
        files=files,
        about_files=about_files,
        maps=maps,
        features=features,
        tsne=settings.tsne,
        seed=settings.seed,
        projector=None if settings.tensorboard is None else pathlib.Path(settings.tensorboard),
        say=lambda text: print(text, flush=True),
    )


def image_and_mask_files(
    settings: ExtraSettings, table: Predictions, categories: Sequence[str], records: Sequence[Record] | None = None
) -> tuple[dict[str, ImageFiles], tuple[str, ...]]:
    """The files of a table's evaluate rows, by path, and what must be known of the masks, in sentences, also printed.

    Args:
      settings: where images and masks are.
      table: its other rows have masks of their own.
      categories: only these of the images; empty: all.
      records: the images, where they are known already.

    Raises:
      UserError: the folder of images or of masks holds other images or none.
    """
    files, about, evaluate = {}, (), table.part(leaks.EVALUATE)
    if settings.data_dir:
        found = records_lib.scan(settings.data_dir, categories, say=print) if records is None else records
        files = image_files.from_records(found, evaluate, f"`data_dir`={','.join(settings.data_dir)}")
        about = tuple(masks.sentences(masks.unclaimed(found)))
    if settings.masks is not None:
        files = image_files.with_masks(settings.masks, evaluate, files)
        about = tuple(image_files.unclaimed(settings.masks, table))
    for sentence in about:
        print(sentence)
    return files, about


def heat_maps(texts: Sequence[str]) -> tuple[HeatMaps, ...]:
    """The folders that these texts name, each DIR or NAME=DIR.

    Raises:
      UsageError: two of one name.
      UserError: a folder is missing.
    """
    found = []
    for text in texts:
        # A folder that itself holds "=" is taken as it is.
        name, equals, folder = text.partition("=")
        if not equals or pathlib.Path(text).is_dir():
            name, folder = pathlib.Path(text).name or text, text
        if not name or not folder:
            raise UsageError(f"`heatmaps`={text}: expected DIR or NAME=DIR.")
        if name in {other.name for other in found}:
            raise UsageError(f"`heatmaps`: two folders are called {name!r}. Name them apart with NAME=DIR.")
        found.append(HeatMaps(folder, name))
    return tuple(found)
