"""The cells of the label-efficiency grid: which there are, in which order, and which cannot be."""

import dataclasses
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.protocol import BudgetError, Cut
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.heads.settings import NEED_LABELS

# What `budgets` asks for if nobody says: nothing, 1 to 25 % of the test images, the whole pool, and the two counts
# of labelled anomalies that the literature reports (Ding et al., CVPR 2022; Zhu et al., CVPR 2024).
BUDGETS = ("0", "0.01", "0.02", "0.05", "0.1", "0.25", "all", "1d", "10d")
QUICK_BUDGETS = ("0", "0.05", "0.1", "all")
# Of numbers of good objects: half of those there are, and the label budget at which they are compared.
HALF, NO_LABELS = "half", "0"


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One figure of the grid: one head on one encoder's features, for one category, budget and seed.

    Attributes:
      category: of the images.
      budget: as it is written, e.g. "0.1", "all" or "10d".
      encoder: name of the encoder.
      head: name of the head, "auto" for the recipe.
      seed: of the cut, of the labels drawn, of the folds, of the good objects drawn, and of what the head draws.
      good: how many good training objects it has, as it is written: "4", "half" or "all".
    """

    category: str
    budget: str
    encoder: str
    head: str
    seed: int
    good: str = protocol.ALL


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A cell that cannot be.

    Attributes:
      cell: which.
      reason: why, in words.
    """

    cell: Cell
    reason: str


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is to be computed.

    Attributes:
      cells: in the order of their computation: seed by seed, so that early cells span all heads and budgets.
      cuts: (category, budget, seed, good) -> who is who.
      left_out: what was asked for and cannot be.
    """

    cells: tuple[Cell, ...]
    cuts: Mapping[tuple[str, str, int, str], Cut]
    left_out: tuple[LeftOut, ...]

    def cut(self, cell: Cell) -> Cut:
        """Of a cell."""
        return self.cuts[cell.category, cell.budget, cell.seed, cell.good]

    def good_objects(self, cell: Cell) -> int:
        """How many good training objects a cell has."""
        return len({record.group for record in self.cut(cell).train_good})

    def evaluated(self) -> list[Record]:
        """Every image that any cell is judged on."""
        return list(dict.fromkeys(record for cut in self.cuts.values() for record in cut.evaluate))


def parse_budgets(texts: Sequence[str]) -> tuple[str, ...]:
    """Budgets in their shortest spelling.

    Raises:
      UsageError: none, one twice, or one that makes no sense.
    """
    found = [_spelled(protocol.parse_budget(text.strip(), "`budgets`")) for text in texts]
    twice = sorted({name for name in found if found.count(name) > 1})
    if not found or twice:
        said = f"{', '.join(twice)} stands there twice" if twice else "there is none"
        raise UsageError(f"`budgets`={','.join(texts)}: {said}. Expected different ones, such as {','.join(BUDGETS)}.")
    return tuple(found)


def parse_good_budgets(texts: Sequence[str] | None) -> tuple[str, ...]:
    """Numbers of good training objects, ascending, then `half` and `all`, which are there wherever a number is.

    Raises:
      UsageError: one that is neither a number from 1 on nor `half` nor `all`, one twice, or none but `all`.
    """
    if texts is None:
        return ()
    names = [text.strip() for text in texts]
    numbers = [name for name in names if name not in (HALF, protocol.ALL)]
    if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[1-9]\d{0,8}", name) for name in numbers):
        raise UsageError(
            f"`good_budgets`={','.join(texts)}: expected different numbers of good training objects, half or all, such "
            "as 1,2,4,8,16,all."
        )
    return (*sorted(numbers, key=int), HALF, protocol.ALL)


def _spelled(budget: protocol.Budget) -> str:
    if budget is None:
        return protocol.ALL
    return f"{budget:g}" if isinstance(budget, float) else str(budget)


def order_of(budget: str) -> tuple[int, float]:
    """Sorts budgets: shares ascending, the whole pool, then numbers of defects."""
    parsed = protocol.parse_budget(budget)
    if parsed is None:
        return 1, 0.0
    return (0, parsed) if isinstance(parsed, float) else (2, float(parsed.objects))


def order_of_good(good: str) -> tuple[int, int]:
    """Sorts numbers of good objects: numbers ascending, half of them, all."""
    names = (HALF, protocol.ALL)
    return (1, names.index(good)) if good in names else (0, int(good))


def make_grid(
    records: Sequence[Record],
    methods: Sequence[tuple[str, str]],
    budgets: Sequence[str],
    seeds: Sequence[int],
    head_names: Mapping[str, str],
    good_budgets: Sequence[str] = (),
) -> Grid:
    """All cells, and those that cannot be with their reasons.

    Args:
      records: images of one or more categories.
      methods: (encoder, head) each.
      budgets: see `parse_budgets`.
      seeds: of the cuts.
      head_names: head -> key of `heads.settings.HEADS`, for heads that go by another name.
      good_budgets: see `parse_good_budgets`; each is a cell without labels, so that NO_LABELS joins the budgets.

    Raises:
      UsageError: no cell is left.
      UserError: a category has too few test images for the protocol.
      LeakError: one object is both in train/good and among the test images.
    """
    cuts: dict[tuple[str, str, int, str], Cut] = {}
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    categories = protocol.by_category(records)
    if good_budgets:
        budgets = tuple(dict.fromkeys((*budgets, NO_LABELS)))
    for seed, budget, category, good in _places(categories, budgets, seeds, good_budgets):
        here = [Cell(category, budget, encoder, head, seed, good) for encoder, head in methods]
        try:
            cut = protocol.clean(categories[category], protocol.parse_budget(budget), seed)
            _check_halves(category, categories[category], cut)
            cut = _with_good(cut, good, category, seed)
        except (BudgetError, _TooFewError) as error:
            reason = error.reason if isinstance(error, BudgetError) else str(error)
            left_out += [LeftOut(cell, reason) for cell in here]
            continue
        cuts[category, budget, seed, good] = cut
        unlabelled = not any(record.label for record in cut.labelled)
        for cell in here:
            if unlabelled and head_names.get(cell.head, cell.head) in NEED_LABELS:
                left_out.append(LeftOut(cell, f"the head {cell.head} needs labelled defects, and none are bought"))
            else:
                cells.append(cell)
    if not cells:
        reasons = "; ".join(dict.fromkeys(item.reason for item in left_out))
        raise UsageError(f"`budgets`={','.join(budgets)}: nothing can be computed of what was asked for: {reasons}.")
    return Grid(tuple(cells), cuts, tuple(left_out))


class _TooFewError(Exception):
    """There are no more good training objects than all cells have."""


def _with_good(cut: Cut, good: str, category: str, seed: int) -> Cut:
    """The cut with so many good training objects only, which are among those of every larger number."""
    if good == protocol.ALL:
        return cut
    objects = sorted({record.group for record in cut.train_good})
    wanted = len(objects) // 2 if good == HALF else int(good)
    if not 0 < wanted < len(objects):
        raise _TooFewError(
            f"category {category!r} has {counted(len(objects), 'good training object')}: {good} of them are none, or "
            "no fewer than all"
        )
    order = np.random.default_rng([seed, zlib.crc32(f"good {category}".encode())]).permutation(len(objects))
    drawn = {objects[number] for number in order[:wanted]}
    return dataclasses.replace(cut, train_good=tuple(one for one in cut.train_good if one.group in drawn))


def _check_halves(category: str, records: Sequence[Record], cut: Cut) -> None:
    """Refuses a category that was not cut, which budget 0 alone would be judged on: draws of it are all the same."""
    if len(cut.evaluate) == sum(record.split == "test" for record in records):
        raise UserError(
            f"category {category!r}: its test images are too few for a pool and an evaluation part. At least "
            "two good and two defective ones are needed, of different objects. So nothing can be compared on it; "
            "mvtec-tf fit with `recipe`=few_labels and `label_budget`=0 fits without."
        )


def _places(
    categories: Mapping[str, Sequence[Record]], budgets: Sequence[str], seeds: Sequence[int], goods: Sequence[str]
) -> Iterator[tuple[int, str, str, str]]:
    for seed in seeds:
        for budget in sorted(budgets, key=order_of):
            for good in (goods if budget == NO_LABELS and goods else (protocol.ALL,)):
                for category in sorted(categories):
                    yield seed, budget, category, good
