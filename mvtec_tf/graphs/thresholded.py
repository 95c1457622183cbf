"""A scoring SavedModel, read back, that also says what it calls defective."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.graphs.signatures import EXPLAIN, Answer

SCORE = "anomaly_score"
# What a model with a head for each category answers beside its score: the number of the one it chose.
CATEGORY = "category"


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """A score that reaches its threshold is called defective.

    Attributes:
      value: for every image, unless its category has its own.
      origin: how it was chosen, in words.
      categories: category -> its own threshold; empty: one for all.
    """

    value: float
    origin: str
    categories: Mapping[str, float] = dataclasses.field(default_factory=dict)


class ThresholdedModel(tf.Module):
    """Every signature of a scoring model, with `threshold` and `label` beside each score.

    Args:
      scoring: a loaded SavedModel.
      thresholds: which scores are called defective.
      categories: that the model chooses among, by their numbers; empty if it does not.

    Raises:
      UserError: there are thresholds for categories, and the model cannot tell which one an image shows.
    """

    def __init__(self, scoring: Any, thresholds: Thresholds, categories: tuple[str, ...] = ()) -> None:
        super().__init__()
        if thresholds.categories and not categories:
            raise UserError(
                "The run has one threshold for each category, but its model does not tell from an image which "
                f"category it shows. Give one for all with `threshold`; the run's own for all is {thresholds.value}."
            )
        self._scoring = scoring
        own = [thresholds.categories.get(category, thresholds.value) for category in categories]
        self._thresholds = tf.Variable(own or [thresholds.value], trainable=False, dtype=tf.float32)
        self._categories = categories

    def signatures(self) -> dict[str, Callable]:
        """name -> function, of every signature of the scoring model."""
        return {name: self._wrap(name, function) for name, function in self._scoring.signatures.items()}

    def _wrap(self, name: str, scoring: Callable) -> Callable:
        ((argument, takes),) = scoring.structured_input_signature[1].items()

        def answer(given: tf.Tensor) -> Answer:
            return self._judged(name, dict(scoring(**{argument: given})))

        return tf.function(answer, input_signature=[tf.TensorSpec(takes.shape, takes.dtype, name=argument)])

    def _judged(self, name: str, answer: Answer) -> Answer:
        category = answer.pop(CATEGORY, None)
        if SCORE not in answer:
            return answer
        score = answer[SCORE]
        thresholds = self._thresholds.read_value()
        which = tf.zeros_like(score, tf.int64) if category is None else category
        # With one category or one threshold for all there is nothing to choose between.
        threshold = tf.gather(thresholds, tf.minimum(which, len(self._categories or (0,)) - 1))
        answer |= {"threshold": threshold, "label": tf.cast(score >= threshold, tf.int64)}
        if name == EXPLAIN and category is not None:
            answer[CATEGORY] = tf.gather(tf.constant(self._categories), category)
        return answer
