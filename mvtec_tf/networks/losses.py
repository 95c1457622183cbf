"""Supervised losses."""

from collections.abc import Sequence

import numpy as np
from keras import ops

from mvtec_tf.errors import UserError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas

_CLASSES = 2


@keras.saving.register_keras_serializable(package="mvtec_tf")
class WeightedCrossEntropy(keras.losses.Loss):
    """Class-weighted cross-entropy, a true weighted mean over the batch:

        loss = sum_i w[y_i] * -log p_i[y_i] / sum_i w[y_i]

    as PyTorch's `CrossEntropyLoss(weight=w)`. Keras's own `class_weight` divides by the number of images
    instead, so that there the loss's scale, and with it the step's, changes with the classes in a batch.

    Computed in float32, whatever the precision of the network. A `sample_weight` multiplies w[y_i] in both
    sums. Where several replicas share a batch, both sums are over all of it, on each replica.

    Args:
      class_weights: one positive weight per class, such as `balanced_class_weights(labels)`.

    Call arguments:
      y_true: integer class indices [B] or [B, 1].
      y_pred: logits [B, classes].

    Example:
      >>> loss = WeightedCrossEntropy([1.0, 3.0])
      >>> float(loss([0, 1], [[0.0, 0.0], [0.0, 0.0]]))  # log 2, whatever the weights
      0.6931472
    """

    def __init__(self, class_weights: Sequence[float]) -> None:
        super().__init__("weighted_cross_entropy", reduction="mean_with_sample_weight", dtype="float32")
        self.class_weights = [float(weight) for weight in class_weights]
        if not self.class_weights or not all(0 < weight < float("inf") for weight in self.class_weights):
            raise ValueError(f"class_weights must be positive numbers. Received: {class_weights}")

    def __call__(self, y_true: object, y_pred: object, sample_weight: object = None) -> object:
        """float32 scalar. The class weights join the sample weights, over whose sum Keras then averages."""
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        weights = ops.take(ops.convert_to_tensor(self.class_weights, "float32"), labels)
        if sample_weight is not None:
            weights = weights * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        labels, y_pred, weights = map(replicas.gathered, (labels, ops.convert_to_tensor(y_pred), weights))
        return super().__call__(labels, y_pred, sample_weight=weights)

    def call(self, y_true: object, y_pred: object) -> object:
        """float32 [B], unweighted."""
        # Keras hands labels over in the loss's own dtype.
        labels = ops.cast(y_true, "int32")
        return ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)

    def get_config(self) -> dict[str, object]:
        """What the constructor takes."""
        return {"class_weights": self.class_weights}


def balanced_class_weights(labels: Sequence[int] | np.ndarray, turned: float = 0.0) -> np.ndarray:
    """Weights under which both classes count the same: n / (2 n_c), as scikit-learn's "balanced".

    Args:
      labels: integers [n], 0 (good) or 1 (defective).
      turned: share of the good ones that are made defective before they are shown.

    Returns:
      float64 [2].

    Raises:
      UserError: a class is missing, so that nothing could be learned about it.
    """
    labels = np.asarray(labels)
    counts = np.array([np.count_nonzero(labels == label) for label in range(_CLASSES)])
    if counts.sum() != labels.size:
        raise ValueError(f"labels must be 0 or 1. Received: {np.unique(labels)}")
    shown = counts + counts[0] * turned * np.array([-1, 1])
    if not shown.all():
        raise UserError(
            f"The images to fit on have {counts[0]} good and {counts[1]} defective labels; expected both kinds. "
            "Give a larger label budget or another seed, or check the data folder."
        )
    return labels.size / (_CLASSES * shown)


@keras.saving.register_keras_serializable(package="mvtec_tf")
class MixedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of several logits of each image mixed with its neighbour in the batch.

    Logits that are linear in features mix as the features do, so that this is mixup of features (Verma et al.,
    "Manifold mixup", ICML 2019): image i counts 1 - share[i], image i + 1 the rest, and so do their labels.

    Call arguments:
      y_true: float [B, K + 1]: targets 0 or 1, or below 0 where the copy must not see the image, and the share.
      y_pred: logits [B, K].
    """

    def __init__(self) -> None:
        super().__init__("mixed_cross_entropy", dtype="float32")

    def __call__(self, y_true: object, y_pred: object, sample_weight: object = None) -> object:
        """float32 scalar: the sum over copies of the mean over pairs that the copy may see."""
        y_true, logits = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        targets, share = y_true[:, :-1], y_true[:, -1:]
        near = ops.roll(targets, -1, axis=0)
        seen = ops.cast((targets >= 0) & ((near >= 0) | (share == 0)), "float32")
        wanted = (1 - share) * targets + share * near
        mixed = (1 - share) * logits + share * ops.roll(logits, -1, axis=0)
        # log(1 + exp(x)) - y x, the two-class cross-entropy.
        losses = seen * (ops.softplus(mixed) - wanted * mixed)
        return ops.sum(ops.sum(losses, axis=0) / ops.maximum(ops.sum(seen, axis=0), 1))
