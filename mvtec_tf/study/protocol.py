"""The original study's protocol, kept to repeat its figures and for nothing else.

It evaluates images whose labels it used: the probe is scored on all test images, the labelled ones
included, and the supervised network on the very images that stopped its training. So it passes
the leak check only where the caller says so, and its reports begin with that.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from mvtec_tf.data import leaks
from mvtec_tf.data.protocol import Cut, by_category, split_rows
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import LeakError, UserError

PRETRAIN_SHARE = 0.85
PROBE_FIT_SHARE = 0.7
SUPERVISED_FIT_SHARE = 0.8


def pretrain_part(train_good: Sequence[Record], seed: int) -> tuple[Record, ...]:
    """The 85 % of the good training images that the study's SimCLR saw; groups are not looked at.

    Args:
      train_good: good training images of all categories together.
      seed: of the draw.
    """
    kept = round(PRETRAIN_SHARE * len(train_good))
    chosen = _rng(seed, "pretrain").permutation(len(train_good))[:kept]
    return tuple(train_good[i] for i in sorted(chosen))


def probe_cut(records: Sequence[Record], budget: float, seed: int, allow_leak: bool) -> tuple[Cut, int]:
    """What the study's head was fitted on, and what it was scored on: all test images.

    Of each category a random share of the test images is labelled, whatever they show; the head is
    fitted on 70 % of all that were labelled. The study kept the rest to watch the fit, which changed
    nothing: the number of its epochs is fixed. Groups are not looked at.

    Args:
      records: images of one or more categories.
      budget: share of each category's test images that is labelled.
      seed: of the draws.
      allow_leak: the caller knows that labelled images are among the evaluated ones.

    Returns:
      The cut, whose `labelled` are those that the head is fitted on, and the number of images labelled
      in all.

    Raises:
      LeakError: without `allow_leak`.
      UserError: the budget buys no image to fit.
    """
    tests = tuple(record for record in records if record.split == "test")
    labelled: list[Record] = []
    for category, images in by_category(tests).items():
        order = _rng(seed, category).permutation(len(images))
        labelled += [images[i] for i in order[: round(budget * len(images))]]
    fit = [labelled[i] for i in _rng(seed, "fit").permutation(len(labelled))[: round(PROBE_FIT_SHARE * len(labelled))]]
    if not fit:
        raise UserError(f"`label_budget`={budget}: of {len(tests)} test images none is left to fit. Raise it.")
    cut = Cut(
        train_good=tuple(record for record in records if record.split == "train"),
        labelled=tuple(sorted(fit, key=lambda record: record.path)),
        evaluate=tuple(sorted(tests, key=lambda record: record.path)),
    )
    _check(cut.labelled, "fit", cut.evaluate, allow_leak)
    return cut, len(labelled)


def supervised_parts(records: Sequence[Record], seed: int, allow_leak: bool) -> tuple[list[Record], list[Record]]:
    """The study's 80/20 split of all images, stratified by label: (fit, early-stopped on and evaluated).

    Groups are not looked at: photographs of one object may be on both sides.

    Args:
      records: images of one or more categories.
      seed: of the draw.
      allow_leak: the caller knows that the evaluated images stop the training.

    Raises:
      LeakError: without `allow_leak`.
      UserError: a class has fewer than two images.
    """
    fit: list[Record] = []
    evaluate: list[Record] = []
    for label, kind in ((0, "good"), (1, "defective")):
        images = [record for record in records if record.label == label]
        if len(images) < 2:
            raise UserError(
                f"`protocol`=study: {counted(len(images), f'{kind} image')} found, at least two are needed."
            )
        order = _rng(seed, kind).permutation(len(images))
        kept = min(max(round(SUPERVISED_FIT_SHARE * len(images)), 1), len(images) - 1)
        fit += [images[i] for i in order[:kept]]
        evaluate += [images[i] for i in order[kept:]]
    evaluate.sort(key=lambda record: record.path)
    _check(evaluate, "calibrate", evaluate, allow_leak)
    return sorted(fit, key=lambda record: record.path), evaluate


def _check(seen: Sequence[Record], split: str, evaluate: Sequence[Record], allow_leak: bool) -> None:
    if allow_leak:
        return
    try:
        leaks.check_leaks(split_rows(seen, split) + split_rows(evaluate, "evaluate"), source="`protocol`=study")
    except LeakError as error:
        raise LeakError(
            f"{error}\nThat is what the study did. To repeat it for comparison with its figures add `allow_leak`; "
            "to judge a model use `protocol`=clean."
        ) from error


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"study {purpose}".encode())])
