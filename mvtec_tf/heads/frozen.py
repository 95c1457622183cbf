"""What a frozen encoder says of N images, the input of every head: global averages and, if wanted, patch maps.

The same container carries NumPy arrays (or rows read from disk) when a head is fitted, and tensors
in the exported graph.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from mvtec_tf.errors import UserError
from mvtec_tf.side_by_side import in_order

T = TypeVar("T")

# Of maps in memory at a time: memory stays flat, matrix products large. Arrays beyond 32 MiB are returned to the system
# at once by glibc, and each page is cleared again for the next one.
_BATCH_BYTES = 32_000_000
_LARGEST_BATCH = 16
# Distances are sums of squares in float32: 3000 of this size leave no room.
_LARGEST = 1e15
INNER_FOLDS = 3


class RowSource(Protocol):
    """Rows that need not be in memory: an array, a memory map, or shards of a feature store."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """int [M] -> float32 [M, ...], read now."""


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """Features of N images.

    Attributes:
      pooled: float32 [N, D], global averages of the joined layers (over all tiles, if there are any).
      maps: layer -> float32 [N, h, w, C], finest first; rows are read when they are needed. Empty if
        only global features were asked for. Of tiles, the stitched map.
      tiled: float32 [N, T, D], the averages of each of T tiles, or None without tiles.
      image_size: (height, width) in pixels that the maps cover; the size of a heat map.
      groups: [N], equal where images show one object; None: every image shows its own.
    """

    pooled: Any
    maps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tiled: Any | None = None
    image_size: tuple[int, int] | None = None
    groups: np.ndarray | None = None

    def __repr__(self) -> str:
        """Shapes alone."""
        maps = f", maps of {', '.join(self.maps)}" if self.maps else ""
        tiles = "" if self.tiled is None else f", {self.tiled.shape[1]} tiles"
        return f"<FrozenFeatures: pooled {' x '.join(map(str, self.shape))}{maps}{tiles}>"

    def __len__(self) -> int:
        """N."""
        return len(self.pooled)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D), by which scikit-learn takes the container for a matrix and divides it by rows."""
        return tuple(self.pooled.shape)

    def __getitem__(self, rows: Any) -> "FrozenFeatures":
        """The images of a mask, of indices or of a slice, see `select`; also as (rows, ...).

        Raises:
          TypeError: of a single index, by which arrays are made of what is none.
        """
        rows = np.arange(len(self))[rows[0] if isinstance(rows, tuple) else rows]
        if rows.ndim != 1:
            raise TypeError("Features of images are no array: take `features.pooled`, or of one image `features[:1]`.")
        return self.select(rows)

    def select(self, rows: np.ndarray) -> "FrozenFeatures":
        """The images of a boolean mask [N] or of indices [M]; maps stay where they are."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return dataclasses.replace(
            self,
            pooled=self.pooled[rows],
            maps={name: _Selected(source, rows) for name, source in self.maps.items()},
            tiled=None if self.tiled is None else self.tiled[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def batches(self, size: int | None = None) -> Iterator["FrozenFeatures"]:
        """The same images in order, `size` at a time, with their maps in memory; None: as many as are no burden."""
        # The next ones are read while these are looked at.
        return self.each(lambda part: part, size, at_once=1)

    def each(
        self, compute: Callable[["FrozenFeatures"], T], size: int | None = None, at_once: int | None = None
    ) -> Iterator[T]:
        """What a function says of each of the `batches`, in their order; some are computed side by side."""
        if size is None:
            image = 4 * sum(int(np.prod(source.shape[1:])) for source in self.maps.values())
            size = int(np.clip(_BATCH_BYTES // max(image, 1), 1, _LARGEST_BATCH))

        def computed(start: int) -> T:
            part = self.select(np.arange(start, min(start + size, len(self))))
            whole = {name: source[np.arange(len(part))] for name, source in part.maps.items()}
            return compute(dataclasses.replace(part, maps=whole))

        return in_order(computed, range(0, len(self), size), at_once)


def frozen(features: Any) -> FrozenFeatures:
    """Features as they are, or a plain [N, D] of global features in the container.

    It gets an array of its own: a head asks once more for what it was fitted on when it is asked for a probability, and
    the caller's may hold something else by then.
    """
    if isinstance(features, FrozenFeatures):
        return features
    own = np.array(features)
    return FrozenFeatures(own if own.dtype.kind in "fiu" else own.astype(np.float64))


def labels_of(given: Any) -> np.ndarray:
    """int64 [N], 1 = defective, of numbers or truth values, in an array of its own.

    Raises:
      ValueError: they are no list, or others than 0 and 1. Of words scikit-learn would take the last in the alphabet
        for the defect, and "good" stands behind "defective".
    """
    labels = np.asarray(given)
    others = sorted({repr(one) for one in labels.ravel().tolist() if one not in (0, 1)})
    if others or labels.ndim != 1:
        found = f"{', '.join(others[:5])} among them" if others else f"shape {labels.shape}"
        raise ValueError(f"labels must be [N], 1 for defective and 0 for good images. Received: {found}.")
    return np.array(labels, np.int64)


def good_images(features: FrozenFeatures, labels: np.ndarray, head: str, least: int = 2) -> FrozenFeatures:
    """Those of the images labelled good.

    Args:
      features: of N images.
      labels: int [N].
      head: name of the head that needs them, for the message.
      least: how many it needs.

    Raises:
      UserError: there are fewer.
    """
    good = features.select(labels == 0)
    if len(good) < least:
        words = {1: "one good image", 2: "two good images"}.get(least, f"{least} good images")
        raise UserError(f"`head`={head} needs at least {words}, found {len(good)}. Add good images.")
    return good


def check(features: FrozenFeatures, labels: np.ndarray, *, both_classes: bool = False, maps: bool = False) -> None:
    """Raises if no head could be fitted on this.

    Args:
      features: of N images.
      labels: int [N], 1 = defective.
      both_classes: whether good and defective images must be among them.
      maps: whether patch maps must be there.

    Raises:
      ValueError: shapes do not fit.
      UserError: no patch maps where they are needed, numbers that are not finite, features that tell no image from
        another, one class only.
    """
    pooled = features.pooled
    if pooled.ndim != 2 or len(pooled) != len(labels):
        raise ValueError(f"features must be [N, D] with N labels. Received: {pooled.shape} and {len(labels)} labels.")
    check_numbers(features, maps=maps)
    if not len(pooled):
        raise UserError("There is no image to fit a head on.")
    if (largest := float(np.max(np.abs(pooled)))) > _LARGEST:
        raise UserError(
            f"The features reach {largest:.3g}, too large to compute with. Has the encoder's training diverged? Train "
            "it again with a lower `learning_rate`."
        )
    if len(pooled) > 1 and not np.any(np.ptp(pooled, axis=0)):
        raise UserError(
            f"The features of all {len(pooled)} images are the same numbers, so nothing can be learnt from them. Has "
            "the encoder collapsed, or are the images copies of one?"
        )
    if both_classes and len(set(np.asarray(labels).tolist())) < 2:
        kind = "defective" if labels[0] else "good"
        raise UserError(
            f"The head needs good and defective labelled images; all {len(labels)} given are {kind}. "
            "Raise `label_budget`, or use a head that needs no labels (`head`=mahalanobis)."
        )


def check_numbers(features: FrozenFeatures, *, maps: bool = False) -> None:
    """Raises UserError if nothing could be computed from this: no patch maps where a head needs `maps`, or numbers that
    are not finite."""
    if maps and not features.maps:
        raise UserError(
            "This head looks at patch maps, and the features hold global averages only. Extract them with `maps`, or "
            "with the recipe of the head."
        )
    if not np.all(np.isfinite(features.pooled)):
        raise UserError("The features hold NaN or infinite numbers. Was the encoder's training stable?")


class _Selected:
    """Some rows of a source, still unread."""

    def __init__(self, source: RowSource, rows: np.ndarray) -> None:
        # A selection of a selection reads from the first source, however often rows are chosen.
        nested = isinstance(source, _Selected)
        self._source = source._source if nested else source
        self._rows = source._rows[rows] if nested else rows
        self.shape = (len(self._rows), *source.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._source[self._rows[rows]])


def objects_of(features: FrozenFeatures) -> np.ndarray:
    """int64 [N], equal for images of one object."""
    groups = features.groups
    return np.arange(len(features)) if groups is None else np.unique(groups, return_inverse=True)[1]


def inner_folds(labels: np.ndarray, groups: np.ndarray | None, seed: int, count: int = INNER_FOLDS) -> np.ndarray:
    """A fold for each image, whole objects, each class spread over all folds; -1 for the only object of a class.

    Args:
      labels: int [N].
      groups: [N] or None.
      seed: random seed of the order.
      count: of folds; those that good objects lie in are the first ones.

    Returns:
      int64 [N].
    """
    names = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    folds = np.empty(len(labels), np.int64)
    rng = np.random.default_rng(seed)
    # An object with a defective image is defective: its good views stay with it.
    defective = np.unique(names[labels == 1])
    for objects in (defective, np.setdiff1d(names, defective)):
        if len(objects) == 1:
            folds[names == objects[0]] = -1
            continue
        for number, one in enumerate(rng.permutation(objects)):
            folds[names == one] = number % count
    return folds
