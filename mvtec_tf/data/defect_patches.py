"""Patches of defects with their masks: cut out of labelled images, kept in a file, and put onto good images."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from mvtec_tf import files
from mvtec_tf.data import masks, pillow_images, poisson
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError

# Side of a patch in pixels.
SIDE = 64
# A patch is so much wider than its defect: what is around it says how it fits in.
_AROUND = 1.5
# Of one image so many separate defects, the largest; each is cut so often, at another place in its patch.
_MOST_DEFECTS, _SHIFTS = 8, 8
# Share of a pixel of a mask under the defect that makes it one; half would lose thin scratches.
_COVERED = 0.25
_SOURCES = ("path", "group", "category")


@dataclasses.dataclass(frozen=True, eq=False)
class Bank:
    """Patches of defects.

    Attributes:
      patches: uint8 [N, P, P, 4], red, green, blue, and 255 on the defect.
      sides: float32 [N], side of each as a share of that of its image.
      sources: path, group and category of the M labelled images that they were cut from, or learnt from.
    """

    patches: np.ndarray
    sides: np.ndarray
    sources: Sequence[tuple[str, str, str]]

    def __len__(self) -> int:
        """N."""
        return len(self.patches)

    def write(self, file: files.PathLike) -> None:
        """Writes an .npz file, whole or not at all."""
        named = {name: np.array(one) for name, one in zip(_SOURCES, zip(*self.sources, strict=True), strict=True)}
        with files.replacing(file) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, patches=self.patches, sides=self.sides, **named)


def read(file: files.PathLike) -> Bank:
    """A bank that `Bank.write` wrote.

    Raises:
      UserError: there is none, or the file is none; the message says what was found.
    """
    advice = "Expected defect_patches.npz or cut_patches.npz of a run of generate-defects."
    if not pathlib.Path(file).is_file():
        raise UserError(f"`defect_patches`={file}: no such file. {advice}")
    try:
        with np.load(file, allow_pickle=False) as stored:
            patches, sides = stored["patches"], stored["sides"]
            sources = list(zip(*(stored[name].tolist() for name in _SOURCES), strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"`defect_patches`={file}: no file of patches ({error}). {advice}") from error
    shape = patches.shape
    if patches.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 4 or not len(patches):
        raise UserError(
            f"`defect_patches`={file}: patches are {patches.dtype} {list(shape)}, expected uint8 [N, P, P, 4], the "
            f"last channel the mask. {advice}"
        )
    if sides.shape != shape[:1] or not ((sides > 0) & (sides <= 1)).all():
        raise UserError(f"`defect_patches`={file}: sides must be {shape[0]} shares of an image's side. {advice}")
    if empty := int((patches[..., 3] < 128).all(axis=(1, 2)).sum()):
        raise UserError(f"`defect_patches`={file}: {counted(empty, 'mask')} of {shape[0]} without a defect. {advice}")
    return Bank(patches, sides.astype(np.float32), sources)


def cut(records: Sequence[Record], images: np.ndarray, seed: int) -> tuple[Bank, list[tuple[str, str]]]:
    """Patches around the defects of labelled images.

    Args:
      records: defective images.
      images: their pixels, uint8 [N, S, S, 3].
      seed: random seed of where in its patch a defect lies.

    Returns:
      The bank, and (path, why) of images whose masks cannot be used.

    Raises:
      UserError: no image has a mask, or none that can be used.
    """
    rng, patches, sides, sources, unused = np.random.default_rng(seed), [], [], [], []
    shared = masks.shared(records)
    for record, image in zip(records, images, strict=True):
        try:
            mask = _mask(record, shared.get(record.path, ""), image.shape[0])
        except masks.MaskError as error:
            unused.append((record.path, str(error)))
            continue
        sources.append((record.path, record.group, record.category))
        for top, left, side in _places(mask, rng):
            box = (left, top, left + side, top + side)
            patches.append(np.dstack([_resized(image, SIDE, box), np.where(_resized(mask, SIDE, box) > 0, 255, 0)]))
            sides.append(side / image.shape[0])
    if not patches:
        named = f" ({unused[0][0]}: {unused[0][1]})" if unused else ""
        raise UserError(
            f"No mask of {counted(len(records), 'labelled defective image')} can be used{named}: patches are cut "
            "around masks. Expected ground_truth/DEFECT/IMAGE_mask.png, or the column mask of a list; or a larger "
            "`label_budget`."
        )
    return Bank(np.array(patches, np.uint8), np.array(sides, np.float32), sources), unused


def _mask(record: Record, other: str, side: int) -> np.ndarray:
    """uint8 [side, side], 255 on the defect."""
    if not record.mask:
        raise masks.MaskError(masks.MISSING, "it has no mask")
    masks.refuse_shared(other)
    mask = masks.read(record.mask, pillow_images.upright_size(record.file))
    return _resized(np.where(mask, 255, 0).astype(np.uint8), side)


def _resized(pixels: np.ndarray, side: int, box: tuple[int, ...] | None = None) -> np.ndarray:
    """uint8 [h, w] or [h, w, 3] -> [side, side], or with 3 channels; a mask keeps its two levels, and is not lost."""
    found = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box))
    if pixels.ndim == 3:
        return found
    return np.where(found >= min(255 * _COVERED, max(found.max(), 1)), 255, 0).astype(np.uint8)


def _places(mask: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """(top, left, side) of patches around each separate defect."""
    whole = mask.shape[0]
    numbered, _ = ndimage.label(mask, np.ones((3, 3)))
    boxes = ndimage.find_objects(numbered)
    areas = ndimage.sum_labels(mask > 0, numbered, np.arange(1, len(boxes) + 1))
    for number in np.argsort(-areas, kind="stable")[:_MOST_DEFECTS]:
        across = [(one.start, one.stop) for one in boxes[number]]
        side = min(whole, max(SIDE, int(np.ceil(_AROUND * max(stop - start for start, stop in across)))))
        for _ in range(_SHIFTS):
            # Anywhere in the patch as long as it is whole, and the patch in the image.
            ends = ((max(0, stop - side), min(start, whole - side)) for start, stop in across)
            top, left = (int(rng.integers(least, most + 1)) for least, most in ends)
            yield top, left, side


def pasted(
    image: np.ndarray, part: np.ndarray, patch: np.ndarray, side: int, turn: int, place: np.ndarray, draw: float
) -> tuple[np.ndarray, np.ndarray]:
    """A patch put onto an image, of which its defect and a narrow rim are blended in.

    Args:
      image: uint8 [S, S, 3].
      part: bool [S, S], where the part is.
      patch: uint8 [P, P, 4].
      side: side in pixels that it is brought to.
      turn: 0 to 7: quarters, and mirrored from 4 on.
      place: int [2], row and column of the part where a pixel of the defect comes to lie.
      draw: in [0, 1), says which.

    Returns:
      The image, and the region that was blended, bool [S, S], `place` in it.
    """
    patch = np.rot90(patch, turn % 4)[:, :: -1 if turn >= 4 else 1]
    colours, mask = (_resized(np.ascontiguousarray(one), side) for one in (patch[..., :3], patch[..., 3]))
    defect = np.argwhere(mask)
    start = place - defect[int(draw * len(defect))]
    region = ndimage.binary_dilation(mask > 0, iterations=max(1, side // 32))
    # At the patch's edge it says no gradient.
    region[[0, -1]] = region[:, [0, -1]] = False
    source, blended = image.copy(), np.zeros_like(part)
    least, most = np.maximum(start, 0), np.minimum(start + side, image.shape[0])
    here = tuple(slice(*ends) for ends in zip(least, most, strict=True))
    there = tuple(slice(*ends) for ends in zip(least - start, most - start, strict=True))
    source[here], blended[here] = colours[there], region[there]
    blended &= part
    blended[tuple(place)] = True
    return poisson.clone(image, source, blended), blended
