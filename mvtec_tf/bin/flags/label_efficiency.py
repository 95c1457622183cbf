"""What label_efficiency is asked for, read from its flags and refused before anything heavy is imported."""

import pathlib
from collections.abc import Sequence

from absl import flags

from mvtec_tf.errors import UsageError
from mvtec_tf.heads.settings import HEADS

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
START = "start"
NO_RECIPE = "none"
# They say what the encoder START is made of.
_OF_START = ("weights", "weights_partial", "backbone", "image_size")


def heads(names: Sequence[str], recipe: str) -> dict[str, str]:
    """Name in the table -> "" for a head with the flags' features, or the recipe that it is of.

    Args:
      names: of --heads.
      recipe: of --recipe.

    Raises:
      UsageError: an unknown name, one twice, the recipe's own, or none at all.
    """
    names = _stripped(names)
    unknown = [name for name in names if name not in HEADS]
    if unknown:
        raise UsageError(f"--heads={','.join(names)}: unknown: {', '.join(unknown)}. Known are {', '.join(HEADS)}.")
    if len(set(names)) < len(names):
        raise UsageError(f"--heads={','.join(names)}: one of them stands there twice.")
    recipes = [] if recipe == NO_RECIPE else [recipe]
    if set(names) & set(recipes):
        raise UsageError(f"--heads={','.join(names)}: the rows {recipe} are those of --recipe={recipe}. Leave it out.")
    if not names and not recipes:
        raise UsageError("--heads is empty, and --recipe=none: there is nothing to compute.")
    return {name: name for name in recipes} | dict.fromkeys(names, "")


def encoders(items: Sequence[str]) -> dict[str, str]:
    """Name in the table -> item of --encoders: START, or a folder, which goes by its name.

    Raises:
      UsageError: two of one name, none at all, or START without --weights.
    """
    items = _stripped(items)
    names = [item if item == START else _folder_name(item) for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not items or twice:
        said = f"two are called {', '.join(twice)}; rename a folder" if twice else "there is none"
        raise UsageError(f"--encoders={','.join(items)}: {said}. Expected start, or folders of different names.")
    if START in items and FLAGS.weights is None:
        raise UsageError(
            "--encoders: start is the backbone of --weights as it is, and --weights is missing. Expected imagenet, "
            "none, or a weights file; or --encoders without start."
        )
    if START not in items:
        unused = [name for name in _OF_START if FLAGS[name].value != FLAGS[name].default]
        if unused:
            raise UsageError(
                f"--{', --'.join(unused)}: of no use, because start is not among the --encoders, and each of them has "
                "its own backbone and size. Leave out, or add start."
            )
    return dict(zip(names, items, strict=True))


def _folder_name(item: str) -> str:
    path = pathlib.Path(item).resolve()
    # saved_models/NAME/1: the version says nothing.
    return path.parent.name if path.name.isdigit() else path.name


def _stripped(items: Sequence[str]) -> list[str]:
    return [item.strip() for item in items if item.strip()]
