"""The table of predictions: the one thing that a model of any make hands over to be judged.

CSV columns `path,label,score` and, if they are known, `category,defect,split,group,probability`; other
columns are ignored and named in `Predictions.ignored_columns`. Label 1 means defective, and a
higher score means more defective.
"""

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from mvtec_tf import files
from mvtec_tf.data import known_images, leaks, words
from mvtec_tf.data.record import DEFECTIVE, GOOD, Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import predicted

REQUIRED = ("path", "category", "defect", "label", "split", "score")
OPTIONAL = ("group", "probability")
# Of these a table by hand may have none; what its rows are taken for is then said.
_CATEGORY = "parts"
_UNSAID = {
    "category": f"all images are of one category, {_CATEGORY!r}",
    "defect": "types of defects are not told apart",
    "split": f"every row is judged ({leaks.EVALUATE}), also where a model was fitted on it",
}
# Exported graphs compute in float32: a larger score could not be theirs, and overflows in plots.
_LARGEST_SCORE = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Row:
    """One use of one image: see `Predictions` for the columns."""

    path: str
    category: str
    defect: str
    label: int
    split: str
    score: float
    group: str = ""
    probability: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """A table of N predictions, one array per column.

    Attributes:
      path: object [N] of str, one name per image.
      category: object [N] of str.
      defect: object [N] of str, the defect type; "good" for good images.
      label: int64 [N], 1 for defective and 0 for good.
      split: object [N] of str: pretrain, fit, calibrate or evaluate.
      score: float64 [N], higher is more defective.
      group: object [N] of str, the physical object shown; "" if the image shows one of its own.
      probability: float64 [N], NaN where none is given.
      ignored_columns: columns of the file that are not used.
      labels_read: how labels of the file were read that are no 0 or 1, in words.
      columns_unsaid: what is taken for granted where the file lacks a column, in words.
      left_out: (path, reason) of rows that cannot be judged; only of tables that `predict` wrote.
      thresholds: category -> the threshold that its images were called by; only of tables that `predict` wrote.
      verdicts: path -> how an evaluated image was called; only of tables that `predict` wrote with unsure ones in them.
      digests: path -> SHA-256 of the file that was scored; only of tables that `predict` wrote.
      images: a run's list of its images, see `known_images`, beside its table; "" if there is none.
    """

    path: np.ndarray
    category: np.ndarray
    defect: np.ndarray
    label: np.ndarray
    split: np.ndarray
    score: np.ndarray
    group: np.ndarray
    probability: np.ndarray
    ignored_columns: tuple[str, ...] = ()
    labels_read: str = ""
    columns_unsaid: str = ""
    left_out: tuple[tuple[str, str], ...] = ()
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    verdicts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    images: str = ""

    @classmethod
    def from_columns(
        cls,
        path: Sequence[str],
        category: Sequence[str],
        defect: Sequence[str],
        label: Sequence[int],
        split: Sequence[str],
        score: Sequence[float],
        group: Sequence[str] | None = None,
        probability: Sequence[float | None] | None = None,
    ) -> "Predictions":
        """The table of these columns; scores may be float32, they keep their exact value.

        Raises:
          ValueError: the columns differ in length.
        """
        count = len(path)
        columns = cls(
            path=_strings(path),
            category=_strings(category),
            defect=_strings(defect),
            label=np.asarray(label, np.int64),
            split=_strings(split),
            score=np.asarray(score, np.float64),
            group=_strings([""] * count if group is None else group),
            probability=np.array([np.nan] * count if probability is None else probability, np.float64),
        )
        shapes = {name: getattr(columns, name).shape for name in REQUIRED + OPTIONAL}
        if set(shapes.values()) != {(count,)}:
            raise ValueError(f"expected columns of one length. Received: {shapes}")
        return columns

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> "Predictions":
        """The table of these rows, in their order."""
        rows = list(rows)
        columns = {name: [getattr(row, name) for row in rows] for name in REQUIRED + OPTIONAL}
        return cls.from_columns(**columns)

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.path)

    def rows(self) -> Iterator[Row]:
        """The rows in their order, with Python's own types."""
        columns = [getattr(self, name).tolist() for name in REQUIRED + OPTIONAL]
        for *values, probability in zip(*columns, strict=True):
            yield Row(*values, probability=None if np.isnan(probability) else probability)

    @property
    def objects(self) -> np.ndarray:
        """The object that each image shows, object [N] of str: equal for images of one group of one category."""
        rows = zip(self.category, self.group, self.path, strict=True)
        return _strings([f"{category}\n{leaks.same_file_key(group or path)}" for category, group, path in rows])

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        """(images, defective images) of each split."""
        labels = {split: self.label[self.split == split] for split in leaks.SPLITS}
        return {split: (len(own), int(own.sum())) for split, own in labels.items()}

    def select(self, which: np.ndarray) -> "Predictions":
        """The rows where `which` (bool [N], or indices) says so."""
        return dataclasses.replace(self, **{name: getattr(self, name)[which] for name in REQUIRED + OPTIONAL})

    def part(self, split: str) -> "Predictions":
        """The rows of one split."""
        return self.select(self.split == split)

    def categories(self) -> tuple[str, ...]:
        """The names of the categories, sorted."""
        return tuple(sorted(set(self.category.tolist())))


