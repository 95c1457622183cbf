"""From pixels to what a head sees, as ops around a frozen encoder, or one in training: one graph for all uses."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import patch_maps
from mvtec_tf.networks.copies import FLOAT32

PIXELS_SIGNATURE = "embed_pixels"
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Which features of an encoder.

    Attributes:
      layers: outputs of the encoder that are joined.
      maps: whether patch maps are kept beside the global averages.
      neighbourhood: side of the neighbourhood over which each patch is averaged; odd, 1 is none.
      tiles: (rows, columns) into which an image is cut; each tile fills the encoder's input.
      pooling: how maps become global features, names of `patch_maps.POOLINGS`, all joined.
      centre_brightness: whether every image is first shifted to one mean brightness, so that another
        exposure or lamp is no anomaly.
    """

    layers: tuple[str, ...]
    maps: bool = False
    neighbourhood: int = 3
    tiles: tuple[int, int] = (1, 1)
    pooling: tuple[str, ...] = (patch_maps.MEAN,)
    centre_brightness: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that make no sense."""
        if not self.layers:
            raise UsageError("`feature_layers`: at least one layer is needed.")
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise UsageError(f"`neighbourhood`={self.neighbourhood}: expected an odd number, 1 or more.")
        if min(self.tiles) < 1:
            raise UsageError(f"`tiles`={self.tiles[0]}x{self.tiles[1]}: expected 1 or more rows and columns.")
        known = set(patch_maps.POOLINGS)
        if not self.pooling or not set(self.pooling) <= known or len(set(self.pooling)) < len(self.pooling):
            raise UsageError(
                f"`pooling`={','.join(self.pooling)}: expected different ones of {', '.join(sorted(known))}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureKey(FeatureSettings):
    """What features are of. Equal keys: numbers that may meet in one head.

    Attributes:
      encoder: SHA-256 (hex) of the encoder's SavedModel.
      image_size: (height, width) in pixels that images were resized to.
    """

    encoder: str
    image_size: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        """Lists instead of tuples, as JSON gives them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FeatureKey":
        """The inverse of `as_json`."""
        return cls(**{name: tuple(part) if isinstance(part, list) else part for name, part in value.items()})


def encoder_digest(encoder: files.PathLike) -> str:
    """SHA-256 (hex) of the graph and the numbers of a SavedModel."""
    digest = hashlib.sha256()
    folder = pathlib.Path(encoder)
    for file in [folder / "saved_model.pb", *sorted(folder.glob("variables/*"))]:
        digest.update(bytes.fromhex(files.sha256(file)))
    return digest.hexdigest()


