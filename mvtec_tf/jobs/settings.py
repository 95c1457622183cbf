"""What each job is asked for, as plain data. Nothing heavy is imported: a command line shows and checks it at once."""

import dataclasses
from typing import Literal

from mvtec_tf import drift
from mvtec_tf import settings as settings_lib
from mvtec_tf.beam.settings import RunnerSettings
from mvtec_tf.errors import UsageError
from mvtec_tf.heads.settings import HEADS, HeadNumbers
from mvtec_tf.jobs.fields import (
    CLEAN,
    ONE_CLASS,
    CleanSettings,
    EncoderFields,
    FeatureFields,
    ImageSettings,
    ProtocolSettings,
    RunSettings,
    ThresholdSettings,
    WeightsSettings,
)
from mvtec_tf.settings import apart, field
from mvtec_tf.training.settings import (
    ContrastiveSettings,
    DiffusionSettings,
    DistilSettings,
    FinetuneSettings,
    SupervisedSettings,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings(RunSettings, ImageSettings, ProtocolSettings, ThresholdSettings, EncoderFields, HeadNumbers):
    """A head on frozen features.

    Attributes:
      protocol: protocol that says who may see which image; one_class: all good training images, all test images, no
        label, as the literature compares; study: as the original study did, which leaks.
      features: stored features instead of weights: a folder of extract_features, or features/ of a run. Their encoder
        is used.
      head: head that is fitted. Unset: the recipe's, or logistic.
      label_budget: share of all test images whose labels may be used; all; or 10d: ten defective objects. Unset: 0.1,
        or 0 with the protocol one_class.
      task: what the head tells; defect_type: also the defect's name, by linear heads of many classes.
      unlabelled: folder of recent photographs without labels, at most a fifth of them defective; where they score
        higher than held-out good training images, the threshold is raised with them. With label_budget=0 only.
      smallest_defect: width in pixels of the photographs of the smallest defect that matters; where the head's patches
        are too coarse for it, a note says what is fine enough. Heads on patches only.
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
    unlabelled: str | None = None
    smallest_defect: float | None = field(None, above=0)
    heatmaps: bool = False
    study_head: bool = False
    seed: int = field(0, least=0)

    @property
    def is_one_class(self) -> bool:
        """Whether the literature's protocol is asked for."""
        return self.protocol == ONE_CLASS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractSettings(ImageSettings, CleanSettings, EncoderFields, RunnerSettings):
    """Features of all images, kept in a folder.

    Attributes:
      out: folder of the features; an unfinished one of the same kind is completed.
      maps: also keep patch features, which the patch heads need: some MB an image, see the line it prints. Unset: as
        the recipe needs, or no.
      images_per_shard: images a shard: how much of the work a killed call repeats.
      seed: random seed of the numbers of weights=none.
    """

    out: str = apart()
    maps: bool | None = None
    images_per_shard: int = field(128, least=1)
    seed: int = field(0, least=0)


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
    image_size: int = field(224, least=16)
    label_budget: str = "all"
    seed: int = field(0, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtraSettings:
    """What there is to show beside a table of predictions.

    Attributes:
      data_dir: where the table's images and masks are, as for training. Unset: no images.
      masks: folder of masks instead of those of data_dir. That of the image A/B.png lies in its folder A: B_mask.png,
        B.png (both with any suffix of images), or what is alone in a folder B.
      tsne: also t-SNE of the embedding, which takes a while for thousands of images.
    """

    data_dir: tuple[str, ...] = apart((), paths=True)
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
    heatmaps: tuple[str, ...] = field((), paths=True)
    categories: tuple[str, ...] = ()
    features: str | None = None
    resamples: int = field(1000, least=0)
    seed: int = field(0, least=0)
    allow_leak: bool = False
    tensorboard: str | None = None
    title: str | None = None

    def check_threshold(self) -> None:
        """Raises UsageError for settings that contradict each other."""
        super().check_threshold()
        if self.threshold is None:
            return
        if self.threshold_is_given or self.threshold_per == "category":
            raise UsageError(
                "`threshold` is given, so none is chosen: leave it out, or what else says how one is chosen."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainSettings(ExtraSettings):
    """A finished run whose model is to be looked into.

    Attributes:
      run: run directory of a finished run of train_cnn, fit_probe, fit_baseline or distill.
      data_dir: the images of that run, as they were named for it.
      method: kinds of maps, out of exported, gradcam, gradcam++: those that the exported graph answers, which every run
        has, or tf-keras-vis' of a network with a gradient. Unset: gradcam,gradcam++ for a run of train_cnn,
        exported for any other.
      encoder: where the encoder of a probe lies, if it is no longer where it was.
      batch_size: images at a time.
      seed: random seed of t-SNE, and of the sample of more than 5,000 images.
    """

    run: str
    data_dir: tuple[str, ...] = apart(paths=True)
    method: tuple[str, ...] = ()
    encoder: str | None = None
    batch_size: int = field(16, least=1)
    seed: int = field(0, least=0)


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
    validation_share: float | None = field(None, least=0.01, most=0.9)
    cache: str = apart("memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateSettings(RunSettings, ImageSettings, CleanSettings, DiffusionSettings):
    """Patches of defects: of which images they are learnt, how, and how many are drawn.

    Attributes:
      label_budget: share of all test images whose labels may be used; all: the whole pool (half); or 10d: ten defective
        objects. The same seed and budget of train-cnn label the same images.
      validation_share: share of the labelled images that train-cnn keeps for early stopping: they are left alone.
      patches: patches that are drawn.
    """

    label_budget: str = "all"
    validation_share: float = field(0.2, least=0.01, most=0.9)
    patches: int = field(200, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings(RunSettings, ImageSettings, ContrastiveSettings):
    """Pretraining: how, and on which images.

    Attributes:
      protocol: protocol that says who may see which image; study: 85 % of the good training images, as in the
        original study.
      label_budget: share of all test images whose labels may be used to watch the training, or 10d: ten defective
        objects: after each epoch the recipe's head and nearest neighbours are fitted on them and good training images,
        and ROC-AUC of held-out scores is logged. With the method supcon it is trained on them. The same seed and budget
        of fit label the same images. 0: none.
      keep: encoder that is exported; best_online: the best by the watched recipe's head, which may be the one that the
        training started from; start: that one in any case.
      cache: where decoded images are kept: memory, or a folder for large sets.
    """

    protocol: Literal["clean", "study"] = CLEAN
    label_budget: str = "0"
    keep: Literal["last", "best_online", "start"] = "last"
    cache: str = apart("memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRunSettings(RunSettings, ImageSettings, CleanSettings, FinetuneSettings):
    """Fine-tuning: from which encoder, and on which images.

    Attributes:
      encoder: run directory of pretrain, or a SavedModel of an encoder, to start from. Unset: the backbone of weights.
      label_budget: as of fit; the same seed and budget label the same images.
      pseudo_labels: least calibrated probability, such as 0.95, by which the recipe's head on the start labels test
        images that are neither labelled nor evaluated, which are then learned from too. Unset: none are.
      cache: where decoded images are kept: memory, or a folder for large sets.
    """

    encoder: str | None = None
    label_budget: str = "0.1"
    pseudo_labels: float | None = field(None, above=0.5, most=1)
    cache: str = apart("memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilRunSettings(RunSettings, ImageSettings, ThresholdSettings, DistilSettings):
    """A small student of a judged model, for a device: its teacher, its images, its forms.

    Attributes:
      teacher: run directory of a judged model, or its export; which images it had seen its own record says.
      unlabelled: folder of recent photographs without labels, of which the teacher is asked too.
      validation_share: share of the good training images that the student is not trained on, for its threshold.
      forms: LiteRT files that are written: float16, int8.
      speed_images: images by which the speed is measured; 0: it is not.
    """

    teacher: str
    unlabelled: str | None = None
    validation_share: float = field(0.2, least=0.01, most=0.9)
    forms: tuple[str, ...] = ("float16", "int8")
    speed_images: int = apart(40, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelEfficiencySettings(
    RunSettings, ImageSettings, CleanSettings, ThresholdSettings, WeightsSettings, FeatureFields, HeadNumbers
):
    """A grid of encoders, heads, label budgets and draws.

    Attributes:
      encoders: encoders of the grid: start, the backbone of weights as it is; and run directories of train_simclr
        or finetune, or SavedModels of encoders.
      heads: heads beside the recipe's, by the names that fit_probe knows; may be empty.
      recipe: recipe that adds rows of its name as head, with features of its own; none: only heads.
      recipe_image_size: side in pixels of the start encoder for the recipe. Unset: the recipe's own.
      budgets: label budgets: shares of all test images, all (the pool, half of them), or counts of labelled defective
        objects such as 10d. Unset: 0,0.01,0.02,0.05,0.1,0.25,all,1d,10d.
      good_budgets: numbers of good training objects, half, or all: what each is worth without labels, and whether there
        are enough of them; half and all are always among them. Unset: all are used, and nothing is said of fewer.
      seeds: number of draws, each of which cuts the test images anew. Unset: 10.
      first_seed: random seed of the first draw; the others follow.
      quick: a first look in minutes: 4 budgets, 3 draws, 224 px, where not given.
    """

    encoders: tuple[str, ...] = field(("start",), paths=True)
    heads: tuple[str, ...] = ("logistic", "mahalanobis", "nearest_neighbours")
    recipe: Literal["few_labels", "auto", "none"] = "few_labels"
    recipe_image_size: int | None = field(None, least=1)
    budgets: tuple[str, ...] | None = None
    good_budgets: tuple[str, ...] | None = None
    seeds: int | None = field(None, least=1)
    first_seed: int = field(0, least=0)
    quick: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Methods on the same evaluation images, to be set against each other.

    Attributes:
      runs: run directories or CSV files, NAME=PATH, or NAME=PATH+PATH for several seeds; at least two.
      out: folder for comparison.json, comparison.csv, figures/ and report.html; made if missing.
      study: also write study.html, study.json and study.csv: methodology and findings. All must be run directories.
      title: heading of the report.
      cost_miss: what a defective image that is called good costs. Unset: as all runs were judged, or 1 if they were
        judged differently.
      cost_false_alarm: what a good image that is stopped costs. Unset: as all runs were judged, or 1 if they were
        judged differently.
      resamples: resamples for the 95 % intervals; 0: no intervals.
      seed: random seed of the resamples.
    """

    runs: tuple[str, ...] = field(paths=True)
    out: str
    study: bool = False
    title: str = "Comparison"
    cost_miss: float | None = field(None, least=0)
    cost_false_alarm: float | None = field(None, least=0)
    resamples: int = field(1000, least=0)
    seed: int = field(0, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreSettings(WeightsSettings):
    """A data set that is to be looked at before any training; with weights its labels too.

    Attributes:
      data_dir: category folder (MVTec layout, or good/ and defective/), folder of such, or CSV file; several with
        commas.
      categories: only these categories; default: all that are found.
      out: folder for the page and the tables; made if missing.
      features: features of extract_features by which labels are looked at, instead of weights.
      corrections: suspects.csv with its column label filled in: the images are looked at with these labels, and
        corrected.csv is written to out, a list for data_dir of every command.
    """

    data_dir: tuple[str, ...] = field(paths=True)
    categories: tuple[str, ...] = ()
    out: str
    features: str | None = None
    corrections: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """The parts of a line, in their order, that may have drifted.

    Attributes:
      out: folder for drift.html, drift.csv and figures/; made if missing.
      table: table that predict wrote.
      model: export whose training images the parts are set beside. Unset: the parts before them.
      folder: folder of photographs that the model is to judge first, instead of a table.
      order: order of the parts: as in the table (photographs: by name), by name, or by the time in their Exif data.
      list: CSV list with the columns path and `column`, which says the order instead.
      column: column of the list: numbers, times or dates, all of one form.
      drift_alarm: probability of a false alarm of drift for every part.
    """

    out: str
    table: str | None = None
    model: str | None = None
    folder: str | None = None
    order: Literal["table", "name", "exif"] = "table"
    list: str | None = None
    column: str = "time"
    drift_alarm: float = field(drift.ALARM, above=0, most=1)

    def check(self) -> None:
        """Raises UsageError for settings that contradict each other."""
        if bool(self.table) == bool(self.folder):
            raise UsageError("Give either `table`, which predict wrote, or a `folder` of photographs and a `model`.")
        if self.folder and not self.model:
            raise UsageError("`folder` needs a `model` that judges its photographs: saved_models/NAME.")
        if self.list:
            settings_lib.refuse_unread(self, ["order"], "`list` says the order")
        else:
            settings_lib.refuse_unread(self, ["column"], "`list` is not given")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToySettings:
    """A small data set that is drawn.

    Attributes:
      out: folder to draw into; a set of the same settings there is reused.
      seed: random seed of the factory.
      image_size: side of the images in pixels.
      train_good: good training images of each category.
      test_good: good test images of each category.
      per_defect: test images of each defect type, half of them subtle.
      products: products out of board (a part that lies alike everywhere), denim (a cloth), flange (a part at any
        angle), mesh (woven wire).
    """

    out: str
    seed: int = 0
    image_size: int = 128
    train_good: int = 120
    test_good: int = 60
    per_defect: int = 40
    products: tuple[str, ...] = ("denim", "flange")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """The original MVTec AD archive.

    Attributes:
      out: new folder for the categories; left as it is if it exists.
      archive: mvtec_anomaly_detection.tar.xz, got by hand. Unset: it is downloaded to beside out, and kept.
    """

    out: str
    archive: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuickstartSettings:
    """The whole line on drawn images.

    Attributes:
      run_dir: directory of all its runs; what is finished there is not repeated.
      saved_models: folder of all exported models.
      seed: random seed of the toy factory and of every step.
    """

    run_dir: str
    saved_models: str = "saved_models"
    seed: int = field(0, least=0)
