"""A folder of features: shards of `.npy` files with their records, written once and read row by row.

    features.json           what these features are of: encoder, layers, image size, ...
    encoder/                the SavedModel that they came from
    records.csv             one line an image, in the order of the rows
    shard_00000/pooled.npy  float32 [n, T, D], global features of each of T tiles, layers joined
                embedding.npy  float32 [n, C], the encoder's end, where it was asked for
                map_0.npy   float16 [n, h, w, C], one file a layer, where maps were asked for

A shard is there as a whole or not at all, so that a killed extraction goes on with the next one.
Rows are read from the disk when they are asked for; no file stays mapped, so that memory is flat.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.data.record import FACTS, Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.features.feature_graph import FeatureKey
from mvtec_tf.files import PathLike, csv_text, read_json, sha256, write_json, write_text
from mvtec_tf.heads.frozen import FrozenFeatures

DESCRIPTION = "features.json"
RECORDS = "records.csv"
ENCODER = "encoder"
# 2: maps are float16.
_FORMAT = 2


class FeatureStore:
    """A finished store, opened for reading.

    Args:
      path: the folder.

    Raises:
      UserError: there is none, or it is not finished.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        description = _describe(self.path)
        self.key = FeatureKey.from_json(description["key"])
        # Maps are read later, perhaps from another working directory.
        self._shards = _shards(self.path.absolute(), description)
        missing = [shard.name for shard in self._shards if not shard.is_dir()]
        if missing:
            raise UserError(
                f"{self.path}: {len(missing)} of {len(self._shards)} shards are missing (the first: {missing[0]}). "
                "Repeat the command that wrote it; it goes on there."
            )
        self._counts = _counts(description)
        with (self.path / RECORDS).open(newline="", encoding="utf-8") as file:
            self._rows = {line["path"]: (number, line) for number, line in enumerate(csv.DictReader(file))}

    def __repr__(self) -> str:
        """Where it lies and what is in it."""
        return f"<FeatureStore {self.path}: {self.describe().rstrip('.')}>"

    def describe(self) -> str:
        """What is in it, in a line."""
        size = sum(file.stat().st_size for shard in self._shards for file in shard.iterdir())
        maps = "with maps" if self.key.maps else "global averages"
        return (
            f"{counted(len(self._rows), 'image')}, {', '.join(self.key.layers)} at {self.key.image_size[0]} x "
            f"{self.key.image_size[1]} px, {maps}, {size / 1e6:.0f} MB."
        )

    def of(self, records: Sequence[Record]) -> FrozenFeatures:
        """Features of these images in this order; maps are read later, row by row.

        Raises:
          UserError: an image is not in the store, or is not the one whose features it holds.
        """
        # Of a generator nothing is left after the first look.
        records = tuple(records)
        rows = self._rows_of(records)
        tiled = ShardedRows([shard / "pooled.npy" for shard in self._shards], self._counts)[rows]
        maps = {
            name: ShardedRows([shard / f"map_{number}.npy" for shard in self._shards], self._counts)
            for number, name in enumerate(self.key.layers if self.key.maps else ())
        }
        everything = FrozenFeatures(
            pooled=np.empty((len(self._rows), 0)), maps=maps, image_size=self.key.image_size
        ).select(rows)
        groups = np.array([record.group for record in records])
        return dataclasses.replace(
            everything,
            pooled=tiled.mean(axis=1, dtype=np.float32),
            tiled=None if self.key.tiles == (1, 1) else tiled,
            groups=groups,
        )

    def embeddings_of(self, records: Sequence[Record]) -> np.ndarray:
        """float32 [N, C], the encoder's end, averaged. Raises as `of`, and UserError if it was not kept."""
        rows = self._rows_of(records)
        if not all((shard / "embedding.npy").exists() for shard in self._shards):
            raise UserError(
                f"{self.path}: holds no averages of the encoder's end, which the original study's head needs. Leave "
                "`features` out, or write them with mvtec-tf extract-features."
            )
        return ShardedRows([shard / "embedding.npy" for shard in self._shards], self._counts)[rows]

    def _rows_of(self, records: Sequence[Record]) -> np.ndarray:
        missing = [record.path for record in records if record.path not in self._rows]
        if missing:
            raise UserError(
                f"{self.path}: holds no features of {missing[0]} and {len(missing) - 1} more of the {len(records)} "
                "images that are needed. Extract the features of the same `data_dir` again, into a new folder."
            )
        for record in records:
            _, line = self._rows[record.path]
            if line["sha256"] != sha256(record.file):
                raise UserError(
                    f"{record.file}: has changed since its features were written to {self.path}. Extract them again, "
                    "into a new folder."
                )
        return np.array([self._rows[record.path][0] for record in records], np.int64)


