"""Features of records by an exported encoder, computed once, shard by shard."""

import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.record import Record
from mvtec_tf.features import store
from mvtec_tf.features.feature_graph import FeatureGraph, FeatureSettings
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.files import PathLike, new_directory
from mvtec_tf.graphs.scoring import stream_signature
from mvtec_tf.networks.backbone import EMBEDDING

PER_SHARD = 128
_MAP = "map_"
# Tiles that go through the encoder together.
_BATCH = 32


def extract(
    encoder: PathLike,
    records: Sequence[Record],
    settings: FeatureSettings,
    out: PathLike,
    per_shard: int = PER_SHARD,
) -> FeatureStore:
    """Writes the features of every record to the folder `out`, or what is missing of them there.

    Args:
      encoder: SavedModel of an encoder.
      records: in the order of the rows.
      settings: which features.
      out: folder of a feature store; made if missing.
      per_shard: images a shard. Memory does not depend on it: rows go to the disk batch by batch.

    Raises:
      UserError: the folder holds features of something else, or a file cannot be read as an image.
      UsageError: the encoder has no such layer.
    """
    graph = FeatureGraph(encoder, settings)
    shards = store.begin(out, graph.key, records, per_shard)
    missing = [number for number, shard in enumerate(shards) if not shard.exists()]
    if missing:
        function = _function(graph)
        batch = max(1, _BATCH // (settings.tiles[0] * settings.tiles[1]))
        started = time.monotonic()
        for done, number in enumerate(missing):
            part = records[number * per_shard : (number + 1) * per_shard]
            _write_shard(shards[number], function, part, batch)
            _report(done + 1, len(missing), number * per_shard + len(part), len(records), started)
    return FeatureStore(out)


def keep_encoder(encoder: PathLike, out: PathLike) -> None:
    """Copies the encoder into the store, unless it is there."""
    target = pathlib.Path(out) / store.ENCODER
    if not target.exists():
        with new_directory(target) as directory:
            shutil.copytree(encoder, directory, dirs_exist_ok=True)


def _function(graph: FeatureGraph) -> Callable:
    """image_bytes string [B] -> the arrays of a shard."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def embed(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = pixels.decode_batch(image_bytes, graph.image_size, graph.max_pixels)
        features, embedding = graph.features_and_average(images, EMBEDDING)
        pooled = features.pooled[:, None] if features.tiled is None else features.tiled
        maps = {f"{_MAP}{number}": value for number, value in enumerate(features.maps.values())}
        return {"pooled": pooled, "embedding": embedding} | maps

    return embed


def _write_shard(shard: pathlib.Path, function: Callable, records: Sequence[Record], batch: int) -> None:
    with new_directory(shard) as directory:
        files: dict[str, np.ndarray] = {}
        filled = 0
        for outputs in stream_signature(function, [record.file for record in records], batch):
            for name, values in outputs.items():
                if name not in files:
                    shape = (len(records), *values.shape[1:])
                    path = directory / f"{name}.npy"
                    # Half the disk; the graph has rounded them already, see `feature_graph.as_kept`.
                    dtype = np.float16 if name.startswith(_MAP) else np.float32
                    files[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
                files[name][filled : filled + len(values)] = values
            filled += len(values)
        for array in files.values():
            array.flush()


def _report(done: int, of: int, images: int, all_images: int, started: float) -> None:
    left = (time.monotonic() - started) / done * (of - done)
    print(f"features: {images} of {all_images} images, about {left / 60:.1f} minutes left", flush=True)
