"""The words by which people call a good part, a defective one, and the folders of a data set."""

import re

from mvtec_tf.data.record import DEFECTIVE, GOOD, MASKS, TEST, TRAIN

_GOOD = frozenset((GOOD, "ok", "okay", "io", "pass", "passed", "normal"))
_DEFECTIVE = frozenset(
    (
        *(DEFECTIVE, "defect", "defects", "bad", "ng", "nok", "nio", "notok", "notgood", "fail", "failed", "faulty"),
        *("reject", "rejected", "anomaly", "anomalies", "anomalous", "abnormal"),
    )
)
# "Mask" alone may be a kind of defect, as on a circuit board.
_MASKS = frozenset(("groundtruth", "groundtruths"))


def is_good(word: str) -> bool:
    """Whether a folder's name, a label or a defect type says "good"."""
    return bare(word) in _GOOD


def is_defective(word: str) -> bool:
    """Whether a folder's name or a label says "defective" and nothing more."""
    return bare(word) in _DEFECTIVE


def is_masks(word: str) -> bool:
    """Whether a folder of this name holds masks."""
    return bare(word) in _MASKS


def part_of(name: str) -> str:
    """`TRAIN`, `TEST`, `GOOD`, `DEFECTIVE` or `MASKS`, whichever a folder of this name is in its category; or ""."""
    if name.casefold() in (TRAIN, TEST):
        return name.casefold()
    meanings = {MASKS: is_masks, GOOD: is_good, DEFECTIVE: is_defective}
    return next((part for part, says in meanings.items() if says(name)), "")


def bare(word: str) -> str:
    """A word without what people write differently: case, spaces, dots, hyphens, underscores."""
    return re.sub(r"[\s._-]", "", word.casefold())
