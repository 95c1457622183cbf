"""Computes the cells of the grid that are missing, one by one, so that it can be stopped at any time.

What it leaves on the disk: one file a cell, written as a whole or not at all, and the table of all.
"""

import contextlib
import json
import pathlib
import re
import statistics
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.data import protocol
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record
from mvtec_tf.errors import LeakError, UserError
from mvtec_tf.evaluation.metrics import Costs, Metric, figure
from mvtec_tf.evaluation.report.summary import TITLES
from mvtec_tf.evaluation.table import write_predictions
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.label_efficiency.cell import METRICS, CellResult, Method, compute
from mvtec_tf.label_efficiency.findings import COMPARED
from mvtec_tf.label_efficiency.grid import Cell, Grid, LeftOut, order_of, order_of_good
from mvtec_tf.run_directory import RunDirectory

COLUMNS = (
    *("encoder", "head", "category", "budget", "seed", "labelled_images", "labelled_defects"),
    *(*METRICS, "threshold", "fit_seconds", "peak_mb", "good"),
)
TABLE = "cells.csv"


class Runner:
    """Runs a grid.

    Args:
      grid: what is to be computed.
      methods: (encoder, head) -> how.
      records: all images.
      run: where results go.
      costs: of wrong calls, for rules that need them.
      say: prints a line.
    """

    def __init__(
        self,
        grid: Grid,
        methods: Mapping[tuple[str, str], Method],
        records: Sequence[Record],
        run: RunDirectory,
        costs: Costs,
        say: Callable[[str], None],
    ) -> None:
        self._grid, self._methods = grid, methods
        self._features = _Features(records)
        self._pools = _pools(grid, records)
        self._folder, self._table = run.cells, run.path / TABLE
        self._costs, self._say = costs, say
        self.results: dict[Cell, CellResult] = {}
        self.left_out: list[LeftOut] = list(grid.left_out)

    def run(self) -> Iterator[int]:
        """Computes what is missing. Yields each seed of which there are figures when its last cell is done.

        Raises:
          UserError: not a single cell could be computed.
        """
        cells = self._grid.cells
        self.results = {cell: found for cell in cells if (found := read_cell(self._folder, cell))}
        missing = [cell for cell in cells if cell not in self.results]
        if len(missing) < len(cells):
            self._say(f"{len(cells) - len(missing)} of {len(cells)} cells are there already.")
        clock = _Clock(missing)
        for number, cell in enumerate(cells):
            if cell not in self.results:
                with clock.timing(cell):
                    words = self._compute(cell)
                self._say(f"cell {number + 1} of {len(cells)}: {_name(cell)}: {words}; {clock.left()}")
                write_table(self._table, self.results.values())
            last = number + 1 == len(cells) or cells[number + 1].seed != cell.seed
            if last and any(found.seed == cell.seed for found in self.results):
                yield cell.seed
        if not self.results:
            raise UserError(f"Not one of {len(cells)} cells could be computed. The first: {self.left_out[0].reason}")
        write_table(self._table, self.results.values())

    def _compute(self, cell: Cell) -> str:
        method, cut = self._methods[cell.encoder, cell.head], self._grid.cut(cell)
        features = self._features.of(method.store, cut)
        try:
            pool_images = self._pools[cell.category, cell.seed]
            result, predictions = compute(cell, cut, features, method, self._costs, pool_images)
        except LeakError:
            raise
        except UserError as error:
            # What one cell's labels are too few for says nothing against the others.
            self.left_out.append(LeftOut(cell, str(error)))
            return f"left out: {error}"
        # The predictions first: where the figures lie, all is there.
        path = _place(self._folder, cell)
        write_predictions(path.with_suffix(".csv"), predictions)
        files.write_json(path, result.as_json())
        self.results[cell] = result
        return ", ".join(f"{TITLES[name]} {figure(Metric(result.metrics[name]))}" for name in COMPARED)


class _Features:
    """Features by category, read from their store once: every file's digest is compared then."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_category = protocol.by_category(records)
        self._read: dict[tuple[pathlib.Path, str], FrozenFeatures] = {}
        self._rows = {record.path: row for own in self._by_category.values() for row, record in enumerate(own)}

    def of(self, store: FeatureStore, cut: Cut) -> FrozenFeatures:
        """Of `cut.fit` and `cut.evaluate`, in this order; all of one category."""
        records = (*cut.fit, *cut.evaluate)
        category = records[0].category
        key = store.path, category
        if key not in self._read:
            self._read[key] = store.of(self._by_category[category])
        return self._read[key].select(np.array([self._rows[record.path] for record in records]))


class _Clock:
    """How long is left: cells of one method take about as long as each other, those of different ones do not."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._left = Counter(map(_kind, cells))
        self._spent: dict[tuple[str, ...], list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def timing(self, cell: Cell) -> Iterator[None]:
        """Counts the block as this cell's work."""
        start = time.monotonic()
        yield
        self._spent[_kind(cell)].append(time.monotonic() - start)
        self._left[_kind(cell)] -= 1

    def left(self) -> str:
        """In words."""
        usual = statistics.fmean(seconds for spent in self._spent.values() for seconds in spent)
        seconds = 0.0
        for kind, count in self._left.items():
            spent = self._spent.get(kind)
            seconds += count * (statistics.fmean(spent) if spent else usual)
        return f"about {seconds / 60:.1f} minutes left"


def _pools(grid: Grid, records: Sequence[Record]) -> dict[tuple[str, int], int]:
    """(category, seed) -> how many test images are in the pool: those that are not evaluated."""
    tests = Counter(record.category for record in records if record.split == "test")
    return {(category, seed): tests[category] - len(cut.evaluate) for (category, _, seed, _), cut in grid.cuts.items()}


def _kind(cell: Cell) -> tuple[str, ...]:
    return cell.category, cell.encoder, cell.head, cell.good


def _name(cell: Cell) -> str:
    good = "" if cell.good == protocol.ALL else f", {cell.good} of the good objects"
    return f"{cell.category}, {cell.encoder}, {cell.head}, budget {cell.budget}, seed {cell.seed}{good}"


def read_cell(folder: pathlib.Path, cell: Cell) -> CellResult | None:
    """A cell that an earlier call has computed, or None.

    Args:
      folder: `cells/` of the run.
      cell: which.

    Raises:
      UserError: its file is damaged.
    """
    path = _place(folder, cell)
    try:
        return CellResult.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no figures of a cell ({error}). Remove it and repeat the command.") from error


def _place(folder: pathlib.Path, cell: Cell) -> pathlib.Path:
    good = "" if cell.good == protocol.ALL else f"_good_{cell.good}"
    name = f"{_plain(cell.head)}_{cell.budget}_{cell.seed}{good}.json"
    return folder / _plain(cell.category) / _plain(cell.encoder) / name


def _plain(name: str) -> str:
    """A file name for free text; two texts never have one name."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"


def write_table(path: pathlib.Path, results: Iterable[CellResult]) -> None:
    """`cells.csv`, sorted; a figure that does not exist is an empty field."""
    files.write_csv(path, COLUMNS, map(_line, in_order(results)))


def in_order(results: Iterable[CellResult]) -> list[CellResult]:
    """By encoder, head, category, budget, seed and number of good objects."""

    def place(result: CellResult) -> tuple[Any, ...]:
        cell = result.cell
        return cell.encoder, cell.head, cell.category, order_of(cell.budget), cell.seed, order_of_good(cell.good)

    return sorted(results, key=place)


def _line(result: CellResult) -> list[Any]:
    values = vars(result) | vars(result.cell) | result.metrics
    return [values[name] for name in COLUMNS]
