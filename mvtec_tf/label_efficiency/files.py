"""What the grid leaves on the disk: one file a cell, written as a whole or not at all, and the table of all."""

import json
import pathlib
import re
import zlib
from collections.abc import Iterable
from typing import Any

from mvtec_tf import files
from mvtec_tf.data import protocol
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import Predictions, write_predictions
from mvtec_tf.label_efficiency.cell import METRICS, CellResult
from mvtec_tf.label_efficiency.grid import Cell, order_of, order_of_good

COLUMNS = ("encoder", "head", "category", "budget", "seed", "labelled_images", "labelled_defects", *METRICS)
COLUMNS = (*COLUMNS, "threshold", "fit_seconds", "peak_mb", "good")
TABLE = "cells.csv"


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


def write_cell(folder: pathlib.Path, result: CellResult, predictions: Predictions) -> None:
    """Writes the predictions first: where the figures lie, all is there."""
    path = _place(folder, result.cell)
    write_predictions(path.with_suffix(".csv"), predictions)
    files.write_json(path, result.as_json())


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
