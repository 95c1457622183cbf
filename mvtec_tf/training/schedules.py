"""Learning rates (and AdamW's beta1) as pure functions of the optimizer's step.

The step is part of the optimizer's saved state, so a resumed run needs nothing else to go on.
"""

import dataclasses
import math

from keras import ops

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import replicas

# The fractions of Smith and Topin's "Super-Convergence" (2018), in the form of PyTorch's OneCycleLR.
PCT_START = 0.3
DIV_FACTOR = 25.0
FINAL_DIV_FACTOR = 1e4
BETA_1_LOW = 0.85
BETA_1_HIGH = 0.95


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate by the step, as a dataclass."""

    def get_config(self) -> dict[str, object]:
        """What the constructor takes."""
        return dataclasses.asdict(self)


@keras.saving.register_keras_serializable(package="mvtec_tf")
@dataclasses.dataclass(frozen=True, eq=False)
class OneCycle(_Schedule):
    """One cycle: up to the peak and down again, each along half a cosine, as PyTorch's OneCycleLR.

    The first step has peak / `DIV_FACTOR`, the step at `PCT_START` of the run the peak, and the last one
    peak / `DIV_FACTOR` / `FINAL_DIV_FACTOR`, which further steps keep.

    Args:
      peak: largest learning rate.
      total_steps: optimizer steps of the whole run.
    """

    peak: float
    total_steps: int

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no cycle."""
        _check_positive(self, "peak", "total_steps")

    def __call__(self, step: object) -> object:
        """Float32 scalar: the learning rate of optimizer step `step`, counted from 0."""
        first = self.peak / DIV_FACTOR
        return _one_cycle(step, self.total_steps, first, self.peak, first / FINAL_DIV_FACTOR)


def one_cycle_beta_1(step: object, total_steps: int) -> object:
    """AdamW's beta1 against the cycle: high while the learning rate is low, low at its peak; float32 scalar.

    Args:
      step: optimizer step, counted from 0.
      total_steps: optimizer steps of the whole run.
    """
    return _one_cycle(step, total_steps, BETA_1_HIGH, BETA_1_LOW, BETA_1_HIGH)


@keras.saving.register_keras_serializable(package="mvtec_tf")
class AdamW(keras.optimizers.AdamW):
    """AdamW whose gradients are summed over all replicas before they are clipped; Keras clips each replica's own.

    What a schedule says of a step is computed once in it. Keras asks anew for every variable, which of a ResNet-50
    made three quarters of the update's ops, and most of the time before the first step.
    """

    # Learning rate of the step that is being taken.
    _rate: object = None

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Keras' own."""
        self._rate = super()._get_current_learning_rate()
        try:
            super().apply(grads, trainable_variables)
        finally:
            # Within a trace it is a tensor of that trace.
            self._rate = None

    def _get_current_learning_rate(self) -> object:
        return super()._get_current_learning_rate() if self._rate is None else self._rate

    def _clip_gradients(self, grads: list) -> list:
        return super()._clip_gradients(replicas.summed(grads))

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        return grads_and_vars


@keras.saving.register_keras_serializable(package="mvtec_tf")
class OneCycleAdamW(AdamW):
    """AdamW (Loshchilov and Hutter, 2019) under one cycle of learning rate and beta1.

    As in PyTorch, weights decay by lr * weight_decay before Adam's step, and the bias correction is
    1 - beta1 ** step with the beta1 of that step. Epsilon is added before the second moment's bias
    correction (Keras's, the paper's "epsilon hat"), in PyTorch after it.

    Args:
      peak: largest learning rate, as in `OneCycle`.
      total_steps: optimizer steps of the whole run.
      weight_decay: decoupled weight decay.
      **kwargs: further arguments of `keras.optimizers.AdamW`, such as `global_clipnorm`.
    """

    def __init__(self, peak: float, total_steps: int, weight_decay: float = 1e-4, **kwargs: object) -> None:
        cycle = OneCycle(peak, total_steps)
        # Epsilon is PyTorch's default; Keras's is 1e-7.
        super().__init__(learning_rate=cycle, weight_decay=weight_decay, epsilon=1e-8, **kwargs)
        self.cycle = cycle

    # That of the step that is being taken, as `_rate`.
    _beta_1: object = None

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Keras' own."""
        self._beta_1 = self.beta_1
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._beta_1 = None

    @property
    def beta_1(self) -> object:
        """Float32 scalar: beta1 of the coming step."""
        if self._beta_1 is not None:
            return self._beta_1
        return one_cycle_beta_1(self._iterations, self.cycle.total_steps)

    @beta_1.setter
    def beta_1(self, value: float) -> None:
        """Adam's constructor sets its default here; the cycle takes its place."""

    def get_config(self) -> dict[str, object]:
        """What the constructor takes."""
        config = super().get_config()
        del config["learning_rate"], config["beta_1"], config["epsilon"]
        return {**config, **self.cycle.get_config()}