class ShardedRows:
    """Rows of several `.npy` files as one source (see `frozen.RowSource`).

    Args:
      files: one a shard.
      counts: rows of each.
    """

    def __init__(self, files: Sequence[pathlib.Path], counts: Sequence[int]) -> None:
        self._files = files
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        first = np.load(files[0], mmap_mode="r", allow_pickle=False)
        self.shape, self._dtype = (int(self._starts[-1]), *first.shape[1:]), first.dtype

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """int [M] -> float32 [M, ...], read now."""
        rows = np.asarray(rows)
        result = np.empty((len(rows), *self.shape[1:]), self._dtype)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shards):
            wanted = shards == shard
            # Mapped for this read only: pages of a file that stays mapped count as the process' memory.
            values = np.load(self._files[shard], mmap_mode="r", allow_pickle=False)
            result[wanted] = values[rows[wanted] - self._starts[shard]]
        # TensorFlow widens float16 in half of NumPy's time.
        return tf.cast(result, tf.float32).numpy()


def begin(path: PathLike, key: FeatureKey, records: Sequence[Record], per_shard: int) -> list[pathlib.Path]:
    """Makes the folder, or finds what an earlier call left in it.

    Returns:
      The shards' folders in order; those that exist are whole.

    Raises:
      UserError: the folder holds features of something else.
    """
    path = pathlib.Path(path)
    description = {"format": _FORMAT, "images": len(records), "per_shard": per_shard, "key": key.as_json()}
    text = csv_text((*FACTS, "sha256"), ([*record.facts, sha256(record.file)] for record in records))
    if (path / DESCRIPTION).exists():
        _refuse_others(path, description, text)
    else:
        # What a call killed at its very beginning leaves behind is not in the way.
        names = {child.name for child in path.iterdir()} if path.is_dir() else set()
        if any(not name.startswith(".") for name in names - {RECORDS, ENCODER}):
            raise UserError(f"{path}: not empty, and holds no features. Choose a new folder, or empty this one.")
        write_text(path / RECORDS, text)
        # Written last: where it lies, the records are there.
        write_json(path / DESCRIPTION, description)
    return _shards(path, description)


def _refuse_others(path: pathlib.Path, description: Mapping[str, Any], records: str) -> None:
    there = _describe(path)
    differences = [
        f"{name}: {there['key'].get(name)} there, {value} here"
        for name, value in description["key"].items()
        if there["key"].get(name) != value
    ]
    if (path / RECORDS).read_text(encoding="utf-8") != records or there["images"] != description["images"]:
        differences.append("the images are not the same")
    if there["per_shard"] != description["per_shard"]:
        differences.append(f"images a shard: {there['per_shard']} there, {description['per_shard']} here")
    if differences:
        raise UserError(f"{path}: holds other features. {'; '.join(differences)}. Choose a new folder.")


def _describe(path: pathlib.Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    missing = f"{path}: no features there ({DESCRIPTION} is missing). Write them with mvtec-tf extract-features."
    description = read_json(file, missing, "Remove the folder and extract again.")
    if description.get("format") != _FORMAT:
        raise UserError(
            f"{file}: features of format {description.get('format')}, expected {_FORMAT}. Extract them again."
        )
    return description


def _counts(description: Mapping[str, Any]) -> list[int]:
    images, per_shard = description["images"], description["per_shard"]
    return [min(per_shard, images - start) for start in range(0, images, per_shard)]


def _shards(path: pathlib.Path, description: Mapping[str, Any]) -> list[pathlib.Path]:
    return [path / f"shard_{number:05d}" for number in range(len(_counts(description)))]
