"""Kills both trainings at random moments (SIGKILL), resumes them, and compares their ends with uninterrupted ones.

Example:
  python -m tools.kill_training --out=results/killed --kills=10
"""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys
import time

import numpy as np

from mvtec_tf.bin import entry
from mvtec_tf.errors import UserError
from mvtec_tf.ownership import Owned

_SMALL = (
    *("--backbone=resnet10", "--weights=none", "--image_size=32", "--batch_size=4", "--precision=float32"),
    "--epochs=8",
)
# Job -> its flags, and the files that its end is known by; the logs of all epochs come on top.
_JOBS = {
    "train_cnn": (("--trainable_stages=5", "--patience=8"), ("predictions.csv", "metrics.json")),
    "train_simclr": (
        ("--projection_hidden=32", "--projection_dimensions=16", "--passes_per_epoch=2"),
        ("saved_model/variables/variables.data-00000-of-00001",),
    ),
}
# A training that writes down when each step was done.
_CHILD = """
import os, runpy, sys, time
from mvtec_tf.training import callbacks
steps = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
count = callbacks.Position.on_train_batch_end
def on_train_batch_end(self, batch, logs=None):
    count(self, batch, logs)
    os.write(steps, f"{self.epoch * self.steps + self.step} {self.steps} {time.monotonic()}\\n".encode())
callbacks.Position.on_train_batch_end = on_train_batch_end
runpy.run_module(f"mvtec_tf.bin.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KillSettings:
    """How often, and how much may be lost.

    Attributes:
      out: new folder for the data and the runs.
      kills: kills of each training; half of the moments are counted from the start of the process, half from its first
        step.
      checkpoint_minutes: minutes between two checkpoints within an epoch.
      seed: random seed of the moments and of the trainings.
    """

    out: str
    kills: int = dataclasses.field(default=10, metadata={"least": 1})
    checkpoint_minutes: float = dataclasses.field(default=0.02, metadata={"above": 0})
    seed: int = dataclasses.field(default=0, metadata={"least": 0})


def main(settings: KillSettings) -> None:
    """Prints a line for each kill and each end.

    Raises:
      UserError: an end differs, a resumed training fails, or more is lost than was promised.
    """
    from mvtec_tf.data.toy.factory import write_toy_factory

    out = pathlib.Path(settings.out)
    with Owned(out, "`out`"):
        data = out / "data"
        write_toy_factory(data, seed=settings.seed, image_size=64, train_good=16, test_good=8, per_defect=6)
        wrong = [line for name in _JOBS for line in _kill(settings, out, data, name)]
    if wrong:
        raise UserError("; ".join(wrong))
    print("All ends are equal, and nothing was lost beyond the promise.")


def _kill(settings: KillSettings, out: pathlib.Path, data: pathlib.Path, name: str) -> list[str]:
    """Kills and resumes runs of a job until there were enough kills. Returns what was wrong."""
    rng, left, wrong = np.random.default_rng(settings.seed), settings.kills, []
    started = time.monotonic()
    whole = out / "whole" / name
    _Process(settings, name, data, whole).ends(None, None)
    took, expected = time.monotonic() - started, _end(whole, name)
    training = np.ptp([at for _, _, at in _steps(whole)])
    print(f"{name}: uninterrupted in {took:.0f} s, {training:.0f} s from the first step to the last.", flush=True)
    number = 0
    while left:
        number += 1
        run = out / str(number) / name  # its name stands in the heading of its report
        while True:
            process = _Process(settings, name, data, run)
            early = rng.random() < 0.5
            moment = rng.uniform(0, took if early else training)
            if process.ends(*((None, None) if not left else (moment, None) if early else (None, moment))):
                break
            left -= 1
            lost, seconds, longest = _lost(run, process.started)
            promised = 60 * settings.checkpoint_minutes + longest
            print(f"{name} run {number}: killed, {lost} steps of {seconds:.1f} s lost.", flush=True)
            if seconds > promised:
                wrong.append(f"{run}: {seconds:.1f} s lost, and {promised:.1f} s promised")
        same = _end(run, name) == expected
        print(f"{name} run {number}: ended, {'equal' if same else 'NOT EQUAL'}.", flush=True)
        wrong += [] if same else [f"{run}: not equal to {whole}"]
    return wrong


class _Process:
    """A training in a process of its own.

    Args:
      settings: of the tool.
      name: of the job.
      data: folder of the images.
      run: run directory; steps and output are written beside it.
    """

    def __init__(self, settings: KillSettings, name: str, data: pathlib.Path, run: pathlib.Path) -> None:
        flags = (f"--data_dir={data}", f"--run_dir={run}", f"--seed={settings.seed}", *_SMALL, *_JOBS[name][0])
        every = f"--checkpoint_minutes={settings.checkpoint_minutes}"
        self._run = run
        run.parent.mkdir(exist_ok=True)
        self.started = time.monotonic()
        with run.with_suffix(".log").open("a", encoding="utf-8") as log:
            command = [sys.executable, "-c", _CHILD, str(run.with_suffix(".steps")), name, *flags, every]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def ends(self, from_start: float | None, from_first_step: float | None) -> bool:
        """Whether the training comes to its end before it is killed, so many seconds after the one or the other.

        Raises:
          UserError: it failed.
        """
        try:
            while self._process.poll() is None:
                now = time.monotonic()
                first = next((at for _, _, at in _steps(self._run) if at > self.started), now)
                if from_start is not None and now - self.started > from_start:
                    self._process.kill()
                if from_first_step is not None and now - first > from_first_step:
                    self._process.kill()
                time.sleep(0.01)
        finally:
            self._process.kill()  # where this tool itself is stopped
        if self._process.returncode > 0:
            raise UserError(f"{self._run}: ended with {self._process.returncode}; see its log.")
        return self._process.returncode == 0


def _steps(run: pathlib.Path) -> list[tuple[int, int, float]]:
    """(steps of the whole run, steps of an epoch, when it was done) of every step that any process has done."""
    file = run.with_suffix(".steps")
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
    return [(int(step), int(steps), float(at)) for step, steps, at in map(str.split, lines)]


def _lost(run: pathlib.Path, started: float) -> tuple[int, float, float]:
    """Steps that a killed process has done beyond the newest checkpoint, the seconds that they took, and the longest
    two steps of it, saving among them."""
    from mvtec_tf.training.checkpoints import place

    done = [(step, of_epoch, at) for step, of_epoch, at in _steps(run) if at > started]
    if not done or (run / "saved_model").exists():
        return 0, 0.0, 0.0
    places = [place(path) for path in (run / "checkpoints").glob("epoch_*")]
    saved = max((epochs * done[0][1] + steps for epochs, steps in places), default=0)
    times = [at for _, _, at in done]
    beyond = [at for step, _, at in done if step > saved]
    before = [at for step, _, at in done if step <= saved] or times[:1]
    lost = beyond[-1] - before[-1] if beyond else 0.0
    return len(beyond), lost, 2 * float(np.max(np.diff(times), initial=0.0))


def _end(run: pathlib.Path, name: str) -> list[object]:
    """What an end is known by."""
    from mvtec_tf.run_directory import read_finished

    files = [hashlib.sha256((run / file).read_bytes()).hexdigest() for file in _JOBS[name][1]]
    return [read_finished(run)["history"], *files]


if __name__ == "__main__":
    entry.run(main, KillSettings)
