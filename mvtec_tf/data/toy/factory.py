"""The toy factory: a small data set in the MVTec layout, drawn from a seed, for tests and the quickstart.

Hard enough to mean something: parts lie at any angle under changing light, and a subtle defect is
local, so neither the mean brightness nor 16 x 16 grey pixels tell it from a good part.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageFilter

from mvtec_tf.data.record import GOOD
from mvtec_tf.data.toy.board import Board
from mvtec_tf.data.toy.denim import Denim
from mvtec_tf.data.toy.drawing import GROSS, SUBTLE, Layers, Piece, between, grid
from mvtec_tf.data.toy.flange import Flange
from mvtec_tf.data.toy.mesh import Mesh
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike, new_directory, read_json, write_csv, write_json

SEVERITY_FILE = "severity.csv"
SETTINGS_FILE = "toy.json"
MIN_IMAGE_SIZE = 32
# Raise it when a drawing changes: an older set is then refused instead of silently reused.
DRAWING_VERSION = 1
# Drawn twice as large and averaged, so that edges are smooth.
_OVERSAMPLING = 2
_GRAIN = 0.010
# A pixel belongs to a defect if it differs by this much (of 255) from the same part without it.
MASK_LEVELS = 6.0
# name -> how its pieces are drawn and which defects it knows.
CATEGORIES: dict[str, type[Piece]] = {"board": Board, "denim": Denim, "flange": Flange, "mesh": Mesh}
# What is drawn where nothing else is asked for: enough for a first look in minutes.
DEFAULT_PRODUCTS = ("denim", "flange")


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One drawn image.

    Attributes:
      image: uint8 [S, S, 3], RGB.
      without_defect: uint8 [S, S, 3], the same part, pose, light and grain without its defect.
      mask: uint8 [S, S], 255 on the defect, else 0.
    """

    image: np.ndarray
    without_defect: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Settings:
    seed: int
    image_size: int
    train_good: int
    test_good: int
    per_defect: int
    products: tuple[str, ...] = DEFAULT_PRODUCTS
    drawing_version: int = DRAWING_VERSION


@dataclasses.dataclass(frozen=True)
class _Item:
    category: str
    split: str
    defect: str
    index: int

    @property
    def path(self) -> str:
        """Relative to the category."""
        return f"{self.split}/{self.defect}/{self.index:03d}.png"

    @property
    def mask(self) -> str:
        """Relative to the category; "" for a good image."""
        return "" if self.defect == GOOD else f"ground_truth/{self.defect}/{self.index:03d}_mask.png"

    @property
    def severity(self) -> str:
        return GOOD if self.defect == GOOD else severity(self.index)


def severity(index: int) -> str:
    """Every other image of a defect type is subtle, however many there are."""
    return (SUBTLE, GROSS)[index % 2]


def write_toy_factory(
    root: PathLike,
    *,
    seed: int = 0,
    image_size: int = 128,
    train_good: int = 120,
    test_good: int = 60,
    per_defect: int = 40,
    products: Sequence[str] = DEFAULT_PRODUCTS,
) -> list[str]:
    """Draws the data set into `root`, which appears whole or not at all.

    The same seed gives the same files; an image does not depend on how many others are drawn.
    Beside each category lies `severity.csv` (`path,severity`, paths relative to the category;
    good, subtle or gross). A complete set of the same settings is left as it is.

    Args:
      root: a folder that does not exist yet, is empty, or holds a set made before.
      seed: which factory.
      image_size: side of the images in pixels, at least `MIN_IMAGE_SIZE`.
      train_good: good training images of each category.
      test_good: good test images of each category.
      per_defect: test images of each defect type; the even ones are subtle, the odd ones gross.
      products: which categories are drawn, out of `CATEGORIES`.

    Returns:
      The categories' names, sorted.

    Raises:
      UserError: a setting is out of range, or `root` holds something else.
    """
    settings = _Settings(seed, image_size, train_good, test_good, per_defect, tuple(sorted(set(products))))
    _check_settings(settings)
    root = pathlib.Path(root)
    if root.is_dir() and not any(root.iterdir()):
        root.rmdir()
    if root.exists():
        _check_reusable(root, settings)
        return list(settings.products)
    try:
        with new_directory(root) as folder:
            _write(folder, settings)
    except OSError:
        # Another process may have made the same set meanwhile; anything else is a real failure.
        if not (root / SETTINGS_FILE).is_file():
            raise
        _check_reusable(root, settings)
    return list(settings.products)


def photograph(category: str, split: str, defect: str, index: int, *, seed: int, image_size: int) -> Photograph:
    """Draws one image of the set, the very one that `write_toy_factory` writes.

    Args:
      category: one of `CATEGORIES`.
      split: "train" or "test".
      defect: "good" or one of the category's defects.
      index: its number in its folder; also decides its severity.
      seed: which factory.
      image_size: side in pixels.
    """
    # The name is part of the seed, not the position in a sequence of draws: counts do not matter.
    name = zlib.crc32(f"{category}/{split}/{defect}".encode())
    part, camera = (np.random.default_rng(one) for one in np.random.SeedSequence([seed, name, index]).spawn(2))
    piece = CATEGORIES[category](part, image_size * _OVERSAMPLING)
    light = _light(camera, image_size)
    grain = _GRAIN * camera.standard_normal((image_size, image_size, 1))
    clean = defective = light * _shrink(piece.clean)
    if defect != GOOD:
        defective = light * _shrink(piece.damaged(part, defect, severity(index)))
    return Photograph(_to_uint8(defective + grain), _to_uint8(clean + grain), _mask(clean, defective))


