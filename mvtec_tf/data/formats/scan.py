"""One row per image: what a folder of product photographs, or a list of them, says about each.

Every layout gives the same `Record`s, so that nothing downstream knows where they came from:

- the MVTec layout, `CATEGORY/train/good`, `CATEGORY/test/good`, `CATEGORY/test/DEFECT`;
- a plain folder, `CATEGORY/good` and `CATEGORY/defective` (`folders.py` for both);
- a CSV file with the columns `path,label` and more if there is more to say (`image_list.py`).
"""

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from mvtec_tf import files
from mvtec_tf.data import masks, words
from mvtec_tf.data.formats import division, folders, groups_file, image_list
from mvtec_tf.data.record import Category, Record
from mvtec_tf.errors import UserError


def scan(
    data_dirs: Sequence[files.PathLike],
    categories: Sequence[str] = (),
    say: Callable[[str], None] = lambda sentence: None,
) -> tuple[Record, ...]:
    """Records of all images of `data_dirs`, category by category, sorted by path within each.

    Args:
      data_dirs: each a category folder, a folder of categories, or a CSV file.
      categories: if given, only these.
      say: called with a sentence for everything that the reader decided by itself, such as which good images
        of a plain folder are for testing.

    Raises:
      UserError: no source is named, one is missing or holds no category, two sources hold the same category, a wanted
        category is not there, a category has no good images for training, its `groups.csv` or
        the CSV file is wrong, or two categories, defect types or groups differ in case, spaces, hyphens,
        underscores or zeros only.
    """
    if not all(os.fspath(one).strip() for one in data_dirs):
        raise UserError(
            "`data_dir`: an empty name, which would be the folder that this is called from. Write a dot for it."
        )
    if not data_dirs:
        raise UserError("`data_dir`: no folder and no list is named. Was it found by a pattern that fits nothing?")
    categories = [words.composed(name) for name in categories]
    found: dict[str, Category] = {}
    said: list[str] = []
    for data_dir in data_dirs:
        there, about = _categories(pathlib.Path(data_dir))
        said += about
        for category in there:
            if category.name in found:
                raise UserError(
                    f"`data_dir`: category {category.name!r} was found twice, in {found[category.name].source} and in "
                    f"{category.source}. Rename one of them or name only one of them."
                )
            found[category.name] = category
    _refuse_same_folder(found)
    words.refuse_twins("categories", found)
    missing = sorted(set(categories) - set(found))
    if missing:
        names = ", ".join(str(data_dir) for data_dir in data_dirs)
        raise UserError(f"`categories`: no {missing} in {names}; found {sorted(found)}.")
    for sentence in said:
        say(sentence)
    records: list[Record] = []
    for name in sorted(set(categories or found)):
        read, sentences = found[name].read()
        words.refuse_twins(f"defect types of category {name!r}", {record.defect for record in read})
        # An image without a group is one of its own, and names of files may differ in case only.
        given = {record.group for record in read if record.group != record.path}
        words.refuse_twins(f"groups of category {name!r}", given)
        read, more = division.with_good_tests(name, read)
        records += read
        for sentence in [*sentences, *more, groups_file.one_object(read), *masks.shared_sentences(read)]:
            if sentence:
                say(sentence)
    return tuple(records)


def fingerprint(records: Iterable[Record]) -> str:
    """SHA-256 (hex) of all that a record says, but its mask, and of its file: the same data, the same fingerprint."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.path}\0{record.label}\0{record.group}\0".encode())
        # The names of the MVTec layout say both already.
        if not record.path.startswith(f"{record.category}/{record.split}/{record.defect}/"):
            digest.update(f"{record.split}\0{record.defect}\0".encode())
        digest.update(bytes.fromhex(files.sha256(record.file)))
    return digest.hexdigest()


def _refuse_same_folder(found: Mapping[str, Category]) -> None:
    """A link gives one folder two names, and each photograph would be two."""
    known: dict[str, Category] = {}
    for category in found.values():
        first = known.setdefault(os.path.realpath(category.source), category)
        if first is not category and category.source.is_dir():
            raise UserError(
                f"{first.source} and {category.source} are the same folder, because of a link. Name one of them."
            )


def _categories(source: pathlib.Path) -> tuple[list[Category], list[str]]:
    if source.is_file() and source.suffix.lower() == image_list.SUFFIX:
        return image_list.categories(source)
    return folders.categories(source)
