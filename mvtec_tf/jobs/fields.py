"""Settings that several jobs share, as plain data: images, run, protocol, threshold, encoder, features, numbers."""

import dataclasses
from typing import Any, Literal

from mvtec_tf.data.record import MAX_PIXELS
from mvtec_tf.errors import UsageError
from mvtec_tf.features.recipe import SQUARE
from mvtec_tf.settings import apart, check_all, field

CLEAN, STUDY, ONE_CLASS = "clean", "study", "one_class"
ERROR = "error"
# What is run where neither the settings nor a recipe nor an encoder says it.
DEFAULTS = {
    "backbone": "resnet50",
    "centre_brightness": False,
    "head": "logistic",
    "image_size": 224,
    "image_shape": SQUARE,
    "maps": False,
    "neighbourhood": 3,
    "pooling": ("mean",),
    "precision": "float32",
    "tiles": "1x1",
}
_TARGETS = ("target_recall", "target_specificity")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Which images.

    Attributes:
      data_dir: category folder (MVTec layout, or good/ and defective/), folder of such, or CSV file; several with
        commas.
      categories: only these categories; default: all that are found.
      max_pixels: most pixels of an image; one of more is refused before it is decoded, also by the exported model.
      on_bad_image: what to do about an image that cannot be used: stop and name it (error), or leave it out, count it
        and list it (skip).
    """

    data_dir: tuple[str, ...] = apart(paths=True)
    categories: tuple[str, ...] = ()
    max_pixels: int = field(MAX_PIXELS, least=1)
    # Apart: which images were left out is part of the data's fingerprint.
    on_bad_image: Literal["error", "skip"] = apart(ERROR)

    def __post_init__(self) -> None:
        """Refuses what is out of its bounds."""
        check_all(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run lies.

    Attributes:
      run_dir: directory of this run; an unfinished one of the same settings is resumed.
    """

    run_dir: str = apart()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdSettings:
    """How the threshold is chosen.

    Attributes:
      threshold_method: method by which the threshold is chosen on the calibrate rows; smooth_youden: the best balanced
        accuracy of smoothed scores, for few labels. Unset: what target_recall or target_specificity says, or with
        cost_review least_cost, or the recipe's (few_labels: smooth_youden), or youden. Without a labelled defect it is
        a bound on false alarms.
      threshold_per: what has a threshold of its own: the model, or each category. Unset: the model.
      target_recall: share of the defective images to find, e.g. 0.95.
      target_specificity: share of the good images to let pass, e.g. 0.95.
      cost_miss: what a defective image that is called good costs. Unset: 1.
      cost_false_alarm: what a good image that is stopped costs. Unset: 1.
      cost_review: what a person costs who looks at an image of which the model is unsure, and calls it rightly: a third
        verdict around the threshold, where that is cheaper than a mistake. Unset: two verdicts.
    """

    threshold_method: (
        Literal["youden", "smooth_youden", "best_f1", "target_recall", "target_specificity", "least_cost"] | None
    ) = None
    threshold_per: Literal["model", "category"] | None = None
    target_recall: float | None = None
    target_specificity: float | None = None
    cost_miss: float | None = field(None, least=0)
    cost_false_alarm: float | None = field(None, least=0)
    cost_review: float | None = field(None, least=0)

    @property
    def threshold_is_given(self) -> bool:
        """Whether anything says how the threshold is chosen."""
        return any(getattr(self, name) is not None for name in ("threshold_method", *_TARGETS))

    def check_threshold(self) -> None:
        """Raises UsageError for settings that contradict each other."""
        targets = [name for name in _TARGETS if getattr(self, name) is not None]
        method, target = self._method()
        if len(targets) > 1:
            raise UsageError(
                "`target_recall` and `target_specificity`: one threshold cannot have both. Give one of them."
            )
        if targets and method != targets[0]:
            raise UsageError(f"`{targets[0]}` does not go with `threshold_method`={method}. Leave out one of them.")
        if method in _TARGETS and not targets:
            raise UsageError(f"`threshold_method`={method} needs `{method}`, a share such as 0.95.")
        if target is not None and not 0 < target <= 1:
            raise UsageError(f"`{method}`={target}: expected a share above 0 and up to 1, such as 0.95.")
        if not any(self._costs()[:2]):
            raise UsageError("`cost_miss`=0 and `cost_false_alarm`=0: expected costs that are not both 0.")

    def rule_and_costs(self) -> dict[str, Any]:
        """The arguments `rule` and `costs` of `judge`."""
        # Not above: a command line is read and refused without what these import.
        from mvtec_tf.evaluation.metrics import Costs
        from mvtec_tf.evaluation.thresholds import Rule

        method, target = self._method()
        return {"rule": Rule(method, self.threshold_per or "model", target), "costs": Costs(*self._costs())}

    def _costs(self) -> tuple[float | None, ...]:
        mistakes = (1.0 if cost is None else cost for cost in (self.cost_miss, self.cost_false_alarm))
        return *mistakes, self.cost_review

    def _method(self) -> tuple[str, float | None]:
        """The method, and the wanted share of those that need one."""
        targets = [name for name in _TARGETS if getattr(self, name) is not None]
        # Who says what a person costs asks for what costs least.
        default = "youden" if self.cost_review is None else "least_cost"
        method = self.threshold_method or (targets[0] if targets else default)
        return method, getattr(self, targets[0]) if targets else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """The only protocol of a job.

    Attributes:
      protocol: protocol that says who may see which image.
    """

    protocol: Literal["clean"] = CLEAN


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtocolSettings:
    """Who may see which image.

    Attributes:
      protocol: protocol that says who may see which image; study: as the original study did, which leaks.
      allow_leak: with the protocol study only: evaluate images whose labels were used, as the study did.
    """

    protocol: Literal["clean", "study"] = CLEAN
    allow_leak: bool = False

    @property
    def is_study(self) -> bool:
        """Whether the study's protocol is asked for."""
        return self.protocol == STUDY

    def check_leak(self) -> None:
        """Raises UsageError if a leak is allowed by another protocol."""
        if self.allow_leak and not self.is_study:
            raise UsageError(
                f"`allow_leak`: with `protocol`={self.protocol} a leak is always an error. It goes with "
                "`protocol`=study."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSettings:
    """A backbone as it is.

    Attributes:
      weights: weights of a backbone as it is, instead of an encoder: imagenet, none, or a file; of DINOv2 preset, none,
        or a file or folder of KerasHub.
      weights_partial: load what fits of a weights file that is another network's.
      backbone: backbone of the weights: a network of keras.applications (a MobileNet also with its width,
        mobilenetv2-0.35), or DINOv2 (dinov2_small, dinov2_base, dinov2_large, also dinov2_with_registers_...; needs
        mvtec_tf[hub]). Unset: resnet50.
      image_size: side in pixels for weights; an encoder has its own. Unset: 224, or the recipe's.
      image_shape: what images are resized to for weights; square: of the side image_size; parts: of its area, as high
        and wide as the training images are shaped. Unset: square, or the recipe's.
      precision: number format of the network of the weights: float32, or bfloat16, which processors that have it
        compute faster; auto: bfloat16 where this one has it. What follows the network is float32. Unset: float32.
    """

    weights: str | None = None
    weights_partial: bool = False
    backbone: str | None = None
    image_size: int | None = field(None, least=1)
    image_shape: Literal["square", "parts"] | None = None
    precision: Literal["auto", "float32", "bfloat16"] | None = None


OF_WEIGHTS = tuple(field.name for field in dataclasses.fields(WeightsSettings))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureFields:
    """Which features of an encoder; what is unset is the recipe's or that of stored features.

    Attributes:
      feature_layers: the encoder's outputs that make the features; default: the two stages before the last.
      pooling: means by which maps become global features: mean, gem8 (generalised mean of power 8: a small defect moves
        it), or both. Unset: mean.
      centre_brightness: shift every image to one mean brightness first: another exposure is no anomaly. Unset: no.
      tiles: tiles, ROWSxCOLUMNS, that each image is cut into, each to fill the encoder's input, for small defects.
        Unset: 1x1.
      neighbourhood: side of the neighbourhood over which patch features are averaged; odd, 1 is none. Unset: 3.
    """

    feature_layers: tuple[str, ...] = ()
    pooling: tuple[str, ...] | None = None
    centre_brightness: bool | None = None
    tiles: str | None = None
    neighbourhood: int | None = field(None, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderFields(WeightsSettings, FeatureFields):
    """An encoder and its features, by a recipe or one by one.

    Attributes:
      encoder: run directory of train_simclr or finetune, or a SavedModel of an encoder.
      recipe: recipe that sets head, pooling, centre_brightness, maps, neighbourhood, tiles, image_size and image_shape
        together, where the job has them. few_labels: one head for few labels or none, the same settings for every part;
        what a user should run (auto is its former name). Unset: as these say.
    """

    encoder: str | None = None
    recipe: Literal["few_labels", "auto"] | None = None
