"""Reading folders of photographs: the MVTec layout, and plain folders of good and defective images."""

import collections
import functools
import os
import pathlib
import re
from collections.abc import Iterable

from mvtec_tf.data import masks, walk, words
from mvtec_tf.data.formats import division, groups_file, layout, names
from mvtec_tf.data.formats.groups_file import Groups
from mvtec_tf.data.record import DEFECTIVE, GOOD, MASKS, SPLITS, TEST, TRAIN, VALIDATION, Category, Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError

_MVTEC_HINT = (
    f"the MVTec layout (CATEGORY/{TRAIN}/{GOOD}/*.png, CATEGORY/{TEST}/{GOOD}/*.png, CATEGORY/{TEST}/DEFECT/*.png and, "
    f"optionally, CATEGORY/{MASKS}/DEFECT/*_mask.png)"
)
_PLAIN_HINT = (
    f"the plain layout (CATEGORY/{GOOD}/*.png, CATEGORY/{DEFECTIVE}/*.png or CATEGORY/{DEFECTIVE}/DEFECT/*.png)"
)
_SPREADSHEETS = (".xlsx", ".xls", ".ods")
_DATE = re.compile(r"(19|20)\d\d[-_. ]?\d\d[-_. ]?\d\d|\d\d[-_. ]\d\d[-_. ](\d\d){1,2}")
_HINT = f"Expected {_MVTEC_HINT}, {_PLAIN_HINT}, or a .csv file with the columns path,label."


def categories(data_dir: pathlib.Path) -> tuple[list[Category], list[str]]:
    """The categories of a folder, which is one itself or holds some, and what is to be said of the folder.

    Raises:
      UserError: it is no folder, there is no category in it, or it is a part of one.
    """
    if not data_dir.is_dir():
        found = "a file" if data_dir.exists() else "nothing"
        hint = 'Save the table as "CSV UTF-8". ' * (data_dir.suffix.lower() in _SPREADSHEETS) + _HINT
        raise UserError(f"`data_dir`={data_dir}: expected a folder or a .csv file, found {found}. {hint}")
    if layout.kinds(data_dir):
        return [_category(data_dir)], []
    children = layout.folder_names(data_dir)
    found = [name for name in children if layout.kinds(data_dir / name)]
    if not found:
        _refuse_part(data_dir)
        loose = f"Put good parts into {data_dir / GOOD}/ and defective ones into {data_dir / DEFECTIVE}/. "
        hint = loose * bool(walk.walk(data_dir, deep=False).images) + _HINT
        raise UserError(f"`data_dir`={data_dir}: no category folder in it; {_contents(data_dir)}. {hint}")
    groups_file.refuse_among_categories(data_dir)
    here = walk.walk(data_dir, deep=False)
    others = [f"{name}/ ({_contents(data_dir / name)})" for name in children if name not in found]
    unread = [*others, *(os.path.basename(image) for image in here.images)]
    sentences = [f"{data_dir}: not read, since they are no categories: {words.listing(unread)}."] if unread else []
    if len(found) > 1 and all(map(_DATE.fullmatch, found)):
        sentences += [
            f"{data_dir}: {words.listing(found)} are taken for {len(found)} kinds of parts. If they are days "
            f"of one, put them below {GOOD}/ and {DEFECTIVE}/: {GOOD}/{found[0]}/, {DEFECTIVE}/{found[0]}/."
        ]
    return [_category(data_dir / name) for name in found], [*here.notes(), *sentences]


def _refuse_part(folder: pathlib.Path) -> None:
    """Says which folder was meant, where a part of a category is named."""
    whole = os.path.abspath(folder)
    category = layout.category_of(whole)
    if category:
        raise UserError(
            f"`data_dir`={folder}: only a part of the category {os.path.basename(category)}. Name the folder of the "
            f"category, {category}."
        )


def _category(folder: pathlib.Path) -> Category:
    # The name that it has here, though it may be a link to a folder of another name.
    whole = pathlib.Path(os.path.abspath(folder))
    kinds = layout.kinds(folder)
    if words.part_of(whole.name) in SPLITS and layout.MVTEC not in kinds:
        raise UserError(
            f"`data_dir`={folder}: called as a part of a category in the MVTec layout. Name the folder above it, "
            f"{whole.parent}, which then holds {TRAIN}/ and {TEST}/; or give it the name of what it shows."
        )
    if len(kinds) > 1:
        raise UserError(f"{folder}: {_contents(folder)}, which is two layouts at once. Expected either. {_HINT}")
    name = names.text(whole.name)
    return Category(name, folder, functools.partial(_read, name, folder, kinds[0]))


