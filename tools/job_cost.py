"""What the jobs that take the time cost on photographs: images a second, share of what the machine can do, memory."""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.features import extract
from mvtec_tf.features.feature_graph import FeatureSettings
from mvtec_tf.features.recipe import FEW_LABELS
from mvtec_tf.graphs import saved_model
from mvtec_tf.graphs.thresholded import ThresholdedModel, Thresholds
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.keras_settings import keras
from mvtec_tf.label_efficiency.cell import PeakMemory
from mvtec_tf.networks.backbone import Backbone, build_backbone
from mvtec_tf.networks.classifier import build_classifier
from mvtec_tf.networks.copies import BFLOAT16, in_bfloat16
from mvtec_tf.networks.fold import fold_batch_norm
from mvtec_tf.serving import batch
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.predict import requests_at_once
from mvtec_tf.serving.settings import PredictSettings
from mvtec_tf.training import contrastive, loop, precision, supervised
from mvtec_tf.training.settings import ContrastiveSettings, SupervisedSettings

# Steps that are timed after those in which graphs are made and caches filled.
_WARM, _STEPS = 2, 4
_MATRIX_SIDE, _MATRIX_TRIES = 2048, 5
# Images of the linear probe, as a peer that trains it for some epochs on as many.
_PROBE_IMAGES = 128

Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """What is measured on.

    Attributes:
      records: photographs of one or more categories.
      data_dir: where they are.
      categories: their names.
      weights: of the networks, as for `--weights`.
      backbone: of the networks.
      image_size: side in pixels of what they see; the recipe has its own.
      precision: auto, float32 or bfloat16.
      seed: random seed.
      jit: whether training steps are compiled with XLA: auto, on or off.
    """

    records: Sequence[Record]
    data_dir: tuple[str, ...]
    categories: tuple[str, ...]
    weights: str
    backbone: str
    image_size: int
    precision: str
    seed: int
    jit: str = "auto"

    @property
    def partial(self) -> bool:
        """Whether the weights are a file, which may be another network's."""
        return self.weights not in ("none", "imagenet")

    @property
    def number_format(self) -> str:
        """float32 or bfloat16."""
        return precision.of_graph(self.precision)


def measure(jobs: Sequence[str], work: Work, rounds: int, peer: str, say: Callable[[str], None]) -> Measured:
    """Job -> medians over the rounds; with a peer it is run after each round, and the ratio of the medians is given."""
    peaks = {name: matrix_rate(name) for name in sorted({"float32", work.number_format})}
    say(", ".join(f"matrix products in {name}: {rate / 1e9:.0f} GFLOP/s" for name, rate in peaks.items()))
    document: Measured = {}
    for job in jobs:
        with contextlib.ExitStack() as stack:
            once = JOBS[job](work, stack)
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(once())
                if peer and job in _OF_A_PEER:
                    theirs.append(_of_peer(peer, job))
        document[job] = _together(ours, peaks[work.number_format]) | {"precision": work.number_format}
        if theirs:
            document[job] |= _ratio(document[job], theirs)
        say(f"{job}: {json.dumps(document[job])}")
    return document | {"matrix_flop_per_second": peaks}


def matrix_rate(name: str) -> float:
    """The best rate of a large matrix product in a number format, floating-point operations a second."""
    one = tf.cast(tf.random.normal([_MATRIX_SIDE, _MATRIX_SIDE]), name)
    times = []
    for _ in range(_MATRIX_TRIES):
        start = time.perf_counter()
        tf.matmul(one, one).numpy()
        times.append(time.perf_counter() - start)
    return 2 * _MATRIX_SIDE**3 / min(times)


def forward_operations(model: keras.Model) -> float:
    """Floating-point operations of one image through the convolutions and dense layers of a flat network."""
    return sum(map(_operations_of, model.layers))


