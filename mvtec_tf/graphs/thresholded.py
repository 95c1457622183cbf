"""A scoring SavedModel, read back, that also says what it calls defective."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from mvtec_tf.errors import UserError
from mvtec_tf.graphs import heat_maps, signatures
from mvtec_tf.graphs.signatures import EXPLAIN, HEAT_LEVEL, HEAT_MAP, IMAGE_STATISTICS, OVERLAY, Answer
from mvtec_tf.networks.backbone import EMBEDDING

SCORE = "anomaly_score"
# What a model with a head for each category answers beside its score: the number of the one it chose.
CATEGORY = "category"
# 0 good, 1 defective, 2 unsure; of models with a third verdict.
VERDICT = "verdict"


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """A score that reaches its threshold is called defective.

    Attributes:
      value: for every image, unless its category has its own.
      origin: how it was chosen, in words.
      categories: category -> its own threshold; empty: one for all.
      unsure: category -> the scores from the first up to the second are unsure, under "" those of all others; empty:
        there is no third verdict.
    """

    value: float
    origin: str
    categories: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unsure: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


class ThresholdedModel(tf.Module):
    """Every signature of a scoring model, with `threshold` and `label` beside each score, and how usual the image is.

    Args:
      scoring: a loaded SavedModel.
      thresholds: which scores are called defective.
      categories: that the model chooses among, by their numbers; empty if it does not.
      usual: image statistics, embedding, score and number of the category -> what an answer says of how usual the image
        is, see `reference.Usual`, which also knows the score that is usual; None: it says nothing.
      draw: see `signatures.overlays`; None: overlays stay as the scoring model draws them.

    Raises:
      UserError: there are thresholds for categories, and the model cannot tell which one an image shows.
    """

    def __init__(
        self,
        scoring: Any,
        thresholds: Thresholds,
        categories: tuple[str, ...] = (),
        usual: Any = None,
        draw: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    ) -> None:
        super().__init__()
        if thresholds.categories and not categories:
            raise UserError(
                "The run has one threshold for each category, but its model does not tell from an image which "
                f"category it shows. Give one for all with `threshold`; the run's own for all is {thresholds.value}."
            )
        self._scoring = scoring
        self._usual, self._draw = usual, draw
        own = [thresholds.categories.get(category, thresholds.value) for category in categories]
        self._thresholds = tf.Variable(own or [thresholds.value], trainable=False, dtype=tf.float32)
        self._categories = categories
        self._unsure = None
        if thresholds.unsure:
            zones = [thresholds.unsure.get(category, thresholds.unsure[""]) for category in categories or [""]]
            self._unsure = tf.Variable(zones, trainable=False, dtype=tf.float32)

    def signatures(self) -> dict[str, Callable]:
        """name -> function, of every signature of the scoring model."""
        return {name: self._wrap(name, function) for name, function in self._scoring.signatures.items()}

    def _wrap(self, name: str, scoring: Callable) -> Callable:
        ((argument, takes),) = scoring.structured_input_signature[1].items()

        def answer(given: tf.Tensor) -> Answer:
            found = self._judged(name, dict(scoring(**{argument: given})))
            if HEAT_LEVEL in found and self._draw is not None:
                found[OVERLAY] = self._draw(given, found[HEAT_MAP], found[HEAT_LEVEL])
            return found

        return signatures.once(answer, tf.TensorSpec(takes.shape, takes.dtype, name=argument))

    def _judged(self, name: str, answer: Answer) -> Answer:
        category = answer.pop(CATEGORY, None)
        if SCORE not in answer:
            return answer
        score = answer[SCORE]
        # Models of before have neither.
        seen = answer.pop(IMAGE_STATISTICS, None), answer.pop(EMBEDDING, None)
        thresholds = self._thresholds.read_value()
        which = tf.zeros_like(score, tf.int64) if category is None else category
        # With one category or one threshold for all there is nothing to choose between.
        which = tf.minimum(which, len(self._categories or (0,)) - 1)
        threshold = tf.gather(thresholds, which)
        answer |= {"threshold": threshold, "label": tf.cast(score >= threshold, tf.int64)}
        if self._unsure is not None:
            low, high = tf.unstack(tf.gather(self._unsure, which), axis=1)
            answer[VERDICT] = tf.where(score >= high, 1, tf.where(score < low, 0, 2))
            answer[VERDICT] = tf.cast(answer[VERDICT], tf.int64)
        if self._usual is not None:
            answer |= self._usual(*seen, score, which)
        if name != EXPLAIN:
            return answer
        if self._usual is not None:
            answer[HEAT_LEVEL] = heat_maps.level(score, threshold, self._usual.score(which))
            answer[EMBEDDING] = seen[1]
        if category is not None:
            answer[CATEGORY] = tf.gather(tf.constant(self._categories), category)
        return answer
