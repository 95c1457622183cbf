"""Reading a CSV list of photographs: `path,label` and, optionally, `category,defect,mask,group,split`."""

import dataclasses
import functools
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable

from mvtec_tf.data import masks, walk, words
from mvtec_tf.data.csv_table import CsvTable, Places
from mvtec_tf.data.formats import division, groups_file, layout, names
from mvtec_tf.data.record import DEFECTIVE, GOOD, IMAGE_SUFFIXES, TEST, TRAIN, VALIDATION, Category, Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError

SUFFIX = ".csv"
REQUIRED = ("path", "label")
OPTIONAL = ("category", "defect", "mask", "group", "split")
# So many wrong lines are listed; with a wrong folder every line is wrong.
_LISTED = 5
# On a line most parts are good: of so many images, this share of defective ones is rather a list in which 1 is good.
_MANY, _MOST_DEFECTIVE = 10, 0.8


class _RowError(Exception):
    """What is wrong with one line."""


def categories(path: pathlib.Path) -> tuple[list[Category], list[str]]:
    """The categories of a CSV file, and what is to be said of the file; all lines are checked.

    Paths of images and masks are relative to the folder of the file. An image is named CATEGORY/NAME in all
    tables, where NAME depends on its own place and not on the list's: see `names.within_category`.

    - `label`: 0 or good, 1 or defective, or a common word for one of them; 0 and 1 also as pandas and Excel write them,
      1.0 and 1,0.
    - `category`: of the product; without it the category's folder that the image lies in, as if that folder
      were read, or else the name of the file without `.csv`.
    - `defect`: type of a defective image; "defective" where it is empty.
    - `mask`: file of the pixel mask.
    - `group`: the physical object; images with one name here show the same.
    - `split`: train or test, or a common word for them, for all images of a category or for none; train is for good
      images. Without it, `division.divide` decides.

    Raises:
      UserError: names the file and the first wrong lines, or a category without good images for training.
    """
    table = CsvTable(path, REQUIRED, OPTIONAL)
    if "group" not in table.columns:
        groups_file.refuse_beside(path)
    reader = _Reader(path)
    for line, row in table:
        reader.add(line, row)
    found = reader.by_category()
    sentences = reader.sentences()
    if unused := table.unused(REQUIRED + OPTIONAL):
        sentences.append(f"{path}: columns that are not used: {', '.join(unused)}.")
    return [
        Category(name, path, functools.partial(_read_category, path, name, found[name])) for name in sorted(found)
    ], sentences


def _read_category(
    path: pathlib.Path, name: str, rows: dict[str, tuple[int, Record]]
) -> tuple[list[Record], list[str]]:
    sentences = []
    records = [rows[key][1] for key in sorted(rows)]
    if not any(not record.label for record in records):
        raise UserError(f"{path}: no good images of category {name!r} in it. Every method learns from good images.")
    undivided = [line for line, record in rows.values() if not record.split]
    if undivided and len(undivided) < len(rows):
        raise UserError(
            f"{path}, line {min(undivided)}: split is empty, but other images of category {name!r} have one. "
            "Give it for all of them or for none."
        )
    if undivided:
        records, sentences = division.described(name, records)
    if not any(record.split == TRAIN for record in records):
        advice = f"Write {TRAIN} into the column split of some good ones."
        if undivided:
            why = "by their names or because group joins them with a defective one"
            advice = groups_file.one_object(records) or f"All were kept for testing, {why}. Add some."
        raise UserError(f"{path}: no good images of category {name!r} are for training. {advice}")
    return records, sentences


