"""Pixel masks of defects: what a mask file says, which files are none, and whose they are.

One reader for exploration, evaluation, pictures and TensorFlow Datasets, so that they never disagree.
A mask has two levels, the lower one free of defect and the higher one defect. What has more is no
mask, because every way to read it is a guess that moves the figures.
"""

import collections
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from mvtec_tf.data import walk
from mvtec_tf.data.pillow_images import UnreadableImageError, read_stored
from mvtec_tf.data.record import IMAGE_SUFFIXES, MASKS, SPLITS, Record
from mvtec_tf.data.words import composed, listing, part_of
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike

CONTRADICTS = "on a good image"
EMPTY = "empty"
FULL = "full"
INVERTED = "inverted"
MISSING = "missing"
NO_MASK = "no mask"
OTHER_SIZE = "other size"
SHARED = "shared"
UNREADABLE = "unreadable"

# Names that people give the folder of masks, without case and punctuation.
_FOLDERS = {"groundtruth", "groundtruths", "gt", "mask", "masks"}
# Of 255: a JPEG's chroma is not quite neutral.
_COLOURLESS = 8
# The figures below are shares of the step from the lower to the higher level. JPEGs of 270 real masks at quality 30
# to 95, and the 388 masks of the magnetic tile set, which were JPEGs once, pass; blurred with a sigma of 2 pixels, or
# under noise with a sigma of 5 of 255, none does.
_LEAST_STEP = 64
_ON_A_LEVEL = 0.05
_BETWEEN = 0.25
# JPEG rings within the 8 x 8 pixels of a block that holds an edge, and nowhere else but for a few pixels.
_RINGING = 8
_MOST_FAR = 1e-3
# Pixels between the levels, for each pixel of the edge; an edge one pixel wide that was averaged has about 0.5.
_MOST_BETWEEN = 0.5
# So few grey values are classes, or two levels.
_FEW = 5
# The largest of 755 real defects covers 49 % of its image and 49 % of its border.
_MOST_AREA = 0.5
_MOST_BORDER = 0.5
# What a mask is called that lies beside its image, or a folder of masks beside that of their images.
_WORD = (
    "(?:mask(?:s|en?)?|masques?|m[aá]scaras?|maschera?|maschere|gt|ground_?truth|labels?|annotations?|seg|segmentation|"
    "overlays?)"
)
_OF_IMAGE = re.compile(rf"(.+?)[ _.-]?{_WORD}\Z|{_WORD}[ _.-](.+)", re.IGNORECASE)
# So many are named in a sentence.
_NAMED = 3
_NEIGHBOURS = np.ones((3, 3), bool)


class MaskError(Exception):
    """A mask that cannot be used; the text says what was found, and begins with "its mask".

    Attributes:
      state: which kind of fault, one of the words above.
      mask: bool [H, W], if it could be read at all.
    """

    def __init__(self, state: str, text: str, mask: np.ndarray | None = None) -> None:
        super().__init__(text)
        self.state, self.mask = state, mask


def read(file: PathLike, image_size: tuple[int, int] | None = None) -> np.ndarray:
    """The defect that a mask file marks.

    Args:
      file: of the mask.
      image_size: (height, width) of its image, upright; None if it is not known.

    Returns:
      bool [H, W], upright; True on the defect, which is neither nowhere nor everywhere.

    Raises:
      MaskError: the file cannot be read, is no mask, marks nothing or everything, or has another size.
    """
    try:
        stored = read_stored(file)
    except UnreadableImageError as error:
        raise MaskError(UNREADABLE, f"its mask cannot be used: {error}") from error
    mask = _two_levels(_values(stored))
    if image_size is not None and mask.shape != tuple(image_size):
        text = f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, the image {image_size[1]} x {image_size[0]}"
        turned = ", seen upright: one of them is turned by a quarter, by Exif or by whoever drew the mask"
        raise MaskError(OTHER_SIZE, text + turned * (mask.shape == tuple(image_size)[::-1]), mask)
    area = float(mask.mean())
    if area in (0.0, 1.0):
        words = "is empty: no pixel of it is set" if not area else "marks every pixel of the image"
        raise MaskError(FULL if area else EMPTY, f"its mask {words}", mask)
    border = float(np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean())
    if area > _MOST_AREA and border > _MOST_BORDER:
        text = f"its mask marks {area:.0%} of the image and {border:.0%} of its border, so it seems to be inverted"
        raise MaskError(INVERTED, text, mask)
    return mask


