"""DINOv2's patch tokens as maps: foundation features for heads, by KerasHub, which is loaded where one is asked for.

Oquab et al., "DINOv2: learning robust visual features without supervision", TMLR 2024; with registers Darcet et al.,
"Vision transformers need registers", ICLR 2024. The layers are applied one by one on the outer graph, so that it is
as flat as those of `keras.applications`.
"""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.keras_settings import keras

PRESET = "preset"
PATCH = 14
# Of keras.applications' networks too: ImageNet's mean and deviation, of values from 0 to 1.
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# name -> layers, width, heads, register tokens.
ARCHITECTURES = {
    f"dinov2_{prefix}{size}": (*numbers, registers)
    for prefix, registers in (("", 0), ("with_registers_", 4))
    for size, numbers in {"small": (12, 384, 6), "base": (12, 768, 12), "large": (24, 1024, 16)}.items()
}
# Side in pixels that the positions were learned at.
_LEARNED_AT = 518
# So many maps are taken, at even distances, the last at the end.
_MAPS = 4
_INSTALL = "Install it: pip install 'mvtec_tf[hub]' (keras-hub 0.32.0)."


def maps_of(name: str, inputs: keras.KerasTensor, weights: str) -> tuple[keras.KerasTensor, tuple[str, ...], int]:
    """The network on uint8 images [B, S, S, 3], in the current dtype policy.

    Args:
      name: key of ARCHITECTURES.
      inputs: S must be a multiple of PATCH.
      weights: `preset` (downloaded by KerasHub), `none` (random), a folder with a preset, or a file `*.weights.h5`.

    Returns:
      The last map, float [B, S / 14, S / 14, C], of the tokens after the final norm; the names of the maps' layers,
      which all have that norm, as the published code gives layers in between; how many weights were loaded.

    Raises:
      UsageError: the sides do not fit the patches.
      UserError: KerasHub is not installed, or the weights cannot be had or do not fit.
    """
    height, width = inputs.shape[1:3]
    if height != width or height % PATCH:
        near = max(PATCH, round(height / PATCH) * PATCH)
        raise UsageError(
            f"`image_size`={height if height == width else f'{height}x{width}'}: {name} sees squares whose side is a "
            f"multiple of {PATCH} pixels, such as {near}."
        )
    network, loaded = _network(name, height, weights)
    depth, _, _, registers = ARCHITECTURES[name]
    scaled = keras.layers.Rescaling((1 / 255 / _DEVIATION).tolist(), (-_MEAN / _DEVIATION).tolist(), name="scaled")
    tokens, maps = network.embeddings(scaled(inputs)), {}
    every = max(1, depth // _MAPS)
    for number, layer in enumerate(network.encoder.layers, 1):
        tokens = layer(tokens)
        if (depth - number) % every == 0:
            patches = keras.layers.Cropping1D((1 + registers, 0), name=f"block{number}_patches")(
                network.layernorm(tokens)
            )
            shape, name = (height // PATCH, width // PATCH, tokens.shape[-1]), f"block{number}_map"
            maps[name] = keras.layers.Reshape(shape, name=name)(patches)
    return _Last(name="last_map")(list(maps.values())), tuple(maps)[-_MAPS:], loaded


class _Last(keras.layers.Layer):
    """Gives the last of several maps: a network holds what its output needs, and the others are wanted too."""

    def call(self, maps: list[Any]) -> Any:
        """Any maps -> the last of them."""
        return maps[-1]


def _hub() -> ModuleType:
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(f"`backbone`: DINOv2 needs KerasHub, which cannot be loaded ({error}). {_INSTALL}") from error
    return keras_hub


def _network(name: str, side: int, weights: str) -> tuple[Any, int]:
    """The backbone of KerasHub, and how many arrays were loaded."""
    depth, width, heads, registers = ARCHITECTURES[name]
    shape, where = (side, side, 3), f"`weights`={weights}"
    if weights == "imagenet":
        raise UserError(f"{where}: there are none for {name}. Use `weights`={PRESET}, none, or a file.")
    if weights not in (PRESET, "none") and not pathlib.Path(weights).exists():
        raise UserError(f"{where}: no such file or folder. Use {PRESET}, none, or one that is there.")
    backbone = _hub().models.DINOV2Backbone
    if weights == PRESET or pathlib.Path(weights).is_dir():
        try:
            with _nothing_left_random():
                # Without a name its layers have the same ones in every process.
                network = backbone.from_preset(name if weights == PRESET else weights, image_shape=shape, name=None)
        except (OSError, ValueError, KeyError, UserWarning) as error:
            raise UserError(
                f"{where}: the weights of {name} cannot be had ({error}). Without a network name a folder that holds "
                "the preset, or its file *.weights.h5."
            ) from error
    else:
        network = backbone(
            PATCH,
            depth,
            width,
            heads,
            4 * width,
            num_register_tokens=registers,
            image_shape=shape,
            position_embedding_shape=(_LEARNED_AT, _LEARNED_AT),
            antialias_in_interpolation=bool(registers),
        )
        if weights != "none":
            _load(network, weights, where)
    own = (network.num_layers, network.hidden_dim, network.num_heads, network.num_register_tokens)
    if own != ARCHITECTURES[name] or network.patch_size != PATCH:
        raise UserError(f"{where}: of another network than {name} (layers, width, heads, registers: {own}).")
    if not all(np.all(np.isfinite(value)) for value in network.get_weights()):
        raise UserError(f"{where}: holds NaN or infinite numbers.")
    return network, 0 if weights == "none" else len(network.weights)


def _load(network: Any, file: str, where: str) -> None:
    try:
        with _nothing_left_random():
            network.load_weights(file)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise UserError(f"{where}: not the weights of {network.name} as Keras writes them ({error}).") from error


@contextlib.contextmanager
def _nothing_left_random() -> Iterator[None]:
    """Raises UserWarning where Keras only warns that layers keep their random start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Skipping", category=UserWarning)
        yield
