"""Which images the supervised network is fitted, stopped and judged on, by the protocol asked for."""

import dataclasses
from collections.abc import Sequence

from mvtec_tf.data import protocol
from mvtec_tf.data.formats.scan import Record
from mvtec_tf.study import protocol as study


@dataclasses.dataclass(frozen=True)
class Parts:
    """Images by use.

    Attributes:
      fit: the network is fitted on them.
      calibrate: they stop the training and, where it is not fixed, set the threshold.
      evaluate: they are judged.
      labelled: all images whose labels had to be bought.
      threshold: a fixed one, or None: chosen on `calibrate`.
      note: for the report, what the figures rest on.
    """

    fit: list[Record]
    calibrate: list[Record]
    evaluate: list[Record]
    labelled: list[Record]
    threshold: float | None
    note: str

    @property
    def by_split(self) -> dict[str, list[Record]]:
        """As the table of predictions names them."""
        return {"fit": self.fit, "calibrate": self.calibrate, "evaluate": self.evaluate}

    @property
    def words(self) -> str:
        """A line for the person who waits."""
        return (
            f"{len(self.fit)} images to fit, {len(self.calibrate)} to stop early and set the threshold "
            f"({len(self.labelled)} labelled images in all), {len(self.evaluate)} to evaluate."
        )


def clean(records: Sequence[Record], budget: float | None, validation_share: float, seed: int) -> Parts:
    """The protocol `clean`: early stopping and the threshold pay their labels from the budget.

    Args:
      records: images of one or more categories.
      budget: see `protocol.clean`.
      validation_share: of the labelled images and of train/good, kept for early stopping.
      seed: of all draws.
    """
    cut = protocol.clean(records, budget, seed)
    fit, calibrate = protocol.hold_out(cut.labelled + cut.train_good, validation_share, seed)
    defects = sum(record.label for record in cut.labelled)
    note = (
        f"{len(cut.labelled)} test images were labelled, {defects} of them defective; with {len(cut.train_good)} good "
        f"training images they were used for fitting, early stopping and the threshold. {len(cut.evaluate)} other "
        "test images were evaluated."
    )
    return Parts(fit, calibrate, list(cut.evaluate), list(cut.labelled), None, note)


def of_the_study(records: Sequence[Record], seed: int, allow_leak: bool) -> Parts:
    """The original study's split: see `study.supervised_parts`."""
    fit, evaluate = study.supervised_parts(records, seed, allow_leak)
    labelled = [record for record in records if record.split == "test"]
    note = (
        f"The protocol of the original study: {len(fit)} of all images, good training images among them, were fitted, "
        f"and the training was stopped on the other {len(evaluate)}, which are the ones evaluated here. A defect is "
        "called where it is the likelier class (a threshold of 0 on the log-odds)."
    )
    return Parts(fit, evaluate, evaluate, labelled, 0.0, note)
