"""The threshold above which an image is called defective: chosen on calibrate rows, never assumed.

A score has no natural middle: half of its range, or 0.5, says nothing about defects. So without
calibrate rows there is no threshold, and the figures that need one do not exist.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import conformal
from mvtec_tf.data import leaks
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation.intervals import LEVEL, Bootstrap, Resampling
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.promised import Promise, above
from mvtec_tf.evaluation.smooth_cut import smooth_cut
from mvtec_tf.evaluation.table import Predictions

YOUDEN = "youden"
SMOOTH_YOUDEN = "smooth_youden"
BEST_F1 = "best_f1"
TARGET_RECALL = "target_recall"
TARGET_SPECIFICITY = "target_specificity"
LEAST_COST = "least_cost"
METHODS = (YOUDEN, SMOOTH_YOUDEN, BEST_F1, TARGET_RECALL, TARGET_SPECIFICITY, LEAST_COST)
CONFORMAL = "conformal"
LIMIT = "prediction_limit"
GIVEN = "given"
NONE = "none"

PER_MODEL = "model"
PER_CATEGORY = "category"

# A share of 30 images is known to +-18 percentage points: 1.96 * sqrt(0.5 * 0.5 / 30) = 0.179.
FEW = 30
_NO_CALIBRATE = "there are no calibrate rows to choose a threshold on"


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
      method: one of `METHODS`.
      per: "model" for one threshold, "category" for one of each category.
      target: the wanted recall or specificity; only of the two methods that need one.

    Raises:
      ValueError: an unknown name, a missing, needless or impossible target.
    """

    method: str = YOUDEN
    per: str = PER_MODEL
    target: float | None = None

    def __post_init__(self) -> None:
        """Refuses what the attributes may not be."""
        if self.method not in METHODS or self.per not in (PER_MODEL, PER_CATEGORY):
            raise ValueError(f"expected one of {METHODS}, per model or category. Received: {self.method}, {self.per}")
        if (self.target is not None) != (self.method in (TARGET_RECALL, TARGET_SPECIFICITY)):
            raise ValueError(f"a target goes with target_recall and target_specificity. Received: {self}")
        if self.target is not None and not 0 < self.target <= 1:
            raise ValueError(f"expected a target above 0 and up to 1. Received: {self.target}")


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold and where it comes from.

    Attributes:
      value: a score that reaches it is called defective; None if there is no threshold.
      method: one of `METHODS`, "conformal", "prediction_limit", "given" or "none".
      reason: in words, how it was chosen, or why there is none.
      images: how many calibrate rows it was chosen on.
      defects: how many of them are defective.
      low, high: ends of its interval, None where none was computed.
      warning: why it should not be relied on, "" if nothing speaks against it.
      promised: share of new good objects that is stopped at most, None if none is promised.
    """

    value: float | None
    method: str
    reason: str
    images: int = 0
    defects: int = 0
    low: float | None = None
    high: float | None = None
    warning: str = ""
    promised: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> "Threshold":
        """The threshold of this form. Raises KeyError: it is none."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(form[name] for name in names[:3]), **{name: form[name] for name in names[3:] if name in form})


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The threshold of the model, or of each category.

    Attributes:
      whole: chosen on all calibrate rows; also of categories that have too few of their own.
      categories: of each category with its own; empty if the model has one threshold for all.
    """

    whole: Threshold
    categories: Mapping[str, Threshold] = dataclasses.field(default_factory=dict)

    @property
    def per(self) -> str:
        """"model" or "category"."""
        return PER_CATEGORY if self.categories else PER_MODEL

    def of(self, category: str) -> Threshold:
        """The threshold that a category's images are called by."""
        return self.categories.get(category, self.whole)

    @property
    def together(self) -> Threshold:
        """The threshold of all images together; without a value where categories have their own."""
        if not self.categories:
            return self.whole
        return Threshold(None, self.whole.method, "each category has its own threshold")

    def each(self, categories: np.ndarray) -> float | np.ndarray | None:
        """The threshold of each image, float [N]; one number if it is the same for all, None if there is none."""
        if self.whole.value is None or not self.categories:
            return self.whole.value
        return np.array([self.of(category).value for category in categories], np.float64)

    def as_json(self) -> dict[str, Any]:
        """The form in `metrics.json`: the whole's, with "per" and each category's own."""
        own = {name: threshold.as_json() for name, threshold in self.categories.items()}
        return self.whole.as_json() | {"per": self.per, "categories": own}


