"""Cells of a study that a kill may interrupt, a line of JSON each, and how far they are from what they started from."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.errors import UsageError
from mvtec_tf.label_efficiency.statistics import Estimate, estimate, holm

_ALPHA = 0.05
# (set, way, seed)
Place = tuple[str, str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetsAndFolder:
    """What a study is of, and where its cells lie.

    Attributes:
      out: folder for cells.jsonl and table.md.
      data_dir: the sets, one category each.
      label_budget: label budget, one for all sets or one each.
      most_good: good training images at most, drawn at random.
    """

    out: str
    data_dir: tuple[str, ...] = dataclasses.field(metadata={"paths": True})
    label_budget: tuple[str, ...] = ("0.1",)
    most_good: int = 100


def read_cells(file: pathlib.Path) -> dict[Place, dict[str, Any]]:
    """(set, way, seed) -> its line. A line that a kill has cut short is left out."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            cell = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[cell["set"], cell["way"], cell["seed"]] = cell
    return found


def append(file: pathlib.Path, cell: Mapping[str, Any]) -> None:
    """Adds the line of a cell, behind what a kill may have left of another one."""
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read() != b"\n":
                lines.write(b"\n")
        lines.write(json.dumps(cell).encode() + b"\n")


def check_same(file: pathlib.Path, asked: Mapping[str, Any]) -> None:
    """Writes what all cells of a folder are of, or raises UsageError if those that are there are of something else."""
    now = json.loads(json.dumps(asked))
    if file.exists() and (then := files.read_json(file)) != now:
        other = ", ".join(f"{name} {then.get(name)} (now {now[name]})" for name in now if then.get(name) != now[name])
        raise UsageError(f"`out`: the cells in {file.parent} are of another {other}. Choose a new folder.")
    files.write_json(file, now)


def opened(asked: Any, known: Collection[str], may_differ: Collection[str]) -> pathlib.Path:
    """The file of a study's cells, which need not be there.

    Args:
      asked: settings of the study, `out` and `ways` among them.
      known: names of ways that there are.
      may_differ: names of settings that may be others when cells are added.

    Raises:
      UsageError: a way is unknown, or the cells that are there are of other settings.
    """
    if unknown := [way for way in asked.ways if way not in known]:
        raise UsageError(f"`ways`={','.join(unknown)}: unknown. Known are {', '.join(known)}.")
    file = pathlib.Path(asked.out) / "cells.jsonl"
    alike = {name: value for name, value in vars(asked).items() if name not in may_differ}
    check_same(file.with_name("settings.json"), alike)
    return file


def budgets(asked: Any) -> list[tuple[str, str]]:
    """Each set of a study with its label budget; one budget is that of all sets."""
    count = len(asked.data_dir) if len(asked.label_budget) == 1 else 1
    return list(zip(asked.data_dir, asked.label_budget * count, strict=True))


def table(
    cells: Mapping[Place, Mapping[str, Any]], head: str, ways: Iterable[str], start_of: Callable[[str], str]
) -> str:
    """Markdown: a figure of each way and set by one head, and how far it is from what the way started from.

    Differences are paired by draw, means over the seeds of a way, with the corrected interval of
    `label_efficiency.statistics`; their mean over sets has that of a t-test over sets, which share nothing. A star: so
    also after Holm's correction over all differences of the table.

    Args:
      cells: their lines: `figures`, head -> one number a draw; `cuts`, how many sets of images the draws judge, of one
        of which there is no interval; and `ratio`, of images judged to images not judged.
      head: which figures.
      ways: in the order of the rows.
      start_of: way -> the one that it started from, of which there is no difference.
    """
    own: dict[tuple[str, str], list[Any]] = {}
    for (name, way, _), cell in cells.items():
        if head in cell["figures"]:
            own.setdefault((name, way), []).append(cell["figures"][head])
    draws = {place: np.mean(values, axis=0) for place, values in own.items()}
    # Draws that judge the same images all tell of one cut, and their spread is none of cuts.
    once = {name for (name, _, _), cell in cells.items() if cell["cuts"] == 1}
    draws = {place: values.mean(keepdims=True) if place[0] in once else values for place, values in draws.items()}
    sets = list(dict.fromkeys(name for name, _ in draws))
    ratio = {name: cell["ratio"] for (name, _, _), cell in cells.items()}
    rows: list[list[Any]] = []
    for way in [way for way in ways if any((name, way) in draws for name in sets)]:
        before = start_of(way)
        gains = {
            name: estimate(draws[name, way] - draws[name, before], ratio[name])
            for name in sets
            if way != before and (name, way) in draws and (name, before) in draws
        }
        over = [estimate([one.metric.value for one in gains.values()], 0.0)] if gains else [None]
        means = [f"{draws[name, way].mean():.3f}" if (name, way) in draws else "-" for name in sets]
        rows.append([way, *zip([*means, ""], [*map(gains.get, sets), *over], strict=True)])
    tested = [one for _, *row in rows for _, one in row if one is not None and one.p_value is not None]
    holds = {id(one) for one, p in zip(tested, holm([one.p_value for one in tested]), strict=True) if p < _ALPHA}
    lines = [f"| {head} | " + " | ".join(sets) + " | mean difference |", "|" + "---|" * (len(sets) + 2)]
    for way, *row in rows:
        texts = [", ".join(filter(None, [mean, _signed(one) + " *" * (id(one) in holds)])) for mean, one in row]
        lines.append(f"| {way} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def write(file: pathlib.Path, tables: Iterable[str]) -> None:
    """Writes tables beside the file of the cells that they are of, and prints them."""
    text = "\n\n".join(tables)
    files.write_text(file.with_name("table.md"), text + "\n")
    print(text)


def _signed(found: Estimate | None) -> str:
    if found is None:
        return ""
    metric = found.metric
    interval = "" if metric.low is None else f" [{metric.low:+.3f}, {metric.high:+.3f}]"
    return f"{metric.value:+.3f}{interval}"


