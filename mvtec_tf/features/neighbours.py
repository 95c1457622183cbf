"""Good images that a model was made with, as its features see them: what a new one is shown beside."""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from mvtec_tf import files
from mvtec_tf.errors import UserError

# In a run, and in its exports.
FILE = "neighbours.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """N good images.

    Attributes:
      embedding: float16 [N, D], in standard deviations of each dimension.
      width: float32 [D], these, of the embedding.
      usual: median distance of an image from the nearest one of another object.
      place: where each lay when the model was made, [N].
      sha256: of its file, [N].
      objects: number of the object that each shows, int64 [N].
    """

    embedding: np.ndarray
    width: np.ndarray
    usual: np.ndarray
    place: np.ndarray
    sha256: np.ndarray
    objects: np.ndarray

    @classmethod
    def of(cls, embedding: np.ndarray, images: Sequence[str], objects: np.ndarray) -> "Neighbours":
        """Those of N images of two objects or more.

        Args:
          embedding: float [N, D].
          images: their files.
          objects: [N], the object that each shows.
        """
        numbers = np.unique(objects, return_inverse=True)[1]
        spread = embedding.std(axis=0, dtype=np.float64)
        # A dimension in which all are alike says nothing of these, and must not drown the others in a new one.
        width = np.maximum(spread, max(float(spread.mean()), 1e-6)).astype(np.float32)
        scaled = (embedding / width).astype(np.float16)
        wide = scaled.astype(np.float64)
        squares = (wide**2).sum(axis=1)
        apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * wide @ wide.T, 0) / wide.shape[1])
        apart[numbers[:, None] == numbers] = np.inf
        usual = np.array(np.median(apart.min(axis=1)))
        places = np.array([os.path.realpath(image) for image in images])
        return cls(scaled, width, usual, places, np.array([files.sha256(image) for image in images]), numbers)

    def save(self, file: files.PathLike) -> None:
        """Writes them, whole or not at all."""
        with files.replacing(file) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, **vars(self))

    @classmethod
    def load(cls, file: files.PathLike) -> "Neighbours | None":
        """Reads them; None where there is no file. Raises UserError if it is damaged."""
        if not pathlib.Path(file).is_file():
            return None
        try:
            with np.load(file) as there:
                return cls(**{field.name: there[field.name] for field in dataclasses.fields(cls)})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{file}: cannot be read ({error}). Fit the run anew to have it.") from error

    def nearest(self, embedding: np.ndarray, most: int, without: str = "") -> list[tuple[int, float]]:
        """The nearest images, one of each object: (row, distance by the usual one) each, the nearest first.

        Args:
          embedding: float [D], of the model that these are of.
          most: of them.
          without: SHA-256 of an image that is none.
        """
        apart = np.sqrt(((embedding / self.width - self.embedding) ** 2).mean(axis=1, dtype=np.float64))
        found: dict[int, tuple[int, float]] = {}
        for row in np.argsort(apart, kind="stable").tolist():
            if self.sha256[row] != without:
                found.setdefault(int(self.objects[row]), (row, float(apart[row] / max(self.usual, 1e-9))))
        return list(found.values())[:most]