def given(value: float, reason: str = "it was given") -> Threshold:
    """A threshold that was named by the user, or by who made the predictions.

    Raises:
      ValueError: it is not finite.
    """
    if not np.isfinite(value):
        raise ValueError(f"expected a finite threshold. Received: {value}")
    return Threshold(float(value), GIVEN, reason)


def told(values: Mapping[str, float], reason: str) -> Chosen:
    """The thresholds that the model itself called images by.

    Args:
      values: category -> its threshold, one or more.
      reason: who says so, in words.
    """
    each = {category: given(value, reason) for category, value in values.items()}
    first = next(iter(each.values()))
    return Chosen(first) if len(set(values.values())) == 1 else Chosen(first, each)


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """What a threshold is chosen on.

    Attributes:
      rows: calibrate rows.
      left_out: how many good ones are not among them, because the encoder was pretrained on their objects.
      pretrained: how many of them are, because there are too few others.
    """

    rows: Predictions
    left_out: int = 0
    pretrained: int = 0

    @property
    def reason(self) -> str:
        """What belongs to the reason of a threshold, "" if nothing was left out."""
        if not self.left_out:
            return ""
        return (
            f"; {counted(self.left_out, 'good image')} that the encoder was pretrained on "
            f"{'was' if self.left_out == 1 else 'were'} left out"
        )

    @property
    def warning(self) -> str:
        """Why the threshold should not be relied on, "" if nothing speaks against it."""
        if not self.pretrained:
            return ""
        good = int((self.rows.label == 0).sum())
        return (
            f"{self.pretrained} of the {good} good calibrate images were used to pretrain the encoder, which may score "
            "new good parts higher and stop more of them"
        )


def held_out_rows(predictions: Predictions, rule: Rule) -> HeldOut:
    """The calibrate rows that a threshold may rest on.

    A network knows the images that it was trained on, also without their labels, so a head on its features tends to
    score them lower than new ones: good rows of objects that are among the pretrain rows are left out where enough
    others are left.

    Args:
      predictions: all rows of a table.
      rule: how the threshold is chosen, and so how many good objects are enough.
    """
    calibrate = predictions.part(leaks.CALIBRATE)
    pretrained = set(predictions.part(leaks.PRETRAIN).objects)
    good, objects = calibrate.label == 0, calibrate.objects
    known = good & np.array([name in pretrained for name in objects], bool)
    if not known.any():
        return HeldOut(calibrate)
    needed = conformal.objects_needed(_promise(rule, labelled=False).share)
    if len(set(objects[good & ~known])) < (FEW if needed is None else needed):
        return HeldOut(calibrate, pretrained=int(known.sum()))
    return HeldOut(calibrate.select(~known), left_out=int(known.sum()))


def choose(
    predictions: Predictions, categories: tuple[str, ...], rule: Rule, costs: Costs, bootstrap: Bootstrap
) -> Chosen:
    """The threshold of the model, or of each category, with its interval.

    Args:
      predictions: all rows of a table; it is chosen on `held_out_rows`.
      categories: those that will be judged.
      rule: how to choose.
      costs: for the least cost.
      bootstrap: how the interval is computed; whole groups are drawn, as for metrics.
    """
    held = held_out_rows(predictions, rule)
    calibrate = held.rows
    whole = _remarked(_with_interval(calibrate, rule, costs, bootstrap), held)
    if rule.per == PER_MODEL or whole.value is None:
        return Chosen(whole)
    own = {}
    for name in categories:
        found = _remarked(_with_interval(calibrate.select(calibrate.category == name), rule, costs, bootstrap), held)
        if found.value is None:
            why = f"the category has no threshold of its own ({found.reason}); the one of all categories is used"
            found = dataclasses.replace(whole, warning=why)
        own[name] = found
    return Chosen(whole, own)


