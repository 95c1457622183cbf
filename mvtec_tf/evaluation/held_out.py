"""The calibrate rows that a threshold may rest on: what the encoder was pretrained on is not held out.

A network knows the images that it was trained on, also without their labels, so a head on its features tends to score
them lower than new ones.
"""

import dataclasses

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation.table import Predictions


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """What a threshold is chosen on.

    Attributes:
      rows: calibrate rows.
      left_out: how many good ones are not among them, because the encoder was pretrained on their objects.
      pretrained: how many of them are, because there are too few others.
    """

    rows: Predictions
    left_out: int = 0
    pretrained: int = 0

    @property
    def reason(self) -> str:
        """What belongs to the reason of a threshold, "" if nothing was left out."""
        if not self.left_out:
            return ""
        return (
            f"; {counted(self.left_out, 'good image')} that the encoder was pretrained on "
            f"{'was' if self.left_out == 1 else 'were'} left out"
        )

    @property
    def warning(self) -> str:
        """Why the threshold should not be relied on, "" if nothing speaks against it."""
        if not self.pretrained:
            return ""
        good = int((self.rows.label == 0).sum())
        return (
            f"{self.pretrained} of the {good} good calibrate images were used to pretrain the encoder, which may score "
            "new good parts higher and stop more of them"
        )


def held_out(predictions: Predictions, needed: int) -> HeldOut:
    """The calibrate rows, without good ones of objects that are among the pretrain rows where enough others are left.

    Args:
      predictions: all rows of a table.
      needed: good objects that are enough.
    """
    calibrate = predictions.part(leaks.CALIBRATE)
    pretrained = set(predictions.part(leaks.PRETRAIN).objects)
    if not pretrained:
        return HeldOut(calibrate)
    good, objects = calibrate.label == 0, calibrate.objects
    known = good & np.array([name in pretrained for name in objects], bool)
    if not known.any():
        return HeldOut(calibrate)
    if len(set(objects[good & ~known])) < needed:
        return HeldOut(calibrate, pretrained=int(known.sum()))
    return HeldOut(calibrate.select(~known), left_out=int(known.sum()))
