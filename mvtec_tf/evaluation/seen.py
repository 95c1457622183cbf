"""How many of the evaluated images had been seen before, where that was allowed: such figures are no evidence.

A study that scored its classifier on the images it was fitted on can be repeated here, but not
without its report beginning with that.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mvtec_tf.data import leaks
from mvtec_tf.evaluation.table import Predictions

# So many images are named; the table of predictions has all of them.
_NAMED = 10
_USED_TO = {
    leaks.PRETRAIN: "to pretrain it",
    leaks.FIT: "to fit it",
    leaks.CALIBRATE: "to stop its training or to choose its threshold",
}


@dataclasses.dataclass(frozen=True)
class Seen:
    """Evaluated images that were used before.

    Attributes:
      images: how many, or of which another image of the same object was.
      evaluated: number of all evaluated images.
      splits: split -> how many of `images` are in it too; only splits with any.
      same_object: how many of `images` are in no other split, but another image of their object is.
      names: paths of the first ten of `images`.
    """

    images: int
    evaluated: int
    splits: Mapping[str, int]
    same_object: int
    names: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return dataclasses.asdict(self) | {"names": list(self.names)}

    def sentence(self, subject: str = "These figures") -> str:
        """That the figures are no evidence, and why: the first sentence of a report."""
        uses = [f"{count:,} {_USED_TO[split]}" for split, count in self.splits.items()]
        if self.same_object:
            uses.append(f"{self.same_object:,} by another image of the same object")
        labelled = {leaks.FIT, leaks.CALIBRATE} & set(self.splits)
        what = "labelled images" if labelled else "images that were seen before"
        share = 100 * self.images / self.evaluated
        return (
            f"{subject} are no evidence: {what} are among the evaluated ones, {self.images:,} of the "
            f"{self.evaluated:,} ({share:.1f} %) had been used to make the model ({', '.join(uses)})."
        )


def seen_before(predictions: Predictions) -> Seen | None:
    """What of a table's evaluated images was seen before; None if nothing was."""
    found = leaks.find_leaks(predictions.rows())
    if not found:
        return None
    counts = {split: sum(split in leak.splits for leak in found) for split in leaks.SPLITS}
    return Seen(
        images=len(found),
        evaluated=int((predictions.split == leaks.EVALUATE).sum()),
        splits={split: count for split, count in counts.items() if count},
        same_object=sum(not leak.splits for leak in found),
        names=tuple(leak.path for leak in found[:_NAMED]),
    )
