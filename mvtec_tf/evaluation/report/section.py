"""A part of a report beyond the table of predictions: what it says, its pictures, and its place in `metrics.json`."""

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from mvtec_tf.evaluation.report import page
from mvtec_tf.evaluation.report.canvas import Picture

# A page of this size still opens at once and goes through a mail.
MOST_BYTES = 8_000_000
# The end of the page, and what says that pictures were left out.
_RESERVE = 2_000


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture on the page.

    Attributes:
      picture: with its caption.
      heading: above the caption.
    """

    picture: Picture
    heading: str


@dataclasses.dataclass(frozen=True)
class Group:
    """Pictures of one kind.

    Attributes:
      title: of the group, "" for none.
      reading: what to look at in each of them.
      panels: the pictures, the most important first.
      large: shown larger.
    """

    title: str
    reading: str
    panels: tuple[Panel, ...]
    large: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
      key: under which it stands in `metrics.json`, "" if it has no figures.
      document: its figures, values JSON can hold.
      title: heading.
      lead: HTML before the pictures.
      groups: of pictures.
      notes: what could not be shown, a sentence each.
    """

    key: str
    title: str
    document: Any = None
    lead: str = ""
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them, also those for which the page has no room."""
        return tuple(panel.picture for group in self.groups for panel in group.panels)


def render(sections: Sequence[Section], room: int) -> str:
    """The sections as HTML; pictures for which there is no room are left out, which is said.

    Args:
      sections: in the order of the page.
      room: how many bytes they may take.
    """
    # Words first: a table is never left out for a picture.
    room -= _RESERVE + sum(len(_html(section, [], [])) for section in sections)
    parts = []
    for section in sections:
        shown: list[list[str]] = []
        left_out = 0
        for group in section.groups:
            panels = [page.panel(panel.picture, panel.heading) for panel in group.panels]
            fitting = _fitting(panels, room)
            # From the first one without room on: gaps in the middle would look like an error.
            room = 0 if len(fitting) < len(panels) else room - sum(map(len, fitting))
            left_out += len(panels) - len(fitting)
            shown.append(fitting)
        parts.append(_html(section, shown, _said(left_out)))
    return "\n".join(parts)


def documents(sections: Iterable[Section]) -> dict[str, Any]:
    """What the sections add to `metrics.json`."""
    return {section.key: section.document for section in sections if section.key}


def _fitting(panels: Sequence[str], room: int) -> list[str]:
    fitting = []
    for panel in panels:
        room -= len(panel.encode())
        if room < 0:
            break
        fitting.append(panel)
    return fitting


def _said(left_out: int) -> list[str]:
    if not left_out:
        return []
    return [
        f"{left_out} pictures of this section are left out here, because the page may hold {MOST_BYTES // 10**6} MB at "
        "most; they lie in the folder of figures."
    ]


def _html(section: Section, shown: Sequence[Sequence[str]], more_notes: Sequence[str]) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>{section.lead}"]
    for index, group in enumerate(section.groups):
        panels = "".join(shown[index]) if shown else ""
        title = f"<h3>{escape(group.title)}</h3>" if group.title else ""
        reading = f"<p>{escape(group.reading)}</p>" if group.reading else ""
        parts.append(f'{title}{reading}<div class="panels{" large" if group.large else ""}">{panels}</div>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in [*section.notes, *more_notes])
    parts.append(f'<ul class="notes">{notes}</ul>' if notes else "")
    return "".join(parts) + "</section>"
