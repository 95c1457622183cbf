"""Learning from two views of each image, without labels: SimCLR and its brothers, one row of `METHODS` each.

All share views, backbone, projection head and training step. SimCLR and DenseCL compare with other images; the others
do without, and keep from giving the same vector to every image each in its own way.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf
from keras import layers

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import copies, pretext_losses, replicas
from mvtec_tf.networks.backbone import BATCH_NORM_MOMENTUM, EMBEDDING, Backbone
from mvtec_tf.networks.pretext_losses import contrastive_accuracy, dense_nt_xent, nt_xent, supervised_nt_xent
from mvtec_tf.networks.replicas import BatchNormalization

# Share of its old weights that the moving average keeps in the first step, all in the last (BYOL, section 3.2).
_KEPT_BY_TARGET = 0.99
_TARGET = "target"

# Share of the patches' loss (DenseCL, equation 3).
_DENSE = 0.5

# What the network gives for the views of a batch: a tensor of the first and one of the second views.
Pair = tuple[tf.Tensor, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Views:
    """What a network gives for both views of N images.

    Attributes:
      projected: float32 [N, D] each.
      predicted: likewise, of a method with a predictor.
      target: likewise, the projections of a method's moving average.
      patches: [N, h, w, D] each, the projections of the patches, of a method that compares them.
      maps: [N, h, w, C] each, the backbone's output, of the same method.
      labels: int [2N], of the first and, behind them, the second views, where they are known.
    """

    projected: Pair
    predicted: Pair | None = None
    target: Pair | None = None
    patches: Pair | None = None
    maps: Pair | None = None
    labels: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to learn.

    Attributes:
      loss: what the network gives for both views, temperature -> float32 scalar.
      predictor: width of the hidden layer of a second head on the projections, as a multiple of their own; 0: none.
      has_target: whether a moving average of the network projects the other view.
      normalised: whether the projections end in batch norm.
      dense: whether patches are projected too, and compared.
    """

    loss: Callable[[Views, float], tf.Tensor]
    predictor: float = 0.0
    has_target: bool = False
    normalised: bool = False
    dense: bool = False

    def views(self, outputs: Sequence[tf.Tensor], labels: tf.Tensor | None = None) -> Views:
        """Of a network's outputs for the first and, behind them, the second views of a batch, and their labels."""
        pairs = (tuple(tf.split(one, 2, axis=0)) for one in outputs)
        given = (True, self.predictor > 0, self.has_target, self.dense, self.dense)
        return Views(*(next(pairs) if one else None for one in given), labels)


METHODS: Mapping[str, Method] = {
    "simclr": Method(lambda views, temperature: nt_xent(*views.projected, temperature)),
    "byol": Method(
        lambda views, _: pretext_losses.negative_cosine(views.predicted, views.target) * 2 + 2,
        predictor=4.0,
        has_target=True,
    ),
    "simsiam": Method(
        lambda views, _: pretext_losses.negative_cosine(views.predicted, views.projected),
        predictor=0.25,
        normalised=True,
    ),
    "barlow_twins": Method(lambda views, _: pretext_losses.barlow_twins(*views.projected)),
    "vicreg": Method(lambda views, _: pretext_losses.vicreg(*views.projected)),
    "densecl": Method(
        lambda views, temperature: (1 - _DENSE) * nt_xent(*views.projected, temperature)
        + _DENSE * dense_nt_xent(views.patches, views.maps, temperature),
        dense=True,
    ),
    "supcon": Method(
        lambda views, temperature: supervised_nt_xent(*views.projected, views.labels, temperature)
    ),
}


def build_network(
    backbone: Backbone, method: str = "simclr", hidden: int = 1024, dimensions: int = 256
) -> keras.Model:
    """Backbone, global average, and the projection head C-`hidden`-`dimensions` with batch norm and ReLU.

    Args:
      backbone: its graph is continued, not wrapped.
      method: of `METHODS`.
      hidden: width of the projection head's hidden layer.
      dimensions: width of what it gives.

    Returns:
      uint8 [B, S, S, 3] -> float32 [B, dimensions], the projections; a list that begins with them where the method asks
      for more, in the order of `Views`. The layer `embedding` holds the [B, C] that is kept after training; the heads
      are thrown away (SimCLR, section 4.2, says why).
    """
    row = METHODS[method]
    projected = _projected(backbone.model.output, hidden, dimensions, row.normalised)
    network = keras.Model(backbone.model.inputs, projected, name=f"{backbone.model.name}_{method}")
    outputs = [projected]
    if row.predictor:
        outputs.append(_predicted(projected, round(row.predictor * dimensions), dimensions))
    if row.has_target:
        target = copies.renamed(network, _TARGET)
        target.trainable = False
        outputs.append(target(backbone.model.inputs[0]))
    if row.dense:
        outputs += [_projected_patches(backbone.model.output, hidden, dimensions), backbone.model.output]
    if len(outputs) == 1:
        return network
    return keras.Model(backbone.model.inputs, outputs, name=network.name)


