"""What each job is asked for, as plain data. Nothing heavy is imported: a command line shows and checks it at once."""

import dataclasses
import math
from typing import Any, Literal

from mvtec_tf.data.decoding.limits import MAX_PIXELS
from mvtec_tf.errors import UsageError
from mvtec_tf.heads.settings import HEADS, HeadSettings
from mvtec_tf.settings import check_all
from mvtec_tf.training.recipes import ContrastiveSettings, SupervisedSettings

CLEAN, STUDY, ONE_CLASS = "clean", "study", "one_class"
ERROR, SKIP = "error", "skip"
_APART = {"outcome": False}
_TARGETS = ("target_recall", "target_specificity")


def _apart(default: Any, **more: Any) -> Any:
    """A field that does not decide what comes out."""
    return dataclasses.field(default=default, metadata=_APART | more)


def _number(default: Any, **bounds: Any) -> Any:
    return dataclasses.field(default=default, metadata=bounds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Which images.

    Attributes:
      data_dir: category folder (MVTec layout, or good/ and defective/), folder of such, or CSV file; several with
        commas.
      categories: only these categories; default: all that are found.
      max_pixels: images of more pixels are refused before they are decoded, also by the exported model.
      on_bad_image: what to do about an image that cannot be used: stop and name it (error), or leave it out, count it
        and list it (skip).
    """

    data_dir: tuple[str, ...] = dataclasses.field(metadata=_APART | {"paths": True})
    categories: tuple[str, ...] = ()
    max_pixels: int = _number(MAX_PIXELS, least=1)
    # What an image that cannot be used leads to shows in which images are used: the data's fingerprint.
    on_bad_image: Literal["error", "skip"] = _apart(ERROR)

    def __post_init__(self) -> None:
        """Refuses what is out of its bounds."""
        check_all(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run lies.

    Attributes:
      run_dir: directory of this run; an unfinished one of the same settings is resumed.
    """

    run_dir: str = dataclasses.field(metadata=_APART)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdSettings:
    """How the threshold is chosen.

    Attributes:
      threshold_method: how the threshold is chosen on the calibrate rows; smooth_youden: the best balanced accuracy of
        smoothed scores, for few labels. Unset: youden, or what target_recall or target_specificity says.
      threshold_per: one threshold for the model, or one of each category. Unset: for the model.
      target_recall: share of the defective images to find, e.g. 0.95.
      target_specificity: share of the good images to let pass, e.g. 0.95.
      cost_miss: what a defective image that is called good costs. Unset: 1.
      cost_false_alarm: what a good image that is stopped costs. Unset: 1.
    """

    threshold_method: (
        Literal["youden", "smooth_youden", "best_f1", "target_recall", "target_specificity", "least_cost"] | None
    ) = None
    threshold_per: Literal["model", "category"] | None = None
    target_recall: float | None = None
    target_specificity: float | None = None
    cost_miss: float | None = _number(None, least=0)
    cost_false_alarm: float | None = _number(None, least=0)

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
        costs = self._costs()
        if not all(map(math.isfinite, costs)) or not any(costs):
            raise UsageError(
                f"`cost_miss`={costs[0]:g} and `cost_false_alarm`={costs[1]:g}: expected finite costs, not both 0."
            )

    def rule_and_costs(self) -> dict[str, Any]:
        """The arguments `rule` and `costs` of `judge`."""
        # Not above: a command line is read and refused without what these import.
        from mvtec_tf.evaluation.metrics import Costs
        from mvtec_tf.evaluation.thresholds import Rule

        method, target = self._method()
        return {"rule": Rule(method, self.threshold_per or "model", target), "costs": Costs(*self._costs())}

    def _costs(self) -> tuple[float, float]:
        return tuple(1.0 if cost is None else cost for cost in (self.cost_miss, self.cost_false_alarm))

    def _method(self) -> tuple[str, float | None]:
        """The method, and the wanted share of those that need one."""
        targets = [name for name in _TARGETS if getattr(self, name) is not None]
        method = self.threshold_method or (targets[0] if targets else "youden")
        return method, getattr(self, targets[0]) if targets else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """The only protocol of a job.

    Attributes:
      protocol: who may see which image.
    """

    protocol: Literal["clean"] = CLEAN


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtocolSettings:
    """Who may see which image.

    Attributes:
      protocol: who may see which image; study: as the original study did, which leaks.
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
      weights: instead of an encoder: a backbone as it is, with weights imagenet, none, or of a file.
      weights_partial: load what fits of a weights file that is another network's.
      backbone: backbone of the weights. Unset: resnet50.
      image_size: side in pixels for weights; an encoder has its own. Unset: 224, or the recipe's.
    """

    weights: str | None = None
    weights_partial: bool = False
    backbone: str | None = None
    image_size: int | None = _number(None, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureFields:
    """Which features of an encoder; what is unset is the recipe's or that of stored features.

    Attributes:
      feature_layers: the encoder's outputs that make the features; default: the two stages before the last.
      pooling: how maps become global features: mean, gem8 (generalised mean of power 8: a small defect moves it), or
        both. Unset: mean.
      centre_brightness: shift every image to one mean brightness first: another exposure is no anomaly. Unset: no.
      tiles: ROWSxCOLUMNS: cut each image into tiles that fill the encoder's input, for small defects. Unset: 1x1.
      neighbourhood: side of the neighbourhood over which patch features are averaged; odd, 1 is none. Unset: 3.
    """

    feature_layers: tuple[str, ...] = ()
    pooling: tuple[str, ...] | None = None
    centre_brightness: bool | None = None
    tiles: str | None = None
    neighbourhood: int | None = _number(None, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadNumbers:
    """The numbers of every head.

    Attributes:
      head_c: inverse strength of the penalty of logistic regression and SVMs.
      neighbours: nearest images or patches whose distances are averaged.
      memory_bank: patches that patchcore keeps.
      coreset_candidates: random patches among which patchcore chooses its memory.
      padim_channels: random channels of a patch that padim looks at.
      hybrid_of: heads that the hybrid weighs.
    """

    head_c: float = _number(1.0, above=0)
    neighbours: int = _number(1, least=1)
    memory_bank: int = _number(2000, least=1)
    coreset_candidates: int = _number(50_000, least=1)
    padim_channels: int = _number(100, least=1)
    hybrid_of: tuple[str, ...] = ("lda", "mahalanobis", "patchcore")

    def head_settings(self, name: str, seed: int) -> HeadSettings:
        """The settings of the head `name`, with these numbers."""
        return HeadSettings(
            name=name,
            c=self.head_c,
            neighbours=self.neighbours,
            memory_bank=self.memory_bank,
            coreset_candidates=self.coreset_candidates,
            padim_channels=self.padim_channels,
            hybrid_of=self.hybrid_of,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderFields(WeightsSettings, FeatureFields):
    """An encoder and its features, by a recipe or one by one.

    Attributes:
      encoder: run directory of train_simclr, or a SavedModel of an encoder.
      recipe: sets head, pooling, centre_brightness, maps, neighbourhood, tiles and image_size together, where the job
        has them. few_labels: one head for few labels or none, the same settings for every part; what a user should run
        (auto is its former name). Unset: as these say.
    """

    encoder: str | None = None
    recipe: Literal["few_labels", "auto"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings(RunSettings, ImageSettings, ProtocolSettings, ThresholdSettings, EncoderFields, HeadNumbers):
    """A head on frozen features.

    Attributes:
      protocol: who may see which image; one_class: all good training images, all test images, no label, as the
        literature compares; study: as the original study did, which leaks.
      features: instead of weights: a folder of extract_features, or features/ of a run. Its encoder is used.
      head: HEADS. Unset: the recipe's, or logistic.
      label_budget: share of all test images whose labels may be used; all; or 10d: ten defective objects. Unset: 0.1,
        or 0 with the protocol one_class.
      task: defect_type: also name the defect, by linear heads of many classes.
      heatmaps: write a heat map of every evaluated image to RUN_DIR/heatmaps, and measure them where there are masks;
        the report shows mistakes' in any case. The protocol one_class does both by itself where there are masks.
      study_head: also fit the original study's head (30 epochs of Adam) and report it as it is.
      seed: random seed of the cut, the labels drawn, the folds, and what a head draws.
    """

    protocol: Literal["clean", "one_class", "study"] = CLEAN
    features: str | None = None
    # The last is a former name, refused with the one to use.
    head: Literal[*HEADS, "auto"] | None = None
    label_budget: str | None = None
    task: Literal["defect", "defect_type"] = "defect"
    heatmaps: bool = False
    study_head: bool = False
    seed: int = _number(0, least=0)

    @property
    def is_one_class(self) -> bool:
        """Whether the literature's protocol is asked for."""
        return self.protocol == ONE_CLASS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractSettings(ImageSettings, CleanSettings, EncoderFields):
    """Features of all images, kept in a folder.

    Attributes:
      out: folder of the features; an unfinished one of the same kind is completed.
      maps: also keep patch features, which the patch heads need: some MB an image, see the line it prints. Unset: as
        the recipe needs, or no.
      images_per_shard: images a shard: how much of the work a killed call repeats.
      seed: random seed of the numbers of weights=none.
    """

    out: str = dataclasses.field(metadata=_APART)
    maps: bool | None = None
    images_per_shard: int = _number(128, least=1)
    seed: int = _number(0, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineSettings(RunSettings, ImageSettings, CleanSettings, ThresholdSettings):
    """A head on what no network is needed for.

    Attributes:
      features: what the head sees.
      image_size: side in pixels that images are resized to first.
      label_budget: share of all test images whose labels may be used; all; or 10d: ten defective objects.
      seed: random seed of the cut, the labels drawn and the folds.
    """

    features: Literal["grey_pixels", "mean_brightness"] = "grey_pixels"
    image_size: int = _number(224, least=16)
    label_budget: str = "all"
    seed: int = _number(0, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtraSettings:
    """What there is to show beside a table of predictions.

    Attributes:
      data_dir: where the table's images and masks are, as for training. Unset: no images.
      masks: folder of masks instead of those of data_dir. That of the image PATH is PATH, or PATH with _mask.png or any
        other suffix of images in place of its own.
      tsne: also t-SNE of the embedding, which takes a while for thousands of images.
    """

    data_dir: tuple[str, ...] = dataclasses.field(default=(), metadata=_APART | {"paths": True})
    masks: str | None = None
    tsne: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeSettings(ExtraSettings, ThresholdSettings):
    """A table of predictions of any model, to be judged.

    Attributes:
      predictions: table of predictions: CSV, or what predict wrote.
      out: folder for metrics.json, metrics.csv, figures/ and report.html; made if missing.
      threshold: a score that reaches it is called defective. Unset: chosen on the calibrate rows.
      heatmaps: folder of heat maps, PATH.npy for the image PATH (or its suffix replaced by .npy): float32 [h, w],
        higher is more defective; NAME=DIR to name them, several with commas. Needs data_dir or masks.
      categories: only these categories of data_dir; default: all that are found.
      features: embedding of the images: .npz with paths, str [N], and features, float32 [N, D].
      resamples: resamples for the 95 % intervals; 0: no intervals.
      seed: random seed of the resamples.
      allow_leak: judge also the table of a run of the protocol study, whose evaluated images were used to make the
        model, and say first that this proves nothing.
      tensorboard: folder for the same as a TensorBoard log. Unset: none.
      title: heading of the report. Unset: the name of the predictions file.
    """

    predictions: str
    out: str
    threshold: float | None = None
    heatmaps: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    features: str | None = None
    resamples: int = _number(1000, least=0)
    seed: int = _number(0, least=0)
    allow_leak: bool = False
    tensorboard: str | None = None
    title: str | None = None

    def check_threshold(self) -> None:
        """Raises UsageError for settings that contradict each other."""
        super().check_threshold()
        if self.threshold is None:
            return
        if not math.isfinite(self.threshold):
            raise UsageError(f"`threshold`={self.threshold}: expected a finite number.")
        if self.threshold_is_given or self.threshold_per == "category":
            raise UsageError(
                "`threshold` is given, so none is chosen: leave it out, or what else says how one is chosen."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainSettings(ExtraSettings):
    """A finished run whose model is to be looked into.

    Attributes:
      run: run directory of a finished run of train_cnn, fit_probe or fit_baseline.
      data_dir: the images of that run, as they were named for it.
      method: which maps, out of exported, gradcam, gradcam++: those that the exported graph answers, which every run
        has, or tf-keras-vis' of a network with a gradient. Unset: gradcam,gradcam++ of train_cnn, exported of the
        others.
      encoder: where the encoder of a probe lies, if it is no longer where it was.
      batch_size: images at a time.
      seed: random seed of t-SNE, and of the sample of more than 5,000 images.
    """

    run: str
    data_dir: tuple[str, ...] = dataclasses.field(metadata=_APART | {"paths": True})
    method: tuple[str, ...] = ()
    encoder: str | None = None
    batch_size: int = _number(16, least=1)
    seed: int = _number(0, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainClassifierSettings(RunSettings, ImageSettings, ProtocolSettings, ThresholdSettings, SupervisedSettings):
    """The supervised network: its training, its images, its judgement.

    Attributes:
      label_budget: share of all test images whose labels may be used; all: the whole pool (half); or 10d: ten defective
        objects. Unset: all.
      validation_share: share of the labelled images kept for early stopping and the threshold. Unset: 0.2.
      cache: where decoded images are kept: memory, or a folder for large sets.
    """

    label_budget: str | None = None
    validation_share: float | None = _number(None, least=0.01, most=0.9)
    cache: str = _apart("memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings(RunSettings, ImageSettings, ContrastiveSettings):
    """SimCLR: its training and its images.

    Attributes:
      protocol: who may see which image; study: 85 % of the good training images, as in the original study.
      cache: where decoded images are kept: memory, or a folder for large sets.
    """

    protocol: Literal["clean", "study"] = CLEAN
    cache: str = _apart("memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelEfficiencySettings(
    RunSettings, ImageSettings, CleanSettings, ThresholdSettings, WeightsSettings, FeatureFields, HeadNumbers
):
    """A grid of encoders, heads, label budgets and draws.

    Attributes:
      encoders: start: the backbone of weights as it is; and run directories of train_simclr, or SavedModels of
        encoders.
      heads: out of HEADS; may be empty.
      recipe: adds rows of its name as head, with features of its own; none: only heads.
      recipe_image_size: side in pixels of the start encoder for the recipe. Unset: the recipe's own.
      budgets: label budgets: shares of all test images, all (the pool, half of them), or counts of labelled defective
        objects such as 10d. Unset: 0,0.01,0.02,0.05,0.1,0.25,all,1d,10d.
      seeds: how many draws, each cuts the test images anew. Unset: 10.
      first_seed: random seed of the first draw; the others follow.
      quick: a first look in minutes: 4 budgets, 3 draws, 224 px, where not given.
    """

    encoders: tuple[str, ...] = ("start",)
    heads: tuple[str, ...] = ("logistic", "mahalanobis", "nearest_neighbours")
    recipe: Literal["few_labels", "auto", "none"] = "few_labels"
    recipe_image_size: int | None = _number(None, least=1)
    budgets: tuple[str, ...] | None = None
    seeds: int | None = _number(None, least=1)
    first_seed: int = _number(0, least=0)
    quick: bool = False