def choose_threshold(
    labels: np.ndarray,
    scores: np.ndarray,
    objects: Sequence[Any] | None = None,
    rule: Rule | None = None,
    costs: Costs | None = None,
) -> Threshold:
    """The threshold that these calibrate rows speak for.

    With both classes, by the rule's method:
    - "youden": the one of the largest Youden's J = recall + specificity - 1 (Youden, Cancer 1950),
      which is the best balanced accuracy.
    - "smooth_youden": the same of smoothed distributions (see `smooth_cut`), which moves less with the
      one or two images nearest to it where there are few; without any spread Youden's.
    - "best_f1": of the best F1. Where most images are defective, as in the test images of MVTec AD,
      F1 is nearly at its best when everything is called defective, and can choose just that.
    - "target_recall": the highest that promises to find the wanted share of new defective objects.
    - "target_specificity": the lowest that promises to let the wanted share of new good objects pass.
    - "least_cost": of the least cost, at the calibrate rows' own share of defects.
    Of equally good cuts the lowest wins, because a missed defect leaves the factory and a false
    alarm is only looked at again. The threshold lies midway between the two neighbouring scores;
    if everything is best called defective, it is the lowest score, and if nothing is, it lies
    above the highest.

    With good images only (no labels were bought): as "target_specificity", of 95 % where nothing else is wanted.

    What is promised is promised of new objects, not counted among these images: both targets are conformal order
    statistics (see `conformal`), in which every object counts once. Where there are too few objects for it, the
    highest good or lowest defective score is taken, and the reason says what that promises. Where nobody named a target
    the few are not asked for a promise, but for what is expected: see `conformal.limit`.

    Args:
      labels: [N] of 0 and 1.
      scores: float [N], finite; of images that the model was not fitted on, or out-of-fold.
      objects: [N], the object that each image shows; None: each its own.
      rule: how to choose; None: Youden's.
      costs: for the least cost; None: 1 each.

    Returns:
      Value None with the reason if there are no rows, or defective ones only.

    Raises:
      ValueError: labels or scores are not as described.
    """
    rule = rule or Rule()
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    images, defects = len(labels), int(np.sum(labels))
    if not images:
        return Threshold(None, NONE, _NO_CALIBRATE)
    if defects == images:
        return Threshold(None, NONE, "all calibrate rows are defective, so no threshold can be chosen", images, defects)
    objects = np.arange(images) if objects is None else np.asarray(objects)
    promise = _promise(rule, bool(defects))
    order, mass = _ranked(labels, scores, objects, promise)
    value = _value(scores[order], labels[order] == 1, mass, promise, rule, costs or Costs())
    if promise is None:
        reason = f"it has {_in_words(rule, costs or Costs())} on {images} calibrate images, {defects} of them defective"
        return Threshold(value, rule.method, reason, images, defects)
    count = len(np.unique(objects[order]))
    reason = promise.in_words(len(order), count)
    if not defects and rule.method not in (YOUDEN, SMOOTH_YOUDEN, TARGET_SPECIFICITY):
        reason += f"; without a defective one {rule.method} cannot be had"
    expected = promise.expected(count)
    method = rule.method if defects or rule.method == TARGET_SPECIFICITY else LIMIT if expected else CONFORMAL
    stops = None if promise.of_defective or expected else conformal.promised(count, promise.share)
    return Threshold(value, method, reason, images, defects, promised=stops)


def _with_interval(calibrate: Predictions, rule: Rule, costs: Costs, bootstrap: Bootstrap) -> Threshold:
    resampling = Resampling(calibrate.path, calibrate.category, calibrate.group, calibrate.label, bootstrap)
    found = choose_threshold(calibrate.label, calibrate.score, resampling.units, rule, costs)
    if found.value is None:
        return found
    defective = calibrate.label == 1
    promise = _promise(rule, bool(defective.any()))
    objects = [resampling.distinct(of_it) for of_it in (~defective, defective)]
    warning = promise.warning(objects[promise.of_defective]) if promise else _warning(*objects)
    found = dataclasses.replace(found, warning=warning)
    # A single object drawn again and again is always itself: an interval without width would say that it is certain.
    if not len(resampling) or (objects[promise.of_defective] if promise else max(objects)) < 2:
        return found
    order, mass = _ranked(calibrate.label, calibrate.score, resampling.units, promise)
    scores, defective = calibrate.score[order], defective[order]
    resampled = [
        _value(scores, defective, row[order] * mass, promise, rule, costs)
        for weights in resampling.chunks()
        for row in weights
    ]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return dataclasses.replace(found, low=min(low, found.value), high=max(high, found.value))


