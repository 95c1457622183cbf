"""Seconds that a model takes for an image, its file's decoding included, in a process of its own with so many cores."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from mvtec_tf.errors import UserError

# Not every system binds a process to cores.
CAN_MEASURE = hasattr(os, "sched_setaffinity")
# Everything that is computed once is computed by then.
_BEFORE = 3


def measured(model: str, images: Sequence[str], threads: int) -> dict[str, float]:
    """How fast a model is, one image at a time.

    Args:
      model: SavedModel, or a file for another runtime.
      images: files, one after the other.
      threads: cores that its process may use.

    Returns:
      `median`, `p95` and `fastest`, seconds of an image by the clock; `rate`, images a second by the clock;
      `processor`, images a second of the processor: on a machine that does other things too, only this means something.

    Raises:
      UserError: the process failed, or this system binds none to cores.
    """
    if not CAN_MEASURE:
        raise UserError("Speed on so many cores cannot be measured: this system binds no process to cores.")
    cores = sorted(os.sched_getaffinity(0))[:threads]
    command = [sys.executable, "-m", "mvtec_tf.serving.speed", model]
    # Before any library counts the cores.
    done = subprocess.run(
        command,
        input=json.dumps(list(images)),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise UserError(f"{model}: its speed could not be measured ({done.stderr.strip().splitlines()[-1:]}).")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(model: str, images: Sequence[str]) -> dict[str, Any]:
    from mvtec_tf.serving import exchange
    from mvtec_tf.serving.client import LocalModel

    opened = exchange.ExchangeModel(model) if exchange.is_file(model) else LocalModel(model)
    contents = [pathlib.Path(file).read_bytes() for file in images]
    for content in contents[:_BEFORE]:
        opened("serving_default", [content])
    seconds, processor = [], time.process_time()
    for content in contents:
        start = time.perf_counter()
        opened("serving_default", [content])
        seconds.append(time.perf_counter() - start)
    found = {"median": np.median(seconds), "p95": np.quantile(seconds, 0.95), "fastest": min(seconds)}
    found |= {"rate": len(seconds) / sum(seconds), "processor": len(seconds) / (time.process_time() - processor)}
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], json.load(sys.stdin))))
