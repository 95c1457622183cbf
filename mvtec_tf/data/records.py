"""One row per image: what a folder of product photographs says about each of them."""

import csv
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from mvtec_tf.errors import UserError

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
GOOD = "good"
GROUPS_FILE = "groups.csv"
_LAYOUT_HINT = (
    "Expected the MVTec layout: CATEGORY/train/good/*.png, CATEGORY/test/good/*.png, "
    "CATEGORY/test/DEFECT/*.png and, optionally, CATEGORY/ground_truth/DEFECT/*_mask.png."
)


@dataclasses.dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
      path: its name in every table, `CATEGORY/test/DEFECT/000.png`, the same on every machine.
      file: where it lies on this machine.
      category: the product.
      defect: the defect type, or "good".
      label: 1 if defective, else 0.
      split: "train" or "test", the folder it came from.
      group: the physical object it shows; the path itself unless `groups.csv` says otherwise.
      mask: file of the pixel mask of the defect, "" if there is none.
    """

    path: str
    file: str
    category: str
    defect: str
    label: int
    split: str
    group: str
    mask: str = ""


def scan(data_dirs: Sequence[PathLike], categories: Sequence[str] = ()) -> tuple[Record, ...]:
    """Records of all images below `data_dirs`, sorted by path.

    Args:
      data_dirs: each a category folder (it holds `train/` or `test/`) or a folder of categories.
      categories: if given, only these.

    Raises:
      UserError: a folder is missing or holds no category, two folders hold the same category, a
        wanted category is not there, a category has no good training images, or its
        `groups.csv` is wrong.
    """
    folders: dict[str, pathlib.Path] = {}
    for data_dir in data_dirs:
        for folder in _category_folders(pathlib.Path(data_dir)):
            name = folder.resolve().name
            if name in folders:
                raise UserError(
                    f"--data_dir: category {name!r} was found twice, in {folders[name]} and in {folder}. "
                    "Rename one of the folders or name only one of them."
                )
            folders[name] = folder
    missing = sorted(set(categories) - set(folders))
    if missing:
        raise UserError(f"--categories: no {missing} below {_names(data_dirs)}; found {sorted(folders)}.")
    wanted = sorted(categories or folders)
    return tuple(record for name in wanted for record in _scan_category(name, folders[name]))


def fingerprint(records: Iterable[Record]) -> str:
    """SHA-256 (hex) of names, labels, groups and file contents: the same data, the same fingerprint."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.path}\0{record.label}\0{record.group}\0".encode())
        digest.update(hashlib.sha256(pathlib.Path(record.file).read_bytes()).digest())
    return digest.hexdigest()


def _names(paths: Sequence[PathLike]) -> str:
    return ", ".join(os.fspath(path) for path in paths)


def _category_folders(data_dir: pathlib.Path) -> list[pathlib.Path]:
    if not data_dir.is_dir():
        found = "a file" if data_dir.exists() else "nothing"
        raise UserError(f"--data_dir={data_dir}: expected a folder, found {found}. {_LAYOUT_HINT}")
    if _is_category(data_dir):
        return [data_dir]
    folders = sorted(child for child in data_dir.iterdir() if child.is_dir() and _is_category(child))
    if not folders:
        raise UserError(f"--data_dir={data_dir}: no category folder in it. {_LAYOUT_HINT}")
    return folders


def _is_category(folder: pathlib.Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _scan_category(name: str, folder: pathlib.Path) -> list[Record]:
    groups = _read_groups(folder)
    records = []
    for split in ("train", "test"):
        for image in _images(folder / split):
            relative = image.relative_to(folder)
            if len(relative.parts) != 3:
                raise UserError(f"{image}: expected {folder / split}/DEFECT/IMAGE. {_LAYOUT_HINT}")
            defect = relative.parts[1]
            key = relative.as_posix()
            records.append(
                Record(
                    path=f"{name}/{key}",
                    file=str(image),
                    category=name,
                    defect=defect,
                    label=int(defect != GOOD),
                    split=split,
                    group=f"{name}/{groups.pop(key, key)}",
                    mask=_mask(folder, defect, image.stem),
                )
            )
    if groups:
        raise UserError(
            f"{folder / GROUPS_FILE}: {len(groups)} of its paths are no images of this category, the first is "
            f"{next(iter(groups))!r}. Paths are relative to {folder}."
        )
    if not any(record.split == "train" and not record.label for record in records):
        raise UserError(f"{folder}: no good training images in {folder / 'train' / GOOD}. {_LAYOUT_HINT}")
    defective = [record.path for record in records if record.split == "train" and record.label]
    if defective:
        raise UserError(
            f"{folder / 'train'}: {len(defective)} images outside train/good, the first is {defective[0]}. "
            "Defective images belong below test/."
        )
    return records


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _mask(folder: pathlib.Path, defect: str, stem: str) -> str:
    mask = folder / "ground_truth" / defect / f"{stem}_mask.png"
    return str(mask) if mask.is_file() else ""


def _read_groups(folder: pathlib.Path) -> dict[str, str]:
    path = folder / GROUPS_FILE
    if not path.is_file():
        return {}
    groups: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"path", "group"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path}: expected the columns path,group, found {reader.fieldnames}.")
        for row in reader:
            if not row["path"] or not row["group"]:
                raise UserError(f"{path}, line {reader.line_num}: path and group must both be given, found {row}.")
            if row["path"] in groups:
                raise UserError(f"{path}, line {reader.line_num}: {row['path']!r} stands there twice.")
            groups[row["path"]] = row["group"]
    return groups
