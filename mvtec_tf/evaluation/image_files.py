"""Where the images and masks of a table's rows lie, and what a mask says of its image."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from mvtec_tf.data import known_images, leaks, masks, pillow_images, walk
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.pillow_images import UnreadableImageError
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted, listing
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.files import PathLike, sha256

# How many names a message holds.
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """What lies on the disk for one row of a table.

    Attributes:
      image: the image's file, "" if it is not known.
      mask: the mask's file, "" if there is none.
      mask_also_of: path of another image that claims the same mask, "" if there is none.
    """

    image: str = ""
    mask: str = ""
    mask_also_of: str = ""


def from_records(records: Sequence[Record], table: Predictions, source: str) -> dict[str, ImageFiles]:
    """Files of every row, by its path; see `records_of`."""
    found, also_of = records_of(records, table, source), masks.shared(records)
    return {
        path: ImageFiles(record.file, record.mask, also_of.get(record.path, ""))
        for path, record in zip(table.path.tolist(), found, strict=True)
    }


def records_of(records: Sequence[Record], table: Predictions, source: str) -> list[Record]:
    """The records of a table's rows, in their order.

    Args:
      records: what was found on the disk.
      table: whose images are wanted.
      source: where the records came from, the beginning of the message.

    Raises:
      UserError: an image of the table is not among the records, or has another label or other contents there.
    """
    known = {leaks.same_file_key(record.path): record for record in records}
    wanted = {path: leaks.same_file_key(path) for path in table.path.tolist()}
    missing = [path for path, key in wanted.items() if key not in known]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of the {len(wanted)} images of the table are not there, such as "
            f"{', '.join(missing[:_NAMED])}. Their paths begin with the category's folder name; name the folder that "
            "holds these images."
        )
    for path, label in zip(table.path.tolist(), table.label.tolist(), strict=True):
        if known[wanted[path]].label != label:
            raise UserError(
                f"{source}: {path} has the label {known[wanted[path]].label} there and {label} in the table. "
                "Name the images that the table is about."
            )
    digests = table.digests or (known_images.digests(table.images) if table.images else {})
    other = [path for path, key in wanted.items() if path in digests and digests[path] != sha256(known[key].file)]
    if other:
        raise UserError(
            f"{source}: these are not the images that were scored: {len(other)} of the {len(wanted)} evaluated ones, "
            f"{other[0]} first, have the same name and another content. Name the folder of the images that were scored."
        )
    return [known[wanted[path]] for path in table.path.tolist()]


def with_masks(folder: PathLike, table: Predictions, files: Mapping[str, ImageFiles]) -> dict[str, ImageFiles]:
    """The same files with the masks of `folder`, for those who keep them in a folder of their own.

    The mask of `a/b/000.png` is found in `a/b/` of that folder as `masks.Folders` finds it, with any suffix that Pillow
    reads as an image; good images need none.

    Args:
      folder: of masks.
      table: whose masks are wanted.
      files: of its rows, by path; may be empty.

    Raises:
      UserError: there is no such folder, or no mask of any defective image in it.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise UserError(f"`masks`={folder}: expected a folder of masks, found {found}.")
    below = _masks_below(root)
    result, first_of = {}, {}
    for path, label in zip(table.path.tolist(), table.label.tolist(), strict=True):
        mask = below(path) if label else ""
        other = first_of.setdefault(mask, path) if mask else path
        result[path] = dataclasses.replace(
            files.get(path, ImageFiles()), mask=mask, mask_also_of=other if other != path else ""
        )
        if other != path:
            result[other] = dataclasses.replace(result[other], mask_also_of=path)
    if table.label.any() and not any(one.mask for one in result.values()):
        first = table.path[table.label == 1][0]
        place = inside(root, first)
        raise UserError(
            f"`masks`={folder}: no mask of any of the {int(table.label.sum())} defective images. Of {first} the mask "
            f"would be {place}, the same with _mask.png instead of the suffix, or what lies alone in the folder "
            f"{place.with_suffix('')}."
        )
    return result


def unclaimed(folder: PathLike, table: Predictions) -> list[str]:
    """A sentence on the files of a folder of masks, see `with_masks`, that are the mask of no image of `table`."""
    root = pathlib.Path(os.path.abspath(folder))
    claimed = set(map(_masks_below(root), table.path.tolist()))
    found = [file for file in walk.walk(root).files if file.lower().endswith(_suffixes()) and file not in claimed]
    named = listing(os.path.relpath(file, root) for file in found)
    if not found:
        return []
    files = counted(len(found), "file is", "files are")
    return [f"`masks`={folder}: {files} the mask of no image of the table: {named}."]


def read_mask(files: ImageFiles) -> np.ndarray:
    """The defect of a defective image, bool [H, W], in the frame of the upright image.

    Raises:
      MaskError: there is none, another image claims it too, or `masks.read` refuses it.
      UserError: the image cannot be read.
    """
    if not files.mask:
        raise MaskError(masks.MISSING, "it has no mask, though others of its category have one")
    masks.refuse_shared(files.mask_also_of)
    return masks.read(files.mask, image_size(files.image) if files.image else None)


def image_size(file: str) -> tuple[int, int]:
    """(height, width) as seen upright, without decoding the pixels.

    Raises:
      UserError: not an image.
    """
    try:
        return pillow_images.upright_size(file)
    except UnreadableImageError as error:
        raise UserError(f"{file}: not a readable image ({error}).") from error


def categories_with_masks(table: Predictions, files: Mapping[str, ImageFiles]) -> tuple[str, ...]:
    """Categories in which a defective image has a mask; where none has, there are none on purpose."""
    rows = zip(table.path.tolist(), table.category.tolist(), table.label.tolist(), strict=True)
    return tuple(sorted({category for path, category, label in rows if label and files[path].mask}))


def inside(folder: PathLike, path: str) -> pathlib.Path:
    """The place of an image's path below a folder, never outside of it.

    Raises:
      UserError: the path leads out of the folder.
    """
    key = leaks.same_file_key(path).lstrip("/")
    if key.split("/", 1)[0] in ("..", ".", ""):
        raise UserError(f"The path {path!r} leads out of {folder}. Give the table paths below one folder.")
    return pathlib.Path(folder, key)


def _masks_below(folder: pathlib.Path) -> Callable[[str], str]:
    """Path of an image -> its mask below a folder, absolute, "" if there is none."""
    root = pathlib.Path(os.path.abspath(folder))
    finder = masks.Folders([root], _suffixes())

    def mask_of(path: str) -> str:
        place = inside(root, path)
        return finder.of(place, place.parent.relative_to(root))

    return mask_of


def _suffixes() -> tuple[str, ...]:
    return tuple(Image.registered_extensions())