@keras.saving.register_keras_serializable(package="mvtec_tf")
@dataclasses.dataclass(frozen=True, eq=False)
class WarmupCosine(_Schedule):
    """Linear warm-up and half a cosine down (Chen et al., ICML 2020, section 2.2).

    The warm-up's last step has the peak and its first one 1 / warmup_steps of it, so that no step is
    lost to a learning rate of zero. Step `total_steps`, the first after the run, would have `final`.

    Args:
      peak: largest learning rate.
      warmup_steps: optimizer steps of the warm-up, 0 for none.
      total_steps: optimizer steps of the whole run; 0 where an encoder is kept as it is.
      final: learning rate at the end.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no schedule."""
        _check_positive(self, "peak")
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ValueError(
                f"warmup_steps must be 0 to total_steps = {self.total_steps}. Received: {self.warmup_steps}"
            )

    def __call__(self, step: object) -> object:
        """Float32 scalar: the learning rate of optimizer step `step`, counted from 0."""
        step = ops.cast(step, "float32")
        rising = self.peak * (step + 1.0) / max(self.warmup_steps, 1)
        # Without steps to fall in, only the steps after the run fall.
        falling_steps = max(self.total_steps - self.warmup_steps, 1)
        falling = _half_cosine(self.peak, self.final, (step - self.warmup_steps) / falling_steps)
        return ops.where(step < self.warmup_steps, rising, falling)


@keras.saving.register_keras_serializable(package="mvtec_tf")
@dataclasses.dataclass(frozen=True, eq=False)
class CosineByEpoch(_Schedule):
    """Half a cosine in one stair per epoch, as PyTorch's CosineAnnealingLR stepped after each epoch.

    Epoch 0 has the peak; epoch `epochs`, the first after the run, would have `final`.

    Args:
      peak: learning rate of the first epoch.
      final: learning rate at the end.
      steps_per_epoch: optimizer steps of an epoch.
      epochs: epochs of the whole run.
    """

    peak: float
    final: float
    steps_per_epoch: int
    epochs: int

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no schedule."""
        _check_positive(self, "peak", "steps_per_epoch", "epochs")

    def __call__(self, step: object) -> object:
        """Float32 scalar: the learning rate of optimizer step `step`, counted from 0."""
        epoch = ops.floor_divide(ops.cast(step, "int64"), self.steps_per_epoch)
        return _half_cosine(self.peak, self.final, ops.cast(epoch, "float32") / self.epochs)


def _one_cycle(step: object, total_steps: int, first: float, turn: float, last: float) -> object:
    """Half a cosine from `first` to `turn` and another one to `last`, with PyTorch's phase boundaries."""
    step = ops.cast(step, "float32")
    up_end = PCT_START * total_steps - 1.0
    down_end = total_steps - 1.0
    # In runs of few steps the way up can be shorter than one step; PyTorch then starts on the way down.
    up = _half_cosine(first, turn, step / up_end if up_end > 0 else ops.ones_like(step))
    down = _half_cosine(turn, last, (step - up_end) / (down_end - up_end))
    return ops.where(step <= up_end, up, down)


def _half_cosine(start: float, end: float, progress: object) -> object:
    """From `start` at progress 0 to `end` at 1, constant beyond."""
    progress = ops.clip(progress, 0.0, 1.0)
    # cos(x / 2) ** 2 is (1 + cos(x)) / 2 without the cancellation, which in float32 would drown the small
    # learning rates at the end of a run.
    half_angle = math.pi / 2 * progress
    return start * ops.square(ops.cos(half_angle)) + end * ops.square(ops.sin(half_angle))


def _check_positive(schedule: _Schedule, *names: str) -> None:
    for name in names:
        if not getattr(schedule, name) > 0:
            raise ValueError(f"{name} must be positive. Received: {getattr(schedule, name)}")
