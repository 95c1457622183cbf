"""Training by several replicas: on the GPUs of a machine, or on machines that TF_CONFIG names.

All replicas take every step together and hold the same weights. Of several machines the first, the chief, alone reads
and writes the run; what it has read, it sends to the others.
"""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas
from mvtec_tf.training import cluster as cluster_lib

# What a collective op ends with when one of those that it waits for is gone.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def opened(choice: str, batch_size: int, jit: str) -> tf.distribute.Strategy:
    """The strategy of a setting `strategy`. With several machines it must come before anything else of TensorFlow.

    Args:
      choice: auto, one, mirrored or multi_worker.
      batch_size: images a step, of all replicas.
      jit: whether steps are compiled: auto, on or off.

    Raises:
      UsageError: there is not what it asks for, the replicas do not divide the batch, or steps are to be compiled.
      UserError: the other machines cannot be reached.
    """
    strategy = _strategy(choice)
    count = strategy.num_replicas_in_sync
    if batch_size % count:
        near = sorted({max(batch_size // count, 1) * count, (batch_size // count + 1) * count})
        raise UsageError(
            f"`batch_size`={batch_size}: {count} replicas do not divide it. Use {' or '.join(map(str, near))}."
        )
    if count > 1 and jit == "on":
        raise UsageError(f"`jit`=on: the steps of {count} replicas are not compiled. Leave it out.")
    if count > 1:
        print(f"{count} replicas, {batch_size // count} of {batch_size} images of a step each.", flush=True)
    return strategy


# Two of one process would count their exchanges from the same number, and be taken for one another.
@functools.cache
def _strategy(choice: str) -> tf.distribute.Strategy:
    cluster = cluster_lib.asked_for(choice)
    if cluster is not None:
        others = ", ".join(worker for number, worker in enumerate(cluster.workers) if number != cluster.index)
        print(f"Worker {cluster.index} of {len(cluster.workers)}; waits for {others}.", flush=True)
        with said_if_gone():
            return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if choice == cluster_lib.MIRRORED:
        # Several CPUs of one machine are there only where somebody has divided it.
        devices = gpus if len(gpus) > 1 else tf.config.list_logical_devices("CPU")
        if len(devices) < 2:
            raise UsageError(
                f"`strategy`={choice}: TensorFlow sees {counted(len(gpus), 'GPU')} here, and one replica "
                "would be all. Use `strategy`=one, or several machines: `strategy`=multi_worker."
            )
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if choice == cluster_lib.AUTO and len(gpus) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in gpus])
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Whether this process writes the run; with one machine it does."""
    return (strategy or tf.distribute.get_strategy()).extended.should_checkpoint


def mine() -> list[int]:
    """The places of this process' replicas among all."""
    if replicas.count() == 1:
        return [0]
    found: list[int] = []

    def note(value: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        found.append(value.replica_id_in_sync_group)
        return tf.zeros([])

    tf.distribute.get_strategy().experimental_distribute_values_from_function(note)
    return found


def local(variable: keras.Variable) -> np.ndarray:
    """A variable as this process' first replica has it: read as a whole, one that sums would ask all machines."""
    return tf.distribute.get_strategy().experimental_local_results(variable.value)[0].numpy()


def from_chief(values: np.ndarray) -> np.ndarray:
    """The chief's values, on every machine; all must ask at the same time, with values of one shape and type."""
    return _summed(values if is_chief() else np.zeros_like(values), mine()[0]) if several_machines() else values


def said_by_chief(value: Any) -> Any:
    """The chief's JSON value, on every machine."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    size = int(from_chief(np.array(len(text), np.int32)))
    return json.loads(bytes(from_chief(np.resize(text, size)).astype(np.uint8)))


def by_any(number: int | None) -> int | None:
    """The largest of all machines' numbers, None for none: a signal that one of them has got is heard by all."""
    if not several_machines():
        return number
    given, first = np.zeros(replicas.count(), np.int32), mine()[0]
    given[first] = number or 0
    return int(_summed(given, first).max()) or None


def _summed(values: np.ndarray, first: int) -> np.ndarray:
    """The sum of what all machines give, on each of them; `first` is the place of this one's first replica."""
    strategy, sent = tf.distribute.get_strategy(), tf.constant(values)
    # A machine's replicas would each send the same: one does.
    placed = strategy.experimental_distribute_values_from_function(
        lambda value: sent if value.replica_id_in_sync_group == first else tf.zeros_like(sent)
    )
    return strategy.reduce(tf.distribute.ReduceOp.SUM, placed, axis=None).numpy()


def check_alike(facts: str) -> None:
    """Raises UserError on every machine if not all were given the same settings and images.

    Args:
      facts: a SHA-256 in hex of what must be the same.
    """
    said = said_by_chief(facts)
    # 0 and 1: a signal's number that nobody sends.
    if by_any(int(said != facts)):
        raise UserError(
            "The workers were started with other settings or other images than the chief: nothing is trained. Give "
            "all of them the same command and the same files."
        )


def share(variables: Sequence[keras.Variable]) -> None:
    """Gives every machine the chief's numbers."""
    if several_machines():
        for variable in variables:
            variable.assign(from_chief(local(variable)))


def fitter(model: keras.Model) -> Callable[..., None]:
    """`model.fit`, for a dataset of whole batches; with several replicas by a loop of its own.

    Keras' own adds up the logs of several machines along an axis that numbers do not have, and reads a batch of images
    by their mean to build what is built.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        # The dataset is shuffled already.
        return lambda batches, **how: model.fit(batches, shuffle=False, verbose=0, **how)

    @tf.function(autograph=False)
    def step(batch: Any) -> dict[str, tf.Tensor]:
        logs = strategy.run(model.train_step, args=(batch,))
        # They are of the whole batch, and the same everywhere.
        return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    def fit(
        batches: tf.data.Dataset,
        initial_epoch: int,
        epochs: int,
        steps_per_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        hooks, source = keras.callbacks.CallbackList(list(callbacks), model=model), iter(batches)
        model.stop_training = False
        hooks.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            model.reset_metrics()
            hooks.on_epoch_begin(epoch)
            logs: dict[str, float] = {}
            for number in range(steps_per_epoch):
                hooks.on_train_batch_begin(number)
                batch = strategy.experimental_distribute_values_from_function(lambda _: next(source))
                logs = {name: float(value) for name, value in step(batch).items()}
                hooks.on_train_batch_end(number, logs)
            hooks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        hooks.on_train_end(logs)

    return fit


def predictor(model: keras.Model) -> Callable[[np.ndarray, int], np.ndarray]:
    """(images [N, ...], batch size) -> what the model makes of them; each replica looks at its part of a batch, and
    all get the whole."""
    strategy, count = tf.distribute.get_strategy(), replicas.count()
    if count == 1:
        return lambda images, batch_size: model.predict(images, batch_size=batch_size, verbose=0)

    @tf.function(autograph=False)
    def forward(batch: tf.Tensor) -> tf.Tensor:
        outputs = strategy.run(lambda images: replicas.gathered(model(images, training=False)), args=(batch,))
        return strategy.experimental_local_results(outputs)[0]

    def predict(images: np.ndarray, batch_size: int) -> np.ndarray:
        found = []
        for start in range(0, len(images), batch_size):
            rows = np.arange(start, min(start + batch_size, len(images)))
            # The last batch is filled up with images that it has already.
            parts = np.split(np.resize(rows, -(-len(rows) // count) * count), count)
            batch = strategy.experimental_distribute_values_from_function(
                lambda value, parts=parts: tf.constant(images[parts[value.replica_id_in_sync_group]])
            )
            found.append(forward(batch).numpy()[: len(rows)])
        return np.concatenate(found)

    return predict


@contextlib.contextmanager
def said_if_gone(strategy: tf.distribute.Strategy | None = None) -> Iterator[None]:
    """Says in words that another machine is gone, in place of what a collective op ends with.

    Args:
      strategy: of the training; None: several machines, that are about to meet.

    Raises:
      UserError: that.
    """
    try:
        yield
    except _GONE as error:
        if strategy is not None and not several_machines(strategy):
            raise
        found = re.search(r"(Collective ops is aborted by: .+)", error.message)
        reason = (found[1] if found else error.message.partition("\n")[0])[:200]
        raise UserError(
            f"Another worker has ended, or cannot be reached any more; what it said last says why ({reason}). Start "
            "the same command on all workers again: they go on from the last checkpoint, if there is one."
        ) from error


def several_machines(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Whether replicas are elsewhere too."""
    strategy = strategy or tf.distribute.get_strategy()
    count = strategy.num_replicas_in_sync
    # One that is alone does not know its devices.
    return count > 1 and count > len(strategy.extended.worker_devices)