def _ranked(
    labels: np.ndarray, scores: np.ndarray, objects: np.ndarray, promise: Promise | None
) -> tuple[np.ndarray, np.ndarray]:
    """The images that a threshold hangs on, from the highest score downwards, and what each of them counts."""
    order = np.argsort(-scores, kind="stable")
    if promise is None:
        return order, np.ones(len(order))
    order = order[(labels[order] == 1) == promise.of_defective]
    return order, conformal.masses(objects[order])


def _value(
    scores: np.ndarray, defective: np.ndarray, mass: np.ndarray, promise: Promise | None, rule: Rule, costs: Costs
) -> float:
    """The threshold of images in descending order that count `mass` each; those that count nothing are not there."""
    there = mass > 0
    scores, defective, mass = scores[there], defective[there], mass[there]
    if promise is not None:
        return promise.cut(scores, mass)
    if rule.method == SMOOTH_YOUDEN and 0 < np.sum(defective) < len(defective):
        smooth = smooth_cut(scores, defective, mass)
        if smooth is not None:
            return smooth
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    tp, both = np.cumsum(mass * defective)[last], np.cumsum(mass)[last]
    return _cut(scores[last], np.append(0, tp), np.append(0, both - tp), rule, costs)


def _cut(thresholds: np.ndarray, tp: np.ndarray, fp: np.ndarray, rule: Rule, costs: Costs) -> float:
    """The threshold of the best cut.

    Args:
      thresholds: [T], the distinct scores, descending.
      tp, fp: [T + 1], counts if the first 0, 1, ... T of them are called defective.
      rule, costs: what is best.
    """
    gain = _gain(tp, fp, rule.method, costs)
    best = int(np.flatnonzero(gain == gain.max())[-1])
    if best == 0:
        return above(thresholds[0])
    if best == len(thresholds):
        return float(thresholds[-1])
    return _between(thresholds[best], thresholds[best - 1])


def _gain(tp: np.ndarray, fp: np.ndarray, method: str, costs: Costs) -> np.ndarray:
    if method in (YOUDEN, SMOOTH_YOUDEN):
        # J times both class sizes, in whole numbers: ties between cuts are then exact.
        return tp * fp[-1] - fp * tp[-1]
    if method == BEST_F1:
        return 2 * tp / (tp[-1] + tp + fp)
    return costs.miss * tp - costs.false_alarm * fp


def _promise(rule: Rule, labelled: bool) -> Promise | None:
    """What the rule promises, None if nothing; of good images alone something always is."""
    if labelled and rule.target is None:
        return None
    if labelled and rule.method == TARGET_RECALL:
        return Promise(1 - rule.target, of_defective=True)
    if rule.method == TARGET_SPECIFICITY:
        return Promise(1 - rule.target)
    return Promise(conformal.FALSE_ALARMS, expects=True)


def _in_words(rule: Rule, costs: Costs) -> str:
    if rule.method == LEAST_COST:
        return f"the least cost (a miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g})"
    return {
        YOUDEN: "the best balanced accuracy (Youden's J)",
        SMOOTH_YOUDEN: "the best balanced accuracy (Youden's J of smoothed scores)",
        BEST_F1: "the best F1",
    }[rule.method]


def _warning(good: int, defective: int) -> str:
    """Why a threshold of so many objects should not be relied on, "" if nothing speaks against it."""
    short = [f"{count} {name}" for count, name in ((good, "good"), (defective, "defective")) if count < FEW]
    if not short:
        return ""
    return (
        f"it was chosen on only {' and '.join(short)} calibrate images (images of one object count once); a share "
        f"of fewer than {FEW} may be off by 18 percentage points and more"
    )


def _remarked(found: Threshold, held: HeldOut) -> Threshold:
    """The threshold with what is said of the rows that it rests on."""
    if found.value is None:
        return found
    warning = "; ".join(filter(None, [found.warning, held.warning]))
    return dataclasses.replace(found, reason=found.reason + held.reason, warning=warning)


def _between(lower: float, upper: float) -> float:
    """A threshold that parts two scores, also after an exported graph has rounded it to float32.

    Midway; where float32 has no number above `lower` and up to `upper` near that,
    `upper` itself, which is called defective too.
    """
    value = float(np.float32(lower / 2 + upper / 2))
    return value if lower < value <= upper else float(upper)