def _light(rng: np.random.Generator, size: int) -> np.ndarray:
    """Illumination [size, size, 3]: gain, gradient and tint differ from photograph to photograph."""
    x, y = grid(size)
    direction, slope = between(rng, 0.0, 2.0 * np.pi), between(rng, 0.0, 0.08)
    gain, tint = between(rng, 0.92, 1.08), between(rng, -0.02, 0.02)
    field = gain * (1.0 + slope * (np.cos(direction) * x + np.sin(direction) * y) - 0.05 * (x * x + y * y))
    # A window on one side, a lamp on the other: one end of the picture is warmer than the other.
    direction, mixed = between(rng, 0.0, 2.0 * np.pi), between(rng, 0.0, 0.06)
    warmth = tint + mixed * (np.cos(direction) * x + np.sin(direction) * y)
    return field[..., None] * (1.0 + warmth[..., None] * np.array([1.0, 0.0, -1.0]))


def _shrink(layers: Layers) -> np.ndarray:
    """Layers drawn too large -> float64 [S, S, 3], each pixel the mean of those it covers."""
    size = len(layers[0][0]) // _OVERSAMPLING
    block = (size, _OVERSAMPLING, size, _OVERSAMPLING)
    return sum(shade.reshape(block).mean(axis=(1, 3))[..., None] * colour for shade, colour in layers)


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.rint(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)


def _mask(clean: np.ndarray, defective: np.ndarray) -> np.ndarray:
    differs = 255.0 * np.abs(np.clip(defective, 0.0, 1.0) - np.clip(clean, 0.0, 1.0)).max(axis=2) >= MASK_LEVELS
    mask = Image.fromarray(np.where(differs, 255, 0).astype(np.uint8))
    # Closed over single pixels, as a person would outline it.
    return np.asarray(mask.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.MinFilter(3)))


def _items(settings: _Settings) -> Iterator[_Item]:
    for category in settings.products:
        counts = [("train", GOOD, settings.train_good), ("test", GOOD, settings.test_good)]
        counts += [("test", defect, settings.per_defect) for defect in CATEGORIES[category].defects]
        for split, defect, count in counts:
            yield from (_Item(category, split, defect, index) for index in range(count))


def _write(folder: pathlib.Path, settings: _Settings) -> None:
    for item in _items(settings):
        drawn = photograph(
            item.category, item.split, item.defect, item.index, seed=settings.seed, image_size=settings.image_size
        )
        _save(folder / item.category / item.path, drawn.image)
        if item.mask:
            _save(folder / item.category / item.mask, drawn.mask)
    for category in settings.products:
        rows = ((item.path, item.severity) for item in _items(settings) if item.category == category)
        write_csv(folder / category / SEVERITY_FILE, ("path", "severity"), rows)
    write_json(folder / SETTINGS_FILE, _as_json(settings))


def _save(path: pathlib.Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _check_settings(settings: _Settings) -> None:
    unknown = [name for name in settings.products if name not in CATEGORIES]
    if unknown or not settings.products:
        found = ", ".join(unknown) or "none"
        raise UserError(f"`products`: unknown: {found}. Known are {', '.join(CATEGORIES)}.")
    least = {"seed": 0, "image_size": MIN_IMAGE_SIZE, "train_good": 1, "test_good": 1, "per_defect": 1}
    for name, minimum in least.items():
        if getattr(settings, name) < minimum:
            raise UserError(f"`{name}`={getattr(settings, name)}: expected at least {minimum}.")


def _as_json(settings: _Settings) -> dict[str, object]:
    return dataclasses.asdict(settings) | {"products": list(settings.products)}


def _check_reusable(root: pathlib.Path, settings: _Settings) -> None:
    stamp = root / SETTINGS_FILE
    if not stamp.is_file():
        raise UserError(f"{root}: exists and is no toy factory (it has no {SETTINGS_FILE}). Choose another folder.")
    wanted = _as_json(settings)
    # A set that was drawn before there was a choice of products has the default ones.
    found = {"products": list(DEFAULT_PRODUCTS)} | read_json(stamp, advice=f"Delete {root} to draw the set anew.")
    if found != wanted:
        raise UserError(
            f"{root}: holds a toy factory of other settings, {found}; asked for {wanted}. "
            "Choose another folder, or delete this one to draw it anew."
        )
    files = [root / item.category / name for item in _items(settings) for name in (item.path, item.mask) if name]
    files += [root / category / SEVERITY_FILE for category in settings.products]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{root}: {len(missing)} of its files are gone, the first is {missing[0]}. Delete {root} to draw it anew."
        )