def read_predictions(path: files.PathLike, allow_leak: bool = False) -> Predictions:
    """Reads and checks a table of predictions.

    Of a table that `predict` wrote, in CSV or JSON lines, the rows without a score, a label or a split are left out.

    Args:
      path: of the file.
      allow_leak: see `check`.

    Raises:
      UserError: the file is missing, no text, empty, lacks a column, has rows of several models, or a value is none
        that the column may have; the message names file, line, what was found and what to do. See `check`.
      LeakError: an evaluated image or object is in another split too.
    """
    source = os.fspath(path)
    # A folder's name may begin with a space: nothing is stripped.
    file = pathlib.Path(path)
    table = predicted.open_table(file, [name for name in REQUIRED if name not in _UNSAID], (*_UNSAID, *OPTIONAL))
    by_predict = set(table.columns) >= predicted.MARKS
    left_out: list[tuple[str, str]] = []
    thresholds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    verdicts: dict[str, str] = {}
    models: set[str] = set()
    digests: dict[str, str] = {}
    columns: dict[str, list] = {name: [] for name in REQUIRED + OPTIONAL if name in table.columns}
    lines: list[int] = []
    labels: collections.Counter = collections.Counter()
    for line, row in table:
        if by_predict:
            if reason := predicted.why_not_judged(row):
                left_out.append((row["path"], reason))
                continue
            digests[row["path"]] = row.get("sha256", "")
            if row["split"] == leaks.EVALUATE:
                where = f"{source}, line {line}"
                if row["threshold"]:
                    thresholds[row["category"]][_threshold(row["threshold"], where)] += 1
                verdicts[row["path"]] = predicted.verdict_of(row, where)
                models.add(row.get("model", ""))
        lines.append(line)
        for name, values in columns.items():
            values.append(_value(row[name], name, f"{source}, line {line}"))
        if not words.is_number(row["label"]):
            labels[row["label"], DEFECTIVE if columns["label"][-1] else GOOD] += 1
    if left_out and not lines:
        raise UserError(
            f"{source}: none of the {len(left_out)} images in it can be judged: {predicted.in_words(left_out)}. Labels "
            "come from `data_dir` of predict, or from the layout of the folders; splits from an export, not a server."
        )
    unsaid = [name for name in _UNSAID if name not in columns]
    of_all = {"category": _CATEGORY, "split": leaks.EVALUATE}
    for name in unsaid:
        columns[name] = [of_all.get(name) or (DEFECTIVE if label else GOOD) for label in columns["label"]]
    predictions = Predictions.from_columns(**columns)
    if len(models) > 1:
        raise UserError(
            f"{source}: rows of several models, {', '.join(sorted(models))}, whose scores are not of one kind. Keep "
            "those of one."
        )
    predictions = dataclasses.replace(
        predictions,
        ignored_columns=() if by_predict else tuple(table.unused(REQUIRED + OPTIONAL)),
        labels_read=words.taken_as(labels),
        columns_unsaid="; ".join(f"no column {name}, so {_UNSAID[name]}" for name in unsaid),
        left_out=tuple(left_out),
        # Of most of a category's images: a model may take one for another category's.
        thresholds={category: counted.most_common(1)[0][0] for category, counted in thresholds.items()},
        # Where none is unsure the thresholds say the same.
        verdicts=verdicts if predicted.UNSURE in verdicts.values() else {},
        digests={path: digest for path, digest in digests.items() if digest},
        # Read where images are looked for; runs of before have none.
        images=str(listed) if (listed := file.parent / known_images.FILE).is_file() else "",
    )
    check(predictions, source, lambda row: f"line {lines[row]}", allow_leak)
    return predictions


