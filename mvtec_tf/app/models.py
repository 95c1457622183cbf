"""The exports that the page can ask: which there are, what their evaluation said, what they say of a photograph."""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.app.wording import WordedError
from mvtec_tf.data import leaks
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.report.judge import predictions_of
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.features import neighbours
from mvtec_tf.features.neighbours import Neighbours
from mvtec_tf.graphs.loading import CARD, EXTRA, read_card
from mvtec_tf.serving.batch import Judge
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.predict import called
from mvtec_tf.serving.truth import Truth

# As in `graphs.signatures`, which loads TensorFlow.
_EXPLAIN, _DEFAULT, _HEAT_MAP, _LEVEL, _EMBEDDING = "explain", "serving_default", "heat_map", "heat_level", "embedding"
# Good parts that a new one is shown beside.
_NEAREST = 3


@dataclasses.dataclass(frozen=True)
class Export:
    """A version of a model.

    Attributes:
      name, version: of saved_models/NAME/VERSION.
      path: of it.
      called: as it stands in every row of a table, with what tells it from others of its name.
      card: what it says of itself.
    """

    name: str
    version: int
    path: pathlib.Path
    called: str
    card: dict[str, Any] = dataclasses.field(compare=False)

    @property
    def threshold(self) -> float:
        """The threshold of all images that have no other."""
        return self.card["threshold"]

    @property
    def has_zone(self) -> bool:
        """Whether its graph has a third verdict, if of no score now."""
        return bool(self.card.get("thresholds", {}).get("unsure"))

    @property
    def zone(self) -> tuple[float, float] | None:
        """The scores from the first up to the second are unsure; None if no score is."""
        low, high = self.card.get("thresholds", {}).get("unsure", {}).get("", (0, 0))
        return (low, high) if low < high else None


def exports(root: files.PathLike) -> list[Export]:
    """The newest version of each model below a folder that gives verdicts, by name."""
    found = []
    root = pathlib.Path(root)
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        numbers = _numbers(folder)
        if not numbers:
            continue
        newest = _version(folder, numbers[-1])
        if newest.card.get("threshold") is not None:
            found.append(newest)
    return found


def missing(root: files.PathLike) -> str:
    """What the folder of all models lacks, and what to do, "" if it has a model that gives verdicts."""
    root = pathlib.Path(root)
    if exports(root):
        return ""
    said = f"In {root} lies no model that gives verdicts yet"
    if (root / "run.json").is_file():
        return f"{said}: it is a run. mvtec-tf export makes a model of it, in another folder, which is the one to name."
    for inner in (root, root.parent):
        if _numbers(inner):
            return f"{said}: it is a model itself. Name the folder of all models, {inner.absolute().parent}."
    return f"{said}. The page says how a first one is made, and finds it as soon as it is there."


def versions(export: Export) -> list[Export]:
    """Every version of the same model that gives verdicts, the newest first."""
    folder = export.path.parent
    found = [_version(folder, number) for number in reversed(_numbers(folder))]
    return [one for one in found if one.card.get("threshold") is not None]


def standing(rows: Sequence[Mapping[str, Any]], known: Sequence[Export]) -> list[tuple[Export, Mapping[str, Any]]]:
    """What each model says of a photograph: the judgement of its newest version that has judged it.

    Args:
      rows: judgements of one photograph.
      known: the versions that count, those of a model with the newest first.
    """
    found: dict[str, tuple[Export, Mapping[str, Any]]] = {}
    said = {row["model"]: row for row in rows}
    for one in known:
        if one.called in said:
            found.setdefault(one.name, (one, said[one.called]))
    return list(found.values())


def _version(folder: pathlib.Path, number: int) -> Export:
    path = folder / str(number)
    return Export(folder.name, number, path, called(path.absolute()), read_card(path))


def _numbers(folder: pathlib.Path) -> list[int]:
    """The versions in a model's folder that this program wrote, ascending."""
    return [number for number in files.versions(folder) if (folder / str(number) / EXTRA / CARD).is_file()]


@functools.lru_cache(maxsize=16)
def evaluation(export: Export) -> Predictions | None:
    """The table that the export was judged by; None of one that has none."""
    try:
        return predictions_of(export.path / EXTRA)
    except UserError:
        return None


