"""How well heat maps find the defect itself: pixel AUROC, per-region overlap and the pointing game.

Free pixels are those outside the masks, in defective and in good images alike. Every figure is
computed at the size of the masks; a smaller or larger heat map is resized to it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.evaluation import intervals, metrics
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling
from mvtec_tf.evaluation.localisation import pixel_ranking
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps, MaskedImages
from mvtec_tf.evaluation.localisation.pixel_ranking import BinnedRanking, ExactRanking
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.table import Predictions

AUROC = "pixel_auroc"
PRO = "pro"
POINTING = "pointing_game"
RANDOM = "pointing_game_at_random"
GAIN = "pointing_game_gain"
NAMES = (AUROC, PRO, POINTING, RANDOM, GAIN)
# Of a map that says nothing: every pixel alike, or noise. On the diagonal the overlap equals the
# false positive rate, so up to the limit it is half of the limit on average.
OF_NO_MAP: Mapping[str, float] = {AUROC: 0.5, PRO: pixel_ranking.FPR_LIMIT / 2}

_NO_USABLE_MASK = "no defective image has a mask that can be used"
# As in the evaluation that MVTec publishes with the data set: pixels that touch at a corner are one region.
_NEIGHBOURS = np.ones((3, 3), int)


@dataclasses.dataclass(frozen=True)
class PixelScope:
    """The figures of one set of images.

    Attributes:
      metrics: by name, see `NAMES`.
      good: good images, whose pixels are all free.
      masks: defective images with a mask that is used.
      regions: connected regions of defect in these masks.
    """

    metrics: Mapping[str, Metric]
    good: int
    masks: int
    regions: int

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        counts = {"good_images": self.good, "masks": self.masks, "regions": self.regions}
        return {name: metric.as_json() for name, metric in self.metrics.items()} | counts


@dataclasses.dataclass(frozen=True)
class PixelFigures:
    """All pixel figures of one folder of heat maps.

    Attributes:
      name: of the heat maps.
      overall: all images that can be used.
      categories: each category that has masks, by name.
      mean: unweighted means over these categories.
      without_masks: categories that have none.
      left_out: (path, reason) of each defective image whose mask cannot be used.
      resized: how many heat maps did not have the size of their mask.
    """

    name: str
    overall: PixelScope
    categories: Mapping[str, PixelScope]
    mean: Mapping[str, Metric]
    without_masks: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    resized: int

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return {
            "overall": self.overall.as_json(),
            "categories": {name: scope.as_json() for name, scope in self.categories.items()},
            "mean_over_categories": {name: metric.as_json() for name, metric in self.mean.items()},
            "without_masks": list(self.without_masks),
            "left_out": [{"path": path, "reason": reason} for path, reason in self.left_out],
            "maps_resized": self.resized,
            "fpr_limit": pixel_ranking.FPR_LIMIT,
        }


def measure(
    table: Predictions,
    files: Mapping[str, ImageFiles],
    maps: HeatMaps,
    bootstrap: Bootstrap,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> PixelFigures:
    """All pixel figures of the evaluate rows of a table.

    - `pixel_auroc`: area under the ROC curve of all pixels.
    - `pro`: area under the mean overlap with the regions of defect over the false positive rate up
      to 30 %, divided by 0.3 (Bergmann et al., IJCV 2021, section 6); every threshold counts.
    - `pointing_game`: share of the defective images whose hottest pixel lies in the mask, without a
      tolerance around it (Zhang et al., IJCV 2018, allow 15 pixels). Of tied hottest pixels one is
      drawn: the image counts with the share of them that lies in the mask.
    - `pointing_game_at_random`: the same of a pixel drawn at random, the mean share of the image
      that its mask covers; `pointing_game_gain`: the difference.

    Memory: the defective pixels and one image; two passes over the maps.

    Args:
      table: evaluate rows only.
      files: of every row, by path.
      maps: the heat maps.
      bootstrap: of the intervals; whole groups of images are drawn. Those of AUROC and PRO come from
        1024 bins of each image's pixels, the figures themselves from all distinct values.
      progress: called with (images done, of how many passes).

    Raises:
      UserError: a heat map is missing or cannot be used.
    """
    images = MaskedImages(table, files, maps)
    table = table.select(images.used)
    ranked = _ranked(images, table, progress)
    resampling = Resampling(table.path, table.category, table.group, table.label, bootstrap)
    replicates = _replicates(resampling, ranked)
    scopes = {name: one.judged(resampling.units, replicates[name]) for name, one in ranked.items()}
    overall = scopes.pop("")
    if images.categories and len(images.all_categories) == 1:
        scopes = {images.categories[0]: overall}
    mean = metrics.mean_over({name: scope.metrics for name, scope in scopes.items()}, NAMES)
    if len(scopes) == 1:
        mean = dict(overall.metrics)
    elif scopes:
        mean = {
            name: intervals.with_interval(metric, intervals.mean_of([replicates[each][name] for each in scopes]))
            for name, metric in mean.items()
        }
    without = tuple(name for name in images.all_categories if name not in images.categories)
    return PixelFigures(maps.name, overall, scopes, mean, without, images.left_out, len(images.resized))


@dataclasses.dataclass(frozen=True)
class _Defect:
    """The defective pixels of an image, and whether its hottest pixel is one of them.

    Attributes:
      values: float32 [P], their heat.
      overlaps: float64 [P], one by the pixels of the region of each.
      regions: how many there are.
      hit: 0 or 1, or the share of the tied hottest pixels that are defective.
      area: share of the image's pixels that are.
    """

    values: np.ndarray
    overlaps: np.ndarray
    regions: int
    hit: float
    area: float

    @classmethod
    def of(cls, heat: np.ndarray, mask: np.ndarray) -> "_Defect":
        # Imported here: most tables are judged without heat maps, and SciPy takes longer to load than a table to judge.
        from scipy import ndimage

        regions, count = ndimage.label(mask, _NEIGHBOURS)
        number = regions[mask] - 1
        overlaps = 1 / np.bincount(number, minlength=count)[number]
        hit = float(mask[heat == heat.max()].mean())
        return cls(heat[mask], overlaps, count, hit, float(mask.mean()))


class _Ranked:
    """The pixels of one set of images.

    Args:
      where: int [N], which rows of the table.
      defects: of these rows; None of good images.
      samples: some free pixels of each.
    """

    def __init__(self, where: np.ndarray, defects: Sequence[_Defect | None], samples: Sequence[np.ndarray]) -> None:
        self.where = where
        self.defects = defects
        there = [defect for defect in defects if defect is not None]
        values = np.concatenate([defect.values for defect in there] or [np.zeros(0, np.float32)])
        overlaps = np.concatenate([defect.overlaps for defect in there] or [np.zeros(0)])
        self.exact = ExactRanking(values, overlaps, sum(defect.regions for defect in there))
        self.binned = BinnedRanking(len(where), pixel_ranking.edges_of(values, samples))
        self._masked = np.array([defect is not None for defect in defects], float)
        self._hits = np.array([defect.hit if defect else 0.0 for defect in defects])
        self._areas = np.array([defect.area if defect else 0.0 for defect in defects])
        for image, defect in enumerate(defects):
            if defect is not None:
                self.binned.found(image, defect.values, defect.overlaps, defect.regions)

    def count(self, image: int, free: np.ndarray) -> None:
        """Adds the free pixels (float32 [N], ascending) of the image at this place of `where`."""
        self.exact.count(free)
        self.binned.count(image, free)

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Figure name -> float64 [C], in resamples with these weights, float [C, N]."""
        masks = weights @ self._masked
        auroc, pro = self.binned.figures(weights)
        hits, at_random = (intervals.share(weights @ rows, masks) for rows in (self._hits, self._areas))
        return {AUROC: auroc, PRO: pro, POINTING: hits, RANDOM: at_random, GAIN: hits - at_random}

    def judged(self, units: np.ndarray, replicates: Mapping[str, np.ndarray]) -> PixelScope:
        """The figures with the intervals of these resamples; `units` are the groups of all rows of the table."""
        masked = self._masked.astype(bool)
        found = self._figures(int(masked.sum()))
        groups = {POINTING: len(np.unique(units[self.where][masked]))}
        smaller = dict.fromkeys((AUROC, PRO), groups[POINTING])
        found = {
            name: intervals.with_interval(metric, replicates[name], groups.get(name), smaller.get(name))
            for name, metric in found.items()
        }
        if found[POINTING].low is not None and intervals.few(found[POINTING], groups[POINTING]):
            found[GAIN] = _gain_from_ends(found[GAIN], found[POINTING], found[RANDOM])
        regions = sum(defect.regions for defect in self.defects if defect is not None)
        return PixelScope(found, int((~masked).sum()), int(masked.sum()), regions)

    def _figures(self, masks: int) -> dict[str, Metric]:
        if not masks:
            return {name: Metric(None, _NO_USABLE_MASK) for name in NAMES}
        hits, at_random = float(self._hits.sum() / masks), float(self._areas.sum() / masks)
        pointing = {POINTING: Metric(hits), RANDOM: Metric(at_random), GAIN: Metric(hits - at_random)}
        return {AUROC: Metric(self.exact.auroc()), PRO: Metric(self.exact.pro())} | pointing