class _Reader:
    """Takes the rows of a list one by one; what is wrong with them is told at once, in the end."""

    def __init__(self, table: pathlib.Path) -> None:
        self._table = table
        self._places = Places(table.parent)
        self._lines: dict[str | tuple[int, int], int] = {}
        self._rows: dict[str, list[tuple[int, Record, str]]] = defaultdict(list)
        self._wrong: list[str] = []
        self._words: dict[str, Counter] = {"labels": Counter(), "splits": Counter()}
        self._numbers: Counter = Counter()
        self._against = ""
        self._categories: Counter = Counter()
        # Looks once for each folder.
        self._category_of = functools.cache(layout.category_of)

    def add(self, line: int, row: dict[str, str]) -> None:
        """One row."""
        try:
            record, group = self._record(row), _given(row, "group")
            first = self._lines.setdefault(walk.identity(record.file), line)
            if first != line:
                raise _RowError(f"{names.printable(record.file)} stands in line {first} already")
        except _RowError as error:
            self._wrong.append(f"line {line}: {error}")
            return
        self._rows[record.category].append((line, record, group))

    def by_category(self) -> dict[str, dict[str, tuple[int, Record]]]:
        """category -> name of the image -> (line, record)."""
        if self._wrong:
            more = f"\n  ... and {len(self._wrong) - _LISTED} more lines" if len(self._wrong) > _LISTED else ""
            wrong = "\n  ".join(self._wrong[:_LISTED])
            raise UserError(f"{self._table}: {len(self._wrong)} wrong line(s):\n  {wrong}{more}")
        masks.refuse_beside_images(record.file for rows in self._rows.values() for _, record, _ in rows)
        if not self._rows:
            raise UserError(f"{self._table}: no images in it, only a header.")
        found = {}
        for category, rows in self._rows.items():
            within = names.within_category([record.file for _, record, _ in rows])
            named = [
                (line, _named(record, f"{category}/{names.text(name)}", group))
                for (line, record, group), name in zip(rows, within, strict=True)
            ]
            found[category] = {record.path: (line, record) for line, record in named}
            if len(found[category]) < len(named):
                raise UserError(
                    f"{self._table}: in {category!r} the names of two files differ in the form of an umlaut only. "
                    "Rename one."
                )
        self._refuse_turned_round(one for rows in found.values() for _, one in rows.values())
        return found

    def _refuse_turned_round(self, records: Iterable[Record]) -> None:
        """A list in which 1 is good trains and judges as well as any other, and then stops all good parts."""
        about, others, agree = words.against_folders(
            (one.path.removeprefix(f"{one.category}/"), one.label) for one in records
        )
        if agree < others and self._numbers:
            raise UserError(
                f"{self._table}: {about}; {agree} as the folder. 1 is {DEFECTIVE} and 0 {GOOD}: are they turned round? "
                f"Turn them, or write the words {GOOD} and {DEFECTIVE} if they are right."
            )
        self._against = f"{self._table}: {about}; the list is believed." if about else ""

    def sentences(self) -> list[str]:
        """What was read otherwise than it is written."""
        unsaid = {name: count for (said, name), count in sorted(self._categories.items()) if not said}
        # Where none is said, all take the name of their place, as documented.
        lines = ", ".join(f"{name} ({count})" for name, count in unsaid.items() if len(unsaid) < len(self._categories))
        return [
            *(f"{self._table}: {what} that were read: {words.taken_as(n)}." for what, n in self._words.items() if n),
            *([f"{self._table}: lines without a category, and the one that was taken: {lines}."] if lines else []),
            *filter(None, [self._against, self._many_defective()]),
        ]

    def _many_defective(self) -> str:
        defective, images = self._numbers[1], self._numbers.total()
        if images < _MANY or defective < _MOST_DEFECTIVE * images:
            return ""
        return (
            f"{self._table}: {defective} of {counted(images, 'image')} are labelled 1, which is {DEFECTIVE}. If 1 is "
            f"{GOOD} in this list, its labels are turned round: write the words {GOOD} and {DEFECTIVE}."
        )

    def _record(self, row: dict[str, str]) -> Record:
        label = self._label(row["label"])
        file = self._existing(row["path"], "path")
        if pathlib.Path(file).suffix.lower() not in IMAGE_SUFFIXES:
            raise _RowError(f"{row['path']}: expected an image, {', '.join(IMAGE_SUFFIXES)}")
        said = _plain_name(row, "category")
        category = names.text(said or os.path.basename(self._category_of(os.path.dirname(file))) or self._table.stem)
        self._categories[bool(said), category] += 1
        return Record(
            path="",
            file=file,
            category=category,
            defect=_defect(row, label),
            label=label,
            split=self._split(row.get("split", ""), label),
            group="",
            mask=self._existing(row["mask"], "mask") if row.get("mask") else "",
        )

    def _label(self, word: str) -> int:
        label = words.label_of(word)
        if label is None:
            raise _RowError(f"label is {word!r}, expected 0 or {GOOD}, 1 or {DEFECTIVE}")
        if words.is_number(word):
            self._numbers[label] += 1
        else:
            self._take("labels", word, DEFECTIVE if label else GOOD)
        return label

    def _split(self, word: str, label: int) -> str:
        split = words.part_of(word)
        if split == VALIDATION:
            split = TRAIN
        if word and split not in (TRAIN, TEST):
            raise _RowError(f"split is {word!r}, expected {TRAIN}, {TEST}, or nothing in all lines")
        if split == TRAIN and label:
            raise _RowError(
                f"a defective image with the split {word}, for which only good images may be listed. Write {TEST}: the "
                "protocol draws the labelled defects to learn from among these"
            )
        if split:
            self._take("splits", word, split)
        return split

    def _take(self, what: str, word: str, meaning: str) -> None:
        if word.casefold() != meaning:
            self._words[what][word, meaning] += 1

    def _existing(self, written: str, column: str) -> str:
        if not written:
            raise _RowError(f"{column} is empty")
        file = self._places.find(written)
        if not file:
            raise _RowError(f"{column} {written}: {self._places.missing(written)}")
        return file


def _named(record: Record, path: str, group: str) -> Record:
    return dataclasses.replace(record, path=path, group=f"{record.category}/{group}" if group else path)


def _given(row: dict[str, str], column: str) -> str:
    says_nothing = words.is_no_object if column == "group" else words.is_placeholder
    if says_nothing(row.get(column, "")):
        raise _RowError(f"{column} is {row[column]!r}. Write nothing where there is none")
    return row.get(column, "")


def _plain_name(row: dict[str, str], column: str) -> str:
    name = _given(row, column)
    # Names of categories and defects become names of files in reports.
    if "/" in name or "\\" in name or name.startswith("."):
        raise _RowError(f"{column} is {name!r}, expected a name without / or \\ that begins with no dot")
    return name


def _defect(row: dict[str, str], label: int) -> str:
    if label and words.sounds_good(row.get("defect", "")):
        raise _RowError(f"label says {DEFECTIVE}, defect says {row['defect']!r}, which sounds like {GOOD}")
    defect = _plain_name(row, "defect")
    if label and words.is_good(defect):
        raise _RowError(f"label says {DEFECTIVE}, defect says {defect!r}")
    if not label and defect and not words.is_good(defect):
        raise _RowError(f"label says {GOOD}, defect says {defect!r}")
    return (defect or DEFECTIVE) if label else GOOD