def write_predictions(path: files.PathLike, predictions: Predictions, allow_leak: bool = False) -> None:
    """Checks the table and writes it, all or nothing, the same bytes for the same table.

    Numbers are written with the fewest digits that read back as exactly the same float64, and so
    as the same float32: judging the file and judging the table in memory give one result. The
    optional columns are written if any row has a value for them.

    Args:
      path: of the CSV file.
      predictions: the table.
      allow_leak: see `check`.

    Raises:
      UserError, LeakError: the table is none that could be judged, see `check`.
    """
    check(predictions, os.fspath(path), allow_leak=allow_leak)
    names = list(REQUIRED)
    if any(predictions.group):
        names.append("group")
    if not np.isnan(predictions.probability).all():
        names.append("probability")
    texts = {name: getattr(predictions, name).tolist() for name in names}
    for name in {"score", "probability"} & set(names):
        texts[name] = ["" if np.isnan(value) else repr(value) for value in texts[name]]
    files.write_csv(path, names, zip(*(texts[name] for name in names), strict=True))


def check(
    predictions: Predictions, source: str, place: Callable[[int], str] = "row {}".format, allow_leak: bool = False
) -> None:
    """Checks what a table must be so that its figures mean something.

    Args:
      predictions: the table.
      source: file or model it came from, the beginning of each message.
      place: from a row's index (0 is the first) to its place in `source`.
      allow_leak: whether evaluated images may be in other splits too, to repeat a study that did
        so; whoever judges such a table says first that its figures are no evidence.

    Raises:
      UserError: no rows; no evaluate rows; an empty path or category; a label other than 0 and 1,
        1 on an image whose defect is "good" or sounds so, or 0 on one with a type of defect; a score that is not
        finite or beyond float32; a probability outside 0..1; an unknown split; one path twice in
        one split, or with two labels or categories; one category, defect type or group in two
        spellings, or a word such as "nan" in place of one.
      LeakError: an evaluated image or object is in another split too.
    """
    if not len(predictions):
        raise UserError(f"{source}: no predictions in it. Expected one row per image.")
    _check_values(predictions, source, place)
    _check_names(predictions, source)
    _check_images(predictions, source, place)
    if not allow_leak:
        leaks.check_leaks(predictions.rows(), source)
    if not (predictions.split == leaks.EVALUATE).any():
        found = ", ".join(sorted(set(predictions.split)))
        raise UserError(
            f"{source}: no row has the split {leaks.EVALUATE!r}, found only {found}. Only images that nothing was "
            f"fitted or chosen on can be judged; give theirs the split {leaks.EVALUATE!r}."
        )


def _strings(values: Sequence[str]) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = list(values)
    return column


def _value(text: str, column: str, where: str) -> str | int | float | None:
    if column == "label":
        return _label(text, where)
    if column == "score" or (column == "probability" and text):
        return _number(text, column, where)
    return None if column == "probability" else text


def _label(text: str, where: str) -> int:
    label = words.label_of(text)
    if label is None:
        raise UserError(
            f"{where}: label {text!r}. Expected 1 or {DEFECTIVE} for a defective image, 0 or {GOOD} for a good one."
        )
    return label


def _threshold(text: str, where: str) -> float:
    value = _number(text, "threshold", where)
    if not math.isfinite(value):
        raise UserError(f"{where}: threshold {text}. Expected a finite number, as the model has.")
    return value


def _number(text: str, column: str, where: str) -> float:
    try:
        if "_" in text:
            raise ValueError(text)  # to Python 1_0 is 10
        return float(text)
    except ValueError:
        raise UserError(
            f"{where}: {column} {text!r} is not a number. Expected one such as 0.25, with a decimal point."
        ) from None