class Pretext(keras.Model):
    """Trains a network of `build_network` on pairs of views.

    `fit` takes a dataset of (view_a, view_b), each uint8 [B, S, S, 3], or with labels, int [B], as a third. Logs
    `loss`; `contrastive_accuracy`, the share of views whose nearest other view is their partner; and what tells a
    collapse: `deviation` and `effective_rank` of the projections, see `pretext_losses`.

    Args:
      network: of `build_network`, for the same method.
      method: of `METHODS`.
      temperature: of the losses of simclr, densecl and supcon.
      steps: of the whole training, for the target's moving average.
    """

    def __init__(
        self, network: keras.Model, method: str = "simclr", temperature: float = 0.07, steps: int = 1, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.temperature = temperature
        self._row = METHODS[method]
        self._steps = steps
        self._online, self._target = _averaged(network) if self._row.has_target else ([], [])
        names = ("loss", "contrastive_accuracy", "deviation", "effective_rank")
        self._means = [keras.metrics.Mean(name=name) for name in names]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Reset by Keras at the start of each epoch."""
        return self._means

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """uint8 [B, S, S, 3] -> float32 projections [B, D]."""
        return tf.nest.flatten(self.network(images, training=training))[0]

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One step on B pairs, of this replica; both views go through the network as one batch of 2B, so that batch
        norm cannot tell which view an image belongs to by its statistics."""
        # `train_on_batch` adds an empty sample weight to a pair.
        view_a, view_b, labels = (*data, None)[:3]
        if labels is not None:
            labels = replicas.gathered(tf.concat([labels, labels], axis=0), parts=2)
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(self.network(tf.concat([view_a, view_b], axis=0), training=True))
            # The loss compares with the views of all replicas, and is the same on each.
            outputs = [replicas.gathered(one, parts=2) for one in outputs]
            loss = self._row.loss(self._row.views(outputs, labels), self.temperature)
            share = loss / replicas.count()
        gradients = tape.gradient(share, self.network.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_variables, strict=True))
        self._move_target()
        values = (
            loss,
            contrastive_accuracy(*tf.split(outputs[0], 2, axis=0)),
            pretext_losses.deviation(outputs[0]),
            pretext_losses.effective_rank(outputs[0]),
        )
        for mean, value in zip(self._means, values, strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self._means}

    def _move_target(self) -> None:
        """The target's weights become tau of themselves and 1 - tau of the network's (BYOL, equation 1)."""
        if not self._target:
            return
        done = tf.cast(self.optimizer.iterations, tf.float32) / self._steps
        tau = 1 - (1 - _KEPT_BY_TARGET) * (tf.cos(math.pi * tf.minimum(done, 1.0)) + 1) / 2
        for online, target in zip(self._online, self._target, strict=True):
            target.assign(tau * target + (1 - tau) * online)


def _projected(maps: keras.KerasTensor, hidden: int, dimensions: int, normalised: bool) -> keras.KerasTensor:
    x = layers.GlobalAveragePooling2D(name=EMBEDDING)(maps)
    x = layers.Dense(hidden, name="projection_dense_1")(x)
    x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="projection_bn")(x)
    x = layers.ReLU(name="projection_relu")(x)
    x = layers.Dense(dimensions, dtype="float32", name="projection_dense_2")(x)
    if normalised:
        x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, dtype="float32", name="projection_bn_2")(x)
    return x


def _projected_patches(maps: keras.KerasTensor, hidden: int, dimensions: int) -> keras.KerasTensor:
    """Two dense layers for each patch by itself (DenseCL, section 3.2)."""
    x = layers.Dense(hidden, name="patch_dense_1")(maps)
    x = layers.ReLU(name="patch_relu")(x)
    return layers.Dense(dimensions, dtype="float32", name="patch_dense_2")(x)


def _predicted(projected: keras.KerasTensor, hidden: int, dimensions: int) -> keras.KerasTensor:
    x = layers.Dense(max(hidden, 1), name="prediction_dense_1")(projected)
    x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="prediction_bn")(x)
    x = layers.ReLU(name="prediction_relu")(x)
    return layers.Dense(dimensions, dtype="float32", name="prediction_dense_2")(x)


def _averaged(network: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """The weights that are averaged, and the averages, in the same order."""
    target = next(layer for layer in network.layers if layer.name.startswith(f"{_TARGET}_") and layer.weights)
    pairs = [
        (ours, theirs)
        for layer in target.layers
        if layer.weights
        for ours, theirs in zip(
            network.get_layer(layer.name.removeprefix(f"{_TARGET}_")).weights, layer.weights, strict=True
        )
        # Statistics of batch norm are the target's own.
        if ours.trainable
    ]
    return [one for one, _ in pairs], [one for _, one in pairs]
