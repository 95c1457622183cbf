"""Whether good evaluated images score like the held-out good ones that the threshold rests on.

A threshold keeps its promise for parts that are exchangeable with the held-out ones. Another lamp, another lot or a
year of wear breaks that, and nothing in the threshold tells.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import conformal
from mvtec_tf.data.record import TEST, Record
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import table
from mvtec_tf.evaluation.table import Predictions

# Of a rank test.
LEVEL = 0.05
# In standard deviations: what is said even where there are too few objects for the test to show it. Without any shift
# the median of two objects differs so much in one case of six, that of ten in fewer than one of a hundred.
LARGE = 1.0
# Share of photographs without labels that may be defective: more than any line lives with for long, and no more than
# moves the median by a third of a standard deviation.
MOST_DEFECTIVE = 0.2
_TRAINING = "the held-out good training images"
# Labelled good objects that are believed where no labelled defect stands beside them.
_ENOUGH = 5
# Objects of one side up to which SciPy's test counts out the exact distribution.
_EXACT_UP_TO = 8


@dataclasses.dataclass(frozen=True)
class Shift:
    """Scores of good images of two origins; every object is one observation, the median of its images' scores.

    Attributes:
      held_out, evaluated: numbers of objects.
      size: median of the evaluated objects less that of the held-out ones, in standard deviations of the latter; None
        where those are all alike and the medians differ.
      higher: share of pairs in which the evaluated object scores higher, ties half: the rank test's statistic.
      p: of the two-sided rank test (Mann and Whitney, Annals of Mathematical Statistics 18, 1947).
      level: below which `p` is called a shift: 0.05 over the number of categories that are tested.
      stopped_held_out, stopped: share of their images at the threshold, every object counted once; None without one.
      difference: that of the medians, in units of the score.
      trusted: whether the evaluated scores are believed to be those of parts to come, see `on_line`.
    """

    held_out: int
    evaluated: int
    size: float | None
    higher: float
    p: float
    level: float = LEVEL
    stopped_held_out: float | None = None
    stopped: float | None = None
    difference: float = 0.0
    trusted: bool = True

    @property
    def shown(self) -> bool:
        """Whether the test shows it."""
        return self.p < self.level

    @property
    def needed(self) -> int:
        """Evaluated objects from which on the test can show one: of fewer, no order of the scores is so rare by chance.

        All of them above or below the held-out ones is one order of C(M + N, N), and either counts.
        """
        return next(n for n in itertools.count(1) if 2 / math.comb(self.held_out + n, n) < self.level)

    @property
    def said(self) -> bool:
        """Whether it belongs to what is said first: the test shows it, or it could and the shift is large."""
        large = self.size is None or abs(self.size) >= LARGE
        return self.shown or (self.held_out > 1 and self.evaluated >= self.needed and large)

    @property
    def stopped_objects(self) -> int:
        """Held-out objects that the threshold stops, to the nearest number."""
        return round(self.held_out * (self.stopped_held_out or 0.0))

    @property
    def raises(self) -> bool:
        """Whether a threshold is raised for it: only if the test shows it, for a few objects differ by chance.

        For images that score lower none is lowered: they may be fewer objects, or easier ones, than those to come, and
        then it would stop more good parts than it promises."""
        return self.trusted and self.shown and self.is_upward and self.difference > 0

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return dataclasses.asdict(self) | {"shown": self.shown, "said": self.said}

    def in_words(self, these: str = "Good evaluated images", those: str = "the held-out good ones") -> str:
        """A sentence without its full stop: whether they differ, by how much, and what the test says."""
        if self.evaluated < self.needed:
            few = f"{self.evaluated} against {counted(self.held_out, 'object')}, by {self.by()}"
            can = f"a rank test can show it from {self.needed} on"
            return f"{these} are too few to tell whether they score unlike {those} ({few}; {can})"
        test = f"rank test of {self.evaluated} against {counted(self.held_out, 'object')}: p = {self.p:.2g}"
        if not self.said:
            return f"{these} are not shown to score unlike {those} (by {self.by()}; {test})"
        way = "higher" if self.is_upward else "lower"
        so_few = "" if self.shown else ", which does not show it of so few"
        return f"{these} score {way} than {those}, by {self.by()} ({test}{so_few})"

    @property
    def is_upward(self) -> bool:
        """Whether the evaluated ones score higher: by the test if it shows it, else by the medians."""
        return self.higher > 0.5 if self.shown or not self.size else self.size > 0

    def by(self) -> str:
        """The size in words."""
        if self.size is None:
            why = "the latter are all alike" if self.held_out > 1 else "a single object does not scatter"
            return f"more than can be said, because {why}"
        return f"{self.size:+.2f} standard deviations in the median"


def compare(
    held_out: Predictions,
    evaluated: Predictions,
    threshold: float | None = None,
    level: float = LEVEL,
) -> Shift | None:
    """The shift between two sets of good images; None if one is empty.

    Args:
      held_out, evaluated: good rows only.
      threshold: a score that reaches it is stopped.
      level: see `Shift`.
    """
    if not len(held_out) or not len(evaluated):
        return None
    old, new = _medians(held_out), _medians(evaluated)
    u, p = _rank_test(new, old)
    difference = float(np.median(new) - np.median(old))
    if old.min() < old.max():
        # In a unit in which squares do not vanish: scores of 1e-300 are none the less different.
        unit = max(float(np.abs(old).max()), abs(difference))
        size = difference / unit / float((old / unit).std())
    else:
        size = 0.0 if difference == 0 else None
    stops = [
        float(np.average(rows.score >= threshold, weights=conformal.masses(rows.objects)))
        for rows in (held_out, evaluated)
        if threshold is not None
    ] or [None, None]
    higher = u / (len(old) * len(new))
    return Shift(len(old), len(new), size, higher, p, level, *stops, difference)


def _rank_test(new: np.ndarray, old: np.ndarray) -> tuple[float, float]:
    """U of `new`, float [N], against `old`, float [M], and its two-sided p-value, 1 where all are one number.

    The normal approximation with corrections for ties and continuity, as SciPy's `mannwhitneyu`, whose import takes
    longer than a table to judge; it is asked where few objects want the exact distribution.
    """
    few = min(len(new), len(old)) <= _EXACT_UP_TO
    values, place, ties = np.unique(np.concatenate([new, old]), return_inverse=True, return_counts=True)
    if len(values) == 1:
        return len(new) * len(old) / 2, 1.0
    if few and ties.max() == 1:
        from scipy import stats

        return tuple(map(float, stats.mannwhitneyu(new, old, method="exact")))
    from scipy.special import ndtr

    first, second, both = len(new), len(old), len(place)
    ranks = (ties.cumsum() - (ties - 1) / 2)[place]
    u = ranks[:first].sum() - first * (first + 1) / 2
    spread = np.sqrt(first * second / 12 * ((both + 1) - (ties**3 - ties).sum() / (both * (both - 1))))
    z = (max(u, first * second - u) - first * second / 2 - 0.5) / spread
    return float(u), min(float(2 * ndtr(-z)), 1.0)


def stopped_most(shifts: Mapping[str, Shift]) -> str:
    """The category of whose held-out good objects one threshold for all stops more than chance lets expect, or "".

    By the binomial test of the share that it stops of all, at `LEVEL` over the number of categories.
    """
    if len(shifts) < 2:
        return ""
    name = max(shifts, key=lambda name: shifts[name].stopped_held_out or 0.0)
    stopped, held_out = shifts[name].stopped_objects, shifts[name].held_out
    share = sum(each.stopped_objects for each in shifts.values()) / sum(each.held_out for each in shifts.values())
    from scipy.special import bdtrc

    return name if stopped and bdtrc(stopped - 1, held_out, share) < LEVEL / len(shifts) else ""


def by_category(
    held_out: Predictions, evaluated: Predictions, thresholds: Mapping[str, float | None]
) -> dict[str, Shift]:
    """The shift of each category that has good rows on both sides.

    Args:
      held_out, evaluated: rows of any label.
      thresholds: category -> its threshold; the categories that are tested.
    """
    parts = {
        name: [rows.select((rows.category == name) & (rows.label == 0)) for rows in (held_out, evaluated)]
        for name in thresholds
    }
    parts = {name: pair for name, pair in parts.items() if all(map(len, pair))}
    return {name: compare(*pair, thresholds[name], LEVEL / len(parts)) for name, pair in parts.items()}


def on_line(held_out: Sequence[Record], scores: np.ndarray) -> tuple[np.ndarray, dict[str, Shift]]:
    """Scores of held-out images as they are on the line, and how its good images score beside the training images.

    Labelled test images are the line as it is, good training images what it was. Where a category's good ones score
    higher (see `Shift.raises`), the scores of its training images are raised by the difference of the medians: the few
    of the line say where good parts score, the many others how far they scatter.

    A held-out image is judged by a head that knows less of the line than the one that is served: where one or two of
    the labelled good images are all that it knows of a new lamp, they score far higher than parts to come will. This
    shows where they score as high as the labelled defects, held out likewise, and cannot show where there is none; then
    nothing is raised.

    Args:
      held_out: images with a score by a head that was not fitted on them.
      scores: float [N], these.

    Returns:
      float64 [N]; and category -> its shift, before anything was raised.
    """
    held = Predictions.from_rows(table.rows(held_out, "calibrate", scores))
    of_line = np.array([record.split == TEST for record in held_out], bool)
    found = by_category(held.select(~of_line), held.select(of_line), dict.fromkeys(held.categories()))
    found = {
        name: dataclasses.replace(one, trusted=_trusted(held.select(of_line & (held.category == name))))
        for name, one in found.items()
    }
    moved = held.score.copy()
    for name, one in found.items():
        if one.raises:
            moved[~of_line & (held.category == name)] += one.difference
    return moved, found


def _trusted(line: Predictions) -> bool:
    """Whether the scores of labelled good images are below those of labelled defects; of many without any defect."""
    good, defective = (_medians(line.select(line.label == label)) for label in (0, 1))
    return len(good) >= _ENOUGH if not len(defective) else bool(np.median(good) < np.median(defective))


def of_unlabelled(held_out: Predictions, recent: np.ndarray) -> Shift:
    """How photographs without labels score beside held-out good ones, if at most `MOST_DEFECTIVE` are defective.

    Defects raise scores too. So that photographs score higher is shown only if what is left without the highest
    `MOST_DEFECTIVE` of them does; the size is that of all, which is a little too large where some are defective.

    Args:
      held_out: good rows of one category.
      recent: float [N], N at least 1; each shows an object of its own.
    """
    names = [f"recent/{i}" for i in range(len(recent))]
    good = ["good"] * len(recent)
    of_all = Predictions.from_columns(names, ["recent"] * len(recent), good, [0] * len(recent), good, recent)
    found = compare(held_out, of_all)
    if found.higher <= 0.5:
        return found
    kept = np.argsort(recent)[: max(1, math.ceil(len(recent) * (1 - MOST_DEFECTIVE)))]
    left = compare(held_out, of_all.select(kept))
    return dataclasses.replace(found, p=left.p if left.higher > 0.5 else 1.0)


def note(found: Mapping[str, Shift]) -> str:
    """How the labelled good images score beside the training images, of every category, and what that was used for."""
    sentences = []
    for name, one in found.items():
        these = f"In category {name} labelled" if len(found) > 1 else "Labelled"
        sentences.append(one.in_words(f"{these} good test images", _TRAINING) + ".")
        if one.said and one.is_upward and not one.trusted:
            sentences.append(
                "Held out they score as high as defects, or no defect says how high that is: so few say nothing of how "
                "high parts to come will score, and new good parts may be stopped more often than is promised. Label "
                "more good images of the line."
            )
    return " ".join([*sentences, basis(found) or "The threshold rests on both."])


def basis(found: Mapping[str, Shift]) -> str:
    """Which scores `on_line` raised and why, for the first sentences of a report; "" if none."""
    return " ".join(
        f"The threshold rests on the labelled good test images{f' of category {name}' if len(found) > 1 else ''}, "
        f"because {one.in_words('they', _TRAINING)}: the scores of the training images were raised by as much."
        for name, one in found.items()
        if one.raises
    )


def _medians(rows: Predictions) -> np.ndarray:
    """Of each object, float64 [K]."""
    _, index, sizes = np.unique(rows.objects, return_inverse=True, return_counts=True)
    ordered = rows.score[np.lexsort((rows.score, index))]
    starts = np.cumsum(sizes) - sizes
    return (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2
