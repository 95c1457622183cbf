"""Photographs for a page: small JPEGs with the true mask outlined and a heat map laid over them."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageFilter

from mvtec_tf.data import pillow_images
from mvtec_tf.data.pillow_images import UnreadableImageError, read_rgb
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.image_files import ImageFiles, MaskError
from mvtec_tf.evaluation.localisation.heatmaps import GivenMaps, HeatMaps
from mvtec_tf.evaluation.report import canvas, summary
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.table import Predictions

# Two panes side by side are shown some 190 CSS pixels wide each; drawn larger for fine screens.
PANE = 300
_GAP = 6
_QUALITY = 82
# Seen on metal, cloth, wood and glass alike, and no colour of the heat maps.
_OUTLINE = (255, 0, 200)
# Shown half as large on most screens.
_OUTLINE_WIDTH = 2
# From blue through green to yellow, told apart by lightness alone; overlays of exported models have it too.
COLOURS = "viridis"
_WHOLE_SCALE = "from uncoloured (the lowest value of this image) through blue and green to yellow (its highest)"
_LEVELLED = (
    "from uncoloured through blue and green to yellow; how hot its hottest place is says how far the score is on the "
    "way from that of held-out good images (uncoloured) to the threshold (yellow)"
)
# A miss scores like good images, so its picture would have no colour at all, and nobody could see where its map is
# highest. Still far from the yellow of what was found.
_LEAST_OF_MISSED = 0.7
_OF_MISSED = (
    ". Their scores stayed below the threshold, so by that many would have no colour: here the hottest place is green "
    "at least, which says where the map is highest, and not that it is high"
)
# The coldest place shows the photograph as it is; the hottest hides most of it, but it stands beside.
_OPACITY = (0.0, 0.75)


def picture(
    evaluate: Predictions,
    row: int,
    files: Mapping[str, ImageFiles],
    maps: Sequence[HeatMaps | GivenMaps],
    kind: str,
    number: int,
    said: str = "",
    levels: np.ndarray | None = None,
) -> Picture:
    """The photograph of a row of a table with its heat maps, captioned by path, score and what else is `said`.

    Args and errors as in `panes`; `kind` and `number` name its file, `levels` are those of all rows.
    """
    path, category, defect = evaluate.path[row], evaluate.category[row], evaluate.defect[row]
    text = f"{path}: score {summary.number(evaluate.score[row])}{', ' if said else ''}{said}."
    alt = f"Photograph{' and heat maps' if maps else ''} of {text}"
    level = 1.0 if levels is None else float(levels[row])
    content, file_name = panes(path, files[path], maps, level), canvas.file_name(kind, number, path, ".jpg")
    return Picture(kind, category, file_name, content, alt, text, f"{category}, {defect}")


def panes(path: str, files: ImageFiles, maps: Sequence[HeatMaps | GivenMaps], level: float = 1.0) -> bytes:
    """The photograph with its true mask outlined, and once more under each heat map, as a JPEG file.

    Args:
      path: of the image.
      files: of the image; a mask that cannot be used is not drawn.
      maps: those that have no map of this image are left out.
      level: see `heated`.

    Raises:
      UserError: the image or a map cannot be read.
    """
    image = photograph(files)
    found = [image, *(heated(image, one.read(path), level) for one in maps if path in one)]
    try:
        mask = image_files.read_mask(files)
    except MaskError:
        mask = None
    return jpeg(found if mask is None else [outlined(pane, mask, _OUTLINE_WIDTH) for pane in found])


def jpeg(images: Sequence[Image.Image]) -> bytes:
    """Images side by side on white, as a JPEG file; the same images give the same bytes."""
    width = sum(image.width for image in images) + _GAP * (len(images) - 1)
    sheet = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + _GAP
    buffer = io.BytesIO()
    # Full colour resolution, for the outline is one or two pixels wide.
    sheet.save(buffer, "JPEG", quality=_QUALITY, optimize=True, subsampling="4:4:4")
    return buffer.getvalue()


def photograph(files: ImageFiles) -> Image.Image:
    """The image, RGB, at most `PANE` pixels wide and high.

    Raises:
      UserError: it cannot be read.
    """
    try:
        image = read_rgb(files.image)
    except UnreadableImageError as error:
        raise UserError(f"{files.image}: {error}. Mend the file or leave its row out of the table.") from error
    image.thumbnail((PANE, PANE), Image.Resampling.LANCZOS)
    return image


def outlined(image: Image.Image, mask: np.ndarray, width: int = 1) -> Image.Image:
    """The image with a line around its mask, outside of it, so that the defect itself stays visible.

    Args:
      image: RGB.
      mask: bool [H, W], of any size.
      width: of the line in pixels.
    """
    # Averaged, so that a scratch thinner than a pixel of the small image is not lost.
    whole = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    small = np.asarray(whole.resize(image.size, Image.Resampling.BOX)) > 0
    spaced = Image.fromarray(np.where(small, 255, 0).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    line = np.asarray(spaced.filter(ImageFilter.MaxFilter(2 * width + 1))) > np.asarray(spaced)
    pixels = np.asarray(image).copy()
    pixels[line] = _OUTLINE
    return Image.fromarray(pixels)


def levels(evaluate: Predictions, limits: np.ndarray | None, good: Predictions) -> np.ndarray | None:
    """How hot the hottest place of each heat map is drawn, see `graphs.heat_maps.level`; None where that is not known.
    That of a missed defect is raised until it is seen.

    Args:
      evaluate: rows that are shown, N.
      limits: float [N], their thresholds; None: there are none.
      good: held-out good rows.
    """
    if limits is None or not len(good):
        return None
    own = {name: good.score[good.category == name].mean() for name in set(good.category.tolist())}
    usual = np.array([own.get(name, good.score.mean()) for name in evaluate.category.tolist()])
    span = np.broadcast_to(limits, len(evaluate)) - usual
    share = np.clip((evaluate.score - usual) / np.where(span > 0, span, 1), 0, 1)
    called = evaluate.score >= limits
    missed = (evaluate.label == 1) & ~called
    return np.maximum(np.where(span > 0, share, called), np.where(missed, _LEAST_OF_MISSED, 0.0))


def colours_in_words(levelled: bool, missed: bool = False) -> str:
    """What the colours of heat maps mean, with `levels` or without; `missed`: of missed defects."""
    return _LEVELLED + _OF_MISSED * missed if levelled else _WHOLE_SCALE


def heated(image: Image.Image, heat: np.ndarray, level: float = 1.0) -> Image.Image:
    """The image under its heat map, coloured from the map's lowest to its highest value.

    Args:
      image: see `photograph`.
      heat: float32 [h, w]; one value everywhere is coloured as the lowest.
      level: colour of the highest value, see `levels`.
    """
    large = pillow_images.resized(heat, image.height, image.width)
    low, high = float(large.min()), float(large.max())
    share = level * (large - low) / (high - low) if high > low else np.zeros_like(large)
    colours = colormaps[COLOURS](share)[..., :3] * 255
    opacity = (_OPACITY[0] + (_OPACITY[1] - _OPACITY[0]) * share)[..., None]
    # On grey: the photograph's own colours would mix with those of the map.
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    return Image.fromarray(np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8))
