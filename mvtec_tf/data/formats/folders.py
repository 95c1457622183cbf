"""Reading folders of photographs: the MVTec layout, and plain folders of good and defective images."""

import functools
import pathlib
from collections.abc import Iterator

from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats import division
from mvtec_tf.data.record import GOOD, IMAGE_SUFFIXES, TEST, TRAIN, Category, Record
from mvtec_tf.errors import UserError

GROUPS_FILE = "groups.csv"
DEFECTIVE = "defective"
MASKS = "ground_truth"
_MVTEC_HINT = (
    f"the MVTec layout (CATEGORY/{TRAIN}/{GOOD}/*.png, CATEGORY/{TEST}/{GOOD}/*.png, CATEGORY/{TEST}/DEFECT/*.png and, "
    f"optionally, CATEGORY/{MASKS}/DEFECT/*_mask.png)"
)
_PLAIN_HINT = (
    f"the plain layout (CATEGORY/{GOOD}/*.png, CATEGORY/{DEFECTIVE}/*.png or CATEGORY/{DEFECTIVE}/DEFECT/*.png)"
)
_HINT = f"Expected {_MVTEC_HINT}, {_PLAIN_HINT}, or a .csv file with the columns path,label."
# So many names show what a folder holds without burying the message.
_NAMED = 5


def categories(data_dir: pathlib.Path) -> list[Category]:
    """The categories of a folder, which is one itself or holds some.

    Raises:
      UserError: it is no folder, or there is no category in it.
    """
    if not data_dir.is_dir():
        found = "a file" if data_dir.exists() else "nothing"
        raise UserError(f"--data_dir={data_dir}: expected a folder or a .csv file, found {found}. {_HINT}")
    found = [_category(folder) for folder in _category_folders(data_dir)]
    if not found:
        raise UserError(f"--data_dir={data_dir}: no category folder in it; {_contents(data_dir)}. {_HINT}")
    return found


def holds_categories(folder: pathlib.Path) -> bool:
    """Whether a folder is a category or holds some."""
    return bool(_category_folders(folder))


def _category_folders(data_dir: pathlib.Path) -> list[pathlib.Path]:
    if _is_category(data_dir):
        return [data_dir]
    return sorted(child for child in data_dir.iterdir() if child.is_dir() and _is_category(child))


def _is_mvtec(folder: pathlib.Path) -> bool:
    return (folder / TRAIN).is_dir() or (folder / TEST).is_dir()


def _is_plain(folder: pathlib.Path) -> bool:
    return (folder / GOOD).is_dir() or (folder / DEFECTIVE).is_dir()


def _is_category(folder: pathlib.Path) -> bool:
    return _is_mvtec(folder) or _is_plain(folder)


def _category(folder: pathlib.Path) -> Category:
    whole = folder.resolve()
    if whole.name in (TRAIN, TEST) and not _is_mvtec(folder):
        raise UserError(
            f"--data_dir={folder}: one half of a category in the MVTec layout. Name the folder above it, "
            f"{whole.parent}."
        )
    if _is_mvtec(folder) and _is_plain(folder):
        raise UserError(f"{folder}: {_contents(folder)}, which is two layouts at once. Expected either. {_HINT}")
    read = _read_mvtec if _is_mvtec(folder) else _read_plain
    return Category(whole.name, folder, functools.partial(read, whole.name, folder))


def _read_mvtec(name: str, folder: pathlib.Path) -> tuple[list[Record], list[str]]:
    groups = _Groups(folder)
    records = []
    for split in (TRAIN, TEST):
        for image in _images(folder / split):
            relative = image.relative_to(folder)
            if len(relative.parts) != 3:
                raise UserError(f"{image}: expected {folder / split}/DEFECT/IMAGE. {_HINT}")
            records.append(_record(name, folder, image, relative.parts[1], split, groups))
    groups.check_all_used()
    good = folder / TRAIN / GOOD
    if not any(record.split == TRAIN and not record.label for record in records):
        raise UserError(f"{folder}: no good training images in {good}; {_contents(good)}. {_HINT}")
    defective = [record.path for record in records if record.split == TRAIN and record.label]
    if defective:
        raise UserError(
            f"{folder / TRAIN}: {len(defective)} images outside {TRAIN}/{GOOD}, the first is {defective[0]}. "
            f"Defective images belong below {TEST}/."
        )
    return records, []


