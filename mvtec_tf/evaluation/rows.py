"""Rows of the prediction table from records and their scores."""

from collections.abc import Sequence

import numpy as np

from mvtec_tf.data.formats.scan import Record
from mvtec_tf.evaluation.table import Row


def rows(
    records: Sequence[Record], split: str, scores: np.ndarray, probabilities: np.ndarray | None = None
) -> list[Row]:
    """One row a record.

    Args:
      records: N images.
      split: how they were used: pretrain, fit, calibrate or evaluate.
      scores: float [N].
      probabilities: float [N], or None.
    """
    given = [None] * len(records) if probabilities is None else [float(value) for value in probabilities]
    return [
        Row(record.path, record.category, record.defect, record.label, split, float(score), record.group, probability)
        for record, score, probability in zip(records, scores, given, strict=True)
    ]
