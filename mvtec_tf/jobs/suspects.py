"""Labels that the other images of their category speak against, by features that are there."""

from collections.abc import Sequence

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.record import Record
from mvtec_tf.evaluation.report.suspects import Suspect
from mvtec_tf.heads.suspects import suspicion

_WHY = {
    (0, True): "given as good, and more like the defective ones",
    (1, True): "given as defective, and more like the good ones",
    (0, False): "given as good, and unlike the other good ones",
}


def find(records: Sequence[Record], pooled: np.ndarray, seed: int = 0) -> list[Suspect]:
    """Suspects of all categories, those first whose labels are spoken against most.

    Args:
      records: N images; their labels and groups are used.
      pooled: float [N, D], their global features.
      seed: random seed of the folds.
    """
    row = {record.path: number for number, record in enumerate(records)}
    found = []
    for own in protocol.by_category(records).values():
        labels, groups = np.array([one.label for one in own]), np.array([one.group for one in own])
        said = suspicion(pooled[[row[one.path] for one in own]], labels, groups, seed)
        for place in np.flatnonzero(said.score > 0):
            other, why = own[said.neighbour[place]], _WHY[own[place].label, said.by_labels]
            found.append(Suspect(own[place], float(said.score[place]), why, other))
    return sorted(found, key=lambda one: (-one.score, one.record.path))
