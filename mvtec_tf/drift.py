"""Whether parts still look like the ones that a model was made with: a sequential test with few false alarms.

Every part has five statistics. The rank of each among those of all parts before it, the training images' held-out ones
first, is a p-value; as long as all of them are exchangeable these are independent and uniform, however few training
images there are (Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005, chapter 8; Vovk, "Testing
randomness online", Statistical Science 36, 2021). A bet on small p-values multiplies the evidence of a change, which
never falls below 1: CUSUM on e-values (Page, Biometrika 41, 1954; Shin, Ramdas and Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection", 2023). It stays below a Shiryaev-Roberts sum, which grows by 1
a part in the mean, and so reaches a limit c within n parts with a probability of n / c at most. There are nine of them
(five statistics, upwards and, but for the score, downwards), each with the limit 9 / alarm: with nothing changed the
probability of any alarm within n parts is at most n times `alarm`. Held-out scores are those of heads that were fitted
on fewer images, which are higher if anything, so a score that is lower says nothing.
"""

import bisect
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# In the order of an answer's columns. Sharpness is taken relative to contrast, so that a lamp does not move it.
STATISTICS = ("brightness", "contrast", "sharpness", "distance", "score")
# Names of outputs and of columns: how many standard deviations of the training images each lies from their mean.
COLUMNS = tuple(f"z_{name}" for name in STATISTICS)
UNLIKE, P_VALUE = "unlike_training", "p_value"
# In an export's `assets.extra`: the columns of the training's held-out good images, one a row.
REFERENCE_FILE = "reference.csv"
# Probability of a false alarm, a part.
ALARM = 1e-4
# Parts that later ones are set beside. Beyond that ranks are exact enough, as bets do not adapt to what is left.
_MOST_KNOWN = 10_000


@dataclasses.dataclass
class Alarm:
    """A statistic that has moved.

    Attributes:
      statistic: one of `STATISTICS`.
      raised: number of the part at which the alarm rose, from 1.
      since: number of the part from which on it has moved: CUSUM's estimate (Hinkley, Biometrika 58, 1971).
      size: mean from then on, in standard deviations of the training images, whose own mean is 0.
      over: number of the part from which on it is as before again, by the same estimate; None: it is not.
    """

    statistic: str
    raised: int
    since: int
    size: float
    over: int | None = None

    def in_words(self, name: str = "") -> str:
        """What has moved, by how many standard deviations, since when: `brightness -4.1 since part 501 (name)`."""
        named = f" ({name})" if name else ""
        until = f" until part {self.over:,}" if self.over else ""
        return f"{self.statistic} {self.size:+.1f} since part {self.since:,}{named}{until}"


class Detector:
    """The test, fed part by part.

    Args:
      reference: float [N, 5], those of the training images; None: parts are set against the ones before them only.
      alarm: probability of a false alarm, a part; above 0.

    Attributes:
      alarms: that have risen, in their order; sizes are kept up to date.
      parts: how many parts it was fed.
    """

    def __init__(self, reference: np.ndarray | None = None, alarm: float = ALARM) -> None:
        self.alarms: list[Alarm] = []
        self.parts = 0
        columns = [[] for _ in STATISTICS] if reference is None else np.sort(reference, axis=0).T.tolist()
        self._known: list[list[float]] = columns
        ways = [1 if name == "score" else 2 for name in STATISTICS]
        self._sides = [[_Side(sum(ways) / alarm) for _ in range(count)] for count in ways]
        # Ties are broken at random, always in the same way.
        self._rng = np.random.default_rng(0)

    def add(self, values: Sequence[float]) -> list[Alarm]:
        """Takes the next part's five statistics, finite; returns the alarms that rise with it."""
        self.parts += 1
        risen = []
        chances = self._rng.random(len(STATISTICS)).tolist()
        for name, value, known, sides, chance in zip(
            STATISTICS, values, self._known, self._sides, chances, strict=True
        ):
            low, high = bisect.bisect_left(known, value), bisect.bisect_right(known, value)
            upward = (len(known) - high + chance * (high - low + 1)) / (len(known) + 1)
            for side, p in zip(sides, (upward, 1 - upward), strict=False):
                if side.bet(p, value, self.parts):
                    side.alarm = Alarm(name, self.parts, side.since, side.mean)
                    risen.append(side.alarm)
            # What is moving is no measure of itself.
            if len(known) < _MOST_KNOWN and not any(side.alarm for side in sides):
                bisect.insort(known, value)
        self.alarms += risen
        return risen


def fewest(reference: np.ndarray | None = None, alarm: float = ALARM) -> int:
    """How many parts an alarm takes at least: those of parts each of which lies beyond all that is known.

    No part can have a smaller p-value, so of fewer parts nothing can be known. Arguments are those of `Detector`.
    """
    known = np.zeros((1, len(STATISTICS))) if reference is None else reference
    needed = []
    for end, step in ((known.min(axis=0), -1), (known.max(axis=0), 1)):
        detector = Detector(reference, alarm)
        while not detector.add(end + step * (detector.parts + 1)):
            pass
        needed.append(detector.parts)
    return min(needed)


class _Side:
    """The evidence that one statistic has moved one way, up to `limit`, where it is an alarm."""

    def __init__(self, limit: float) -> None:
        self.alarm: Alarm | None = None
        self.since = self._last = 0
        self._limit = limit
        self._evidence = 1.0
        self._sum = self._count = 0.0

    @property
    def mean(self) -> float:
        """Of the statistic since `since`."""
        return self._sum / self._count

    def bet(self, p: float, value: float, part: int) -> bool:
        """Bets on a small p-value; whether an alarm rises."""
        if self._evidence <= 1:
            if self.alarm:
                self.alarm.over, self.alarm = self._last + 1, None
            self._evidence, self.since, self._sum, self._count = 1.0, part, 0.0, 0.0
        # Half on many that are rather small, half on a few that are very small; the mean of each over p is 1.
        self._evidence *= (1 - p) + 0.25 / math.sqrt(max(p, 1e-12))
        self._sum, self._count = self._sum + value, self._count + 1
        if self._evidence < self._limit:
            return False
        self._evidence, self._last = self._limit, part
        if self.alarm:
            self.alarm.size = self.mean
        return self.alarm is None
