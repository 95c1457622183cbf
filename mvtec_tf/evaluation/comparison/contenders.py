"""Who is compared: runs or bare tables, read and found to be about the same images."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.data import leaks
from mvtec_tf.data.words import listing
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation import recorded, thresholds
from mvtec_tf.evaluation.assessment import Seen, seen_before
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.recorded import METRICS_FILE, TABLE_FILE
from mvtec_tf.evaluation.table import Predictions, read_predictions
from mvtec_tf.evaluation.thresholds import Chosen, Threshold

# So many images are named in a message; more of them drown what it says.
_NAMED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """One run, or one table of predictions.

    Attributes:
      source: what the user named.
      evaluate: its evaluate rows, sorted by image.
      keys: one for each of them, equal for all spellings of one path.
      threshold: by which it calls an image defective.
      labels_used: labelled test images that it learned or chose anything from; None if not recorded.
      leak: how many of its evaluated images it had seen before; None if none.
      record: content of its `run.json`, with "part" if it is a second model of that run; None of a table.
      splits: (images, defective ones) of each split of its table.
      costs: of wrong calls, that its maker judged it with; None if nothing says so.
    """

    source: str
    evaluate: Predictions
    keys: tuple[str, ...]
    threshold: Chosen
    labels_used: int | None
    leak: Seen | None = None
    record: Mapping[str, Any] | None = None
    splits: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    costs: Costs | None = None

    @classmethod
    def of(cls, source: str, evaluate: Predictions, *rest: Any) -> "Contender":
        """One of evaluate rows in any order; the rest as of the class, from `threshold` on."""
        keys = [leaks.same_file_key(path) for path in evaluate.path]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return cls(source, evaluate.select(np.array(order)), tuple(keys[i] for i in order), *rest)

    @property
    def calls(self) -> np.ndarray | None:
        """Bool [N], which images it calls defective; None without a threshold."""
        limits = self.threshold.each(self.evaluate.category)
        return None if limits is None else self.evaluate.score >= limits


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """One method, as one run or as several with different seeds.

    Attributes:
      name: of the method.
      runs: one or more.
    """

    name: str
    runs: tuple[Contender, ...]

    @property
    def series(self) -> str:
        """What stands before an "@" in the name: methods that are points of one curve."""
        return self.name.split("@", 1)[0]

    @property
    def leak(self) -> Seen | None:
        """Of the run that had seen most of its evaluated images; None if none had seen any."""
        found = [run.leak for run in self.runs if run.leak]
        return max(found, key=lambda leak: leak.images) if found else None

    @property
    def labels_used(self) -> float | None:
        """Mean over the runs; None if one of them did not record it."""
        used = [run.labels_used for run in self.runs]
        return None if None in used else float(np.mean(used))


def read_methods(texts: Sequence[str]) -> tuple[Method, ...]:
    """The methods that these texts name, all judged on the same images.

    Args:
      texts: each a run directory or a CSV file of predictions; NAME=PATH to name it; several
        seeds of one method as NAME=PATH+PATH+... A path that itself holds "=" or "+" is taken as
        it is if it exists.

    Raises:
      UsageError: fewer than two, an empty path, one path twice, or two of one name.
      UserError: a path is neither; a table or its metrics.json cannot be read; the evaluation
        images, labels, categories or objects differ.
      LeakError: evaluated images had been seen before, and it is no run whose `metrics.json` says so.
    """
    if len(texts) < 2:
        raise UsageError("`runs`: expected at least two, as `runs`=A,B. Each is a run directory or a CSV file.")
    named = [_split(text) for text in texts]
    names = [name or pathlib.Path(paths[0]).name for name, paths in named]
    # Two run directories of one name are told apart by their whole path.
    names = [
        paths[0] if not name and names.count(short) > 1 else short
        for short, (name, paths) in zip(names, named, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"`runs`: two methods are called {name!r}. Name them: `runs`=NAME=PATH,OTHER=PATH.")
    known: dict[str, str] = {}
    for path in (path for _, paths in named for path in paths):
        if first := known.get(os.path.realpath(path)):
            raise UsageError(
                f"`runs`: {first} and {path} are one and the same, which no difference and no seed can be told from."
            )
        known[os.path.realpath(path)] = path
    for name, (_, paths) in zip(names, named, strict=True):
        _refuse_copied_seeds(name, paths)
    methods = [Method(name, tuple(map(_read, paths))) for name, (_, paths) in zip(names, named, strict=True)]
    _check_same(methods)
    return tuple(methods)


def _split(text: str) -> tuple[str, list[str]]:
    """The name, "" if none was given, and the paths."""
    if pathlib.Path(text).exists():
        return "", [text]
    name, given, rest = text.partition("=")
    paths = (rest if given else text).split("+")
    if (given and not name) or not all(paths):
        raise UsageError(f"`runs`: {text!r} lacks a name or a path. Expected PATH, NAME=PATH or NAME=PATH+PATH.")
    return (name if given else ""), paths


def _refuse_copied_seeds(name: str, paths: Sequence[str]) -> None:
    """Of one seed, copied or repeated, the deviation over seeds would be zero."""
    known: dict[str, str] = {}
    for path in paths:
        table = pathlib.Path(path) / TABLE_FILE if os.path.isdir(path) else pathlib.Path(path)
        if table.is_file() and (first := known.setdefault(files.sha256(table), path)) != path:
            raise UsageError(f"`runs`: {first} and {path} of {name} hold the same predictions: they are no two seeds.")


def _read(text: str) -> Contender:
    path = pathlib.Path(text)
    if path.is_dir():
        missing = [name for name in (TABLE_FILE, METRICS_FILE) if not (path / name).is_file()]
        if missing:
            raise UserError(
                f"`runs`: {path} has no {' and no '.join(missing)}, so it is no finished run. "
                "Finish it, or name a CSV file of predictions."
            )
        document = files.read_json(path / METRICS_FILE)
        table = read_predictions(path / TABLE_FILE, document.get("leak") is not None)
        threshold = recorded_threshold(document, path / METRICS_FILE)
        judging = recorded.of_document(document, str(path / METRICS_FILE))
    else:
        table = read_predictions(path)
        judging = recorded.of_table(path, table)
        threshold = _chosen(table, judging or recorded.Judging("nothing"))
    record = _record(path) if path.is_dir() else None
    return Contender.of(
        text,
        table.part(leaks.EVALUATE),
        threshold,
        record.get("labels_used") if record else None,
        seen_before(table),
        record,
        table.splits,
        judging.costs if judging else None,
    )


def _chosen(table: Predictions, judging: recorded.Judging) -> Chosen:
    """The threshold of a table without one beside it, as its maker would choose it."""
    if isinstance(judging.threshold, Chosen):
        return judging.threshold
    if judging.threshold is not None:
        return Chosen(thresholds.given(judging.threshold))
    categories = table.part(leaks.EVALUATE).categories()
    return thresholds.choose(table, categories, judging.rule, judging.costs, Bootstrap(0))


def common_costs(methods: Sequence[Method]) -> Costs | None:
    """The costs that all runs which say any were judged with; None if they say different ones, or none."""
    runs = [run.costs for method in methods for run in method.runs if run.costs is not None]
    # Nobody is asked in a comparison.
    found = {dataclasses.replace(costs, review=None) for costs in runs}
    return found.pop() if len(found) == 1 else None


def recorded_threshold(document: Mapping[str, Any], file: pathlib.Path) -> Chosen:
    """The threshold that a run was judged with, as its `metrics.json` says it. Raises UserError: there is none."""
    found = document.get("threshold")
    try:
        own = {name: Threshold.from_json(each) for name, each in found.get("categories", {}).items()}
        return Chosen(Threshold.from_json(found), own)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: no threshold in it as `evaluate` writes one. Judge its predictions.csv again."
        ) from error


def _record(path: pathlib.Path) -> dict[str, Any] | None:
    # A second model beside a run's main one lies in a folder of the run and used the same labels.
    for folder, part in ((path, {}), (path.resolve().parent, {"part": path.name})):
        if (folder / "run.json").is_file():
            return files.read_json(folder / "run.json") | part
    return None


def _check_same(methods: Sequence[Method]) -> None:
    """Refuses methods that were judged on different images; differences between them would mean nothing.

    The k-th runs of all methods are compared with each other: another seed may have held out
    other images. Methods with different numbers of runs must agree in all of them.
    """
    reference = methods[0]
    paired = len({len(method.runs) for method in methods}) == 1
    for method in methods:
        for index, run in enumerate(method.runs):
            other = reference.runs[index if paired else 0]
            if run is not other:
                _check_pair(other, run)
    facts: dict[str, tuple[int, str, Contender]] = {}
    for run in (run for method in methods for run in method.runs):
        for key, label, category in zip(run.keys, run.evaluate.label.tolist(), run.evaluate.category, strict=True):
            known = facts.setdefault(key, (label, category, run))
            if known[:2] != (label, category):
                raise UserError(_differ(known[2], run, "labels or categories", [key]))
    _check_objects([run for method in methods for run in method.runs])


def _check_objects(runs: Sequence[Contender]) -> None:
    """Refuses runs that do not agree which images show one object, on which every interval rests."""
    first: dict[str, tuple[str, Contender]] = {}
    for run in runs:
        names: dict[tuple[str, str, str], str] = {}
        for key, category, group in zip(run.keys, run.evaluate.category, run.evaluate.group, strict=True):
            if not (group := known_object(group, key)):
                continue
            known, other = first.setdefault(key, (group, run))
            if other is not run:
                pairs = ((known, group), (group, known))
                if any(names.setdefault((str(way), category, a), b) != b for way, (a, b) in enumerate(pairs)):
                    raise UserError(_differ(other, run, "objects", [key]))


def known_object(group: str, key: str) -> str:
    """The object that a table says an image shows; "" where it says none, or names the image itself for it."""
    return "" if leaks.same_file_key(group) == key else group


def _check_pair(one: Contender, other: Contender) -> None:
    only = [sorted(set(a.keys) - set(b.keys)) for a, b in ((one, other), (other, one))]
    if any(only):
        parts = (
            f"{len(names):,} only in {run.source} ({listing(names, _NAMED)})"
            for run, names in zip((one, other), only, strict=True)
            if names
        )
        raise UserError(
            f"`runs`: {one.source} and {other.source} were not judged on the same evaluation images: "
            f"{' and '.join(parts)}. Compare runs on the same data, categories and seed, or cut the tables to the "
            "images that both have and judge them again."
        )
    for column, title in (("label", "labels"), ("category", "categories")):
        different = np.flatnonzero(getattr(one.evaluate, column) != getattr(other.evaluate, column))
        if len(different):
            raise UserError(_differ(one, other, title, [one.keys[i] for i in different]))


def _differ(one: Contender, other: Contender, what: str, names: Sequence[str]) -> str:
    return (
        f"`runs`: {one.source} and {other.source} give {len(names):,} evaluation image(s) different {what} "
        f"({listing(names, _NAMED)}). Find out which of them is right and judge both by it."
    )
