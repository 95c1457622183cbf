"""The whole line on the built-in toy factory, as the very commands that a user would type."""

import csv
import dataclasses
import pathlib
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

SUBTLE = "subtle"
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


@dataclasses.dataclass(frozen=True)
class Judged:
    """One row of the closing table.

    Attributes:
      name: of the method.
      labels: labelled test images it used, as text.
      directory: where its `metrics.json` and `predictions.csv` lie.
    """

    name: str
    labels: str
    directory: pathlib.Path


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
        except KeyboardInterrupt:
            # The command got the same Ctrl-C: it is given the time to remove what is half-written.
            process.wait()
            raise


def judged(run_dir: pathlib.Path) -> list[Judged]:
    """The methods of the closing table."""
    probe = run_dir / "probe"
    return [
        Judged("mean brightness, logistic", _labels(run_dir / "mean_brightness"), run_dir / "mean_brightness"),
        Judged("16 x 16 pixels, logistic", _labels(run_dir / "grey_pixels"), run_dir / "grey_pixels"),
        Judged("supervised network", _labels(run_dir / "cnn"), run_dir / "cnn"),
        Judged("SimCLR + logistic head", _labels(probe), probe),
        Judged("SimCLR + the study's head", _labels(probe), probe / "study_head"),
    ]


def format_table(run_dir: pathlib.Path) -> str:
    """The closing table: every method on the same evaluation images, the trivial classifier first."""
    columns = ("roc_auc", "balanced_accuracy", "f1", "recall", "specificity")
    header = ["method", "labels", "ROC-AUC", "on subtle", "bal. acc.", "F1", "recall", "specificity"]
    lines = [header]
    for method in judged(run_dir):
        metrics = read_json(method.directory / "metrics.json")
        if len(lines) == 1:
            trivial = metrics["trivial"]["always_defective"]["overall"]
            lines.append(["call everything defective", "0", *_values(trivial, columns, "0.500")])
        predictions = read_predictions(method.directory / "predictions.csv").part("evaluate")
        subtle = f"{subtle_roc_auc(predictions, run_dir / 'data'):.3f}"
        lines.append([method.name, method.labels, *_values(metrics["overall"], columns, subtle)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
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


def _labels(run_dir: pathlib.Path) -> str:
    return str(read_json(run_dir / "run.json")["labels_used"])


def _values(metrics: dict, columns: tuple[str, ...], subtle: str) -> list[str]:
    texts = ["-" if metrics[name]["value"] is None else f"{metrics[name]['value']:.3f}" for name in columns]
    return [texts[0], subtle, *texts[1:]]
