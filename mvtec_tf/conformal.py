"""The conformal order statistic: the score that a new good object stays below with a probability that can be promised.

No distribution is assumed, only that the new object and the held-out ones are exchangeable: the same parts, camera and
light. Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005, chapter 2; Lei, G'Sell, Rinaldo,
Tibshirani and Wasserman, "Distribution-free predictive inference for regression", JASA 113, 2018, section 2. Where
several images show one object it counts once: Lee, Barber and Willett, "Distribution-free inference with hierarchical
data", 2023, section 3. Where so few objects are held out that it would be their highest score, `prediction_limit` takes
its place, which assumes that scores are normally distributed.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Share of new good objects that is stopped at most, where nothing else is asked for.
FALSE_ALARMS = 0.05
# Shares such as 1 - 0.95 are not exact.
_ROUNDING = 1e-9


def masses(objects: Sequence[Any]) -> np.ndarray:
    """What each image counts so that every object counts once, float64 [N]: 1 / the number of its object's images."""
    _, index, sizes = np.unique(np.asarray(objects), return_inverse=True, return_counts=True)
    return 1 / sizes[index]


def order_statistic(scores: np.ndarray, mass: np.ndarray, share: float) -> float:
    """The lowest score such that an image of a new object lies above it with a probability of at most `share`.

    The new object stands among the K held-out ones with the weight 1 / (K + 1) and a score above all others; the
    result is the quantile 1 - share of that distribution. With one image an object it is the ceil((K + 1) (1 - share))
    lowest of K scores. With fewer than `objects_needed(share)` the promise cannot be made, and it is the highest score.

    Args:
      scores: float [N], of held-out images.
      mass: float [N], see `masses`; an object that was drawn twice counts twice.
      share: from 0 to 1.
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(mass[order])
    wanted = (1 - share - _ROUNDING) * (reached[-1] + 1)
    place = int(np.searchsorted(reached, wanted))
    return float(scores[order[min(place, len(scores) - 1)]])


def prediction_limit(scores: np.ndarray, mass: np.ndarray, share: float) -> float:
    """The score that an image of a new object lies above with a probability of `share`, if scores are normal.

    Student's limit for one new observation: Hahn and Meeker, "Statistical Intervals", 1991, chapter 4. Mean and
    variance count every object once.

    Args:
      scores: float [N], of held-out images of at least two objects.
      mass: float [N], see `masses`.
      share: from 0 to 1.
    """
    objects = float(mass.sum())
    mean = float(np.average(scores, weights=mass))
    variance = float(np.average(np.square(scores - mean), weights=mass)) * objects / (objects - 1)
    return mean + _deviations(objects, share) * math.sqrt(variance)


def _deviations(objects: float, share: float) -> float:
    """How many standard deviations above the mean of so many objects the prediction limit lies."""
    # Imported here: most who judge a table promise nothing, and SciPy takes longer to load than a table to judge.
    from scipy.special import stdtrit

    return float(stdtrit(objects - 1, 1 - share)) * math.sqrt(1 + 1 / objects)


def limit(scores: np.ndarray, mass: np.ndarray, share: float = FALSE_ALARMS) -> float:
    """The order statistic; of `few` objects the prediction limit. Arguments as theirs."""
    return (prediction_limit if few(round(mass.sum()), share) else order_statistic)(scores, mass, share)


def few(objects: int, share: float = FALSE_ALARMS) -> bool:
    """Whether the order statistic of so many objects, three or more, is their highest score.

    Of ten objects that stops 9 % of new ones, of five 17 %, and of thirty a single odd one hides every defect. The
    prediction limit of 5 to 30 objects stopped 5 to 8 % of others in the mean of eight sets, and in none more than 10 %
    (see docs/measured.md). Of two it lies eight standard deviations away.
    """
    return 3 <= objects < (objects_needed(share / 2) or 0)


def objects_needed(share: float) -> int | None:
    """How many held-out objects a promise of at most `share` needs; None if no number is enough."""
    return math.ceil(1 / share - 1 - _ROUNDING) if share > _ROUNDING else None


def promised(objects: int, share: float) -> float:
    """What can be promised with so many held-out objects: `share`, or what their highest score promises."""
    needed = objects_needed(share)
    return share if needed is not None and objects >= needed else 1 / (objects + 1)


def worst_of_draws(objects: int, share: float) -> float:
    """The share above the order statistic that 95 of 100 draws of so many held-out objects stay below.

    The promise is kept on average over draws; of one draw the share is beta distributed (Vovk, "Conditional validity
    of inductive conformal predictors", 2012, section 2).
    """
    from scipy.special import betaincinv

    above = max(math.floor((objects + 1) * share + _ROUNDING), 1)
    return float(betaincinv(above, objects + 1 - above, 0.95))


def worst_of_limits(objects: int, share: float) -> float:
    """The share above the prediction limit that 95 of 100 draws of so many normal objects stay below.

    A prediction limit is a tolerance limit of a smaller content, by the noncentral t distribution: Hahn and Meeker,
    "Statistical Intervals", 1991, section 4.6.
    """
    from scipy.special import nctdtrinc, ndtr

    root = math.sqrt(objects)
    return float(ndtr(-nctdtrinc(objects - 1, 0.95, _deviations(objects, share) * root) / root))
