"""Checks a machine with a GPU: both trainings, its scores beside the CPU's, and the cost in each number format.

Example:
  python -m tools.gpu_check --out=results/gpu
"""

import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mvtec_tf.bin import entry
from mvtec_tf.errors import UserError
from mvtec_tf.ownership import Owned

# Of the standard deviation of the scores: as far as two processors may lie apart in float32.
_APART = 1e-3
_FORMATS = [(name, jit) for name in ("float32", "bfloat16") for jit in ("off", "on")]
_COSTS = ("cnn", "simclr", "infer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What is checked.

    Attributes:
      out: new folder for the toy factory, the runs and costs.json.
      on_cpu: check the check itself, on a machine without a GPU.
      epochs: epochs of both trainings.
      backbone: network of the jobs whose cost is measured.
      image_size: side in pixels of what they see.
      rounds: measurements of each job, of which the median counts.
      seed: random seed of the factory and the trainings.
    """

    out: str
    on_cpu: bool = False
    epochs: int = dataclasses.field(default=5, metadata={"least": 1})
    backbone: str = "resnet50"
    image_size: int = dataclasses.field(default=224, metadata={"least": 32})
    rounds: int = dataclasses.field(default=3, metadata={"least": 1})
    seed: int = dataclasses.field(default=0, metadata={"least": 0})


def main(asked: CheckSettings) -> None:
    """Prints a line for each step, and a table of costs.

    Raises:
      UserError: there is no GPU, or its scores are not the CPU's.
    """
    import tensorflow as tf

    from mvtec_tf import files

    found = [tf.config.experimental.get_device_details(one).get("device_name", one.name)
             for one in tf.config.list_physical_devices("GPU")]
    if not found and not asked.on_cpu:
        raise UserError("TensorFlow sees no GPU here. See the tensorflow[and-cuda] package; `on_cpu` tries the check.")
    out = pathlib.Path(asked.out)
    with Owned(out, "`out`"):
        print(f"TensorFlow {tf.__version__}; {', '.join(found) or 'no GPU'}.", flush=True)
        apart = _train_and_compare(asked, out)
        costs = _costs(asked, out)
        files.write_json(out / "costs.json", {"devices": found, "scores_apart": apart, "costs": costs})
        print(_table(costs))
        print(out / "costs.json")
        if apart > _APART:
            raise UserError(f"The scores lie {apart:.2g} standard deviations apart, more than {_APART:g}.")


def _train_and_compare(asked: CheckSettings, out: pathlib.Path) -> float:
    """Trains both, and says how far the scores of the supervised network lie apart: the largest difference between this
    process's device and the CPU, in standard deviations of the scores."""
    model, data = _train(asked, out), out / "data"
    scores = [_scores(model, data, out / f"{name}.csv", env) for name, env in (
        ("here", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": "-1"})
    )]
    spread = statistics.pstdev(scores[1].values()) or 1.0
    apart = max(abs(scores[0][path] - scores[1][path]) for path in scores[1]) / spread
    print(f"Scores of {len(scores[1])} images lie at most {apart:.2g} standard deviations from the CPU's.", flush=True)
    return apart


def _train(asked: CheckSettings, out: pathlib.Path) -> pathlib.Path:
    """Draws the factory, trains both, and exports the supervised network."""
    from mvtec_tf.data.toy.factory import write_toy_factory
    from mvtec_tf.jobs.export import export_run
    from mvtec_tf.jobs.pretrain import pretrain
    from mvtec_tf.jobs.settings import PretrainSettings, TrainClassifierSettings
    from mvtec_tf.jobs.train_classifier import train_classifier
    from mvtec_tf.serving.settings import ExportSettings

    data = out / "data"
    write_toy_factory(data, seed=asked.seed, image_size=asked.image_size, train_good=64, test_good=16, per_defect=12)
    shared = {"data_dir": (str(data),), "backbone": "resnet10", "weights": "none", "image_size": 96, "batch_size": 32}
    shared |= {"epochs": asked.epochs, "seed": asked.seed}
    pretrain(PretrainSettings(**shared, run_dir=str(out / "simclr")))
    shared |= {"run_dir": str(out / "cnn"), "trainable_stages": 5, "label_budget": "all"}
    train_classifier(TrainClassifierSettings(**shared))
    return export_run(ExportSettings(run=str(out / "cnn"), name="cnn", saved_models=str(out / "saved_models")))


def _scores(
    model: pathlib.Path, data: pathlib.Path, table: pathlib.Path, environment: Mapping[str, str]
) -> dict[str, float]:
    """path -> score, by `predict` in a process of its own."""
    from mvtec_tf.evaluation import predicted

    command = [sys.executable, "-m", "mvtec_tf", "predict", str(data), f"--model={model}", f"--out={table}"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"predict failed: {done.stderr[-1000:]}")
    return {row["path"]: float(row["score"]) for _, row in predicted.open_table(table, ("path", "score"))}


def _costs(asked: CheckSettings, out: pathlib.Path) -> list[dict[str, Any]]:
    from mvtec_tf.data.formats import scan
    from tools import job_cost

    data, rows = (str(out / "data"),), []
    for number_format, jit in _FORMATS:
        work = job_cost.Work(
            scan.scan(data, ()), data, (), "none", asked.backbone, asked.image_size, number_format, asked.seed, jit
        )
        # An export has no XLA of its own.
        jobs = [job for job in _COSTS if jit == "off" or job != "infer"]
        measured = job_cost.measure(jobs, work, asked.rounds, "", lambda text: print(text, flush=True))
        rows += [{"job": job, "precision": number_format, "xla": jit, **measured[job]} for job in jobs]
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'job':8} {'format':9} {'XLA':4} {'images/s':>9} {'of the matrix rate':>19}"]
    for row in rows:
        share = f"{row['share_of_peak']:.0%}"
        lines.append(
            f"{row['job']:8} {row['precision']:9} {row['xla']:4} {row['images_per_second']:9.1f} {share:>19}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main, CheckSettings)
