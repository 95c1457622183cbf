"""Boxes below each other, joined by arrows: the form of all diagrams, narrow enough for a phone."""

import dataclasses
import functools
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch

from mvtec_tf.evaluation.report import canvas

DATA, STEP, TRAINED, ANSWER = "data", "step", "trained", "answer"
# Fill and edge; the kinds differ in lightness too, not in hue alone.
_COLOURS = {
    DATA: ("#e8f1f8", canvas.GOOD_COLOUR),
    STEP: ("#ffffff", "#767676"),
    TRAINED: ("#fbe3d3", canvas.DEFECTIVE_COLOUR),
    ANSWER: ("#e6e6e6", canvas.INK),
}
_LINE, _PAD, _GAP = 0.155, 0.075, 0.2
_MARGIN = 0.12
# The size at which letters are measured, in points: large enough that rounding to pixels is nothing.
_EM = 100


@dataclasses.dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
      kind: "data" (images or numbers), "step" (something fixed is done), "trained" (something is
        learnt or chosen from images here) or "answer".
      title: in bold.
      lines: below it.
    """

    kind: str
    title: str
    lines: tuple[str, ...] = ()


def draw(boxes: Sequence[Box]) -> Figure:
    """The boxes from top to bottom, in a figure of the common width that is as high as they need."""
    texts = [(_wrapped([box.title], "bold"), _wrapped(box.lines, "normal")) for box in boxes]
    heights = [_LINE * (len(title) + len(lines)) + 2 * _PAD for title, lines in texts]
    whole = sum(heights) + _GAP * (len(boxes) - 1) + 0.06
    figure = Figure(figsize=(canvas.WIDTH, whole), dpi=canvas.DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, canvas.WIDTH)
    axes.set_ylim(whole, 0)
    axes.set_axis_off()
    top = 0.03
    for index, (box, (title, lines), height) in enumerate(zip(boxes, texts, heights, strict=True)):
        fill, edge = _COLOURS[box.kind]
        style = {"boxstyle": "round,pad=0,rounding_size=0.05", "facecolor": fill, "edgecolor": edge, "linewidth": 1}
        axes.add_patch(FancyBboxPatch((0.04, top), canvas.WIDTH - 0.08, height, **style))
        for row, text in enumerate([*title, *lines]):
            weight = "bold" if row < len(title) else "normal"
            where = top + _PAD + _LINE * (row + 0.5)
            font = {"fontsize": canvas.SMALL, "fontweight": weight, "color": canvas.INK}
            axes.text(_MARGIN, where, text.replace("$", r"\$"), va="center", **font)
        top += height
        if index + 1 < len(boxes):
            arrow = {"arrowstyle": "-|>", "color": "#595959", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
            middle = canvas.WIDTH / 2
            axes.annotate("", (middle, top + _GAP), (middle, top), arrowprops=arrow)
            top += _GAP
    return figure


def in_words(boxes: Sequence[Box]) -> str:
    """The same as text, for those who cannot see it."""
    return "; then ".join(": ".join(text for text in (box.title, ", ".join(box.lines)) if text) for box in boxes) + "."


def _wrapped(lines: Sequence[str], weight: str) -> list[str]:
    """The lines cut at blanks, or within a word that is wider than a box, so that each piece fits into one."""
    pieces = []
    for line in lines:
        piece = ""
        for word in line.split():
            if piece and not _fits(f"{piece} {word}", weight):
                pieces.append(piece)
                piece = ""
            piece = f"{piece} {word}" if piece else word
            while not _fits(piece, weight):
                cut = next(length for length in range(len(piece) - 1, 0, -1) if _fits(piece[:length], weight))
                pieces.append(piece[:cut])
                piece = piece[cut:]
        pieces.append(piece)
    return pieces


def _fits(text: str, weight: str) -> bool:
    points = sum(_advance(letter, weight) for letter in text) * canvas.SMALL / _EM
    return points <= (canvas.WIDTH - 2 * _MARGIN) * 72


# At most as many letters as there are in the alphabets of those who name categories.
@functools.lru_cache(4096)
def _advance(letter: str, weight: str) -> float:
    """How far a letter takes the pen at a size of `_EM` points, in points."""
    font = get_font(findfont(FontProperties(weight=weight)))
    font.set_size(_EM, 72)
    return font.load_char(ord(letter)).linearHoriAdvance / 65536
