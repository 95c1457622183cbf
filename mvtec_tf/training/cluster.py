"""The machines that train one network together, as the environment variable TF_CONFIG names them.

No TensorFlow here, so that a command line is checked at once.
"""

import dataclasses
import json
import os
from typing import Any

from mvtec_tf.errors import UsageError

VARIABLE = "TF_CONFIG"
MIRRORED, MULTI_WORKER, AUTO = "mirrored", "multi_worker", "auto"
_FORM = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
# The jobs that train, the chief first where one is called so.
_TRAIN = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers, and which of them this process is.

    Attributes:
      workers: HOST:PORT of each; the first is the chief, which alone writes.
      index: place of this process among them.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run."""
        return self.index == 0


def named() -> Cluster | None:
    """The cluster of TF_CONFIG, or None where it is not set.

    Raises:
      UsageError: it is no JSON, or not of the form that `tf.distribute` expects.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: not readable as JSON ({error}). Expected {_FORM}.") from error
    if found == {}:
        return None
    jobs, task = (found.get(name) if isinstance(found, dict) else None for name in ("cluster", "task"))
    if not _is_jobs(jobs) or not isinstance(task, dict):
        raise UsageError(f"{VARIABLE}={text}: expected {_FORM}.")
    if other := sorted(set(jobs) - set(_TRAIN)):
        raise UsageError(
            f"{VARIABLE}: the cluster has {', '.join(other)}, which this program does not know. Expected only "
            f"{' and '.join(_TRAIN)}."
        )
    places = [(job, number) for job in _TRAIN for number in range(len(jobs.get(job, ())))]
    workers = tuple(jobs[job][number] for job, number in places)
    mine = (task.get("type"), task.get("index"))
    if mine not in places:
        known = ", ".join(f"{job} {number}" for job, number in places)
        raise UsageError(f"{VARIABLE}: the task is {mine[0]} {mine[1]}, and the cluster has {known}.")
    if len(set(workers)) < len(workers) or not all(":" in worker for worker in workers):
        raise UsageError(f"{VARIABLE}: the workers are {', '.join(workers)}. Expected HOST:PORT, each another one.")
    return Cluster(workers, places.index(mine))


def asked_for(strategy: str) -> Cluster | None:
    """The cluster that a setting `strategy` trains on; None: this process alone.

    Raises:
      UsageError: TF_CONFIG cannot be read, or names no several workers where `strategy` asks for them.
    """
    if strategy not in (AUTO, MULTI_WORKER):
        return None
    cluster = named()
    several = cluster is not None and len(cluster.workers) > 1
    if strategy == MULTI_WORKER and not several:
        said = f"names {cluster.workers[0]} alone" if cluster else "is not set"
        raise UsageError(
            f"`strategy`={MULTI_WORKER}: the environment variable {VARIABLE} {said}. On every machine it names all "
            f"of them and which one this is: {_FORM}."
        )
    return cluster if several else None


def _is_jobs(jobs: Any) -> bool:
    return (
        isinstance(jobs, dict)
        and any(jobs.get(job) for job in _TRAIN)
        and all(isinstance(ones, list) and all(isinstance(one, str) for one in ones) for ones in jobs.values())
    )