@functools.lru_cache(maxsize=16)
def held_out(export: Export) -> tuple[np.ndarray, np.ndarray]:
    """Scores of good and of defective parts that the model was not fitted on, each float64 [N], sorted."""
    table = evaluation(export)
    if table is None:
        return np.empty(0), np.empty(0)
    rows = table.select(np.isin(table.split, (leaks.CALIBRATE, leaks.EVALUATE)))
    return np.sort(rows.score[rows.label == 0]), np.sort(rows.score[rows.label == 1])


@functools.lru_cache(maxsize=16)
def good_parts(export: Export) -> Neighbours | None:
    """Good parts that the model was made with; None of one that was made by an older version, or of too few."""
    return Neighbours.load(export.path / EXTRA / neighbours.FILE)


@dataclasses.dataclass(frozen=True, eq=False)
class Explained:
    """Why a model says what it says of a photograph.

    Attributes:
      heat_map: float32 [h, w]; None if there is none.
      level: of its largest value, 0 to 1, see `heat_maps.level`; 1 of models of before.
      nearest: the nearest good parts, `file`, `sha256` and `times` each, see `Neighbours.nearest`; none where the model
        keeps none.
    """

    heat_map: np.ndarray | None = None
    level: float = 1.0
    nearest: tuple[dict[str, Any], ...] = ()


class _Explaining:
    """A model that is asked for its heat map with every verdict, which it has in one pass; see `client.Model`.

    Attributes:
      last: its answer about the image that was asked about last.
    """

    def __init__(self, model: LocalModel, explains: bool) -> None:
        self.name, self.last = model.name, {}
        self._model, self._signature = model, _EXPLAIN if explains else _DEFAULT

    def __call__(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """The answer to the images, whatever the signature."""
        self.last = {}
        answer = self._model(self._signature, images)
        self.last = {name: answer[name][-1] for name in (_HEAT_MAP, _LEVEL, _EMBEDDING) if name in answer}
        return answer


class Models:
    """Models in this process, loaded when they are first asked; one photograph at a time is judged.

    Args:
      root: folder of all exported models.
      relative_to: folder that the names in rows are relative to.
    """

    def __init__(self, root: files.PathLike, relative_to: files.PathLike) -> None:
        self.root = pathlib.Path(root)
        self._relative_to = str(relative_to)
        self._open: dict[str, tuple[Export, _Explaining, Judge]] = {}
        self._lock = threading.Lock()

    def there(self) -> list[Export]:
        """See `exports`; new versions are found."""
        return exports(self.root)

    def ever(self) -> list[Export]:
        """The same with their earlier versions, those of a model with the newest first: what these said stays said."""
        return [one for newest in self.there() for one in versions(newest)]

    def chosen(self, names: Sequence[str]) -> list[Export]:
        """Those of these names, all if none is named. Raises WordedError for a name that is none."""
        known = {one.name: one for one in self.there()}
        if wrong := [name for name in names if name not in known]:
            raise WordedError("no_such_model", name=wrong[0], known=", ".join(known) or "-")
        return [known[name] for name in dict.fromkeys(names or known)]

    def judge(self, export: Export, file: str) -> tuple[dict[str, Any], Explained]:
        """The row of a photograph, see `batch.Judge`, and why."""
        with self._lock:
            there = self._open.get(export.name)
            if there is None or there[0] != export:
                model = _Explaining(LocalModel(export.path), _EXPLAIN in export.card.get("signatures", ()))
                judge = Judge(model, Truth(export=export.path), self._relative_to, called=export.called)
                there = self._open[export.name] = (export, model, judge)
            row = there[2]([file])[0]
            # A row for each photograph is all that is wanted of it.
            there[2].seconds.clear()
            said = there[1].last if row["verdict"] else {}
        return row, Explained(
            said.get(_HEAT_MAP), float(said.get(_LEVEL, 1.0)), _nearest(export, said.get(_EMBEDDING), row["sha256"])
        )


def _nearest(export: Export, embedding: np.ndarray | None, sha256: str) -> tuple[dict[str, Any], ...]:
    known = good_parts(export)
    if known is None or embedding is None:
        return ()
    return tuple(
        {"file": str(known.place[number]), "sha256": str(known.sha256[number]), "times": round(times, 3)}
        for number, times in known.nearest(embedding, _NEAREST, sha256)
    )
