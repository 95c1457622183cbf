"""--recipe: sets the flags of features and head together, and refuses those that say something else."""

from typing import TYPE_CHECKING, Any

from absl import flags

from mvtec_tf.errors import UsageError
from mvtec_tf.features.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from mvtec_tf.features.store import FeatureKey

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
# An encoder that was trained, and features that are stored, have the size that they were made at.
_HAVE_A_SIZE = ("encoder", "features")
_THRESHOLDS = ("threshold_method", "target_recall", "target_specificity")


def define() -> None:
    """--recipe."""
    words = "; ".join(f"{name}: {recipe.words}" for name, recipe in RECIPES.items())
    flags.DEFINE_enum(
        "recipe",
        None,
        list(RECIPES),
        f"Sets --{', --'.join(_values(next(iter(RECIPES.values()))))}, where this program has them. {words}. "
        "Unset: as these flags say.",
    )


def apply() -> None:
    """Sets the flags of the recipe, if one is asked for.

    Raises:
      UsageError: one of them was given, and says something else.
    """
    recipe = chosen()
    if recipe is None:
        return
    values = {name: value for name, value in _values(recipe).items() if name in FLAGS}
    if any(name in FLAGS and FLAGS[name].value is not None for name in _HAVE_A_SIZE):
        del values["image_size"]
    for name, value in values.items():
        if FLAGS[name].present and FLAGS[name].value != value:
            raise UsageError(
                f"--{name}={in_words(FLAGS[name].value)}: --recipe={FLAGS.recipe} has "
                f"--{name}={in_words(value)}. Leave out one of them."
            )
    for name, value in values.items():
        FLAGS[name].value = value
    # What a miss and a false alarm are worth is the user's to say, so another threshold contradicts nothing.
    own = [name for name in _THRESHOLDS if name in FLAGS and FLAGS[name].value is not None]
    if "threshold_method" in FLAGS and not own:
        FLAGS["threshold_method"].value = recipe.threshold


def chosen() -> Recipe | None:
    """The recipe of --recipe."""
    return None if FLAGS.recipe is None else RECIPES[FLAGS.recipe]


def set_by_recipe() -> set[str]:
    """Names of the flags that --recipe has set."""
    recipe = chosen() if "recipe" in FLAGS else None
    # The size of an encoder that is there is its own, whatever the recipe makes of weights.
    return set() if recipe is None else set(_values(recipe)) - {"image_size"}


def check_store(folder: str, key: "FeatureKey", made_of_weights: bool) -> None:
    """Raises UsageError if stored features are not those of the recipe, if one is asked for.

    Args:
      folder: of the store, for the message.
      key: what its features are of.
      made_of_weights: whether the encoder is weights as they were given; one that was trained on images has the size
        that it was trained at.
    """
    recipe = chosen()
    if recipe is None:
        return
    wanted = {"pooling": recipe.pooling, "centre_brightness": recipe.centre_brightness, "tiles": recipe.tiles}
    if made_of_weights:
        rows, columns = recipe.tiles
        wanted["image_size"] = (rows * recipe.image_size, columns * recipe.image_size)
    other = [
        f"{name} {in_words(getattr(key, name))}, not {in_words(value)}"
        for name, value in wanted.items()
        if getattr(key, name) != value
    ]
    if other:
        raise UsageError(
            f"--features={folder}: not the features of --recipe={FLAGS.recipe}: {'; '.join(other)}. Write them with "
            f"extract_features --recipe={FLAGS.recipe}, or leave --recipe out."
        )


def _values(recipe: Recipe) -> dict[str, Any]:
    """flag -> its value."""
    return {
        "head": recipe.head,
        "pooling": list(recipe.pooling),
        "centre_brightness": recipe.centre_brightness,
        "tiles": f"{recipe.tiles[0]}x{recipe.tiles[1]}",
        "image_size": recipe.image_size,
    }


def in_words(value: Any) -> str:
    """A flag's value as it is written at a command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).lower()