def _read(name: str, folder: pathlib.Path, kind: str) -> tuple[list[Record], list[str]]:
    walked = walk.walk(folder)
    for place, reason in walked.unreadable:
        raise UserError(f"{place}: cannot be read ({reason}), so images may be missing. Make it readable, or move it.")
    masks.refuse_beside_images(walked.images)
    reader = _Folder(name, folder, walked)
    records, sentences = reader.mvtec() if kind == layout.MVTEC else reader.plain()
    _refuse_linked_twice(records)
    return records, [*walked.notes(), *reader.sentences(), *sentences]


def _refuse_linked_twice(records: Iterable[Record]) -> None:
    """One photograph under two names may have two labels, or be trained on and judged."""
    known: dict[str | tuple[int, int], str] = {}
    for record in records:
        first = known.setdefault(walk.identity(record.file), record.file)
        if first != record.file:
            raise UserError(f"{first} and {record.file} are the same file, because of a link. Keep one of them.")


class _Folder:
    """One category's folder on its way to records."""

    def __init__(self, name: str, folder: pathlib.Path, walked: walk.Walk) -> None:
        self._name = name
        self._folder = folder
        self._parts = layout.parts(folder)
        self._groups = Groups(folder, walked.files, layout.folder_names(folder))
        self._keys: dict[str, str] = {}
        self._taken: dict[str, str] = {}
        self._steps = {file: pathlib.Path(file).relative_to(folder).parts for file in walked.files}
        self._images = walked.images
        self._masks = masks.Folders(self._folders_of_masks())

    def mvtec(self) -> tuple[list[Record], list[str]]:
        """Records of the MVTec layout, and what is to be said of them."""
        records = []
        for part in SPLITS:
            place = self._place(part)
            for image in self._below(place):
                if len(self._steps[image]) != 3:
                    raise UserError(f"{image}: expected {self._folder / place}/DEFECT/IMAGE. {_HINT}")
                defect = self._defect(place, self._steps[image][1])
                if part == VALIDATION:
                    self._refuse_defective_validation(place, defect)
                records.append(self._record(image, defect, TEST if part == TEST else TRAIN))
        masks.refuse_as_defect(records)
        self._groups.check_all_used()
        place = self._place(TRAIN)
        good = self._folder / place / GOOD
        if not any(self._steps[record.file][0] == place and not record.label for record in records):
            raise UserError(f"{self._folder}: no good training images in {good}; {_contents(good)}. {_HINT}")
        defective = [record.path for record in records if record.split == TRAIN and record.label]
        if defective:
            raise UserError(
                f"{good.parent}: {counted(len(defective), 'image')} outside {TRAIN}/{GOOD}, the first is "
                f"{defective[0]}. Defective images belong below {TEST}/."
            )
        others = self._others(*SPLITS)
        return records, [f"{self._folder}: images that were not read: {words.listing(others)}."] if others else []

    def plain(self) -> tuple[list[Record], list[str]]:
        """Records of the plain layout, and what is to be said of them."""
        if others := self._others(GOOD, DEFECTIVE):
            raise UserError(
                f"{self._folder}: {words.listing(others)} are not part of {_PLAIN_HINT}. Put photographs into {GOOD}/ "
                f"or {DEFECTIVE}/, masks into {MASKS}/, and anything else elsewhere."
            )
        good, defective = self._place(GOOD), self._place(DEFECTIVE)
        records = []
        for image in self._below(good):
            if wrong := [step for step in self._steps[image][1:-1] if words.is_defective(step)]:
                raise UserError(
                    f"{image}: a folder {wrong[0]!r} among the good ones. Defective images belong in "
                    f"{self._folder / defective}."
                )
            records.append(self._record(image, GOOD, ""))
        for image in self._below(defective):
            records.append(self._record(image, self._plain_defect(image, good, defective), ""))
        masks.refuse_as_defect(records)
        self._groups.check_all_used()
        records, said = division.described(self._name, sorted(records, key=lambda record: record.path))
        place = self._folder / good
        if not any(not record.label for record in records):
            raise UserError(f"{self._folder}: no good images in {place}; {_contents(place)}. {_HINT}")
        if not any(record.split == TRAIN for record in records):
            why = groups_file.one_object(records) or (
                f"The few that there are were kept for testing, because of their names or because {groups_file.FILE} "
                "joins them with a defective one. Add good images."
            )
            raise UserError(f"{self._folder}: no good images are left for training. {why}")
        return records, said

    def sentences(self) -> list[str]:
        """What was taken otherwise than docs/your-data.md names it, and which photographs nothing here reads."""
        taken = [f"{found} as {meaning}" for found, meaning in sorted(self._taken.items())]
        return [
            *self._groups.sentences,
            *([f"{self._folder}: folders that were taken: {', '.join(taken)}."] if taken else []),
        ]

    def _place(self, part: str) -> str:
        """The folder that is this part of the category."""
        name = layout.single(self._folder, part, self._parts.get(part, []))
        if name != part:
            self._taken[f"{name}/"] = f"{part}/"
        if part == VALIDATION and part in self._parts:
            self._taken[f"{name}/"] = f"more good images of {TRAIN}/"
        return name

    def _folders_of_masks(self) -> list[pathlib.Path]:
        """Where masks are looked for: beside the parts of the category, and in its test images as in MVTec AD 2."""
        names = self._parts.get(MASKS, [])
        own = MASKS if MASKS in names or len(names) != 1 else self._place(MASKS)
        return [self._folder / own, *(self._folder / test / MASKS for test in self._parts.get(TEST, []))]

    def _below(self, place: str) -> list[str]:
        return [image for image in self._images if self._steps[image][0] == place and len(self._steps[image]) > 1]

    def _others(self, *read: str) -> list[str]:
        """Where images lie that belong to no part, with their numbers."""
        places = {name for part in read for name in self._parts.get(part, ())}
        steps = (self._steps[image] for image in self._images)
        found = collections.Counter(one[0] + "/" * (len(one) > 1) for one in steps if one[0] not in places)
        return [f"{place} ({count})" if place.endswith("/") else place for place, count in sorted(found.items())]

    def _defect(self, place: str, folder: str) -> str:
        if not words.is_good(folder):
            self._refuse_no_defect(place, folder, f"{place}/{GOOD}")
            return folder
        if folder != GOOD:
            self._taken[f"{place}/{folder}/"] = GOOD
        return GOOD

    def _refuse_defective_validation(self, place: str, defect: str) -> None:
        """Only good images may lie beside `train/` and `test/`: they are trained on as all good ones are."""
        if defect != GOOD:
            raise UserError(
                f"{self._folder / place / defect}: defective images beside {TRAIN}/ and {TEST}/. What a threshold or a "
                f"training is chosen by is held out of the others by itself: put them into {TEST}/{defect}/, or take "
                f"{place}/ away."
            )

    def _plain_defect(self, image: str, good: str, defective: str) -> str:
        """`defective/IMAGE` is of the type "defective", `defective/DEFECT/IMAGE` of the type DEFECT."""
        between = self._steps[image][1:-1]
        place = self._folder / defective
        if len(between) > 1:
            raise UserError(f"{image}: too deep. Expected {place}/IMAGE or {place}/DEFECT/IMAGE.")
        if between and words.is_good(between[0]):
            raise UserError(
                f"{image}: a folder {between[0]!r} among the defective ones. Good images belong in "
                f"{self._folder / good}."
            )
        if between:
            self._refuse_no_defect(defective, between[0], good)
        return between[0] if between else DEFECTIVE

    def _refuse_no_defect(self, place: str, folder: str, good: str) -> None:
        """A folder among the types of defects that is called as good parts or masks are."""
        where = self._folder / place / folder
        if words.sounds_good(folder):
            raise UserError(
                f"{where}: a type of defect called {folder!r}? If these images are good, they belong in "
                f"{self._folder / good}; if they are not, give the folder another name."
            )
        if words.is_masks(folder):
            raise UserError(f"{where}: masks among the images? They belong in {self._folder / MASKS}/DEFECT.")

    def _record(self, image: str, defect: str, split: str) -> Record:
        key = names.text("/".join(self._steps[image]))
        if first := self._keys.get(key):
            raise UserError(f"{first} and {image}: their names differ in the form of an umlaut only. Rename one.")
        self._keys[key] = image
        return Record(
            path=f"{self._name}/{key}",
            file=image,
            category=self._name,
            defect=names.text(defect),
            label=int(defect != GOOD),
            split=split,
            group=f"{self._name}/{self._groups.of(key)}",
            mask=self._masks.of(image, defect),
        )


def _contents(folder: pathlib.Path) -> str:
    """What a message says of a folder that does not hold what it should."""
    if not folder.is_dir():
        return "there is no such folder"
    here = walk.walk(folder, deep=False)
    files = [os.path.basename(file) for file in here.files]
    gone = [f"{os.path.basename(link)} (a link to nothing)" for link in here.dangling]
    found = sorted([*files, *gone, *(f"{name}/" for name in layout.folder_names(folder))])
    if not found:
        return "it is empty"
    tables = [name for name in found if name.lower().endswith(".csv") and name.lower() != groups_file.FILE]
    advice = f" (for the list of images itself, name {folder / tables[0]})" if tables else ""
    meant = [f"{name} would be {part}/" for part, same in layout.parts(folder).items() for name in same if name != part]
    advice += f" ({'; '.join(meant)})" if meant else ""
    if other := sorted({os.path.splitext(name)[1].lower() for name in files} & walk.OTHER_PHOTOGRAPHS):
        advice += f" ({', '.join(other)} cannot be read: convert the photographs to PNG, which loses nothing)"
    return f"it holds {words.listing(map(names.printable, found))}{advice}"
