"""Judging a table of predictions of any model: figures, pictures and a report that opens anywhere."""

import dataclasses
import pathlib
from typing import Any

from mvtec_tf import files
from mvtec_tf.data import words
from mvtec_tf.errors import UsageError
from mvtec_tf.evaluation import predicted, recorded
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.recorded import Judging
from mvtec_tf.evaluation.report import judge
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.evaluation.thresholds import LEAST_COST, SMOOTH_YOUDEN, YOUDEN, Rule
from mvtec_tf.jobs import extras
from mvtec_tf.jobs.report_folder import report_folder
from mvtec_tf.jobs.settings import JudgeSettings
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
    with report_folder(settings.out, path.parent):
        shown = extras.extras(settings, predictions)
        return judge.judge(
            predictions,
            settings.out,
            title=settings.title or path.name,
            notes=notes,
            bootstrap=Bootstrap(settings.resamples, settings.seed),
            allow_leak=settings.allow_leak,
            tensorboard=settings.tensorboard,
            extras=shown,
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
