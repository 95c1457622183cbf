"""Who may see which image. The protocol `clean` is the one whose figures mean what they say.

Per category and seed, the test images are cut once into a pool and an evaluation part, the same
for every method and every label budget. Labels come from the pool only, and every label that is
used for anything (fitting, early stopping, model choice, a threshold) counts against the budget.
`train/good` needs no inspection to be had, so it is open to every method, and is never evaluated.
"""

import dataclasses
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError, UserError

ALL = "all"
# Behind a number of defective objects: 10d.
_DEFECTS = "d"


@dataclasses.dataclass(frozen=True)
class DefectCount:
    """A label budget of so many defective objects of each category, and of no good test image: the protocol in which
    the literature counts labelled anomalies (Ding et al., "Catching both gray and black swans", CVPR 2022).

    Attributes:
      objects: how many; all defective images of each are labelled.
    """

    objects: int

    def __str__(self) -> str:
        """As it is written at a command line."""
        return f"{self.objects}{_DEFECTS}"


# A share of all test images, a number of defective objects, or None for the whole pool.
Budget = float | DefectCount | None


class BudgetError(UserError):
    """A budget does not buy what it must in one category.

    Attributes:
      reason: the message without the flag.
    """

    def __init__(self, budget: Budget, reason: str) -> None:
        super().__init__(f"`label_budget`={ALL if budget is None else budget}: {reason}")
        self.reason = reason