class Folders:
    """Folders of masks, in which the masks of images are found by their names.

    Of `PLACE/IMAGE.png` the mask is, in one of the folders, `PLACE/IMAGE_mask.png` as in MVTec AD, `PLACE/IMAGE.png`
    (both of any suffix) as in BTAD, or what lies alone in `PLACE/IMAGE/` as in MVTec LOCO.

    Args:
      folders: looked through in this order; those that are not there hold nothing.
      suffixes: of the files that are masks, in lower case.
    """

    def __init__(self, folders: Iterable[pathlib.Path], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> None:
        self._folders = list(folders)
        self._suffixes = suffixes
        self._found: dict[PathLike, Mapping[str, str]] = {}

    def of(self, image: PathLike, place: PathLike) -> str:
        """The mask of an image, "" if there is none.

        Args:
          image: file.
          place: folder below the folders of masks: the type of defect, or the image's own folder.
        """
        if place not in self._found:
            self._found[place] = self._listed(pathlib.PurePath(place).parts)
        stem = composed(pathlib.Path(image).stem)
        ones = (self._found[place].get(name, "") for name in (f"{stem}_mask", stem))
        return next(filter(None, ones), "")

    def _listed(self, steps: Sequence[str]) -> Mapping[str, str]:
        """Names without their suffixes -> files of a place, the preferred one of several of a name."""
        places = self._folders
        for step in steps:
            places = [below for place in places for below in _called(place, step)]
        found: dict[str, str] = {}
        for place in places:
            there = _inside(place)
            files = [file for file in there if self._may_be(file) and file.is_file()]
            for file in sorted(files, key=lambda file: (file.suffix != ".png", file.name)):
                found.setdefault(composed(file.stem), str(file))
            for folder in filter(pathlib.Path.is_dir, there):
                if len(alone := _inside(folder)) == 1 and self._may_be(alone[0]):
                    found.setdefault(composed(folder.name), str(alone[0]))
        return found

    def _may_be(self, file: pathlib.Path) -> bool:
        return file.name.lower().endswith(self._suffixes)


def _called(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """What lies in a folder under a name, in whichever form its umlauts are written there."""
    if name.isascii():
        return [folder / name]
    return [one for one in _inside(folder) if composed(one.name) == composed(name)]


def _inside(folder: pathlib.Path) -> list[pathlib.Path]:
    """What lies in a folder, sorted, without what other programs left there; nothing if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if not walk.is_clutter(one.name))


def shared(records: Iterable[Record]) -> Mapping[str, str]:
    """Image path -> another image that claims the same mask file, of those that do not show one object.

    `000.png` and `000.jpg` both have the mask `000_mask.png`, but which of them it was drawn on, nobody knows.
    """
    claims: dict[str, list[Record]] = collections.defaultdict(list)
    for record in records:
        if record.mask:
            claims[record.mask].append(record)
    found = {}
    for claimants in claims.values():
        if len({record.group for record in claimants}) > 1:
            first, second = claimants[:2]
            found |= {record.path: (second if record is first else first).path for record in claimants}
    return found


def refuse_shared(other: str) -> None:
    """Raises a `MaskError` if another image (its path, or "") claims the mask too."""
    if other:
        raise MaskError(SHARED, f"its mask is claimed by {other} too; rename one of the images and its mask")


def shared_sentences(records: Iterable[Record]) -> list[str]:
    """What to tell a person of the result of `shared`; nothing if it is empty."""
    pairs = sorted({tuple(sorted(pair)) for pair in shared(records).items()})
    named = listing(map(" and ".join, pairs), _NAMED, "; ")
    return [f"Images with one mask for two, so that it is used for neither: {named}."] if pairs else []


def beside_images(files: Iterable[PathLike], images: Iterable[PathLike] = ()) -> list[tuple[str, str]]:
    """(file, image) of the files that are called as the mask of another one, or whose folder is, sorted.

    So is `x.png` beside `x.jpg`, if it holds a mask and the other does not.

    Args:
      files: that may be masks.
      images: beside which they may lie, besides themselves.
    """
    asked, beside = {os.fspath(file) for file in files}, collections.defaultdict(list)
    for file in sorted(asked.union(map(os.fspath, images))):
        beside[composed(os.path.splitext(file)[0])].append(file)
    found = []
    for stem, ones in beside.items():
        mine = [file for file in ones if file in asked]
        of = next((beside[image][0] for image in _images_of(stem) if image in beside), "")
        if of or not mine or len(ones) == 1:
            found += [(file, of) for file in mine if of]
        elif photographs := [file for file in ones if not _holds_mask(file)]:
            found += [(file, photographs[0]) for file in mine if file not in photographs]
    return sorted(found)


def _holds_mask(file: str) -> bool:
    try:
        read(file)
    except MaskError as error:
        # Of a good part the mask may be empty.
        return error.state in (EMPTY, INVERTED)
    return True


def _images_of(stem: str) -> list[str]:
    """The images, without their suffixes, whose mask a file may be that is called so."""
    folder, name = os.path.split(stem)
    above, last = os.path.split(folder)
    own, whole = _OF_IMAGE.match(name), _OF_IMAGE.match(last)
    folders = [folder, *([os.path.join(above, whole[1] or whole[2])] if whole else [])]
    names = [name, *([own[1] or own[2]] if own else [])]
    return [os.path.join(*place) for place in itertools.product(folders, names)][1:]


def refuse_beside_images(files: Iterable[PathLike]) -> None:
    """Raises a `UserError` if a file or its folder is called as the mask of another one: it would be a photograph."""
    if found := beside_images(files):
        mask, image = found[0]
        raise UserError(
            f"{mask}: called as a mask of {image} beside it ({len(found)} such files). Masks among the images would be "
            f"taken for photographs: put them into {MASKS}/DEFECT/IMAGE_mask.png or into the column mask of a list. If "
            "they are photographs, give them other names."
        )


def refuse_as_defect(records: Iterable[Record]) -> None:
    """Raises a `UserError` if a type of defect is called as a folder of masks, and its images are masks."""
    by_folder: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for record in records:
        if record.label and _bare(record.defect) in _FOLDERS:
            by_folder[record.category, record.defect].append(record.file)
    for files in by_folder.values():
        if all(map(_holds_mask, files)):
            raise UserError(
                f"{os.path.dirname(files[0])}: masks among the images? They belong in {MASKS}/DEFECT. If they are "
                "photographs, give the folder another name."
            )


def unclaimed(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Files among the masks that are the mask of no image, and no image themselves.

    Looked at are the folders of masks in use, and all that is called like a folder of masks (`Ground_Truth`,
    `ground-truth`, `masks`) beside the images of a category, and in its test images as MVTec AD 2 has it.

    Returns:
      (file, why it is not used) each, sorted.
    """
    known = {os.path.abspath(file) for record in records for file in (record.mask, record.file) if file}
    by_root: dict[pathlib.Path, list[Record]] = collections.defaultdict(list)
    for record in records:
        root = _root(record)
        if root is not None:
            by_root[root].append(record)
    found = {}
    for folder in {pathlib.Path(record.mask).parent for record in records if record.mask}:
        found |= {file: () for file in folder.iterdir() if file.is_file() and not walk.is_clutter(file.name)}
    for root, ones in by_root.items():
        places = [root, *(child for child in _inside(root) if part_of(child.name) in SPLITS)]
        folders = [child for place in places for child in _inside(place) if _bare(child.name) in _FOLDERS]
        found |= {pathlib.Path(file): ones for folder in folders for file in walk.walk(folder).files}
    return tuple(
        (str(file), _why(file, ones)) for file, ones in sorted(found.items()) if os.path.abspath(file) not in known
    )


def sentences(unused: Sequence[tuple[str, str]]) -> list[str]:
    """What to tell a person of the result of `unclaimed`; nothing if it is empty."""
    if not unused:
        return []
    named = listing((f"{file}: {why}" for file, why in unused), _NAMED, "; ", ", which mvtec-tf explore lists")
    return [f"Masks that no image claims, so that they are not used: {len(unused)} ({named})."]


def _values(stored: Image.Image) -> np.ndarray:
    """Grey values as stored, [H, W], of any number of bits."""
    if getattr(stored, "n_frames", 1) > 1:
        raise MaskError(NO_MASK, f"its mask holds {stored.n_frames} pictures")
    if stored.mode.startswith(("1", "L", "F", "I")) and stored.mode != "LA" and "transparency" not in stored.info:
        return np.asarray(stored)
    colours = np.asarray(stored.convert("RGBA"))
    alpha = colours[..., 3]
    if alpha.min() != alpha.max() or not alpha.any():
        text = "its mask is partly transparent, so two things say where the defect is; save it without transparency"
        raise MaskError(NO_MASK, text if alpha.any() else "its mask is transparent everywhere")
    differ = np.ptp(colours[..., :3].astype(np.int16), axis=-1)
    if differ.max() > (_COLOURLESS if stored.format == "JPEG" else 0):
        share = float((differ > 0).mean())
        text = f"its mask is no mask: {_percent(share)} of its pixels have a colour; expected black and white"
        raise MaskError(NO_MASK, text)
    return colours[..., 1]


def _two_levels(values: np.ndarray) -> np.ndarray:
    """bool [H, W], True where the higher level is."""
    found = np.unique(values)
    if not np.isfinite(found).all():
        raise MaskError(NO_MASK, "its mask is no mask: it holds values that are not finite")
    if len(found) == 1:
        return np.full(values.shape, bool(found[0] > 0))
    middle = (float(found[0]) + float(found[-1])) / 2
    if len(found) == 2:
        return values > middle
    levels = [float(np.median(values[side])) for side in (values <= middle, values > middle)]
    step = levels[1] - levels[0]
    mask = values > sum(levels) / 2
    off = np.minimum(*(np.abs(values - np.float32(level)) for level in levels)) / np.float32(step)
    text = f"its mask is no mask: it has {len(found)} grey values from {found[0]:g} to {found[-1]:g}"
    few = f" ({', '.join(f'{value:g}' for value in found)})" if len(found) <= _FEW else ""
    if step < _LEAST_STEP or (few and off.max() > _ON_A_LEVEL):
        raise MaskError(NO_MASK, f"{text}{few}; expected two levels, black and white")
    # Imported here: most masks are of two levels, and need no look at their edges.
    from scipy import ndimage

    edge = ndimage.binary_dilation(mask, _NEIGHBOURS) & ~ndimage.binary_erosion(mask, _NEIGHBOURS, border_value=1)
    far = (off > _ON_A_LEVEL) & ~ndimage.binary_dilation(edge, _NEIGHBOURS, iterations=_RINGING - 1)
    if far.mean() > _MOST_FAR:
        raise MaskError(
            NO_MASK,
            f"{text}, and {_percent(far.mean())} of its pixels are neither of two levels though no edge is near; "
            "expected two levels, black and white",
        )
    between = off > _BETWEEN
    if between.sum() > _MOST_BETWEEN * edge.sum() or ndimage.binary_erosion(between, _NEIGHBOURS).any():
        raise MaskError(
            NO_MASK, f"{text}, and its edges are soft; set what is above half to white and the rest to black"
        )
    return mask


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _root(record: Record) -> pathlib.Path | None:
    """The folder of a record's category; None where the images lie elsewhere, as a list may have it."""
    below = pathlib.PurePosixPath(record.path).parts[1:]
    file = pathlib.Path(record.file)
    return file.parents[len(below) - 1] if below and file.parts[-len(below) :] == below else None


def _why(file: pathlib.Path, records: Sequence[Record]) -> str:
    """Says what the mask would have to be called, if it is nearly the mask of some image."""
    stem = _bare(file.stem).removesuffix("mask")
    for record in records:
        image = pathlib.PurePosixPath(record.path)
        place = f"{MASKS}/{record.defect}/{image.stem}_mask.png"
        below = (file.parent.name, file.parents[1].name) == (image.stem, record.defect)
        if below and (parts := len(_inside(file.parent))) > 1:
            return f"one of {parts} masks of {record.path}; join them into {place}"
        if _bare(image.stem) == stem and _bare(record.defect) == _bare(file.parent.name):
            return f"the mask of {record.path} is {place}" + (", which is there too" if record.mask else "")
    return f"no image has it; expected {MASKS}/DEFECT/IMAGE_mask.png, or a line of a list that names it"


def _bare(name: str) -> str:
    return "".join(letter for letter in composed(name).casefold() if letter.isalnum())
