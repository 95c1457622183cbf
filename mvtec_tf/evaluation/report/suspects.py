"""Labels that the other images speak against: a table to be corrected, and their photographs beside a neighbour."""

import dataclasses
import pathlib
from collections.abc import Sequence

from mvtec_tf import files
from mvtec_tf.data import words
from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats.corrections import COLUMNS, LABELS
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.report import canvas, photographs
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Pictures, Section

FILE = "suspects.csv"
KEY, KIND = "suspects", "suspect"
MOST = 12
_WHAT_TO_DO = (
    f"Look at them; a suspect is no error. Write good or defective into the column label of {FILE} where the label "
    "given is wrong, and give the table to explore as `corrections`: it looks at the corrected images and writes "
    "corrected.csv, a list that every command takes as `data_dir`."
)


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An image whose label others speak against.

    Attributes:
      record: the image, with the label given.
      score: how much, above 0, see `heads.suspects`.
      why: in words.
      neighbour: the nearest image that speaks against the label, or the nearest good one; None: it is no longer there.
    """

    record: Record
    score: float
    why: str
    neighbour: Record | None


def write(path: files.PathLike, found: Sequence[Suspect]) -> None:
    """Writes the table, worst first; the column label is left empty."""
    files.write_csv(path, COLUMNS, [(*_told(one).values(), "") for one in found])


def read(path: files.PathLike, records: Sequence[Record]) -> list[Suspect]:
    """The suspects of a table that was written before, as far as their images are among the records.

    Raises:
      UserError: it is no such table.
    """
    known = {record.path: record for record in records}
    found = []
    for line, row in CsvTable(pathlib.Path(path), COLUMNS):
        record, label = known.get(row["path"]), words.label_of(row["given"])
        try:
            score = float(row["score"])
        except ValueError:
            raise UserError(f"{path}, line {line}: score is {row['score']!r}, expected a number.") from None
        if record is not None and label is not None:
            # As it was given: the images may have been corrected since.
            record = dataclasses.replace(record, label=label)
            found.append(Suspect(record, score, row["why"], known.get(row["neighbour"])))
    return found


def section(found: Sequence[Suspect]) -> Section:
    """The first suspects, given worst first, as photographs, each beside its neighbour.

    Raises:
      UserError: an image cannot be read.
    """
    title, document = "Labels to look at again", [_told(one) for one in found]
    if not found:
        return Section(title, ["None: the other images speak against no label."], key=KEY, document=document)
    which = f"the first {MOST} are" if len(found) > MOST else "all are"
    text = (
        f"The other images speak against {len(found):,} of the labels; {which} shown, worst first, and beside each the "
        "nearest image of the other label, or the nearest good one. Figures are standard deviations of good "
        "images beyond the cut between good and defective, or beyond 3 where no defect says where that is. "
        f"{_WHAT_TO_DO}"
    )
    shown = [_picture(one, number) for number, one in enumerate(found[:MOST], 1)]
    return Section(title, [text, Pictures(shown)], key=KEY, document=document, spare=True)


def _told(one: Suspect) -> dict[str, str]:
    values = (
        *(one.record.path, LABELS[one.record.label], one.why, f"{one.score:.3f}"),
        one.neighbour.path if one.neighbour else "",
    )
    return dict(zip(COLUMNS[:-1], values, strict=True))


def _picture(one: Suspect, number: int) -> Picture:
    record, other = one.record, one.neighbour
    images = [photographs.photograph(ImageFiles(each.file)) for each in (record, other) if each]
    beside = f" Beside it {other.path}, {LABELS[other.label]}." if other else ""
    text = f"{record.path}: {one.why}, by {one.score:.1f}.{beside}"
    name = canvas.file_name(KIND, number, record.path, ".jpg")
    heading = f"{record.category}: given as {LABELS[record.label]}"
    return Picture(KIND, record.category, name, photographs.jpeg(images), f"Photographs of {text}", text, heading)