class TooFewObjectsError(UserError):
    """A category has too few good or defective test objects to be on both sides of the cut."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """What a method may see.

    Attributes:
      train_good: good training images, open to every method.
      labelled: the part of the pool whose labels the budget buys.
      evaluate: the images that are scored and seen by nobody before.
    """

    train_good: tuple[Record, ...]
    labelled: tuple[Record, ...]
    evaluate: tuple[Record, ...]

    def __repr__(self) -> str:
        """How many images each part has."""
        parts = (self.train_good, self.labelled, self.evaluate)
        good, labelled, judged = (f"{len(part):,} ({sum(one.label for one in part):,} defective)" for part in parts)
        return f"<Cut: train_good {good}, labelled {labelled}, evaluate {judged}>"

    @property
    def fit(self) -> tuple[Record, ...]:
        """The images that a method may be fitted on: good training images, then labelled ones."""
        return (*self.train_good, *self.labelled)

    @property
    def fit_labels(self) -> np.ndarray:
        """Labels of `fit`, int64 [N], 1 = defective."""
        return np.array([record.label for record in self.fit], np.int64)

    @property
    def evaluate_labels(self) -> np.ndarray:
        """Labels of `evaluate`, int64 [N], 1 = defective: for judging, never for fitting."""
        return np.array([record.label for record in self.evaluate], np.int64)


@dataclasses.dataclass(frozen=True)
class SplitRow:
    """One use of one image, the form in which uses are checked for leaks."""

    path: str
    group: str
    category: str
    split: str


def parse_budget(text: str, flag: str = "`label_budget`") -> Budget:
    """A label budget: a share of all test images, `all` (the whole pool), or `10d` (ten defective objects).

    Args:
      text: as it is written at a command line.
      flag: that it was given to, for the message.

    Raises:
      UsageError: it is none of these; a share is at most 0.5 (the pool is half of the test images).
    """
    if text == ALL:
        return None
    if re.fullmatch(rf"[1-9]\d*{_DEFECTS}", text):
        return DefectCount(int(text.removesuffix(_DEFECTS)))
    try:
        budget = float(text)
    except ValueError:
        budget = -1.0
    if not 0 <= budget <= 0.5:
        raise UsageError(
            f"{flag}={text}: expected {ALL!r}, a share of all test images from 0 to 0.5 (half of them are kept for "
            "evaluation), or a number of defective objects such as 10d."
        )
    return budget


def clean(records: Sequence[Record], budget: Budget, seed: int) -> Cut:
    """The protocol `clean`.

    A category with fewer than two good or two defective test objects cannot be cut. Without labels (budget 0) it need
    not be: all its test images are evaluated, be they good ones only.

    Args:
      records: images of one or more categories.
      budget: share of all test images of each category whose labels may be used, or how many defective objects of
        each; None: the pool.
      seed: of the cut and of the draw; a category's cut does not depend on the other categories.

    Raises:
      BudgetError: in a category the budget buys no defective image, or there are fewer than it says.
      TooFewObjectsError: a category has too few test images for its budget.
      LeakError: one group is both in train/good and among the test images.
    """
    labelled: list[Record] = []
    evaluate: list[Record] = []
    for category, images in by_category(records).items():
        tests = [image for image in images if image.split == "test"]
        # A name of its own for each category's generator: adding a category changes no other cut.
        rng = np.random.default_rng([seed, zlib.crc32(category.encode())])
        try:
            pool, held_out = _cut_in_half(category, tests, rng)
        except TooFewObjectsError:
            # Where nothing is bought, nothing need be set aside to buy from.
            if budget != 0 or all(record.label for record in tests):
                raise
            pool, held_out = [], tests
        labelled += _draw(category, pool, len(tests), budget, rng)
        evaluate += held_out
    return _checked(records, labelled, evaluate)


def one_class(records: Sequence[Record]) -> Cut:
    """The protocol `one_class` of the literature: all good training images, all test images, no label.

    Bergmann et al., "MVTec AD", CVPR 2019, section 4.

    Args:
      records: images of one or more categories.

    Raises:
      TooFewObjectsError: a category lacks good or defective test images, so nothing can be ranked.
      LeakError: one group is both in train/good and among the test images.
    """
    for category, images in by_category(records).items():
        found = {label: sum(image.split == "test" and image.label == label for image in images) for label in (0, 1)}
        if not all(found.values()):
            raise TooFewObjectsError(
                f"category {category!r}: {found[0]} good and {found[1]} defective test images; `protocol`=one_class "
                "ranks one against the other. `protocol`=clean with `label_budget`=0 judges good ones alone."
            )
    return _checked(records, [], [record for record in records if record.split == "test"])


def hold_out(
    records: Sequence[Record], share: float, seed: int, needed: frozenset[int] = frozenset((0, 1))
) -> tuple[list[Record], list[Record]]:
    """Cuts whole groups into (kept, held out), stratified by category and defect type.

    Every stratum of at least two groups gives at least one to each side, so that a rare defect type
    is both learned and watched. Where so few are labelled that no type has two groups, the strata
    are category and label.

    Args:
      records: images of one or more categories.
      share: share of the groups that is held out.
      seed: random seed of the cut.
      needed: labels that must be on both sides.

    Raises:
      UserError: a needed class has fewer than two groups, so that it cannot be on both sides.
    """
    for by_defect in (True, False):
        kept, held = _hold_out(records, share, seed, by_defect)
        if needed <= {record.label for record in kept} & {record.label for record in held}:
            return kept, held
    counts = [len({record.group for record in records if record.label == label}) for label in (0, 1)]
    if 1 not in needed:
        raise UserError(
            f"Images to fit and images held out of them need good ones each; found {counted(counts[0], 'good object')} "
            "in all. Add good images."
        )
    raise UserError(
        f"Images to fit and images to stop early need good and defective ones each; found {counts[0]} good and "
        f"{counts[1]} defective objects in all. Raise `label_budget`, or train on drawn defects "
        "(`synthetic_defects`=0.5)."
    )


def _hold_out(records: Sequence[Record], share: float, seed: int, by_defect: bool) -> tuple[list[Record], list[Record]]:
    kept: list[Record] = []
    held: list[Record] = []
    rng = np.random.default_rng([seed, zlib.crc32(b"hold_out")])
    for groups in _strata(records, by_defect).values():
        order = [groups[i] for i in rng.permutation(len(groups))]
        count = min(max(round(share * len(order)), 1), len(order) - 1)
        held += [record for group in order[:count] for record in group]
        kept += [record for group in order[count:] for record in group]
    return sorted(kept, key=_path), sorted(held, key=_path)


def folds(records: Sequence[Record], count: int, seed: int) -> np.ndarray:
    """A fold number from 0 to count-1 for each record, int64 [N]: whole groups, stratified by category and label.

    Each class of a category is spread over as many folds as it has groups. A class of one group
    cannot be held out without being lost to the fit: its fold is -1.
    """
    fold_of: dict[str, int] = {}
    rng = np.random.default_rng([seed, zlib.crc32(b"folds")])
    sizes = np.zeros(count, np.int64)
    for groups in _strata(records, by_defect=False).values():
        if len(groups) == 1:
            fold_of[groups[0][0].group] = -1
            continue
        shuffled = [groups[i] for i in rng.permutation(len(groups))]
        # Within a class every fold is filled once before any is filled twice; smallest first, so
        # that classes of odd sizes do not all put their remainder into fold 0.
        for start in range(0, len(shuffled), count):
            for fold, group in zip(np.argsort(sizes, kind="stable"), shuffled[start : start + count], strict=False):
                fold_of[group[0].group] = int(fold)
                sizes[fold] += len(group)
    return np.array([fold_of[record.group] for record in records], np.int64)


def split_rows(records: Iterable[Record], split: str) -> list[SplitRow]:
    """The uses of `records` as `split`, for `leaks.check_leaks`."""
    return [SplitRow(record.path, record.group, record.category, split) for record in records]


def _checked(records: Iterable[Record], labelled: Iterable[Record], evaluate: Iterable[Record]) -> Cut:
    """The cut with all good training images among `records`. Raises LeakError, see `clean`."""
    cut = Cut(
        train_good=tuple(record for record in records if record.split == "train"),
        labelled=tuple(sorted(labelled, key=_path)),
        evaluate=tuple(sorted(evaluate, key=_path)),
    )
    seen = split_rows(cut.train_good, "pretrain") + split_rows(cut.labelled, "fit")
    leaks.check_leaks(seen + split_rows(cut.evaluate, "evaluate"), source="`data_dir`")
    return cut


def _path(record: Record) -> str:
    return record.path


def by_category(records: Iterable[Record]) -> dict[str, list[Record]]:
    """category -> its records, in their order."""
    categories: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        categories[record.category].append(record)
    return categories


def _strata(records: Sequence[Record], by_defect: bool = True) -> dict[tuple[str, str], list[list[Record]]]:
    """(category, kind of the group) -> groups, each a list of records; order is by path.

    The kind is the group's defect types, or only whether it is defective.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=_path):
        groups[record.group].append(record)
    strata: dict[tuple[str, str], list[list[Record]]] = defaultdict(list)
    for group in groups.values():
        defects = "+".join(sorted({record.defect for record in group}))
        kind = defects if by_defect else str(max(record.label for record in group))
        strata[group[0].category, kind].append(group)
    return dict(sorted(strata.items()))


