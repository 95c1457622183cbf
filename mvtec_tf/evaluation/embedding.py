"""An embedding made flat enough to look at: PCA and t-SNE of what a network sees in each image."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from mvtec_tf import files
from mvtec_tf.data import leaks
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import Predictions

# t-SNE of so many takes half a minute, and more dots than this are a carpet.
MOST_POINTS = 5000
# Van der Maaten and Hinton, JMLR 2008, section 4.2: 30 components keep what neighbours need, and of
# 50 the first three quarters of MNIST; here as many as their later implementations take.
_COMPONENTS = 50
_PERPLEXITY = 30.0
_FEWEST_POINTS = 8
_NAMED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """The images of a table as points.

    Attributes:
      table: their rows, N of them.
      of: how many rows the whole table has; more than N if they were sampled.
      seed: of the sample and of t-SNE.
      components: float32 [N, at most 50], the principal components of the standardised embedding;
        the first two are its PCA picture.
      explained: share of the variance that each of them holds.
      dimensions: of the embedding.
      tsne: float32 [N, 2], or None if it was not wanted or there are too few points.
      neighbour: int [N], which other point is nearest in the components.
    """

    table: Predictions
    of: int
    seed: int
    components: np.ndarray
    explained: np.ndarray
    dimensions: int
    tsne: np.ndarray | None
    neighbour: np.ndarray


class TooFewPointsError(Exception):
    """There are too few different images for a picture; the text says so."""


def write(file: files.PathLike, paths: Sequence[str], features: np.ndarray) -> None:
    """Writes an embedding: an `.npz` with `paths`, str [N], and `features`, float32 [N, D]."""
    with files.replacing(file) as temporary:
        np.savez(temporary, paths=np.array(list(paths), np.str_), features=np.asarray(features, np.float32))


def read(file: files.PathLike, table: Predictions) -> np.ndarray:
    """The embedding of every row of a table, float32 [N, D], in its order.

    Args:
      file: see `write`; images that the table does not have are ignored.
      table: whose images are wanted.

    Raises:
      UserError: no such file, not of this form, or an image of the table is not in it.
    """
    path = pathlib.Path(file)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"`features`={file}: expected an .npz file, found {found}.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    # A file of a single array is loaded as one, which is no context.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"`features`={file}: not an .npz file without pickled objects ({error}).") from error
    if not {"paths", "features"} <= set(arrays):
        raise UserError(
            f"`features`={file}: found the arrays {', '.join(arrays)}. Expected paths, str [N], and features, "
            "float32 [N, D], one row an image."
        )
    paths, features = arrays["paths"], arrays["features"]
    if paths.ndim != 1 or features.ndim != 2 or len(paths) != len(features) or features.dtype.kind != "f":
        raise UserError(
            f"`features`={file}: expected paths [N] and float32 features [N, D]. Found {paths.shape} and "
            f"{features.shape} {features.dtype}."
        )
    rows = {leaks.same_file_key(str(name)): row for row, name in enumerate(paths)}
    missing = [name for name in table.path.tolist() if leaks.same_file_key(name) not in rows]
    if missing:
        raise UserError(
            f"`features`={file}: {len(missing)} of the {len(table)} evaluated images are not in it, such as "
            f"{', '.join(missing[:_NAMED])}."
        )
    chosen = features[[rows[leaks.same_file_key(name)] for name in table.path.tolist()]].astype(np.float32)
    if not np.isfinite(chosen).all():
        raise UserError(f"`features`={file}: NaN or infinite numbers in it. Was the network's training stable?")
    return chosen


def reduce(
    table: Predictions,
    features: np.ndarray,
    tsne: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Points:
    """Principal components and t-SNE of an embedding.

    Each dimension is standardised, so that none counts more for being loud; t-SNE is begun with the
    principal components and works on the first 50 of them. Of more than 5,000 images a sample is
    drawn.

    Args:
      table: rows of the N images.
      features: float32 [N, D], finite.
      tsne: whether t-SNE is wanted.
      seed: of the sample and of t-SNE.
      say: is told what takes a while.

    Raises:
      TooFewPointsError: fewer than 8 images, or all of them have the same embedding.
    """
    count = len(table)
    if count > MOST_POINTS:
        drawn = np.sort(np.random.default_rng(seed).choice(count, MOST_POINTS, replace=False))
        table, features = table.select(drawn), features[drawn]
    if len(table) < _FEWEST_POINTS:
        raise TooFewPointsError(
            f"{counted(len(table), 'image is', 'images are')} too few for a picture; at least {_FEWEST_POINTS} "
            "are needed"
        )
    # Imported where they are needed, here and below: scikit-learn takes longer to load than a table to judge.
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    deviation = features.std(axis=0, dtype=np.float64)
    moving = deviation > 1e-12
    if not moving.any():
        raise TooFewPointsError("all images have the very same embedding")
    scaled = (features[:, moving] - features[:, moving].mean(axis=0, dtype=np.float64)) / deviation[moving]
    pca = PCA(min(_COMPONENTS, *scaled.shape), random_state=seed)
    components = pca.fit_transform(scaled).astype(np.float32)
    if components.shape[1] == 1:
        components = np.hstack([components, np.zeros_like(components)])
    _, neighbours = NearestNeighbors(n_neighbors=2).fit(components).kneighbors(components)
    # Of images with the same embedding either may come first; the other one is wanted.
    own = neighbours[:, 0] == np.arange(len(table))
    return Points(
        table=table,
        of=count,
        seed=seed,
        components=components,
        explained=pca.explained_variance_ratio_,
        dimensions=features.shape[1],
        tsne=_tsne(components, seed, say) if tsne else None,
        neighbour=np.where(own, neighbours[:, 1], neighbours[:, 0]),
    )


def _tsne(components: np.ndarray, seed: int, say: Callable[[str], None]) -> np.ndarray:
    from sklearn.manifold import TSNE

    say(f"t-SNE of {len(components):,} points")
    # The neighbourhood may hold a third of all points at most, or there is nothing left to be far from.
    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    # Threads add up forces in the order in which they come, and a seed would repeat nothing.
    with threadpool_limits(1):
        found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    return found.astype(np.float32)
