"""Decoded images of a data set: every file decoded once, kept in memory or in a folder.

A file in the folder is named by what it holds (see `_key`), so a changed image or setting never
meets an old one. Any of them may be deleted at any time.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from mvtec_tf.data.decoding import pixels, unreadable
from mvtec_tf.data.record import Record, Unreadable
from mvtec_tf.files import read_json, replacing, speaker, write_json

MEMORY = "memory"
Verdict = tuple[tuple[Record, ...], tuple[Unreadable, ...]]
# Decoded images that wait for the reader: enough to keep both cores busy, little enough for the memory.
_AHEAD = 32


class ImageStore:
    """Pixels of image files, by the very ops that the exported graph holds.

    Args:
      image_size: side in pixels, or (height, width).
      cache: "memory", or a folder for files that later runs read instead of decoding. What was
        checked as a whole is kept as a whole, and its parts beside it, so the folder needs about
        twice the size of the pixels.
      max_pixels: see `pixels.decode`.
    """

    def __init__(self, image_size: pixels.Size, cache: str = MEMORY, max_pixels: int = pixels.MAX_PIXELS) -> None:
        self._image_size = pixels.height_and_width(image_size)
        self._max_pixels = max_pixels
        self._folder = None if cache == MEMORY else pathlib.Path(cache)
        # Decoded already and not yet asked for: file -> uint8 [H, W, 3].
        self._rows: dict[str, np.ndarray] = {}

    def readable(self, records: Sequence[Record]) -> Verdict:
        """Decodes all images, keeps the pixels for `load`, and says which images cannot be used.

        Returns:
          (readable, unreadable), each in the order of `records`.
        """
        if self._folder is None:
            reasons: dict[str, str] = {}
            self._rows |= {record.file: row for record, row in self._good(records, reasons)}
            return verdict(records, reasons)
        path = self._pixels_file(records)
        if not path.exists():
            self._write_readable(path, records)
        found = verdict(records, _reasons_beside(path))
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        self._rows |= {record.file: row for record, row in zip(found[0], mapped, strict=True)}
        return found

    def load(self, records: Sequence[Record]) -> np.ndarray:
        """Pixels of all records, in their order. What was held in memory is handed over, not kept.

        Returns:
          uint8 [N, height, width, 3]; a read-only memory map if the cache is a folder.

        Raises:
          UserError: a file cannot be decoded, the message names it.
          OSError: the folder cannot be written.
        """
        if self._folder is None:
            images = np.empty((len(records), *self._image_size, 3), np.uint8)
            for place, row in zip(images, self._rows_of(records), strict=True):
                place[:] = row
            return images
        path = self._pixels_file(records)
        if not path.exists():
            self._write(path, self._rows_of(records))
        unreadable.refuse(verdict(records, _reasons_beside(path))[1], len(records))
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def forget(self) -> None:
        """Lets go of the pixels that were decoded and not asked for."""
        self._rows.clear()

    def _rows_of(self, records: Sequence[Record]) -> Iterator[np.ndarray]:
        missing = self._decoded([record for record in records if record.file not in self._rows])
        for record in records:
            row = self._rows.pop(record.file, None)
            if row is None:
                _, row = next(missing)
            if isinstance(row, str):
                unreadable.refuse([Unreadable(record, row)], 1)
            yield row

    def _decoded(self, records: Sequence[Record]) -> Iterator[tuple[Record, np.ndarray | str]]:
        return _each(records, _decoder(self._image_size, self._max_pixels))

    def _good(self, records: Sequence[Record], reasons: dict[str, str]) -> Iterator[tuple[Record, np.ndarray]]:
        """Those that can be decoded, with their pixels; why the others cannot is put into `reasons`, by path."""
        for record, row in self._decoded(records):
            if isinstance(row, str):
                reasons[record.path] = row
            else:
                yield record, row

    def _write_readable(self, path: pathlib.Path, records: Sequence[Record]) -> None:
        reasons: dict[str, str] = {}

        def rows() -> Iterator[np.ndarray]:
            yield from (row for _, row in self._good(records, reasons))
            # Before the pixels get their name: where they are, the verdict on them is known.
            if reasons:
                write_json(path.with_suffix(".json"), reasons)

        self._write(path, rows())

    def _write(self, path: pathlib.Path, rows: Iterator[np.ndarray]) -> None:
        """The format of `np.save`; the number of rows is written last, since it is known last."""

        def write_header(file: BinaryIO, count: int) -> int:
            file.seek(0)
            shape = (count, *self._image_size, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            # NumPy leaves room in it for a first axis of any length.
            np.lib.format.write_array_header_1_0(file, header)
            return file.tell()

        with replacing(path) as temporary, open(temporary, "wb") as file:
            begin, count = write_header(file, 0), 0
            for count, row in enumerate(rows, 1):  # noqa: B007
                file.write(np.ascontiguousarray(row).data)
            if write_header(file, count) != begin:
                raise RuntimeError(f"NumPy {np.__version__} writes headers of other lengths for other numbers of rows.")

    def _pixels_file(self, records: Sequence[Record]) -> pathlib.Path:
        return self._folder / f"images_{self._key(records)}.npy"

    def _key(self, records: Sequence[Record]) -> str:
        """Of names, places, sizes, times and settings.

        The time of change (ctime) is among them, because the time of modification can be set back,
        as `cp -p` and `rsync` do, and two files of one camera may well have one size.
        """
        digest = hashlib.sha256(f"{pixels.PIXELS_VERSION}\0{self._image_size}\0{self._max_pixels}".encode())
        for record in records:
            state = os.stat(record.file)
            place = os.fsencode(f"\0{record.path}\0{os.path.abspath(record.file)}")
            digest.update(place + f"\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}".encode())
        return digest.hexdigest()[:24]


def check(records: Sequence[Record], max_pixels: int) -> Verdict:
    """Decodes all images and keeps none: for those who read the files themselves later.

    Returns:
      (readable, unreadable), each in the order of `records`.
    """
    found = _each(records, _decoder(None, max_pixels))
    return verdict(records, {record.path: reason for record, reason in found if isinstance(reason, str)})


def verdict(records: Sequence[Record], reasons: Mapping[str, str]) -> Verdict:
    """(readable, unreadable), where `reasons` are those of the paths of the unreadable ones."""
    good = tuple(record for record in records if record.path not in reasons)
    bad = tuple(Unreadable(record, reasons[record.path]) for record in records if record.path in reasons)
    return good, bad


def _reasons_beside(path: pathlib.Path) -> dict[str, str]:
    file = path.with_suffix(".json")
    return read_json(file) if file.exists() else {}


def _each(records: Sequence[Record], compute: Callable) -> Iterator[tuple[Record, np.ndarray | str]]:
    """Every record with what `compute` makes of its file's content, or with the reason why it cannot."""
    files = tf.constant([os.fsencode(record.file) for record in records], tf.string, (len(records),))
    dataset = tf.data.Dataset.from_tensor_slices(files)
    # A file that fails takes its own turn only; the next ones come as if nothing had happened.
    results = iter(dataset.map(compute, num_parallel_calls=os.cpu_count(), deterministic=True).prefetch(_AHEAD))
    speak = speaker()
    for done, record in enumerate(records, 1):
        try:
            result = next(results).numpy()
        except tf.errors.OpError as error:
            result = unreadable.reason(error)
        yield record, result
        speak(f"read {done} of {len(records)} images")


@functools.lru_cache
def _decoder(image_size: tuple[int, int] | None, max_pixels: int) -> Callable:
    """file name -> pixels [H, W, 3] or, without a size, nothing but the proof that it can be read."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def decode(file: tf.Tensor) -> tf.Tensor:
        content = tf.io.read_file(file)
        if image_size is None:
            return tf.shape(pixels.decode(content, max_pixels))
        return pixels.decode_and_resize(content, image_size, max_pixels)

    return decode