def _cut_in_half(category: str, tests: Sequence[Record], rng: np.random.Generator) -> tuple[list[Record], list[Record]]:
    """Whole groups to (pool, evaluation), balanced by images within each defect type."""
    pool: list[Record] = []
    held_out: list[Record] = []
    for groups in _strata(tests).values():
        here = [0, 0]
        # Largest first: late small groups can even out what an early large one upset.
        order = sorted((groups[i] for i in rng.permutation(len(groups))), key=len, reverse=True)
        for group in order:
            lead = here[0] - here[1] or len(pool) - len(held_out)
            side = int(lead > 0)
            here[side] += len(group)
            (held_out if side else pool).extend(group)
    for name, part in (("pool", pool), ("evaluation part", held_out)):
        for label, kind in ((0, "good"), (1, "defective")):
            if not any(record.label == label for record in part):
                found = sum(record.label == label for record in tests)
                raise TooFewObjectsError(
                    f"category {category!r}: no {kind} test image is left for the {name} (found {found} "
                    "in all). At least two of each kind are needed, showing different objects (by groups.csv or the "
                    "column group). What needs no labels can do without, with `label_budget`=0: mvtec-tf fit with "
                    "`recipe`=few_labels, mvtec-tf baseline, or mvtec-tf train-cnn with `synthetic_defects`=0.5."
                )
    return pool, held_out


def _draw(category: str, pool: Sequence[Record], tests: int, budget: Budget, rng: np.random.Generator) -> list[Record]:
    """Whole groups of the pool, at most `budget` * `tests` images; or the defective images of so many groups. Each
    defect type in its share."""
    if budget is None:
        return list(pool)
    order = _in_random_order(pool, rng)
    if isinstance(budget, DefectCount):
        return _draw_defects(category, order, budget)
    wanted = round(budget * tests)
    # A small budget's first purchase is a defect: good images are to be had without labels.
    fitting = (group for group in order if len(group) <= wanted and any(record.label for record in group))
    first = next(fitting, None)
    order.sort(key=lambda group: group is not first)
    drawn: list[Record] = []
    for group in order:
        if len(drawn) + len(group) <= wanted:
            drawn += group
    if budget and not any(record.label for record in drawn):
        raise BudgetError(
            budget,
            f"{wanted} of the {tests} test images of category {category!r} may be labelled, and no defective one is "
            "among them. Raise the budget, or use 0 where no label is needed.",
        )
    return drawn


def _in_random_order(pool: Sequence[Record], rng: np.random.Generator) -> list[list[Record]]:
    """The groups of the pool, every beginning of the list with each defect type in its share."""
    # Systematic sampling: the j-th group of a stratum of n stands at (j + u) / n, so that every
    # beginning of the sorted order holds each stratum in proportion.
    positions = []
    for groups in _strata(pool).values():
        shuffled = [groups[i] for i in rng.permutation(len(groups))]
        offsets = rng.random(len(groups))
        positions += [((j + offsets[j]) / len(groups), group) for j, group in enumerate(shuffled)]
    return [group for _, group in sorted(positions, key=lambda item: item[0])]


def _draw_defects(category: str, order: Sequence[list[Record]], budget: DefectCount) -> list[Record]:
    """The defective images of the first so many defective groups."""
    defective = [own for group in order if (own := [record for record in group if record.label])]
    if len(defective) < budget.objects:
        raise BudgetError(
            budget,
            f"the pool of category {category!r} (half of its test images) holds {len(defective)} defective objects. "
            "Lower the number, or use 'all'.",
        )
    return [record for own in defective[: budget.objects] for record in own]
