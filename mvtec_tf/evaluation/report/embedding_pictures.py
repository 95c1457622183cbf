"""An embedding as pictures, each image a dot coloured by label, category or defect, and for TensorBoard's projector.

The projector's files are plain files in the form that it reads; TensorFlow is not needed for them.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mvtec_tf.data.pillow_images import UnreadableImageError, read_rgb
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.embedding import Points
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.report import canvas
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Pictures, Section
from mvtec_tf.files import PathLike, replacing, write_text

KEY = "embedding"
_TITLE = "What the network sees alike"
TSNE, PCA = "tsne", "pca"
KINDS = tuple(f"{method}_{colouring}" for method in (TSNE, PCA) for colouring in ("label", "category", "defect"))
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
CONFIG_FILE = "projector_config.pbtxt"
FOLDER = "projector"
# Browsers draw no larger texture than this; the projector wants one image of all thumbnails.
_MOST_SPRITE_PIXELS = 8192
_THUMBNAIL = 64
_EVENTS_FILE = "events.out.tfevents.0.projector"


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


@canvas.own_style()
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


def write_projector(folder: PathLike, points: Points, files: Mapping[str, ImageFiles]) -> None:
    """Writes tensors, `metadata.tsv`, thumbnails where the images are known, and the projector's configuration.

    Args:
      folder: the folder of a run of TensorBoard; all but the configuration goes to `projector/` in it.
      points: see `embedding.reduce`.
      files: of every row, by path; empty where the images are not known.

    Raises:
      UserError: an image cannot be read.
    """
    run, folder = pathlib.Path(folder), pathlib.Path(folder) / FOLDER
    tensors = {"embedding": points.components} | ({} if points.tsne is None else {"t-SNE": points.tsne})
    names = {name: f"{name.lower().replace('-', '')}.tsv" for name in tensors}
    for name, values in tensors.items():
        write_text(folder / names[name], "".join("\t".join(f"{x:.6g}" for x in row) + "\n" for row in values))
    write_text(folder / "metadata.tsv", _metadata(points))
    paths = points.table.path.tolist()
    sprite = ""
    if all(path in files and files[path].image for path in paths):
        sprite = "sprite.jpg"
        side = min(_THUMBNAIL, _MOST_SPRITE_PIXELS // math.ceil(math.sqrt(len(paths))))
        with replacing(folder / sprite) as temporary:
            _sprite([files[path].image for path in paths], side).save(temporary, "JPEG", quality=85)
    else:
        (folder / "sprite.jpg").unlink(missing_ok=True)
        side = 0
    if not any(run.glob("*tfevents*")):
        # TensorBoard looks for the configuration in folders with an event file only; this one holds nothing else.
        # Not above: who wants no projector need not load TensorBoard.
        from mvtec_tf.evaluation.report import tensorboard_log

        tensorboard_log.write_events(run / _EVENTS_FILE, (), now=0)
    write_text(run / CONFIG_FILE, _config(names, sprite, side))


def _config(names: Mapping[str, str], sprite: str, side: int) -> str:
    blocks = []
    for name, file in names.items():
        lines = [
            f'  tensor_name: "{name}"',
            f'  tensor_path: "{FOLDER}/{file}"',
            f'  metadata_path: "{FOLDER}/metadata.tsv"',
        ]
        if sprite:
            lines.append(
                f'  sprite {{ image_path: "{FOLDER}/{sprite}" single_image_dim: {side} single_image_dim: {side} }}'
            )
        blocks.append("embeddings {\n" + "\n".join(lines) + "\n}\n")
    return "".join(blocks)


def _metadata(points: Points) -> str:
    table = points.table
    lines = ["path\tlabel\tcategory\tdefect\tscore"]
    for row in table.rows():
        label = "defective" if row.label else "good"
        fields = [row.path, label, row.category, row.defect, f"{row.score:.6g}"]
        # A tabulator in a name would shift the columns of its row.
        lines.append("\t".join(" ".join(field.split()) or "-" for field in fields))
    return "\n".join(lines) + "\n"


def _sprite(images: Sequence[str], side: int) -> Image.Image:
    """All thumbnails in a square, row by row, as the projector expects them."""
    across = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (across * side, across * side), "white")
    for number, file in enumerate(images):
        try:
            image = read_rgb(file)
        except UnreadableImageError as error:
            raise UserError(f"{file}: {error}. Mend the file or leave its row out of the table.") from error
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
        left, top = (number % across) * side, (number // across) * side
        sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
    return sheet
