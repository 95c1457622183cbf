"""What a threshold promises of new objects: at most so many false alarms, or so many misses."""

import dataclasses

import numpy as np

from mvtec_tf import conformal
from mvtec_tf.data.words import counted, percent

# The promise is kept on average over draws of the held-out objects; of fewer than so many it is said how far off one
# draw may be.
_FEW = 30


@dataclasses.dataclass(frozen=True)
class Promise:
    """At most a share of new objects lies on the wrong side of the threshold.

    Attributes:
      share: from 0 to 1.
      of_defective: whether defective objects are promised to be found; else good ones are promised to pass.
      expects: whether of few good objects it is enough to expect that share, if scores are normally distributed.
    """

    share: float
    of_defective: bool = False
    expects: bool = False

    def cut(self, scores: np.ndarray, mass: np.ndarray) -> float:
        """The threshold; a score that reaches it is called defective.

        Args:
          scores: float [N], of held-out images of the kind that something is promised of.
          mass: float [N], what each counts, see `conformal.masses`.
        """
        if self.of_defective:
            return -conformal.order_statistic(-scores, mass, self.share)
        return above((conformal.limit if self.expects else conformal.order_statistic)(scores, mass, self.share))

    def expected(self, objects: int) -> bool:
        """Whether of so many held-out objects the share is expected, not promised."""
        return self.expects and conformal.few(objects, self.share)

    def kept(self, objects: int) -> bool:
        """Whether so many held-out objects are enough."""
        needed = conformal.objects_needed(self.share)
        return needed is not None and objects >= needed

    def in_words(self, images: int, objects: int) -> str:
        """How the threshold was found, and what it promises.

        Args:
          images: held-out ones of the kind that something is promised of.
          objects: that they show.
        """
        of_objects = f" of {counted(objects, 'object')}, each counted once" if objects < images else ""
        those = f"{images} {self._kind} calibrate images{of_objects}"
        if self.expected(objects):
            return (
                f"about {percent(self.share)} of new good parts like these are expected to be stopped, if scores "
                f"are normally distributed: Student's prediction limit of the scores of {those} "
                "(Hahn and Meeker 1991)"
            )
        if self.kept(objects):
            return (
                f"it promises to {self._wrong} at most {percent(self.share)} of new {self._kind} parts like these: "
                f"the conformal order statistic of the scores of {those} (Vovk et al. 2005; Lei et al. 2018)"
            )
        place = "it is the lowest score" if self.of_defective else "it lies just above the highest score"
        return (
            f"{place} of {those}, which promises to {self._wrong} at most {percent(1 / (objects + 1))} of new "
            f"{self._kind} parts like these; {self._needed()}"
        )

    def warning(self, objects: int) -> str:
        """Why it should not be relied on, "" if nothing speaks against it."""
        if self.expected(objects):
            return (
                f"it rests on {counted(objects, 'good object')}, which is too few to promise {percent(self.share)} "
                "false alarms and to find defects as well: that share is what to expect if scores are normally "
                f"distributed; with so few it may be up to {percent(conformal.worst_of_limits(objects, self.share))}; "
                f"from {conformal.objects_needed(self.share / 2)} objects on it is promised"
            )
        if not self.kept(objects):
            return (
                f"it rests on {counted(objects, f'{self._kind} object')}, which is too few to promise "
                f"{percent(self.share)} {self._wrongs}: {self._needed()}"
            )
        if objects >= _FEW:
            return ""
        return (
            "the promise is kept on average over such sets of images; of one with only "
            f"{counted(objects, f'{self._kind} object')} "
            f"the share of {self._wrongs} may be up to {percent(conformal.worst_of_draws(objects, self.share))}"
        )

    def _needed(self) -> str:
        needed = conformal.objects_needed(self.share)
        if needed is None:
            return f"no number of objects is enough to promise {percent(self.share)}"
        return f"for {percent(self.share)} you need at least {needed} {self._kind} objects"

    @property
    def _kind(self) -> str:
        return "defective" if self.of_defective else "good"

    @property
    def _wrong(self) -> str:
        return "miss" if self.of_defective else "stop"

    @property
    def _wrongs(self) -> str:
        return "misses" if self.of_defective else "false alarms"


def above(score: float) -> float:
    """The next number above a score, also in float32 where there is one."""
    step = float(np.nextafter(np.float32(score), np.float32(np.inf)))
    return step if score < step < np.inf else float(np.nextafter(score, np.inf))
