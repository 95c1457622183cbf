"""What jobs are asked for, checked and settled before anything heavy is imported: a wrong word is answered at once."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from mvtec_tf.data import protocol
from mvtec_tf.data.augment_settings import SYNTHETIC_DEFECTS
from mvtec_tf.data.protocol import Budget
from mvtec_tf.errors import UsageError
from mvtec_tf.heads.settings import HEADS, NEED_LABELS, READ_BY, TYPE_HEADS, HeadSettings, check_budget
from mvtec_tf.jobs import recipes, unread
from mvtec_tf.jobs.fields import CLEAN, OF_WEIGHTS
from mvtec_tf.jobs.settings import (
    DistilRunSettings,
    FinetuneRunSettings,
    FitSettings,
    GenerateSettings,
    LabelEfficiencySettings,
    PretrainSettings,
    TrainClassifierSettings,
)
from mvtec_tf.label_efficiency import grid as grid_lib
from mvtec_tf.serving.settings import STUDENT_FORMS
from mvtec_tf.training import cluster
from mvtec_tf.training.settings import SUPCON, TEMPERED

START = "start"
NO_RECIPE = "none"
_OF_THRESHOLD = ("threshold_method", "threshold_per", "target_recall", "target_specificity")
# The study's head sees the encoder's last output, as it is.
_NOT_OF_THE_STUDY = (
    *("recipe", "head", "task", "heatmaps", "study_head", "feature_layers", "pooling", "neighbourhood"),
    *READ_BY,
    *_OF_THRESHOLD,
)
_OF_PLAIN_HEADS = ("image_size", "image_shape", "feature_layers", "pooling", "centre_brightness", "tiles")
_SEEDS, _QUICK_SEEDS, _QUICK_SIDE = 10, 3, 224
# What a training does where nothing is said; the study's protocol has a split of its own.
_OF_TRAINING = {"label_budget": "all", "validation_share": 0.2}


def of_fit(said: FitSettings) -> tuple[FitSettings, HeadSettings, Budget]:
    """The settings with nothing left unsaid, the head's, and the label budget; nothing heavy is done for it.

    Raises:
      UsageError: they contradict each other.
    """
    said.check_threshold()
    said.check_leak()
    settings = recipes.resolved(said)
    recipes.check_source(settings)
    if settings.label_budget is None:
        settings = dataclasses.replace(settings, label_budget="0" if settings.is_one_class else "0.1")
    if settings.is_study:
        unread.refuse(said, _NOT_OF_THE_STUDY, "`protocol`=study fits the study's own head, with its own threshold")
    head = settings.head_settings(settings.head, settings.seed)
    of_types = settings.task == "defect_type"
    if of_types and head.name not in TYPE_HEADS:
        raise UsageError(f"`task`=defect_type: `head`={head.name} names no defects. Use {', '.join(TYPE_HEADS)}.")
    if of_types:
        unread.refuse(said, ["heatmaps", "study_head"], "`task`=defect_type fits and judges one head, without maps")
    if not settings.is_study:
        unread.of_heads(said, [head])
    budget = protocol.parse_budget(settings.label_budget)
    if settings.is_one_class and budget != 0:
        raise UsageError(
            f"`label_budget`={settings.label_budget}: `protocol`=one_class uses no label. Leave it out, or use "
            "`protocol`=clean."
        )
    if settings.is_study and not (isinstance(budget, float) and budget):
        raise UsageError(
            f"`label_budget`={settings.label_budget}: `protocol`=study needs a share above 0, such as 0.1."
        )
    check_budget(head.name, budget)
    if settings.unlabelled is not None and (budget != 0 or settings.protocol != CLEAN):
        raise UsageError(
            f"`unlabelled`={settings.unlabelled}: goes with `protocol`=clean and `label_budget`=0, found "
            f"{settings.protocol} and {settings.label_budget}. Labelled good images say better how the line is."
        )
    if settings.smallest_defect is not None and (settings.is_study or not head.needs_maps):
        raise UsageError(
            f"`smallest_defect`={settings.smallest_defect:g}: is compared with the patches of a head, and "
            f"`head`={head.name} sees none here. Leave it out, or use `recipe`=few_labels."
        )
    if settings.study_head and budget == 0:
        raise UsageError("`study_head`: it learns from labels, and `label_budget`=0 buys none. Leave it out.")
    return settings, head, budget


def of_training(said: TrainClassifierSettings) -> TrainClassifierSettings:
    """The settings with nothing left unsaid. Raises UsageError if they contradict each other."""
    said.check_threshold()
    said.check_leak()
    if said.is_study:
        unread.refuse(said, _OF_TRAINING, "`protocol`=study fixes its own split of the images")
        unread.refuse(said, _OF_THRESHOLD, "`protocol`=study calls the likelier class")
    unread.of_weights(said)
    unread.of_trained_networks(said)
    if said.balanced_sampling and said.synthetic_defects:
        raise UsageError(
            "`balanced_sampling` draws by the labels on file, before `synthetic_defects` makes defective ones of good "
            "images: the kinds would not be balanced. Leave one of them out; without `balanced_sampling` the loss is "
            "weighted by what is drawn."
        )
    if not said.synthetic_defects:
        unread.refuse(said, ["synthetic_kinds"], "`synthetic_defects`=0 draws none")
    if not said.synthetic_kinds or (wrong := sorted(set(said.synthetic_kinds) - set(SYNTHETIC_DEFECTS))):
        what = f"no {wrong[0]!r}" if said.synthetic_kinds else "none is named"
        known = ", ".join(SYNTHETIC_DEFECTS)
        raise UsageError(f"`synthetic_kinds`={','.join(said.synthetic_kinds)}: {what}; there are {known}.")
    if ("generated" in said.synthetic_kinds) != (said.defect_patches is not None):
        raise UsageError(
            "`defect_patches` and `synthetic_kinds`=generated go together: the one names the patches that the other "
            "draws from. Give both, or neither."
        )
    cluster.asked_for(said.strategy)
    unsaid = {name: value for name, value in _OF_TRAINING.items() if getattr(said, name) is None}
    return dataclasses.replace(said, **unsaid)


def of_generating(settings: GenerateSettings) -> None:
    """Raises UsageError if the settings contradict each other."""
    if protocol.parse_budget(settings.label_budget) == 0:
        raise UsageError("`label_budget`=0 buys no labelled defect to learn from. Give a share such as 0.1, or all.")
    if settings.width % 8:
        raise UsageError(f"`width`={settings.width}: expected a multiple of 8.")


def of_pretraining(settings: PretrainSettings) -> None:
    """Raises UsageError if the settings contradict each other."""
    unread.of_weights(settings)
    unread.of_trained_networks(settings)
    cluster.asked_for(settings.strategy)
    if settings.batch_size < 2:
        raise UsageError("`batch_size`=1: a batch needs at least two images, for its statistics and its comparisons.")
    if settings.method not in TEMPERED:
        unread.refuse(settings, ["temperature"], f"`method`={settings.method} has no temperature")
    # None is what such a schedule has, and what the study's flags say.
    if settings.schedule == "cosine_by_epoch" and settings.warmup_share:
        unread.refuse(settings, ["warmup_share"], "`schedule`=cosine_by_epoch has no warm-up")
    labels = protocol.parse_budget(settings.label_budget) != 0
    if settings.method == SUPCON:
        if not labels:
            raise UsageError("`method`=supcon learns from labels: give a `label_budget` that buys some, such as 0.1.")
        unread.refuse(settings, ["keep"], "of `method`=supcon no score of a labelled image is held out")
    if not labels:
        unread.refuse(settings, ["keep"], "`label_budget`=0 watches nothing, and the last encoder is kept")
    elif settings.protocol != CLEAN:
        unread.refuse(settings, ["label_budget"], "`protocol`=study knows no labels in pretraining")
    elif not settings.epochs:
        unread.refuse(settings, ["label_budget"], "`epochs`=0 trains nothing that could be watched")


def of_finetuning(settings: FinetuneRunSettings) -> None:
    """Raises UsageError if the settings contradict each other."""
    unread.of_weights(settings)
    unread.of_trained_networks(settings)
    unread.refuse(settings, ["strategy"], "fine-tuning is watched, on one device")
    if settings.encoder is not None:
        unread.refuse(settings, ["weights", "weights_partial", "backbone", "image_size"], "an `encoder` has its own")
    budget = protocol.parse_budget(settings.label_budget)
    if budget == 0:
        raise UsageError(
            "`label_budget`=0: fine-tuning learns from labelled defects, drawn ones are shown beside them. Give a "
            "budget that buys some, such as 0.1."
        )
    if settings.pseudo_labels is not None and budget is None:
        unread.refuse(settings, ["pseudo_labels"], "`label_budget`=all leaves no image without a label")


def of_distilling(settings: DistilRunSettings) -> None:
    """Raises UsageError if the settings contradict each other."""
    settings.check_threshold()
    unread.of_weights(settings)
    unread.of_trained_networks(settings)
    unread.refuse(settings, ["strategy"], "a student is trained by one device")
    unread.refuse(settings, ["threshold_per"], "a student does not tell which category an image shows")
    if settings.passes == 1:
        unread.refuse(settings, ["synthetic_defects"], "`passes`=1 asks about every image as it is")
    if wrong := [form for form in settings.forms if form not in STUDENT_FORMS]:
        raise UsageError(f"`forms`={','.join(settings.forms)}: no {wrong[0]!r}; there are {', '.join(STUDENT_FORMS)}.")


def of_label_efficiency(
    said: LabelEfficiencySettings,
) -> tuple[LabelEfficiencySettings, dict[str, str], dict[str, str]]:
    """The settings with nothing left unsaid, the heads of the table, and its encoders.

    Returns:
      The settings; name in the table -> "" for a head with the settings' features, or the recipe that it is of; name
      in the table -> START or a folder.

    Raises:
      UsageError: they contradict each other.
    """
    said.check_threshold()
    unread.refuse(said, ["cost_review"], "the cells of a grid are judged by two verdicts")
    settings, heads = _settled(said), _heads_of(said)
    grid_lib.parse_budgets(settings.budgets)
    goods = grid_lib.parse_good_budgets(settings.good_budgets)
    kinds = [recipes.RECIPES[recipe].head if recipe else name for name, recipe in heads.items()]
    if goods and set(kinds) <= NEED_LABELS:
        raise UsageError(
            f"`good_budgets`={','.join(goods)}: what good images are worth is measured without labels, and every head "
            f"here needs some ({', '.join(heads)}). Add `recipe`=few_labels or a head that needs none."
        )
    encoders = _encoders_of(said)
    _check_read(said, heads, encoders)
    return settings, heads, encoders


def _check_read(said: LabelEfficiencySettings, heads: Mapping[str, str], encoders: Mapping[str, str]) -> None:
    """Raises UsageError for what neither a head nor the recipe of the grid reads."""
    unread.of_weights(said)
    plain = [said.head_settings(name, 0) for name, recipe in heads.items() if not recipe]
    unread.of_heads(said, plain)
    if not plain:
        unread.refuse(said, _OF_PLAIN_HEADS, "only the recipe is asked for, which has its own")
    if not any(heads.values()):
        unread.refuse(said, ["recipe_image_size"], "`recipe`=none")
    elif START not in encoders.values():
        unread.refuse(said, ["recipe_image_size"], "start is not among the `encoders`, and each has its own size")


def _settled(said: LabelEfficiencySettings) -> LabelEfficiencySettings:
    """The settings with nothing left unsaid, so that the run's record and its flags.txt say it."""
    values = {"recipe": recipes.ALIASES.get(said.recipe, said.recipe)}
    if said.budgets is None:
        values["budgets"] = tuple(grid_lib.QUICK_BUDGETS if said.quick else grid_lib.BUDGETS)
    if said.seeds is None:
        values["seeds"] = _QUICK_SEEDS if said.quick else _SEEDS
    recipe = recipes.recipe_of(said)
    if said.recipe_image_size is None and recipe is not None:
        values["recipe_image_size"] = _QUICK_SIDE if said.quick else recipe.image_size
    values |= recipes.unsaid(said)
    found = dataclasses.replace(said, **values)
    recipes.check_features(found)
    return found