def _infer(work: Work, stack: contextlib.ExitStack) -> Callable[[], Measured]:
    """From files to verdicts by an export of the supervised network, as `predict` asks it."""
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    loop.make_deterministic(work.seed)
    model = fold_batch_norm(build_classifier(_backbone(work))).model
    operations = forward_operations(model)
    model = in_bfloat16(model) if work.number_format == BFLOAT16 else model
    card = {"kind": "classifier", "image_size": work.image_size, "max_pixels": 10**8}
    saved_model.write_folded(folder / "model", model, card)
    exported = ThresholdedModel(saved_model.load(folder / "model"), Thresholds(0.0, "any"))
    tf.saved_model.save(exported, str(folder / "export"), signatures=exported.signatures())
    judge = batch.Judge(LocalModel(folder / "export"))
    files = [record.file for record in work.records]
    asked = PredictSettings(out="table.csv", paths=("any",), model="any")
    judge(files[: asked.images_asked])

    def once() -> Measured:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as name, batch.Journal(
            pathlib.Path(name) / "table.csv", batch.COLUMNS, "csv"
        ) as table:
            batch.judge_files(judge, files, table, asked.images_asked, requests_at_once(asked))
        return _rate(len(files), time.perf_counter() - start, operations)

    return once


def _cnn(work: Work, stack: contextlib.ExitStack) -> Callable[[], Measured]:
    """A training step of the supervised network, images decoded already."""
    del stack
    settings = SupervisedSettings(
        batch_size=min(64, len(work.records)), epochs=1000, trainable_stages=2, **_of_training(work)
    )
    size = settings.batch_size
    images = ImageStore(work.image_size).load(work.records)
    labels = np.array([record.label for record in work.records])
    with _built(settings, supervised.network_of) as network:
        model = supervised.compiled(network, settings, labels, jit=precision.resolve_jit(work.jit))
    return _steps(model, network, supervised.batches(images, labels, settings), size, 1)


def _simclr(work: Work, stack: contextlib.ExitStack) -> Callable[[], Measured]:
    """A training step of SimCLR; an image is two views."""
    del stack
    good = [record for record in work.records if record.split == "train"]
    settings = ContrastiveSettings(
        batch_size=min(48, len(good)), epochs=1000, **_of_training(work)
    )
    size = settings.batch_size
    images = ImageStore(work.image_size).load(good)
    with _built(settings, contrastive.network_of) as network:
        model = contrastive.compiled(network, settings, len(images), jit=precision.resolve_jit(work.jit))
    batches = contrastive.batches(images, settings)
    return _steps(model, network, batches, size, 2)


