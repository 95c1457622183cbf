"""Finds out which recipe works on your parts with the labels you have: encoders x heads x label budgets x draws.

Every cell of the grid is judged by the protocol clean, and is written when it is done: a stopped call goes on where
it stopped. RUN_DIR/cells.csv holds all figures, RUN_DIR/report.html says what they prove and what not.

--recipe=auto (the default) adds the recommended recipe, as the head "auto", to those of --heads.

Examples:
  python -m mvtec_tf.bin.label_efficiency --data_dir=DATA/bottle --weights=imagenet --quick --run_dir=results/quick
  python -m mvtec_tf.bin.label_efficiency --data_dir=DATA --weights=imagenet --run_dir=results/labels
  python -m mvtec_tf.bin.label_efficiency --data_dir=DATA --weights=imagenet --encoders=start,results/simclr \
      --heads=logistic,rbf_svm --budgets=0,0.1,10d --seeds=10 --run_dir=results/encoders
"""

from absl import flags

from mvtec_tf.bin import entry
from mvtec_tf.bin.flags import features as feature_flags
from mvtec_tf.bin.flags import heads as head_flags
from mvtec_tf.bin.flags import label_efficiency as efficiency_flags
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.heads.settings import HEADS

_SEEDS, _QUICK_SEEDS, _QUICK_SIDE = 10, 3, 224
run_flags.define_data_flags()
run_flags.define_run_dir()
threshold_flags.define()
feature_flags.define_weights_flags()
feature_flags.define_feature_flags()
head_flags.define_number_flags()
_ENCODERS = flags.DEFINE_list(
    "encoders",
    ["start"],
    "start: the backbone of --weights as it is; and run directories of train_simclr, or SavedModels of encoders.",
)
_HEADS = flags.DEFINE_list(
    "heads", ["logistic", "mahalanobis", "nearest_neighbours"], f"Out of {', '.join(HEADS)}; may be empty."
)
_RECIPE = flags.DEFINE_enum(
    "recipe",
    next(iter(RECIPES)),
    [*RECIPES, efficiency_flags.NO_RECIPE],
    "Adds rows of its name as head, with features of its own; "
    + "; ".join(f"{name}: {recipe.words}" for name, recipe in RECIPES.items())
    + f"; {efficiency_flags.NO_RECIPE}: only --heads.",
)
_RECIPE_SIDE = flags.DEFINE_integer(
    "recipe_image_size", None, "Side in pixels of the start encoder for --recipe. Unset: the recipe's own.", 1
)
_BUDGETS = flags.DEFINE_list(
    "budgets",
    None,
    "Label budgets: shares of all test images, all (the pool, half of them), or counts of labelled defective objects "
    "such as 10d. Unset: 0,0.01,0.02,0.05,0.1,0.25,all,1d,10d.",
)
_SEED_COUNT = flags.DEFINE_integer(
    "seeds", None, f"How many draws, each cuts the test images anew. Unset: {_SEEDS}.", 1
)
_FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "Seed of the first draw; the others follow.", 0)
_QUICK = flags.DEFINE_boolean(
    "quick", False, f"A first look in minutes: 4 budgets, {_QUICK_SEEDS} draws, {_QUICK_SIDE} px, where not given."
)


def main() -> None:
    from mvtec_tf.label_efficiency import grid as efficiency_grid

    feature_flags.check_feature_flags()
    heads = efficiency_flags.heads(_HEADS.value, _RECIPE.value)
    _settle(efficiency_grid)
    budgets = efficiency_grid.parse_budgets(_BUDGETS.value)
    names = efficiency_flags.encoders(_ENCODERS.value)

    from mvtec_tf.jobs import label_efficiency as efficiency_steps
    from mvtec_tf.jobs import run_steps

    encoders = efficiency_steps.find_encoders(names)
    records, skipped = run_steps.usable_by_file(run_steps.scan(), efficiency_steps.max_pixels(encoders))
    seeds = range(_FIRST_SEED.value, _FIRST_SEED.value + _SEED_COUNT.value)
    methods = [(encoder.name, head) for encoder in encoders for head in heads]
    grid = efficiency_grid.make_grid(records, methods, budgets, seeds, efficiency_steps.head_names(heads))
    efficiency_steps.check_encoders(encoders, grid)
    run = run_steps.open_run("label_efficiency", records, skipped, results=None)
    efficiency_steps.run_grid(run, grid, encoders, heads, records)
    run_steps.finish(run)


def _settle(grid: object) -> None:
    """Puts into the flags what is not given, so that the run's record and its flags.txt say it."""
    flags_of = run_flags.FLAGS
    if _BUDGETS.value is None:
        flags_of["budgets"].value = list(grid.QUICK_BUDGETS if _QUICK.value else grid.BUDGETS)
    if _SEED_COUNT.value is None:
        flags_of["seeds"].value = _QUICK_SEEDS if _QUICK.value else _SEEDS
    if _RECIPE_SIDE.value is None and _RECIPE.value != efficiency_flags.NO_RECIPE:
        flags_of["recipe_image_size"].value = _QUICK_SIDE if _QUICK.value else RECIPES[_RECIPE.value].image_size


if __name__ == "__main__":
    entry.run(main)
