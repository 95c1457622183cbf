"""A denoising-diffusion model of small patches: what is noised, by what network it is undone, and how one is drawn.

Ho et al., "Denoising diffusion probabilistic models", NeurIPS 2020, with the cosine schedule of Nichol and Dhariwal,
"Improved denoising diffusion probabilistic models", ICML 2021, the sampler of Song et al., "Denoising diffusion
implicit models", ICLR 2021, and a network that says the velocity of Salimans and Ho, "Progressive distillation", ICLR
2022: as one that says the noise, whose pixels so small a network cannot follow, its patches stayed noisy.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

from mvtec_tf.keras_settings import keras

# Steps of the noise, as in the papers.
STEPS = 1000
# Offset and largest share of noise of a step (Nichol and Dhariwal, section 3.2).
_OFFSET, _MOST = 0.008, 0.999
# Channels of the resolutions below half of the patch, as multiples of the width; patches are halved so often in all.
_MULTIPLES = (1, 2, 4)
_GROUPS = 8


def alpha_bars(steps: int = STEPS) -> np.ndarray:
    """float64 [steps + 1]: the share of the clean patch's variance that is left after 0, 1, ... steps."""
    angles = (np.arange(steps + 1) / steps + _OFFSET) / (1 + _OFFSET) * np.pi / 2
    kept = np.cos(angles) ** 2
    return np.concatenate([[1.0], np.cumprod(np.maximum(kept[1:] / kept[:-1], 1 - _MOST))])


def noised(clean: Any, noise: Any, alpha_bar: Any) -> Any:
    """The patch after the steps that leave `alpha_bar` of it (Ho et al., equation 4)."""
    return alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise


def velocity(clean: Any, noise: Any, alpha_bar: Any) -> Any:
    """What the network says of `noised(clean, noise, alpha_bar)` (Salimans and Ho, section 4)."""
    return alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean


def noise_of(noisy: Any, velocity: Any, alpha_bar: Any) -> Any:
    """The noise in a noised patch of that velocity."""
    return (1 - alpha_bar) ** 0.5 * noisy + alpha_bar**0.5 * velocity


def ddim(predict: Callable[[np.ndarray, int], np.ndarray], noise: np.ndarray, count: int) -> np.ndarray:
    """Patches of noise, without further noise (Song et al., equation 12 with sigma 0); each estimate of the clean patch
    is kept within its range.

    Args:
      predict: (noised patches, after how many steps) -> the noise in them.
      noise: float64 [N, ...], normal.
      count: how many of the steps are taken, evenly spaced.

    Returns:
      [N, ...] in [-1, 1].
    """
    shares, x = alpha_bars(), noise
    places = np.unique(np.rint(np.linspace(0, STEPS, count + 1)).astype(int))[::-1]
    for now, then in itertools.pairwise(places):
        share = shares[now]
        clean = np.clip((x - (1 - share) ** 0.5 * predict(x, int(now))) / share**0.5, -1, 1)
        x = noised(clean, (x - share**0.5 * clean) / (1 - share) ** 0.5, shares[then])
    return x


@keras.saving.register_keras_serializable(package="mvtec_tf")
class StepEmbedding(layers.Layer):
    """Sines and cosines of a step (Vaswani et al., 2017, section 3.5): int [B] -> float32 [B, width].

    Args:
      width: even.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width

    def call(self, steps: Any) -> Any:
        """Keras' own."""
        rates = np.exp(-np.log(10000.0) * np.arange(self.width // 2) / (self.width // 2)).astype(np.float32)
        angles = ops.cast(steps, "float32")[:, None] * rates
        return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return super().get_config() | {"width": self.width}


def build_denoiser(side: int, channels: int, width: int) -> keras.Model:
    """A small U-Net, most of it from half of the patch's resolution on, with attention at the coarsest.

    Args:
      side: side of the patches in pixels, a multiple of 8, since it is halved thrice.
      channels: channels of a patch.
      width: channels at the finest resolution, a multiple of 8.

    Returns:
      [float [B, side, side, channels], int32 [B]] -> float32 [B, side, side, channels], their `velocity`.
    """
    patches = layers.Input((side, side, channels), name="patches")
    steps = layers.Input((), dtype="int32", name="steps")
    told = StepEmbedding(2 * width, name="step")(steps)
    for number in range(2):
        told = layers.Dense(4 * width, activation="swish", name=f"step_{number}")(told)
    fine = layers.Conv2D(width // 2, 3, padding="same", name="fine")(patches)
    x, skips = layers.Conv2D(width, 4, 2, padding="same", name="stem")(patches), []
    for number, multiple in enumerate(_MULTIPLES):
        if number:
            x = layers.Conv2D(multiple * width, 3, 2, padding="same", name=f"halve_{number}")(x)
        x = _block(x, told, multiple * width, f"down_{number}")
        skips.append(x)
    x = _attended(_block(x, told, x.shape[-1], "middle"), "attend")
    for number in reversed(range(len(_MULTIPLES))):
        x = layers.Concatenate(name=f"join_{number}")([x, skips[number]])
        x = _block(x, told, _MULTIPLES[number] * width, f"up_{number}")
        x = layers.UpSampling2D(2, name=f"double_{number}")(x)
    x = layers.Conv2D(width // 2, 3, padding="same", name="last")(layers.Concatenate(name="join")([x, fine]))
    # What begins by saying nothing learns faster (Ho et al.'s code).
    said = layers.Conv2D(
        channels, 3, padding="same", kernel_initializer="zeros", dtype="float32", name="velocity"
    )(_activated(x, "said"))
    return keras.Model([patches, steps], said, name="denoiser")


def _block(x: keras.KerasTensor, told: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    """Two convolutions that know the step, beside what they are added to."""
    way = x if x.shape[-1] == width else layers.Conv2D(width, 1, name=f"{name}_way")(x)
    x = layers.Conv2D(width, 3, padding="same", name=f"{name}_first")(_activated(x, f"{name}_a"))
    told = layers.Reshape((1, 1, width), name=f"{name}_shape")(layers.Dense(width, name=f"{name}_step")(told))
    x = _activated(layers.Add(name=f"{name}_told")([x, told]), f"{name}_b")
    x = layers.Conv2D(width, 3, padding="same", kernel_initializer="zeros", name=f"{name}_second")(x)
    return layers.Add(name=f"{name}_sum")([way, x])


def _activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    groups = min(_GROUPS, x.shape[-1] // 2)
    return layers.Activation("swish", name=f"{name}_swish")(layers.GroupNormalization(groups, name=f"{name}_norm")(x))


def _attended(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    shape = x.shape[1:]
    flat = layers.Reshape((-1, shape[-1]), name=f"{name}_flat")(
        layers.GroupNormalization(_GROUPS, name=f"{name}_norm")(x)
    )
    seen = layers.MultiHeadAttention(4, shape[-1] // 4, name=name)(flat, flat)
    return layers.Add(name=f"{name}_sum")([x, layers.Reshape(shape, name=f"{name}_shape")(seen)])
