"""The whole line on the built-in toy factory, as the very commands that a user would type."""

import csv
import dataclasses
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import Predictions, read_predictions
from mvtec_tf.files import read_json
from mvtec_tf.jobs.settings import QuickstartSettings
from mvtec_tf.ownership import Owned
from mvtec_tf.run_directory import read_run

SUBTLE = "subtle"
_COLUMNS = ("roc_auc", "balanced_accuracy", "f1", "recall", "specificity")
# Method -> where its metrics.json and predictions.csv lie, in the run or in a folder of it.
_METHODS = {
    "mean brightness, logistic": "mean_brightness",
    "16 x 16 pixels, logistic": "grey_pixels",
    "supervised network": "cnn",
    "SimCLR + logistic head": "probe",
    "SimCLR + the study's head": "probe/study_head",
}
_WORDS = (
    "Quickstart on drawn images. To end in minutes on a CPU it uses a small backbone (resnet10) from random\n"
    "weights at a small image size; the real recipes are in flags/ and use ResNet-50 at 224 px."
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
      title: what it is for.
      binary: name in `mvtec_tf.bin`.
      arguments: its flags.
    """

    title: str
    binary: str
    arguments: tuple[str, ...]


def quickstart(settings: QuickstartSettings, more: Sequence[str] = ()) -> None:
    """Runs the whole line and prints its closing table.

    Args:
      settings: where to, and the seed.
      more: flags that every command is given besides its own.

    Raises:
      UserError: a command failed; the same call goes on from there.
    """
    run_dir = pathlib.Path(settings.run_dir)
    with Owned(run_dir, "`run_dir`"):
        print(_WORDS)
        commands = steps(run_dir, settings.saved_models, settings.seed)
        run([dataclasses.replace(step, arguments=(*step.arguments, *more)) for step in commands])
        table = format_table(run_dir)
    print(f"\nOn the same evaluation images (toy factory, seed {settings.seed}):\n\n{table}\n")
    reports = ", ".join(f"{run_dir}/{name}/report.html" for name in ("cnn", "probe", "probe/study_head"))
    models = ", ".join(f"{settings.saved_models}/toy_{name}" for name in ("cnn", "probe", "simclr"))
    print(f"Reports:      {reports}\nSavedModels:  {models}\nTensorBoard:  tensorboard --logdir={run_dir}")
    print(run_dir)


def steps(run_dir: pathlib.Path, saved_models: str, seed: int) -> list[Step]:
    """The commands, in order; each of them resumes or says that it is finished when repeated."""
    data = f"--data_dir={run_dir / 'data'}"
    seeded = f"--seed={seed}"

    def training(title: str, binary: str, flagfile: str, name: str, *more: str) -> Step:
        return Step(title, binary, (f"--flagfile={flagfile}", data, seeded, *more, f"--run_dir={run_dir / name}"))

    def baseline(title: str, features: str) -> Step:
        arguments = (data, seeded, f"--features={features}", f"--run_dir={run_dir / features}")
        return Step(title, "fit_baseline", arguments)

    def export(name: str) -> Step:
        where = (f"--run={run_dir / name}", f"--name=toy_{name}", f"--saved_models={saved_models}")
        return Step(f"Export {name} for TensorFlow Serving", "export", where)

    return [
        Step("Draw the toy factory", "make_toy", (f"--out={run_dir / 'data'}", seeded)),
        baseline("Baseline: logistic regression on mean brightness", "mean_brightness"),
        baseline("Baseline: logistic regression on 16 x 16 pixels", "grey_pixels"),
        training("Train the supervised network with all labels", "train_cnn", "flags/toy_cnn.flags", "cnn"),
        training("Train SimCLR on good images only", "train_simclr", "flags/toy_simclr.flags", "simclr"),
        training(
            "Fit a head on the frozen encoder with 10 % labels",
            "fit_probe",
            "flags/toy_probe.flags",
            "probe",
            f"--encoder={run_dir / 'simclr'}",
            "--study_head",
        ),
        export("cnn"),
        export("probe"),
        export("simclr"),
    ]


def run(commands: list[Step]) -> None:
    """Runs the commands one after the other, showing each.

    Raises:
      UserError: one of them failed; the same call goes on from there.
    """
    for number, step in enumerate(commands, 1):
        command = [sys.executable, "-m", f"mvtec_tf.bin.{step.binary}", *step.arguments]
        print(f"\n[{number}/{len(commands)}] {step.title}", flush=True)
        print(f"$ python {' '.join(command[1:])}", flush=True)
        status = _status(command)
        if status:
            raise UserError(f"{step.title}: the command above ended with status {status}. Repeat it, or all, to go on.")


def _status(command: list[str]) -> int:
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as stopped:
            # The command got the same Ctrl-C, but no SIGTERM: it is given the time to save what it has.
            if getattr(stopped, "number", None) == signal.SIGTERM:
                process.terminate()
            process.wait()
            raise


def format_table(run_dir: pathlib.Path) -> str:
    """The closing table: every method on the same evaluation images, the trivial classifier first."""
    lines = [["method", "labels", "ROC-AUC", "on subtle", "bal. acc.", "F1", "recall", "specificity"]]
    for name, folder in _METHODS.items():
        metrics = read_json(run_dir / folder / "metrics.json")
        if len(lines) == 1:
            trivial = metrics["trivial"]["always_defective"]["overall"]
            lines.append(["call everything defective", "0", *_values(trivial, "0.500")])
        predictions = read_predictions(run_dir / folder / "predictions.csv").part("evaluate")
        subtle = f"{subtle_roc_auc(predictions, run_dir / 'data'):.3f}"
        labels = read_run(run_dir / folder.split("/")[0])["labels_used"]
        lines.append([name, str(labels), *_values(metrics["overall"], subtle)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def subtle_roc_auc(predictions: Predictions, data: pathlib.Path) -> float:
    """ROC-AUC of the subtle defects against all good images among `predictions`.

    Args:
      predictions: evaluate rows on a toy factory.
      data: its folder, whose `CATEGORY/severity.csv` says which defects are subtle.
    """
    severity = {}
    for category in predictions.categories():
        with (data / category / "severity.csv").open(newline="", encoding="utf-8") as file:
            severity |= {f"{category}/{row['path']}": row["severity"] for row in csv.DictReader(file)}
    wanted = np.array(
        [not label or severity[path] == SUBTLE for path, label in zip(predictions.path, predictions.label, strict=True)]
    )
    part = predictions.select(wanted)
    return float(roc_auc_score(part.label, part.score))


def _values(metrics: dict, subtle: str) -> list[str]:
    texts = ["-" if metrics[name]["value"] is None else f"{metrics[name]['value']:.3f}" for name in _COLUMNS]
    return [texts[0], subtle, *texts[1:]]
