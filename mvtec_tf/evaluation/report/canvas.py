"""What all pictures have in common: colours, letters, axes, and how they become a file.

Drawn by matplotlib's object interface (no pyplot: its global state would leak into a caller's
plots). Good is blue and defective is orange in all of them, from the palette of Okabe and Ito,
which colour-blind readers can tell apart; grey dashes are what no look at the image would give.
"""

import base64
import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

GOOD_COLOUR = "#0072B2"
DEFECTIVE_COLOUR = "#D55E00"
TRIVIAL_COLOUR = "#595959"
INK = "#1a1a1a"
# Of models side by side, after the two above; Okabe and Ito's again, without the yellow that
# disappears on white.
SERIES_COLOURS = (GOOD_COLOUR, DEFECTIVE_COLOUR, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Shown about 360 CSS pixels wide, 100 to the inch, so that 9 point letters are 12 pixels high.
WIDTH, HEIGHT = 3.6, 3.2
DPI = 200
FONT = 9
SMALL = FONT - 0.5
_LONGEST = 120


@dataclasses.dataclass(frozen=True)
class Picture:
    """One panel.

    Attributes:
      kind: which kind of picture, the beginning of its file's name.
      scope: category name, "" for all images.
      file_name: its name in the folder of figures.
      png: the image file's content; a photograph's is a JPEG, and its name says so.
      alt: what it shows, for those who cannot see it.
      caption: what to see in it, with its numbers.
      heading: above the caption on a page.
      reading: what to look at in pictures of its kind, where nothing around it says so.
    """

    kind: str
    scope: str
    file_name: str
    png: bytes
    alt: str
    caption: str
    heading: str = ""
    reading: str = ""

    @property
    def media_type(self) -> str:
        """Of the content, for the page."""
        return "image/jpeg" if self.file_name.endswith(".jpg") else "image/png"

    @functools.cached_property
    def base64(self) -> str:
        """Its content, for the page."""
        return base64.b64encode(self.png).decode("ascii")


def file_name(kind: str, number: int, name: str, suffix: str = ".png") -> str:
    """Of a picture of one kind of many; the number keeps two names apart that are alike but for letters no file has."""
    # The number tells it from others; file systems take no name of more than 255 bytes.
    return f"{kind}_{number:02d}_{re.sub('[^A-Za-z0-9-]+', '_', name)[-_LONGEST:]}{suffix}"


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """matplotlib as it is without the style of a notebook or a `matplotlibrc`: a report looks alike for everybody."""
    usual = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    with matplotlib.rc_context({name: value for name, value in usual.items() if matplotlib.rcParams[name] != value}):
        yield


def empty(height: float = HEIGHT) -> Figure:
    """A white figure of the common width, `height` in inches."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")


@own_style()
def png(figure: Figure) -> bytes:
    """The figure as a PNG with a palette: a third of the size, with no difference that an eye can see.

    No time and no writer's name goes into it: the same table gives the same bytes.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    image.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        buffer, format="PNG", optimize=True
    )
    return buffer.getvalue()


def axes_of(figure: Figure, x: str, y: str) -> Axes:
    """One pair of axes with these titles."""
    axes = figure.add_subplot()
    style(axes)
    axes.set_xlabel(x, fontsize=FONT, color=INK)
    axes.set_ylabel(y, fontsize=FONT, color=INK)
    return axes


def style(axes: Axes) -> None:
    """Small ticks, no frame above and on the right."""
    axes.tick_params(labelsize=SMALL, colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def unit_square(axes: Axes) -> None:
    """Both axes from 0 to 1, with a grid."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    grid(axes)


def roc_axes(figure: Figure) -> Axes:
    """The unit square of ROC curves, with chance as its diagonal."""
    axes = axes_of(figure, "good images falsely stopped", "defective images found")
    axes.plot([0, 1], [0, 1], "--", color=TRIVIAL_COLOUR, linewidth=1.2, label="chance")
    unit_square(axes)
    return axes


def precision_recall_axes(figure: Figure, prevalence: float) -> Axes:
    """The unit square of precision over recall, with always-defective's precision, the prevalence, as a line."""
    axes = axes_of(figure, "recall: defective images found", "precision: defective of the stopped")
    axes.plot([0, 1], [prevalence] * 2, "--", color=TRIVIAL_COLOUR, linewidth=1.2, label="always defective")
    unit_square(axes)
    return axes


def field(axes: Axes, x: int, y: int, share: float, colour: str, linewidth: float) -> None:
    """A field of a confusion matrix, tinted by its share of the row."""
    # At most a light tint, so that dark letters can be read on each of them.
    tint = 1 - 0.45 * share * (1 - np.array(to_rgb(colour)))
    edge = {"edgecolor": "#bdbdbd", "linewidth": linewidth}
    axes.add_patch(Rectangle((x - 0.49, y - 0.49), 0.98, 0.98, facecolor=tint, **edge))


def confusion_axes(figure: Figure, columns: int) -> Axes:
    """Axes of a confusion matrix of so many classes, without ticks or frame."""
    axes = figure.add_subplot()
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(columns - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes


def grid(axes: Axes, which: str = "both") -> None:
    """Light lines behind the data."""
    axes.grid(color="#e6e6e6", linewidth=0.6, axis=which)
    axes.set_axisbelow(True)


def legend(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """Above the axes: inside there is no corner that no curve runs through."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
    )


def shortened(name: str, most: int = 22) -> str:
    """A name that fits beside a bar, with the end cut off if it must be; no letter of it is markup."""
    text = name if len(name) <= most else name[: most - 1] + "\u2026"
    return text.replace("$", r"\$")