def _heads_of(settings: LabelEfficiencySettings) -> dict[str, str]:
    """Name in the table -> "" for a head with the settings' features, or the recipe that it is of.

    Raises:
      UsageError: an unknown name, one twice, the recipe's own, or none at all.
    """
    names, recipe = _stripped(settings.heads), recipes.ALIASES.get(settings.recipe, settings.recipe)
    own = [] if recipe == NO_RECIPE else [recipe]
    if set(names) & set(own):
        raise UsageError(f"`heads`={','.join(names)}: the rows {recipe} are those of `recipe`={recipe}. Leave it out.")
    unknown = [name for name in names if name not in HEADS]
    if unknown:
        raise UsageError(f"`heads`={','.join(names)}: unknown: {', '.join(unknown)}. Known are {', '.join(HEADS)}.")
    if len(set(names)) < len(names):
        raise UsageError(f"`heads`={','.join(names)}: one of them stands there twice.")
    if not names and not own:
        raise UsageError("`heads` is empty, and `recipe`=none: there is nothing to compute.")
    return {name: name for name in own} | dict.fromkeys(names, "")


def _encoders_of(settings: LabelEfficiencySettings) -> dict[str, str]:
    """Name in the table -> item of `encoders`: START, or a folder, which goes by its name.

    Raises:
      UsageError: two of one name, none at all, or START without `weights`.
    """
    items = _stripped(settings.encoders)
    names = [item if item == START else _folder_name(item) for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not items or twice:
        said = f"two are called {', '.join(twice)}; rename a folder" if twice else "there is none"
        raise UsageError(f"`encoders`={','.join(items)}: {said}. Expected start, or folders of different names.")
    if START in items and settings.weights is None:
        raise UsageError(
            "`encoders`: start is the backbone of `weights` as it is, and `weights` is missing. Expected imagenet, "
            "none, or a weights file; or `encoders` without start."
        )
    if START not in items:
        unread.refuse(settings, OF_WEIGHTS, "start is not among the `encoders`, and each has its own backbone and size")
    return dict(zip(names, items, strict=True))


def _folder_name(item: str) -> str:
    path = pathlib.Path(item).resolve()
    # saved_models/NAME/1: the version says nothing.
    return path.parent.name if path.name.isdigit() else path.name


def _stripped(items: Sequence[str]) -> list[str]:
    return [item.strip() for item in items if item.strip()]
