"""Features of records by an exported encoder, computed once, shard by shard."""

import functools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.beam.settings import RunnerSettings
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.record import Record
from mvtec_tf.features import store
from mvtec_tf.features.feature_graph import FeatureGraph, FeatureSettings
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.files import PathLike, new_directory, write_text
from mvtec_tf.graphs.scoring import stream_signature
from mvtec_tf.networks.backbone import EMBEDDING

PER_SHARD = 128
_MAP = "map_"
# Tiles that go through the encoder together; two batches are on their way at a time.
_BATCH = 16


def extract(
    encoder: PathLike,
    records: Sequence[Record],
    settings: FeatureSettings,
    out: PathLike,
    per_shard: int = PER_SHARD,
    runner: RunnerSettings | None = None,
    end: bool = False,
) -> FeatureStore:
    """Writes the features of every record to the folder `out`, or what is missing of them there.

    Args:
      encoder: SavedModel of an encoder.
      records: in the order of the rows.
      settings: which features.
      out: folder of a feature store; made if missing.
      per_shard: images a shard. Memory does not depend on it: rows go to the disk batch by batch.
      runner: whose workers do it; None, or without one: this process.
      end: whether the average of the encoder's end is kept too, for which the network must be run to it.

    Raises:
      UserError: the folder holds features of something else, or a file cannot be read as an image.
      UsageError: the encoder has no such layer.
    """
    graph = FeatureGraph(encoder, settings)
    shards = store.begin(out, graph.key, records, per_shard)
    files = [record.file for record in records]
    parts = {shard: files[number * per_shard : (number + 1) * per_shard] for number, shard in enumerate(shards)}
    missing = [shard for shard in shards if not shard.exists()]
    if missing and runner is not None and runner.runner:
        make = functools.partial(_maker, os.path.abspath(encoder), settings, end)
        _by_workers(make, {shard.absolute(): parts[shard] for shard in missing}, runner)
    elif missing:
        function, batch = _function(graph, end), _batch_size(settings)
        started = time.monotonic()
        for done, shard in enumerate(missing, 1):
            _write_shard(shard, function, parts[shard], batch)
            images = shards.index(shard) * per_shard + len(parts[shard])
            left = (time.monotonic() - started) / done * (len(missing) - done)
            print(f"features: {images} of {len(records)} images, about {left / 60:.1f} minutes left", flush=True)
    return FeatureStore(out)


def _by_workers(
    make: Callable[[], Callable], parts: Mapping[pathlib.Path, Sequence[str]], runner: RunnerSettings
) -> None:
    # Apache Beam is another package.
    from mvtec_tf.beam import pipeline

    for shard, files in parts.items():
        write_text(_list_of(shard), json.dumps([os.path.abspath(file) for file in files]))
    lists = _list_of(shard).parent
    counts = pipeline.run(make, list(map(str, parts)), runner, lists / "workers.log")
    shutil.rmtree(lists)
    worked = counts.get(pipeline.MILLISECONDS, 0) / 1000
    print(f"features: {len(parts)} shards by the runner {runner.runner}, in {worked:.1f} s of all workers together")


def _maker(encoder: str, settings: FeatureSettings, end: bool) -> Callable[[str], dict[str, int]]:
    """In a worker: loads the encoder."""
    function, batch = _function(FeatureGraph(encoder, settings), end), _batch_size(settings)

    def work(shard: str) -> dict[str, int]:
        files = json.loads(_list_of(pathlib.Path(shard)).read_text(encoding="utf-8"))
        _write_shard(pathlib.Path(shard), function, files, batch)
        return {"files": len(files)}

    return work


def _list_of(shard: pathlib.Path) -> pathlib.Path:
    """The file that says what a shard is of, for workers."""
    return shard.parent / ".files" / f"{shard.name}.json"


def _batch_size(settings: FeatureSettings) -> int:
    return max(1, _BATCH // (settings.tiles[0] * settings.tiles[1]))


def keep_encoder(encoder: PathLike, out: PathLike) -> None:
    """Copies the encoder into the store, unless it is there."""
    target = pathlib.Path(out) / store.ENCODER
    if not target.exists():
        with new_directory(target) as directory:
            shutil.copytree(encoder, directory, dirs_exist_ok=True)


def _function(graph: FeatureGraph, end: bool) -> Callable:
    """image_bytes string [B] -> the arrays of a shard."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def embed(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = pixels.decode_batch(image_bytes, graph.image_size, graph.max_pixels)
        features, embedding = graph.features_and_average(images, EMBEDDING)
        pooled = features.pooled[:, None] if features.tiled is None else features.tiled
        # Half the disk; the graph has rounded them already, see `feature_graph.as_kept`.
        maps = {f"{_MAP}{n}": tf.cast(value, tf.float16) for n, value in enumerate(features.maps.values())}
        return {"pooled": pooled} | ({EMBEDDING: embedding} if end else {}) | maps

    return embed


def _write_shard(shard: pathlib.Path, function: Callable, images: Sequence[str], batch: int) -> None:
    with new_directory(shard) as directory:
        files: dict[str, np.ndarray] = {}
        filled = 0
        for outputs in stream_signature(function, images, batch):
            for name, values in outputs.items():
                if name not in files:
                    shape = (len(images), *values.shape[1:])
                    path = directory / f"{name}.npy"
                    files[name] = np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=shape)
                files[name][filled : filled + len(values)] = values
            filled += len(values)
        for array in files.values():
            array.flush()