def _read_plain(name: str, folder: pathlib.Path) -> tuple[list[Record], list[str]]:
    others = sorted(set(_folder_names(folder)) - {GOOD, DEFECTIVE, MASKS})
    if others:
        raise UserError(
            f"{folder}: the folders {', '.join(others)} are not part of {_PLAIN_HINT}. Put their images into {GOOD}/ "
            f"or {DEFECTIVE}/, or the folders elsewhere."
        )
    groups = _Groups(folder)
    records = [_record(name, folder, image, GOOD, "", groups) for image in _images(folder / GOOD)]
    for image in _images(folder / DEFECTIVE):
        defect = _plain_defect(folder, image)
        records.append(_record(name, folder, image, defect, "", groups))
    groups.check_all_used()
    records = sorted(division.divide(records), key=lambda record: record.path)
    good = folder / GOOD
    if not any(not record.label for record in records):
        raise UserError(f"{folder}: no good images in {good}; {_contents(good)}. {_HINT}")
    if not any(record.split == TRAIN for record in records):
        raise UserError(
            f"{folder}: no good images are left for training: the few that there are were kept for testing, because of "
            f"their names or because {GROUPS_FILE} joins them with a defective one. Add good images."
        )
    return records, [division.describe(name, records)]


def _plain_defect(folder: pathlib.Path, image: pathlib.Path) -> str:
    """`defective/IMAGE` is of the type "defective", `defective/DEFECT/IMAGE` of the type DEFECT."""
    between = image.relative_to(folder / DEFECTIVE).parts[:-1]
    if len(between) > 1:
        raise UserError(f"{image}: too deep. Expected {folder / DEFECTIVE}/IMAGE or {folder / DEFECTIVE}/DEFECT/IMAGE.")
    if between == (GOOD,):
        raise UserError(f"{image}: a folder {GOOD!r} among the defective ones. Good images belong in {folder / GOOD}.")
    return between[0] if between else DEFECTIVE


def _record(
    name: str, folder: pathlib.Path, image: pathlib.Path, defect: str, split: str, groups: "_Groups"
) -> Record:
    key = image.relative_to(folder).as_posix()
    mask = folder / MASKS / defect / f"{image.stem}_mask.png"
    return Record(
        path=f"{name}/{key}",
        file=str(image),
        category=name,
        defect=defect,
        label=int(defect != GOOD),
        split=split,
        group=f"{name}/{groups.of(key)}",
        mask=str(mask) if mask.is_file() else "",
    )


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _folder_names(folder: pathlib.Path) -> Iterator[str]:
    return (child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _contents(folder: pathlib.Path) -> str:
    """What a message says of a folder that does not hold what it should."""
    if not folder.is_dir():
        return "there is no such folder"
    names = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    if not names:
        return "it is empty"
    tables = [name for name in names if name.lower().endswith(".csv") and name != GROUPS_FILE]
    advice = f" (for the list of images itself, name {folder / tables[0]})" if tables else ""
    return f"it holds {', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}{advice}"


class _Groups:
    """`groups.csv` of a category: which photographs show the same object.

    Args:
      folder: of the category; paths in the file are relative to it.

    Raises:
      UserError: the file lacks a column or a value, or names a path twice.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._file = folder / GROUPS_FILE
        self._unused = _read_groups(self._file) if self._file.is_file() else {}

    def of(self, key: str) -> str:
        """The object on the image `key`; the image's own name if the file does not say."""
        return self._unused.pop(key, key)

    def check_all_used(self) -> None:
        """Raises a `UserError` if the file names an image that is not there: then something is misspelt."""
        if self._unused:
            raise UserError(
                f"{self._file}: {len(self._unused)} of its paths are no images of this category, the first is "
                f"{next(iter(self._unused))!r}. Paths are relative to {self._file.parent}."
            )


def _read_groups(path: pathlib.Path) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line, row in CsvTable(path, ("path", "group")):
        if not row["path"] or not row["group"]:
            raise UserError(f"{path}, line {line}: path and group must both be given, found {row}.")
        if row["path"] in groups:
            raise UserError(f"{path}, line {line}: {row['path']!r} stands there twice.")
        groups[row["path"]] = row["group"]
    return groups