def _probe(work: Work, stack: contextlib.ExitStack) -> Callable[[], Measured]:
    """Features of a frozen encoder once, and logistic regression on them."""
    encoder, records = _encoder(work, stack), list(work.records[:: max(len(work.records) // _PROBE_IMAGES, 1)])
    records = records[:_PROBE_IMAGES]

    def once() -> Measured:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            stages = tuple(saved_model.read_card(encoder)["middle_stages"])
            store = extract.extract(encoder, records, FeatureSettings(stages), pathlib.Path(folder) / "features")
            fit_probe(Logistic, store.of(records), records, work.seed)
        return {"seconds": time.perf_counter() - start}

    return once


def _few_labels(work: Work, stack: contextlib.ExitStack) -> Callable[[], Measured]:
    """The recommended recipe from files to a report, with a tenth of the labels."""
    del stack

    def once() -> Measured:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            fit(
                FitSettings(
                    data_dir=work.data_dir, categories=work.categories, weights=work.weights, recipe=FEW_LABELS,
                    run_dir=f"{folder}/run", label_budget="0.1", precision=work.number_format, seed=work.seed,
                )
            )
        return {"seconds": time.perf_counter() - start}

    return once


JOBS: Mapping[str, Callable[[Work, contextlib.ExitStack], Callable[[], Measured]]] = {
    "infer": _infer,
    "cnn": _cnn,
    "simclr": _simclr,
    "probe": _probe,
    "few_labels": _few_labels,
}
_OF_A_PEER = ("infer", "cnn", "simclr", "probe")


def _of_training(work: Work) -> dict[str, Any]:
    """The settings that both trainings share."""
    number_format = "mixed_bfloat16" if work.number_format == BFLOAT16 else "float32"
    own = {"backbone": work.backbone, "weights": work.weights, "weights_partial": work.partial}
    return own | {"image_size": work.image_size, "precision": number_format, "seed": work.seed}


def _backbone(work: Work) -> Backbone:
    return build_backbone(work.backbone, work.image_size, work.weights, weights_partial=work.partial)


@contextlib.contextmanager
def _built(settings: Any, make: Callable[[Any], tuple]) -> Iterator[keras.Model]:
    loop.make_deterministic(settings.seed)
    with precision.dtype_policy(settings.precision):
        yield make(settings)[0]


def _encoder(work: Work, stack: contextlib.ExitStack) -> pathlib.Path:
    path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) / "encoder"
    loop.make_deterministic(work.seed)
    card = {"run": {}, "pretrain_images": []}
    saved_model.write_encoder(path, _backbone(work), card, precision=work.number_format)
    return path


def _steps(
    model: keras.Model, network: keras.Model, batches: tf.data.Dataset, images: int, views: int
) -> Callable[[], Measured]:
    """Median of steps on the pipeline, each time; what a step consists of is measured the first time only."""
    parts: Measured = {}
    trained = sum(_operations_of(layer) for layer in network.layers if layer.trainable)
    # Backward: the gradient by the input and by the weights, each as much as forward, of what is trained.
    operations = views * (forward_operations(network) + 2 * trained)

    def once() -> Measured:
        memory = PeakMemory()
        whole = _median_step(model, batches)
        if not parts:
            parts.update(_parts(model, network, batches, views, whole))
            parts["peak_mb"] = memory.megabytes()
        return _rate(images, whole, operations) | parts

    return once


def _parts(
    model: keras.Model, network: keras.Model, batches: tf.data.Dataset, views: int, whole: float
) -> Measured:
    """What a step of `whole` seconds consists of, by steps on a batch that lies in memory."""
    one = next(iter(batches))
    resident = _median_step(model, tf.data.Dataset.from_tensors(one).repeat())
    pixels = one[0] if views == 1 else tf.concat(one, axis=0)
    forward = _median(tf.function(lambda: network(pixels, training=True)))
    gradients = _median(tf.function(lambda: _gradients(network, pixels)))
    return {
        "step_over_resident": whole / resident,
        "seconds_of_a_step": {
            "input": max(whole - resident, 0.0),
            "forward": forward,
            "backward": max(gradients - forward, 0.0),
            "update": max(resident - gradients, 0.0),
        },
    }


def _operations_of(layer: keras.layers.Layer) -> float:
    kernel = getattr(layer, "kernel", None)
    return 0.0 if kernel is None else 2.0 * float(np.prod(kernel.shape)) * float(np.prod(layer.output.shape[1:-1]))


def _gradients(network: keras.Model, pixels: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(tf.cast(network(pixels, training=True), tf.float32)))
    return tape.gradient(loss, network.trainable_variables)


def _median_step(model: keras.Model, batches: tf.data.Dataset) -> float:
    stamps = []
    stamp = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: stamps.append(time.perf_counter()))
    model.fit(batches, epochs=1, steps_per_epoch=_WARM + _STEPS, verbose=0, callbacks=[stamp])
    return statistics.median(np.diff(stamps[_WARM - 1 :]).tolist())


def _median(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(1 + _STEPS):
        start = time.perf_counter()
        tf.nest.map_structure(lambda value: value.numpy(), function())
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _rate(images: int, seconds: float, operations: float) -> Measured:
    return {"images_per_second": images / seconds, "operations": operations}


def _together(rounds: Sequence[Measured], peak: float) -> Measured:
    """The median of every number; the share of the machine's matrix rate instead of the operations of an image."""
    found = {name: _middle([one[name] for one in rounds]) for name in rounds[0] if name != "operations"}
    if "operations" in rounds[0]:
        found["share_of_peak"] = found["images_per_second"] * rounds[0]["operations"] / peak
    return {"peak_mb": PeakMemory().megabytes()} | found


def _middle(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: _middle([one[name] for one in values]) for name in values[0]}
    return statistics.median(values)


def _of_peer(command: str, job: str) -> float:
    """The number that the peer prints for a job: images a second, or seconds of the probe.

    Raises:
      UserError: it fails, or prints no line of JSON with `job` and `value`.
    """
    done = subprocess.run([*shlex.split(command), "--job", job], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            found = json.loads(line)
            if found.get("job") == job:
                return float(found["value"])
    raise UserError(f"`peer`={command}: no line of JSON with the job {job} and a value. {done.stderr[-500:]}")


def _ratio(ours: Measured, theirs: Sequence[float]) -> Measured:
    value = statistics.median(theirs)
    ratio = value / ours["seconds"] if "seconds" in ours else ours["images_per_second"] / value
    return {"peer": value, "ratio": ratio}
