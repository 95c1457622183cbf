"""The one writer of all reports: one HTML file that holds everything, opens from disk and reads on a phone.

A page is its title, the answer in plain words, and sections; a section is blocks, one below the other. Whoever makes a
report says what is in them; how it looks is in `templates/`, which escape everything that comes from data or from the
caller. There is no script, no clock and no link to anywhere, so the same figures give the same bytes.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup, escape

from mvtec_tf.evaluation.intervals import LEVEL, Bootstrap
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.report.canvas import Picture

# A page of this size still opens at once and goes through a mail.
MOST_BYTES = 8_000_000
# What says that pictures were left out.
_RESERVE = 2_000


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      title: of the column.
      kind: its class: "model", "trivial", "words" or "left"; "" for figures.
      below: in small letters below the title.
    """

    title: str = ""
    kind: str = ""
    below: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell that holds more than one text or metric.

    Attributes:
      text: text, or a metric: the figure above its interval, with a footnote for its reason or note.
      below: in small letters below it.
      beside: a metric to be set beside it, in grey behind a slash.
      mark: in bold at its end.
      sign: "+" for differences.
      digits: decimals of metrics.
    """

    text: str | Metric = ""
    below: str = ""
    beside: Metric | None = None
    mark: str = ""
    sign: str = ""
    digits: int = 3

    def printed(self, value: float) -> str:
        """A figure as it is printed in this cell."""
        return f"{value:{self.sign}.{self.digits}f}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with its footnotes; on a narrow screen it scrolls within itself.

    Attributes:
      columns: from left to right; a title alone is that of a column of figures.
      rows: a cell of each column; the first is the row's name and stays in sight.
      kind: its class.
      groups: (title, number of columns) in a line above the titles; the first column has none.
    """

    columns: Sequence[str | Column]
    rows: Sequence[Sequence[str | Metric | Cell]]
    kind: str = ""
    groups: Sequence[tuple[str, int]] = ()
    template: ClassVar[str] = "table.html"

    @property
    def titled(self) -> list[Column]:
        """The columns, if any of them has a title."""
        columns = [column if isinstance(column, Column) else Column(column) for column in self.columns]
        return columns if any(column.title for column in columns) else []

    @property
    def cells(self) -> Iterator[list[tuple[Cell, Column]]]:
        """The rows, with the column of each cell."""
        columns = [column if isinstance(column, Column) else Column() for column in self.columns]
        for row in self.rows:
            cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
            yield list(zip(cells, columns, strict=True))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures side by side, as many as the page is wide; `large`: larger ones."""

    pictures: Sequence[Picture]
    large: bool = False
    template: ClassVar[str] = "pictures.html"


@dataclasses.dataclass(frozen=True)
class Listing:
    """A list of texts.

    Attributes:
      texts: one a line.
      kind: its class: "notes" (small, without dots), "plain" or "items".
      summary: shown in its place until somebody clicks on it; "": nothing is hidden.
    """

    texts: Sequence[str]
    kind: str = "notes"
    summary: str = ""
    template: ClassVar[str] = "listing.html"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
      title: heading.
      blocks: a paragraph each, a table, pictures, a list, or sections in it; any object with a `template` that shows it
        as `block`. Empty ones are left out.
      notes: what could not be shown, a sentence each.
      key: under which it stands in `metrics.json`, "" if it has no figures.
      document: its figures, values JSON can hold.
      spare: whether its pictures are left out where the page has no room for them.
    """

    title: str
    blocks: Sequence[Any] = ()
    notes: Sequence[str] = ()
    key: str = ""
    document: Any = None
    spare: bool = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them, also those for which the page has no room."""
        found = [block.pictures for block in self.blocks if isinstance(block, (Pictures, Section))]
        return tuple(picture for pictures in found for picture in pictures)


def html(
    title: str, answer: Sequence[str], sections: Sequence[Section | None], kind: str = "", most: int = MOST_BYTES
) -> str:
    """The whole page; photographs and the like for which there is no room are left out, which is said.

    Args:
      title: of the page.
      answer: the sentences that it begins with; the first three are set off.
      sections: in the order of the page; None is left out.
      kind: "no_better", "unproven" or "leak": the answer looks like a warning.
      most: how many bytes it may take.
    """
    sections = [section for section in sections if section]
    told = {"title": title, "answer": list(answer), "kind": kind, "sections": sections, "most": most}
    spare = [picture for section in sections if section.spare for picture in section.pictures]
    # Words first: a table is never left out for a picture.
    room = most - _RESERVE - len(render("page.html", hidden={one.file_name for one in spare}, **told).encode())
    hidden = set()
    for picture in spare:
        room -= _size(picture)
        # From the first one without room on: gaps in the middle would look like an error.
        if hidden or room < 0:
            hidden.add(picture.file_name)
    return str(render("page.html", hidden=hidden, **told))


def render(template: str, **values: Any) -> Markup:
    """A template with these values as HTML."""
    return Markup(_environment().get_template(template).render(**values))


def record(provenance: Mapping[str, Any]) -> Table:
    """A run's record of itself as a table."""
    return Table(("", ""), [(str(name), _value(value)) for name, value in provenance.items()], "text")


def diagrams(pictures: Sequence[Picture], heading: str = "How it was made") -> Section | None:
    """A section of pictures that say what a run did, None if there are none."""
    return Section(heading, [Pictures(pictures)]) if pictures else None


def resampled(bootstrap: Bootstrap, groups: int) -> str:
    """The beginning of a sentence on what intervals are of."""
    return (
        f"Intervals: {100 * LEVEL:g} %, from {bootstrap.resamples:,} resamples (seed {bootstrap.seed}) of {groups:,} "
        "groups of images, whole groups within each category and label"
    )


def how_sure(bootstrap: Bootstrap, groups: int, more: str, costs: Costs, share: str = ".") -> Section:
    """The section on intervals and costs; `more` and `share` are what else is said of either."""
    intervals = f"{resampled(bootstrap, groups)}{more}"
    if not bootstrap.resamples:
        intervals = "No intervals were asked for: small differences between figures mean nothing here."
    prices = f"Cost of an image: a miss counts {costs.miss:g}, a false alarm {costs.false_alarm:g}{share}"
    return Section("How sure the figures are", [intervals, prices])


@functools.cache
def _environment() -> jinja2.Environment:
    return environment("mvtec_tf.evaluation.report")


def environment(package: str) -> jinja2.Environment:
    """The templates of a package, in its folder `templates`: text is escaped, and what is not given is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["marked"] = _marked
    return found


def _marked(text: str) -> Markup:
    """A sentence as HTML, with the names of settings, which stand in backticks, set as code."""
    return Markup(re.sub(r"`([a-z_]+)`", r"<code>\1</code>", str(escape(text))))


def _size(picture: Picture) -> int:
    """Bytes that a picture takes on the page, or a little more."""
    words = (picture.alt, picture.heading, picture.caption, picture.reading)
    return len(picture.base64) + sum(len(escape(text).encode()) for text in words) + 200


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_value(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(inner) for inner in value)
    return json.dumps(value, default=str)
