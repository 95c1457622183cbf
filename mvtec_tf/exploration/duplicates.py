"""Copies of one photograph under two names: exact ones by hash, changed ones by their noise.

A copy is the same photograph: the same bytes, the same pixels, or these re-encoded, resized or
slightly cropped. Two photographs of two parts never share their noise, however much they look
alike, and neither do two photographs of one part: those belong in groups.csv and are not listed.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import JpegImagePlugin

from mvtec_tf.data.pillow_images import UnreadableImageError, grey_levels, open_image, upright
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.exploration import copy_candidates, copy_registration
from mvtec_tf.exploration.copy_candidates import Candidate
from mvtec_tf.exploration.copy_registration import Photograph
from mvtec_tf.exploration.images import Look
from mvtec_tf.side_by_side import in_order

SAME_FILE = "same file"
SAME_PIXELS = "same pixels"
CHANGED = "changed copy"
# In the order of their weight.
TRAIN_AND_TEST = "train and test"
UNDECLARED = "across groups"
DECLARED = "one group"
# Photographs that show less than re-encoding may change at a spot have nothing to be told by.
_LEAST_CONTRAST = 4.0
# Decoded photographs that are held at a time.
_KEPT = 16


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that show the same photograph.

    Attributes:
      kind: `SAME_FILE`, `SAME_PIXELS` or `CHANGED`.
      first: the one in train if one of them is.
      second: the other.
      difference: what differs after registration, 0 for exact copies, 1 for the most that re-encoding makes.
      noise_correlation: of the finest detail, in three quarters of the picture at least this; where none shows, of
        detail some pixels wide; 1 for exact copies.
    """

    kind: str
    first: Record
    second: Record
    difference: float = 0.0
    noise_correlation: float = 1.0

    @property
    def relation(self) -> str:
        """`TRAIN_AND_TEST`: a leak as it stands; `UNDECLARED`: one as soon as the split is divided."""
        if self.first.split != self.second.split:
            return TRAIN_AND_TEST
        return DECLARED if self.first.group == self.second.group else UNDECLARED

    @property
    def leaks(self) -> bool:
        """Whether the pair can stand on both sides of a cut into seen and evaluated images."""
        return self.relation != DECLARED

    @property
    def contradicts(self) -> bool:
        """Whether one is called good and the other defective."""
        return self.first.label != self.second.label


def find(looks: Sequence[Look], small: Sequence[np.ndarray]) -> tuple[Pair, ...]:
    """Copies among images, of the same and of different categories, the gravest pair first.

    Of n exact copies the first is paired with each of the others. Changed copies are looked for among the few likeliest
    of each image. Found are copies re-encoded as JPEG of quality 75 or more, resized down to a half, cropped by up to a
    tenth of width and height, and most of what was changed in several of these ways. Not found are copies that were
    turned, mirrored, or changed in brightness, and copies of aligned parts so alike and so free of noise that
    re-encoding leaves nothing to tell them by.

    Args:
      looks: the images.
      small: of the same images, see `images.small`.

    Raises:
      UserError: an image that was read before cannot be read again.
    """
    order = sorted(range(len(looks)), key=lambda i: (looks[i].record.split != "train", looks[i].record.path))
    looks, small = [looks[i] for i in order], [small[i] for i in order]
    # One of equal images in a split stands for all of them: a hundred copies make no 5,000 pairs.
    places: dict[tuple[str, str], int] = {}
    for i, one in enumerate(looks):
        if one.contrast >= _LEAST_CONTRAST:
            places.setdefault((one.pixel_hash, one.record.split), i)
    chosen = list(places.values())
    _, equal = np.unique([looks[i].pixel_hash for i in chosen], return_inverse=True)
    likely = copy_candidates.candidates([small[i] for i in chosen], equal.tolist())
    changed = _verified([looks[i] for i in chosen], likely)
    return tuple(sorted([*_exact(looks), *changed], key=_gravity))


def _gravity(pair: Pair) -> tuple:
    relation = (TRAIN_AND_TEST, UNDECLARED, DECLARED).index(pair.relation)
    kind = (SAME_FILE, SAME_PIXELS, CHANGED).index(pair.kind)
    return relation, not pair.contradicts, kind, pair.difference, pair.first.path, pair.second.path


def _exact(looks: Sequence[Look]) -> Iterator[Pair]:
    """The first of equal images with each of the others; equal files have equal pixels."""
    equal: dict[str, list[Look]] = collections.defaultdict(list)
    for one in looks:
        equal[one.pixel_hash].append(one)
    for first, *others in equal.values():
        for other in others:
            kind = SAME_FILE if other.file_hash == first.file_hash else SAME_PIXELS
            yield Pair(kind, first.record, other.record)


def _verified(looks: Sequence[Look], likely: Sequence[Candidate]) -> Iterator[Pair]:
    """Opens the photographs of each pair again, once, whichever of them was taken for the copy."""
    ways: dict[tuple[int, int], list[Candidate]] = collections.defaultdict(list)
    for one in likely:
        ways[min(one.copy, one.original), max(one.copy, one.original)].append(one)
    # Pairs of one photograph stand together, so that it is decoded once.
    read = functools.lru_cache(_KEPT)(_photograph)
    for found in in_order(lambda item: _copied(looks, read, *item), sorted(ways.items()), os.cpu_count()):
        yield from found


def _copied(
    looks: Sequence[Look], read: Callable[[str], Photograph], pair: tuple[int, int], ways: Sequence[Candidate]
) -> list[Pair]:
    """The pair if one photograph is a copy of the other, one way or the other way round."""
    shown = {place: read(looks[place].record.file) for place in pair}
    for one in ways:
        copy, original, window = shown[one.copy], shown[one.original], one.window
        back = copy_registration.inverse(window)
        # Where both show the whole, the copy is the one that lost more.
        if original.lost > copy.lost and copy_registration.plausible(back):
            copy, original, window = original, copy, back
        left = copy_registration.difference(copy, original, window)
        if left is not None and left.of_a_copy(one.distinct):
            return [Pair(CHANGED, looks[pair[0]].record, looks[pair[1]].record, left.size, left.agreement)]
    return []


def _photograph(file: str) -> Photograph:
    try:
        stored = open_image(file)[1]
    except UnreadableImageError as error:
        raise UserError(
            f"{file} could be read a moment ago and cannot now: {error}. Expected that nothing changes the folder "
            "meanwhile; run it again when it is at rest."
        ) from error
    tables = stored.quantization if isinstance(stored, JpegImagePlugin.JpegImageFile) else {}
    return Photograph(grey_levels(upright(stored)), tuple(tables.get(0, ())))