def _gain_from_ends(gain: Metric, pointing: Metric, at_random: Metric) -> Metric:
    """The gain with the limits of both rates, where resampling moves the hits too little: few are hit, or all but few.

    Of two hits one resample in nine has none, as if nothing were shown, though a random point would never get two. Each
    limit is missed with 2.5 % at most, so both together hold with 90 % at least.
    """
    return dataclasses.replace(gain, low=pointing.low - at_random.high, high=pointing.high - at_random.low, note="")


def _ranked(
    images: MaskedImages, table: Predictions, progress: Callable[[int, int], None]
) -> dict[str, _Ranked]:
    """The pixels of all images (as "") and, where there are several categories, of each."""
    paths, categories = table.path.tolist(), table.category.tolist()
    defects, samples, steps = [], [], 2 * len(table)
    for row, (path, category) in enumerate(zip(paths, categories, strict=True)):
        heat, mask = images.read(path, category)
        defects.append(None if mask is None else _Defect.of(heat, mask))
        samples.append(pixel_ranking.sample(heat if mask is None else heat[~mask]))
        progress(row + 1, steps)
    places = {"": np.arange(len(table))}
    if len(images.all_categories) > 1:
        places |= {name: np.flatnonzero(table.category == name) for name in images.categories}
    ranked = {
        name: _Ranked(where, [defects[row] for row in where], [samples[row] for row in where])
        for name, where in places.items()
    }
    position = {name: dict(zip(where.tolist(), range(len(where)), strict=True)) for name, where in places.items()}
    for row, (path, category) in enumerate(zip(paths, categories, strict=True)):
        heat, mask = images.read(path, category)
        free = np.sort(heat, axis=None) if mask is None else np.sort(heat[~mask])
        for name in {"", category} & set(ranked):
            ranked[name].count(position[name][row], free)
        progress(len(table) + row + 1, steps)
    return ranked


def _replicates(resampling: Resampling, ranked: Mapping[str, _Ranked]) -> dict[str, dict[str, np.ndarray]]:
    """Scope name -> figure name -> float64 [R], in the same resamples."""
    pieces: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in ranked}
    for weights in resampling.chunks():
        for name, one in ranked.items():
            drawn = one.resampled(weights[:, one.where])
            pieces[name].append({figure: resampling.varied(rows) for figure, rows in drawn.items()})
    return {
        name: {figure: np.concatenate([piece[figure] for piece in found] or [np.zeros(0)]) for figure in NAMES}
        for name, found in pieces.items()
    }
