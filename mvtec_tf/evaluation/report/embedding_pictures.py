"""Pictures of an embedding: each image a dot, coloured by label, by category and by defect."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from mvtec_tf.evaluation.embedding import Points
from mvtec_tf.evaluation.report import canvas
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Pictures, Section

KEY = "embedding"
_TITLE = "What the network sees alike"
TSNE, PCA = "tsne", "pca"
_NAMES = {TSNE: "t-SNE", PCA: "PCA"}
_READING = {
    TSNE: "t-SNE puts images that the network sees alike next to each other. Only who is whose neighbour means "
    "anything: sizes of clusters, gaps between them and the axes do not.",
    PCA: "The two directions in which the embedding varies most. What lies apart here lies apart in the embedding; "
    "what lies together may still differ in the other directions.",
}
# More kinds than colours and markers can tell apart: the rarest are drawn as one.
_MOST_KINDS = 12
_OTHERS = "others"
_ROW_INCHES = 0.19


@dataclasses.dataclass(frozen=True, eq=False)
class _Colouring:
    """One way to colour the points.

    Attributes:
      name: "label", "category" or "defect".
      kinds: object [N] of str, the kind of each point.
      styles: kind -> (colour, marker), in the order of the legend.
    """

    name: str
    kinds: np.ndarray
    styles: dict[str, tuple[str, str]]


def section(points: Points, projector: bool = False) -> Section:
    """The section of a report.

    Args:
      points: of the evaluated images.
      projector: whether TensorBoard's projector shows the same points.
    """
    colourings = _colourings(points)
    drawn = {method: list(_pictures(points, method, colourings)) for method in _NAMES}
    methods = [Section(_NAMES[name], [_READING[name], Pictures(found)]) for name, found in drawn.items() if found]
    notes = [] if points.tsne is not None else ["There is no t-SNE, because it was not asked for (`tsne`)."]
    if len({colouring.name for colouring in colourings}) < 3:
        notes.append("Not coloured by category, because there is only one.")
    if projector:
        notes.append("TensorBoard's projector shows the same points with thumbnails.")
    agreement = {colouring.name: _agreement(points, colouring.kinds) for colouring in colourings}
    document = {
        "images": len(points.table),
        "of": points.of,
        "seed": points.seed,
        "dimensions": points.dimensions,
        "nearest_neighbour_agrees": {name: {"value": a, "at_random": b} for name, (a, b) in agreement.items()},
    }
    blocks = [_lead(points, agreement), *methods]
    return Section(_TITLE, blocks, notes, KEY, document, spare=True)


def without(reason: str) -> Section:
    """The section where there is no picture."""
    return Section(_TITLE, notes=[f"No picture of the embedding: {reason}."], key=KEY)


def caption_of_sample(points: Points) -> str:
    """How many images the points are."""
    if len(points.table) < points.of:
        return f"{len(points.table):,} of the {points.of:,} evaluated images, sampled with seed {points.seed}"
    return f"{points.of:,} evaluated images"


def _lead(points: Points, agreement: dict[str, tuple[float, float]]) -> str:
    told = ", ".join(
        f"the same {name} in {100 * share:.1f} % (of a random other image: {100 * chance:.1f} %)"
        for name, (share, chance) in agreement.items()
    )
    return (
        f"Each dot is one of {caption_of_sample(points)}, placed by its embedding of {points.dimensions:,} numbers, "
        "each standardised. The image nearest to an image, in the first "
        f"{points.components.shape[1]} principal components, has {told}."
    )


def _agreement(points: Points, kinds: np.ndarray) -> tuple[float, float]:
    """Share of the points whose nearest other point is of the same kind, and of a random other one."""
    _, counts = np.unique(kinds.astype(str), return_counts=True)
    pairs = len(kinds) * (len(kinds) - 1)
    return float(np.mean(kinds == kinds[points.neighbour])), float((counts * (counts - 1)).sum() / pairs)


def _colourings(points: Points) -> list[_Colouring]:
    table = points.table
    labels = np.array(["defective" if label else "good" for label in table.label], object)
    styles = {"good": (canvas.GOOD_COLOUR, "o"), "defective": (canvas.DEFECTIVE_COLOUR, "s")}
    found = [_Colouring("label", labels, styles)]
    several = len(table.categories()) > 1
    if several:
        found.append(_Colouring("category", table.category, _styles(table.category)))
    defects = np.array(
        [
            "good" if not label else f"{category}: {defect}" if several else defect or "(not named)"
            for category, defect, label in zip(table.category, table.defect, table.label, strict=True)
        ],
        object,
    )
    styles = {"good": (canvas.TRIVIAL_COLOUR, ".")} | _styles(defects[table.label == 1])
    found.append(_Colouring("defect", defects, styles))
    return found


def _styles(kinds: np.ndarray) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each kind, of many for the most frequent ones."""
    names, counts = np.unique(kinds.astype(str), return_counts=True)
    if len(names) > _MOST_KINDS:
        names = np.sort(names[np.argsort(-counts, kind="stable")[:_MOST_KINDS]])
    colours, markers = canvas.SERIES_COLOURS, canvas.SERIES_MARKERS
    # The second round of colours comes with other markers.
    return {
        str(name): (colours[i % len(colours)], markers[(i + i // len(colours)) % len(markers)])
        for i, name in enumerate(names)
    }


def _pictures(points: Points, method: str, colourings: Sequence[_Colouring]) -> Iterator[Picture]:
    places = points.tsne if method == TSNE else points.components[:, :2]
    if places is None:
        return
    for colouring in colourings:
        name = f"{method}_{colouring.name}"
        caption = f"{_NAMES[method]} of {caption_of_sample(points)}."
        if method == PCA:
            caption += f" The two axes hold {100 * points.explained[:2].sum():.1f} % of the variance."
        if left := _left_out(colouring):
            caption += f" {left}"
        alt = f"{_NAMES[method]} of the embedding, coloured by {colouring.name}. {caption}"
        heading = f"{_NAMES[method]}, coloured by {colouring.name}"
        yield Picture(name, "", f"{name}.png", canvas.png(_draw(places, colouring, method)), alt, caption, heading)


def _left_out(colouring: _Colouring) -> str:
    others = len(set(colouring.kinds.tolist()) - set(colouring.styles))
    return f"The {others} rarest kinds are drawn as one." if others else ""


def _draw(places: np.ndarray, colouring: _Colouring, method: str) -> Figure:
    columns = 2
    rows = -(-(len(colouring.styles) + bool(_left_out(colouring))) // columns)
    figure = canvas.empty(canvas.HEIGHT + _ROW_INCHES * rows)
    axes = canvas.axes_of(figure, f"{_NAMES[method]} 1", f"{_NAMES[method]} 2")
    if method == TSNE:
        axes.set_xticks([])
        axes.set_yticks([])
    size = float(np.clip(3000 / len(places), 4, 24))
    known = np.isin(colouring.kinds.astype(str), list(colouring.styles))
    drawn = [(name, colouring.kinds == name, style) for name, style in colouring.styles.items()]
    if not known.all():
        drawn.append((_OTHERS, ~known, ("#9a9a9a", "x")))
    for name, which, (colour, marker) in drawn:
        if which.any():
            axes.scatter(
                *places[which].T, s=size, c=colour, marker=marker, linewidths=0.6 if marker == "x" else 0, alpha=0.75,
                label=canvas.shortened(name),
            )
    axes.margins(0.05)
    canvas.legend(figure, axes, columns)
    return figure