class MapFeatures(tf.Module):
    """What is made of a network's maps of images: global features, and patch maps.

    Args:
      embed: uint8 `images` [B, h, w, 3] -> layer -> its map, float32 [B, h', w', C].
      settings: which features.
      tile: (height, width) in pixels of what `embed` takes.

    Attributes:
      settings: as given.
    """

    def __init__(
        self, embed: Callable[..., Mapping[str, tf.Tensor]], settings: FeatureSettings, tile: tuple[int, int]
    ) -> None:
        super().__init__()
        self._embed = embed
        self.settings = settings
        self._tile = tile

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels that images are resized to."""
        return self.settings.tiles[0] * self._tile[0], self.settings.tiles[1] * self._tile[1]

    def features(self, images: tf.Tensor) -> FrozenFeatures:
        """uint8 [B, height, width, 3] -> features as tensors; maps of tiles are stitched."""
        return self._features(self._maps_of_tiles(images))

    def maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """uint8 [B, height, width, 3] -> the maps of `settings.layers`, tile by tile, float32 [B * T, h, w, C] each."""
        found = self._maps_of_tiles(images)
        return [found[name] for name in self.settings.layers]

    def features_of(self, maps: Sequence[tf.Tensor]) -> FrozenFeatures:
        """What `features` makes of an image with these `maps`."""
        return self._features(dict(zip(self.settings.layers, maps, strict=True)))

    def whole(self, values: tf.Tensor) -> tf.Tensor:
        """Values at the positions of tiles, float32 [B * T, h, w], set together: [B, rows * h, columns * w]."""
        return self._set_together(values[..., None])[..., 0]

    def features_and_average(self, images: tf.Tensor, layer: str) -> tuple[FrozenFeatures, tf.Tensor]:
        """`features`, and the global average of one more layer, float32 [B, C]."""
        found = self._maps_of_tiles(images)
        average = tf.reduce_mean(self._by_tile(tf.reduce_mean(found[layer], axis=[1, 2])), axis=1)
        return self._features(found), average

    def _features(self, found: dict[str, tf.Tensor]) -> FrozenFeatures:
        maps = {name: found[name] for name in self.settings.layers}
        tiled = self._by_tile(patch_maps.pool(maps, self.settings.pooling))
        return FrozenFeatures(
            pooled=tf.reduce_mean(tiled, axis=1),
            maps={name: as_kept(self._stitched(value)) for name, value in maps.items()} if self.settings.maps else {},
            tiled=None if self.settings.tiles == (1, 1) else tiled,
            image_size=self.image_size,
        )

    def _maps_of_tiles(self, images: tf.Tensor) -> dict[str, Any]:
        """[B, height, width, 3] -> layer -> [B * T, h, w, C]."""
        (rows, columns), (height, width) = self.settings.tiles, self._tile
        if self.settings.centre_brightness:
            images = pixels.centre_brightness(images)
        tiles = tf.reshape(images, [-1, rows, height, columns, width, 3])
        tiles = tf.reshape(tf.transpose(tiles, [0, 1, 3, 2, 4, 5]), [-1, height, width, 3])
        return self._embed(images=tiles)

    def _by_tile(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [-1, self.settings.tiles[0] * self.settings.tiles[1], values.shape[-1]])

    def _stitched(self, maps: tf.Tensor) -> tf.Tensor:
        """`_set_together`, averaged over neighbours also across seams."""
        return patch_maps.average_neighbours(self._set_together(maps), self.settings.neighbourhood)

    def _set_together(self, maps: tf.Tensor) -> tf.Tensor:
        """[B * T, h, w, C] -> [B, rows * h, columns * w, C]."""
        rows, columns = self.settings.tiles
        _, height, width, depth = maps.shape
        grid = tf.reshape(maps, [-1, rows, columns, height, width, depth])
        return tf.reshape(tf.transpose(grid, [0, 1, 3, 2, 4, 5]), [-1, rows * height, columns * width, depth])


class FeatureGraph(MapFeatures):
    """An encoder, read back from its SavedModel, that looks at whole images or tile by tile.

    Args:
      encoder: path of the encoder's SavedModel.
      settings: which features.

    Attributes:
      settings: as given.
      max_pixels: the encoder's own limit of what it decodes, which holds for what is made of it too.
      precision: number format of the encoder's network, float32 or bfloat16.

    Raises:
      UserError: the encoder was exported without maps.
      UsageError: it has no such layer.
    """

    def __init__(self, encoder: files.PathLike, settings: FeatureSettings) -> None:
        card = saved_model.read_card(encoder)
        loaded = saved_model.load(encoder)
        if PIXELS_SIGNATURE not in loaded.signatures:
            raise UserError(
                f"{encoder}: this encoder was exported by an older version, without its maps. Repeat the run that made "
                "it, or use `weights`."
            )
        embed = loaded.signatures[PIXELS_SIGNATURE]
        missing = [name for name in settings.layers if name not in embed.structured_outputs]
        if missing:
            raise UsageError(
                f"`feature_layers`: the encoder has no {', '.join(missing)}; "
                f"it has {', '.join(sorted(embed.structured_outputs))}."
            )
        super().__init__(embed, settings, pixels.height_and_width(card["image_size"]))
        # Its variables are the signature's, which a SavedModel must be able to name.
        self._encoder = loaded
        self._path = encoder
        # Encoders of older versions have no limit of their own.
        self.max_pixels = int(card.get("max_pixels", pixels.MAX_PIXELS))
        self.precision = card.get("precision", FLOAT32)

    @property
    def key(self) -> FeatureKey:
        """What its features are of."""
        # Without maps no neighbourhood was averaged: features that are equal have equal keys.
        alike = self.settings if self.settings.maps else dataclasses.replace(self.settings, neighbourhood=1)
        own = {"encoder": encoder_digest(self._path), "image_size": self.image_size}
        return FeatureKey(**vars(alike) | own)


def as_kept(maps: tf.Tensor) -> tf.Tensor:
    """Maps rounded to float16, as a store keeps them, float32 again: what a head was fitted on is what it is served."""
    return tf.cast(tf.saturate_cast(maps, tf.float16), tf.float32)


class InMemory(MapFeatures):
    """A network whose weights may change between two calls.

    Args:
      model: uint8 [B, H, W, 3] -> maps, with the layers of the settings in it.
      settings: which features; of whole images, not of tiles.
    """

    def __init__(self, model: keras.Model, settings: FeatureSettings) -> None:
        part = saved_model.part_of(model, settings.layers)

        def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
            found = [tf.cast(value, tf.float32) for value in tf.nest.flatten(part(images, training=False))]
            return dict(zip(settings.layers, found, strict=True))

        super().__init__(embed, settings, tuple(model.input_shape[1:3]))

        @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)], autograph=False)
        def compute(images: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            features = self.features(images)
            return features.pooled, dict(features.maps)

        self._compute = compute

    def of(self, images: np.ndarray) -> FrozenFeatures:
        """uint8 [N, H, W, 3] -> features of N images."""
        parts = [self._compute(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        maps = {name: np.concatenate([found[name] for _, found in parts]) for name in parts[0][1]}
        return FrozenFeatures(np.concatenate([pooled for pooled, _ in parts]), maps, image_size=self.image_size)
