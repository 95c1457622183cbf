"""What is drawn of a photograph on the page: where a heat map is hottest, and where a score lies among good ones."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from mvtec_tf import files
from mvtec_tf.app.models import Export, held_out
from mvtec_tf.data import pillow_images
from mvtec_tf.data.pillow_images import UnreadableImageError
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.report import photographs

# Longest sides in pixels: of a photograph, and of its heat map, which is no finer than the model's.
_PREVIEW, _HEAT, _SMALL = 1200, 400, 320
# Of the largest value of a map: the region around it that is as hot, as a half width at half maximum.
HOT = 0.5
# A larger share of the picture is no region: it says of a part that none of it stands out.
_MOST_HOT = 0.3
_BINS = 40
# Beyond these shares of all scores the scale ends.
_ENDS = (0.005, 0.995)
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def write_preview(file: files.PathLike, target: files.PathLike) -> tuple[int, int]:
    """Writes a photograph as a browser shows it, upright; returns its own (height, width)."""
    image = pillow_images.read_rgb(file)
    size = image.height, image.width
    image.thumbnail((_PREVIEW, _PREVIEW), Image.Resampling.LANCZOS)
    files.write_bytes(target, photographs.jpeg([image]))
    return size


def keep_small(sha256: str, file: files.PathLike, folder: pathlib.Path) -> None:
    """Keeps a small picture of a good part, if its file is still there with the same content."""
    target = folder / f"{sha256}.jpg"
    try:
        if target.is_file() or files.sha256(file) != sha256:
            return
        image = pillow_images.read_rgb(file)
    # It was moved since the model was made; the page then shows its name.
    except (UserError, UnreadableImageError):
        return
    image.thumbnail((_SMALL, _SMALL), Image.Resampling.LANCZOS)
    files.write_bytes(target, photographs.jpeg([image]))


def write_heat(
    heat: np.ndarray | None, target: files.PathLike, size: tuple[int, int], level: float = 1.0
) -> dict[str, Any]:
    """Writes a heat map as grey levels, at the photograph's aspect ratio.

    Args:
      heat: float32 [h, w], not negative; None: there is none.
      target: PNG file.
      size: (height, width) of the photograph.
      level: of its largest value, 0 to 1, see `heat_maps.level`.

    Returns:
      What is measured of it: `row` and `column` of the hottest place in words, `share` of the picture that is at least
      half as hot, `level`; empty if nothing is hot.
    """
    if heat is None or not heat.max() > 0:
        return {}
    scale = _HEAT / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    large = np.clip(pillow_images.resized(np.asarray(heat, np.float32), height, width) / heat.max(), 0, 1)
    with files.replacing(target) as temporary:
        Image.fromarray(np.rint(level * large * 255).astype(np.uint8)).save(temporary, "PNG")
    row, column = np.unravel_index(np.argmax(large), large.shape)
    place = _ROWS[min(3 * int(row) // height, 2)], _COLUMNS[min(3 * int(column) // width, 2)]
    return {"row": place[0], "column": place[1], "share": float((large >= HOT).mean()), "level": level}


def has_region(heat: Mapping[str, Any]) -> bool:
    """Whether there is a hottest region to be told of and outlined: what is uppermost in a part that scores like good
    ones is no finding, nor is what covers much of it; `heat` is of `write_heat`."""
    return bool(heat) and heat.get("level", 1.0) >= HOT and heat["share"] <= _MOST_HOT


def heat_layer(file: pathlib.Path) -> bytes:
    """A heat map that `write_heat` wrote as a PNG in colours, the less opaque the colder."""
    level = np.asarray(Image.open(file))
    pixels = colormaps[photographs.COLOURS](level, bytes=True)
    pixels[..., 3] = level
    return _png(pixels)


def outline_layer(file: pathlib.Path) -> bytes:
    """The line around what is at least half as hot as can be, as a PNG, transparent elsewhere."""
    level = np.asarray(Image.open(file))
    blank = Image.new("RGB", level.shape[::-1])
    lines = np.asarray(photographs.outlined(blank, level >= HOT * 255))
    return _png(np.dstack([lines, np.where(lines.any(-1), 255, 0).astype(np.uint8)]))


def scale(
    export: Export,
    score: float | None,
    threshold: float | None = None,
    zone: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Where a score lies among those of held-out parts, in per cent of the width of a drawing.

    Args:
      export: whose parts they are.
      score: of a part; None: there is none.
      threshold, zone: that are drawn in place of the export's own.

    Returns:
      `good`, `defective`: (x, width, height) of each bar, heights in per cent of the highest; `threshold`, `zone` and
      `score` in x; `low`, `high` the scores at both ends; `images` how many good ones there are. `beyond`: whether the
      score is drawn at an end that it lies beyond.
    """
    good, defective = held_out(export)
    threshold = export.threshold if threshold is None else threshold
    zone = export.zone if zone is None else zone
    # The slider reaches back to where the threshold was.
    cuts = sorted({export.threshold, threshold, *(zone or ())})
    there = np.concatenate([good, defective, cuts, [] if len(good) or score is None else [score]])
    low, high = np.quantile(there, _ENDS) if len(there) > 1 else (there[0], there[0])
    low, high = min(low, *cuts), max(high, *cuts)
    margin = 0.06 * (high - low) or 1.0
    low, high = float(low - margin), float(high + margin)

    def x(value: float) -> float:
        return float(np.clip(100 * (value - low) / (high - low), 0, 100))

    found: dict[str, Any] = {"low": low, "high": high, "images": len(good), "threshold": x(threshold)}
    found["zone"] = None if zone is None else [x(end) for end in zone]
    found |= {"good": _bars(good, low, high), "defective": _bars(defective, low, high), "beyond": False}
    if score is not None:
        found |= {"score": x(score), "beyond": not low <= score <= high}
    return found


def _bars(scores: np.ndarray, low: float, high: float) -> Sequence[tuple[float, float, float]]:
    counts = np.histogram(np.clip(scores, low, high), _BINS, (low, high))[0]
    width = 100 / _BINS
    # A single part is seen beside a hundred.
    heights = 100 * np.sqrt(counts / max(counts.max(), 1))
    return [
        (round(number * width, 3), width, round(float(height), 1)) for number, height in enumerate(heights) if height
    ]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
