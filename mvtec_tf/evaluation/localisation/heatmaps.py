"""Heat maps of any model: one float32 `.npy` an image, read whole or refused, and brought to its mask's size."""

import pathlib
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

from mvtec_tf.data import pillow_images
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.image_files import ImageFiles, MaskError, inside
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.files import PathLike, replacing

SUFFIX = ".npy"
# What the maps are called that an exported model answers.
EXPORTED = "heat map of the exported model"
_NAMED = 3


class HeatMaps:
    """A folder of heat maps, a higher value more defective.

    The map of the image `bottle/test/crack/000.png` is `FOLDER/bottle/test/crack/000.png.npy` or,
    if there is no such file, `FOLDER/bottle/test/crack/000.npy`: an array [h, w] of finite numbers
    of any size, float32 or what float32 can hold.

    Args:
      folder: of the maps.
      name: what they are called in the report.

    Raises:
      UserError: there is no such folder.
    """

    def __init__(self, folder: PathLike, name: str) -> None:
        self.folder = pathlib.Path(folder)
        self.name = name
        if not self.folder.is_dir():
            found = "a file" if self.folder.exists() else "nothing"
            raise UserError(f"`heatmaps`={folder}: expected a folder of heat maps, found {found}.")

    def __contains__(self, path: str) -> bool:
        """Whether there is a map of the image of this path."""
        return self._file(path) is not None

    def require(self, paths: Iterable[str]) -> None:
        """Checks that there is a map for each of these images, and none that two of them share.

        Raises:
          UserError: names the images.
        """
        files = {path: self._file(path) for path in paths}
        missing = [path for path, file in files.items() if file is None]
        if missing:
            raise UserError(
                f"`heatmaps`={self.folder}: no heat map of {len(missing)} of the {len(files)} images that need one, "
                f"such as {', '.join(missing[:_NAMED])}. Expected {place(self.folder, missing[0])} or the same with "
                "its image suffix replaced. Figures of some images only would not be those of the model."
            )
        owners: dict[pathlib.Path, str] = {}
        for path, file in files.items():
            if (other := owners.setdefault(file, path)) != path:
                raise UserError(
                    f"`heatmaps`={self.folder}: {file} would be the map of {other} and of {path}. Keep the image "
                    f"suffix in the name: {place(self.folder, path)}."
                )

    def read(self, path: str) -> np.ndarray:
        """The map of an image, float32 [h, w].

        Raises:
          UserError: there is none, or the file holds something else.
        """
        file = self._file(path)
        if file is None:
            raise UserError(f"`heatmaps`={self.folder}: no heat map of {path}.")
        try:
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{file}: not a NumPy array without pickled objects ({error}).") from error
        if not isinstance(found, np.ndarray) or found.ndim != 2 or not found.size or found.dtype.kind not in "fiu":
            shape = getattr(found, "shape", "an archive")
            kind = getattr(found, "dtype", "")
            raise UserError(f"{file}: expected one array float32 [h, w], found {shape} {kind}.".replace(" .", "."))
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"{file}: {int((~np.isfinite(found)).sum())} of its values are not finite float32 numbers.")
        return found

    def _file(self, path: str) -> pathlib.Path | None:
        whole = place(self.folder, path)
        replaced = inside(self.folder, path).with_suffix(SUFFIX)
        return next((file for file in (whole, replaced) if file.is_file()), None)


class GivenMaps:
    """Heat maps in memory, of some images.

    Args:
      name: what they are called in the report.
      maps: path -> float32 [h, w].
    """

    def __init__(self, name: str, maps: Mapping[str, np.ndarray]) -> None:
        self.name = name
        self._maps = maps

    def __contains__(self, path: str) -> bool:
        """Whether there is a map of the image of this path."""
        return path in self._maps

    def read(self, path: str) -> np.ndarray:
        """The map of an image, float32 [h, w]."""
        return np.asarray(self._maps[path], np.float32)


def place(folder: PathLike, path: str) -> pathlib.Path:
    """Where the map of an image is written: its path with `.npy` after it."""
    whole = inside(folder, path)
    return whole.with_name(whole.name + SUFFIX)


def write(folder: PathLike, path: str, heat: np.ndarray) -> None:
    """Writes the map of an image, float32 [h, w], whole or not at all."""
    with replacing(place(folder, path)) as temporary:
        np.save(temporary, np.asarray(heat, np.float32), allow_pickle=False)


class MaskedImages:
    """Those images of a table whose pixels can be judged.

    Args:
      table: evaluate rows.
      files: of every row, by path.
      maps: the heat maps.

    Attributes:
      all_categories: of the table, sorted.
      categories: those that have masks, sorted.
      used: bool [N], which rows can be judged: those of categories with masks but for `left_out`.
      left_out: (path, reason) of each defective image whose mask cannot be used.
      resized: paths of images whose map did not have the wanted size, of those read so far.

    Raises:
      UserError: a map is missing.
    """

    def __init__(self, table: Predictions, files: Mapping[str, ImageFiles], maps: HeatMaps) -> None:
        self.all_categories = table.categories()
        self.categories = image_files.categories_with_masks(table, files)
        self.used = np.isin(table.category.astype(str), self.categories)
        self.resized: set[str] = set()
        self._files, self._maps = files, maps
        # Packed and compressed a mask takes about a kilobyte, and is not decoded for every pass.
        self._masks: dict[str, tuple[tuple[int, int], bytes]] = {}
        left_out = []
        for row in np.flatnonzero(self.used & (table.label == 1)):
            path = table.path[row]
            try:
                mask = image_files.read_mask(files[path])
            except MaskError as error:
                left_out.append((path, str(error)))
                self.used[row] = False
                continue
            self._masks[path] = (mask.shape, zlib.compress(np.packbits(mask).tobytes(), 1))
        self.left_out = tuple(left_out)
        maps.require(table.path[self.used].tolist())
        self._size_of_category = self._sizes(table)

    def read(self, path: str, category: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The heat of an image and its mask.

        Args:
          path: of a used row.
          category: of the image.

        Returns:
          float32 [H, W], and bool [H, W] or, of a good image, None.

        Raises:
          UserError: the map cannot be used.
        """
        raw = self._maps.read(path)
        mask = self._mask(path)
        height, width = mask.shape if mask is not None else self._size_of_good(path, category, raw.shape)
        heat = pillow_images.resized(raw, height, width)
        if heat is not raw:
            self.resized.add(path)
        return heat, mask

    def _mask(self, path: str) -> np.ndarray | None:
        if path not in self._masks:
            return None
        shape, content = self._masks[path]
        bits = np.frombuffer(zlib.decompress(content), np.uint8)
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)

    def _size_of_good(self, path: str, category: str, of_map: tuple[int, int]) -> tuple[int, int]:
        """That of the image; where images are not known, the one size of its category's masks, or else the map's."""
        if self._files[path].image:
            return image_files.image_size(self._files[path].image)
        return self._size_of_category.get(category, of_map)

    def _sizes(self, table: Predictions) -> dict[str, tuple[int, int]]:
        sizes: dict[str, set[tuple[int, int]]] = {}
        for path, category in zip(table.path.tolist(), table.category.tolist(), strict=True):
            if path in self._masks:
                sizes.setdefault(category, set()).add(self._masks[path][0])
        return {name: next(iter(found)) for name, found in sizes.items() if len(found) == 1}
