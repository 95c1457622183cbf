"""What the patch memory costs as training images are added, and what its greedy choice takes and gives.

Drawn features stand in for an encoder's: they have the shape of conv3 and conv4 of a ResNet-50 at 224 pixels.
Each size is fitted in a process of its own, whose largest resident memory the system tells.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import numpy as np
from sklearn.metrics import roc_auc_score

from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.heads import memory, patch
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.networks import patch_maps

# The stages of a ResNet-50 that patch features are made of, at 224 pixels.
_LAYERS = {"conv3": (28, 28, 512), "conv4": (14, 14, 1024)}
_IMAGE_SIZE = (224, 224)
# So many different images are drawn; the others are these, brighter or darker.
_DIFFERENT = 16
_SCORED = 32
_MEMORY = 2000
# Of the choice: patches, numbers of a patch, kept.
_POINTS, _WIDTH = 100_000, 512
_TEXTURES = 200
_NOISE = 0.35


@dataclasses.dataclass(frozen=True)
class MemoryCost:
    """A patch memory fitted on so many images.

    Attributes:
      images: good training images.
      fit_wall_seconds, fit_cpu_seconds: of the fit; the CPU's are of all cores together.
      peak_mb: largest resident memory of the process, TensorFlow included.
      ms_per_image: processor time to judge an image.
    """

    images: int
    fit_wall_seconds: float
    fit_cpu_seconds: float
    peak_mb: float
    ms_per_image: float


@dataclasses.dataclass(frozen=True)
class ChoiceCost:
    """One way to choose 2,000 out of 100,000 drawn patches.

    Attributes:
      how: "greedy" or "random".
      wall_seconds, cpu_seconds: of the choice, the random projection included.
      farthest: largest distance of any patch to its nearest in memory.
    """

    how: str
    wall_seconds: float
    cpu_seconds: float
    farthest: float


@dataclasses.dataclass(frozen=True)
class ChoiceWorth:
    """What one way to choose is worth on photographs.

    Attributes:
      category: product.
      how: "greedy" or "random".
      patches: candidates; 2,000 of them, or all if there are fewer, are kept.
      fit_cpu_seconds: of the whole fit, reading included.
      roc_auc: of all test images by a memory of good training images.
    """

    category: str
    how: str
    patches: int
    fit_cpu_seconds: float
    roc_auc: float


def measure_sizes(sizes: Sequence[int], seed: int, say: Callable[[str], None]) -> Iterator[MemoryCost]:
    """The cost of a memory of 2,000 patches for each number of training images.

    Raises:
      UserError: a fit failed, for example for want of memory.
    """
    for images in sizes:
        say(f"patch memory of {images:,} images ...")
        yield _in_a_process(images, seed)


def measure_choice(seed: int, say: Callable[[str], None]) -> Iterator[ChoiceCost]:
    """2,000 out of 100,000 patches of 512 numbers, greedily in a random projection, and at random.

    The textures are drawn as photographs have them: a few common ones and many rare ones.
    """
    rng = np.random.default_rng(seed)
    textures = rng.normal(size=(_TEXTURES, _WIDTH)).astype(np.float32)
    # Zipf's law: the k-th texture is 1/k as common as the first.
    shares = 1 / np.arange(1, _TEXTURES + 1)
    which = rng.choice(_TEXTURES, _POINTS, p=shares / shares.sum())
    points = textures[which] + _NOISE * rng.normal(size=(_POINTS, _WIDTH)).astype(np.float32)
    for how in ("greedy", "random"):
        say(f"choosing {_MEMORY:,} of {_POINTS:,} patches, {how} ...")
        wall, cpu = time.perf_counter(), time.process_time()
        if how == "greedy":
            chosen = memory.greedy_coreset(points, _MEMORY, seed)
        else:
            chosen = rng.choice(_POINTS, _MEMORY, replace=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        yield ChoiceCost(how, wall, cpu, float(_nearest(points, points[chosen]).max()))


def measure_worth(
    store: FeatureStore, records: Sequence[Record], seed: int, say: Callable[[str], None]
) -> Iterator[ChoiceWorth]:
    """Greedy and random memories of 2,000 patches on photographs, side by side.

    Args:
      store: features with maps.
      records: images of one or more categories that it holds features of.
      seed: of candidates and choice.
      say: is told what is being measured.

    Raises:
      UserError: the store holds no maps, or not all of the images.
    """
    if not store.key.maps:
        raise UserError(f"{store.path}: holds no patch maps. Extract the features with --maps.")
    for category in sorted({record.category for record in records}):
        own = [record for record in records if record.category == category]
        train = store.of([record for record in own if record.split == "train"])
        tests = [record for record in own if record.split == "test"]
        labels = [record.label for record in tests]
        for how, choice in {"greedy": memory.greedy_coreset, "random": _first}.items():
            say(f"{category}: memory of {_MEMORY:,} patches, {how} ...")
            cpu = time.process_time()
            with mock.patch.object(patch, "greedy_coreset", choice):
                head = patch.PatchCore(_MEMORY, _POINTS, seed=seed).fit(train, np.zeros(len(train), int))
            cpu = time.process_time() - cpu
            scores = head.decision_function(store.of(tests))
            patches = min(_POINTS, len(train) * int(np.prod(patch_maps.grid(train.maps))))
            yield ChoiceWorth(category, how, patches, cpu, float(roc_auc_score(labels, scores)))


def _first(points: np.ndarray, size: int, seed: int) -> np.ndarray:
    """A random choice among candidates that lie in random order already."""
    return np.arange(min(size, len(points)))


def text_table(rows: Sequence[MemoryCost | ChoiceCost | ChoiceWorth]) -> str:
    """The costs, a line each."""
    titles = [field.name.replace("_", " ") for field in dataclasses.fields(rows[0])]
    lines = [titles, *([_text(value) for value in dataclasses.astuple(row)] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


class DrawnMaps:
    """Maps of any number of images that take the memory of a few (a `frozen.RowSource`).

    Args:
      images: how many.
      shape: (h, w, C) of a map.
      seed: of the numbers.
    """

    def __init__(self, images: int, shape: tuple[int, int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._drawn = rng.normal(size=(_DIFFERENT, *shape)).astype(np.float32)
        self._brightness = rng.normal(1, 0.1, size=images).astype(np.float32)
        self.shape = (images, *shape)

    def __len__(self) -> int:
        """Number of images."""
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """int [M] -> float32 [M, h, w, C]."""
        return self._drawn[rows % _DIFFERENT] * self._brightness[rows, None, None, None]


def fit_one(images: int, seed: int, answer: str) -> None:
    """Fits a memory on drawn features and writes what it took to `answer`, a JSON file: the work of one process."""
    maps = {name: DrawnMaps(images, shape, seed) for name, shape in _LAYERS.items()}
    pooled = np.random.default_rng(seed).normal(size=(images, 8)).astype(np.float32)
    features = FrozenFeatures(pooled, maps, image_size=_IMAGE_SIZE)
    wall, cpu = time.perf_counter(), time.process_time()
    head = patch.PatchCore(_MEMORY, seed=seed).fit(features, np.zeros(images, int))
    facts = {"fit_wall_seconds": time.perf_counter() - wall, "fit_cpu_seconds": time.process_time() - cpu}
    cpu = time.process_time()
    head.decision_function(features.select(np.arange(min(_SCORED, images))))
    facts["ms_per_image"] = 1000 * (time.process_time() - cpu) / min(_SCORED, images)
    pathlib.Path(answer).write_text(json.dumps(facts), encoding="utf-8")


def _in_a_process(images: int, seed: int) -> MemoryCost:
    with tempfile.TemporaryDirectory() as folder:
        answer = pathlib.Path(folder) / "answer.json"
        code = f"from tools import patch_memory; patch_memory.fit_one({images}, {seed}, {str(answer)!r})"
        process = subprocess.Popen([sys.executable, "-c", code])
        # Not process.wait(): only this call says what that one process used.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise UserError(f"The patch memory of {images} images ended with status {process.returncode}.")
        facts = json.loads(answer.read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return MemoryCost(images=images, peak_mb=usage.ru_maxrss * unit / 1e6, **facts)


def _nearest(patches: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """float32 [N]: distance of each patch to the nearest in memory."""
    lengths = (memory**2).sum(axis=1)
    parts = []
    for start in range(0, len(patches), 4096):
        part = patches[start : start + 4096]
        nearest = np.argmin(lengths - 2 * part @ memory.T, axis=1)
        parts.append(np.linalg.norm(part - memory[nearest], axis=1))
    return np.concatenate(parts)


def _text(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 100 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else value
