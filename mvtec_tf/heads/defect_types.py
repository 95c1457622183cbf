"""Linear heads that name the defect: as many classes as the labels have, "good" among them.

A type that was not among the labels is never named: there is no score for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from mvtec_tf.data.record import GOOD
from mvtec_tf.errors import UserError
from mvtec_tf.heads import frozen
from mvtec_tf.heads.base import Arrays, Scored
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.linear import MAX_STEPS, MAX_SVM_STEPS, converged

_SOLVERS = {"logistic": ("logistic regression", MAX_STEPS), "linear_svm": ("linear SVM", MAX_SVM_STEPS)}
KINDS = tuple(_SOLVERS)
# For a type that another category has and this one has not. Finite, because JSON knows no infinity.
NEVER = -1e9


class TypeHead(Scored):
    """One score a class: multinomial logistic regression, or a linear SVM of each class against the rest.

    Fitted like the heads of two classes: on standardised features, all classes weighted alike.

    Args:
      kind: one of KINDS.
      c: inverse strength of the L2 penalty.
      seed: of the SVM's order.
    """

    needs_labels = True
    needs_maps = False
    gives_heat_maps = False
    held_out_ = None

    def __init__(self, kind: str = "logistic", c: float = 1.0, seed: int = 0) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}. Received: {kind!r}.")
        self.kind = kind
        self.c = c
        self.seed = seed

    def fit(self, features: Any, types: np.ndarray) -> "TypeHead":
        """Learns from str [N] types, "good" or the defect's name.

        Raises:
          UserError: there is no good image or no defect among them, or the solver did not converge.
        """
        features, types = frozen.frozen(features), np.asarray(types)
        frozen.check(features, types)
        defects = sorted(set(types.tolist()) - {GOOD})
        if not defects or GOOD not in types:
            found = ", ".join(sorted(set(types.tolist())))
            raise UserError(
                f"Types need good images and at least one defect among the labels; found only {found}. Raise "
                "`label_budget`."
            )
        self.classes_ = (GOOD, *defects)
        numbers = np.array([self.classes_.index(one) for one in types.tolist()])
        scaler = StandardScaler().fit(np.asarray(features.pooled, np.float64))
        name, steps = _SOLVERS[self.kind]
        model = converged(lambda: self._model().fit(scaler.transform(features.pooled), numbers), name, steps)
        weights, bias = model.coef_, model.intercept_
        if len(weights) == 1:
            # Two classes have one function in scikit-learn: the last one's; the first one's is its negative.
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        self.weights_ = (weights / scaler.scale_).T
        self.bias_ = bias - scaler.mean_ @ self.weights_
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """type_weights [D, T], type_bias [T]."""
        return {"type_weights": self.weights_.astype(np.float32), "type_bias": self.bias_.astype(np.float32)}

    def type_scores(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, T]."""
        return tf.matmul(features.pooled, arrays["type_weights"]) + arrays["type_bias"]

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N]: the best defect's score less that of "good", positive where a defect is called."""
        scores = self.type_scores(features, arrays)
        return tf.reduce_max(scores[:, 1:], axis=1) - scores[:, 0]

    def _model(self) -> Any:
        if self.kind == "logistic":
            return LogisticRegression(C=self.c, class_weight="balanced", max_iter=MAX_STEPS)
        return LinearSVC(C=self.c, class_weight="balanced", dual=True, max_iter=MAX_SVM_STEPS, random_state=self.seed)


class PerCategoryTypeHead(PerCategoryHead):
    """A `TypeHead` for each category; an image is named in the words of its own category's labels."""

    gives_types = True

    def __init__(self, heads: Mapping[str, TypeHead]) -> None:
        super().__init__(heads)
        self.types: tuple[str, ...] = ()

    def fit(self, features: Any, labels: np.ndarray, categories: np.ndarray) -> "PerCategoryTypeHead":
        """As `PerCategoryHead.fit`; `labels` are the types, str [N]."""
        super().fit(features, labels, categories)
        self.types = _union(self.heads.values())
        return self

    @classmethod
    def named(
        cls, heads: Mapping[str, TypeHead], arrays: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]
    ) -> "PerCategoryTypeHead":
        """A fitted head from the `arrays` of one and the `classes_` of its categories, see `restored`."""
        head = cls.restored(heads, arrays)
        for category, own in head.heads.items():
            own.classes_ = tuple(classes[category])
        head.types = _union(head.heads.values())
        return head

    def type_scores(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """float32 [N, T] in the order of `types`, each by the head of the nearest category."""

        def spread(head: TypeHead, own: FrozenFeatures, state: Arrays) -> tf.Tensor:
            places = tf.one_hot([self.types.index(name) for name in head.classes_], len(self.types))
            return tf.matmul(head.type_scores(own, state), places) + NEVER * (1 - tf.reduce_sum(places, axis=0))

        return self._by_category(features, arrays, spread, (len(self.types),))


def _union(heads: Iterable[TypeHead]) -> tuple[str, ...]:
    """The types of all heads, "good" first."""
    return (GOOD, *sorted({name for head in heads for name in head.classes_} - {GOOD}))