def _check_values(predictions: Predictions, source: str, place: Callable[[int], str]) -> None:
    score, probability = predictions.score, predictions.probability
    good = _each(predictions.defect, words.is_good)
    typed = ~good & (predictions.defect != "")
    turned = f"1 means defective, and a good image has the defect {GOOD!r} or none. Are the labels turned round?"
    # Each: the column, which rows are wrong, what is expected. In the order of the columns.
    rules = (
        ("path", predictions.path == "", "Every row needs the name of its image."),
        ("category", predictions.category == "", "Every image needs a category; one name for all is enough."),
        ("label", ~np.isin(predictions.label, (0, 1)), "Expected 1 for a defective image or 0 for a good one."),
        ("label", (predictions.label == 1) & good, f"Its defect says {GOOD}, which has label 0. {turned}"),
        ("label", (predictions.label == 0) & typed, f"Its defect is a type of defect, which has label 1. {turned}"),
        (
            "defect",
            (predictions.label == 1) & _each(predictions.defect, words.sounds_good),
            f"It sounds like {GOOD}, which has label 0; a type of defect needs another name.",
        ),
        *(
            (column, _each(getattr(predictions, column), says_nothing), "Write nothing where there is none.")
            for column, says_nothing in (
                ("category", words.is_placeholder),
                ("defect", words.is_placeholder),
                ("group", words.is_no_object),
            )
        ),
        ("split", ~np.isin(predictions.split.astype(str), leaks.SPLITS), f"Expected {', '.join(leaks.SPLITS)}."),
        (
            "score",
            ~(np.abs(score) <= _LARGEST_SCORE),  # also true for NaN
            "Expected a finite float32 number: mend the model or leave the image out, and say so.",
        ),
        ("probability", (probability < 0) | (probability > 1), "Expected a number from 0 to 1, or no such column."),
    )
    for column, wrong, expected in rules:
        if wrong.any():
            row = int(np.argmax(wrong))
            found = getattr(predictions, column)[row]
            found = found if isinstance(found, str) else found.item()
            count = f" (and {wrong.sum() - 1} more such rows)" if wrong.sum() > 1 else ""
            raise UserError(f"{source}, {place(row)}: {column} {found!r}{count}. {expected}")


def _each(names: np.ndarray, says: Callable[[str], bool]) -> np.ndarray:
    """bool [N]: what is said of each name; of equal ones it is asked once."""
    said = {name: says(name) for name in set(names.tolist())}
    return np.array([said[name] for name in names.tolist()], bool)


def _check_names(predictions: Predictions, source: str) -> None:
    """One category, type of defect or object under two spellings would be two."""
    category = predictions.category.tolist()
    own = {(row, path) for row, path in zip(category, predictions.path.tolist(), strict=True)}
    names: dict[str, set[str]] = {"categories": set(category)}
    for row, defect, group in zip(category, predictions.defect.tolist(), predictions.group.tolist(), strict=True):
        names.setdefault(f"defect types of category {row!r}", set()).add(defect)
        if (row, group) not in own:
            names.setdefault(f"groups of category {row!r}", set()).add(group)
    for what, found in names.items():
        try:
            words.refuse_twins(what, found)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error


def _check_images(predictions: Predictions, source: str, place: Callable[[int], str]) -> None:
    """One path is one image: once in a split, with one label and one category."""
    first: dict[str, int] = {}
    first_in_split: dict[tuple[str, str], int] = {}
    label, category = predictions.label.tolist(), predictions.category.tolist()
    for row, (path, split) in enumerate(zip(predictions.path.tolist(), predictions.split.tolist(), strict=True)):
        key = leaks.same_file_key(path)
        before = first_in_split.setdefault((key, split), row)
        if before != row:
            raise UserError(
                f"{source}, {place(row)}: {path!r} is in the split {split!r} a second time, first in {place(before)}. "
                "Keep one row per image and split."
            )
        before = first.setdefault(key, row)
        for name, values in (("label", label), ("category", category)):
            if values[before] != values[row]:
                raise UserError(
                    f"{source}, {place(row)}: {path!r} has the {name} {values[row]!r}, but {values[before]!r} in "
                    f"{place(before)}. Give one image one {name}."
                )


def rows(
    records: Sequence[Record], split: str, scores: np.ndarray, probabilities: np.ndarray | None = None
) -> list[Row]:
    """One row a record.

    Args:
      records: N images.
      split: how they were used: pretrain, fit, calibrate or evaluate.
      scores: float [N].
      probabilities: float [N], or None.
    """
    given = [None] * len(records) if probabilities is None else [float(value) for value in probabilities]
    return [
        Row(record.path, record.category, record.defect, record.label, split, float(score), record.group, probability)
        for record, score, probability in zip(records, scores, given, strict=True)
    ]
