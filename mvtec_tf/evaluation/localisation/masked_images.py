"""The heat maps of a table's images at the size of their masks, with the masks, one image at a time."""

import zlib
from collections.abc import Mapping

import numpy as np

from mvtec_tf.data import pillow_images
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.image_files import ImageFiles, MaskError
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.table import Predictions


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
