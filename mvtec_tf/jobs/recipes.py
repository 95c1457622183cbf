"""From what was asked for to what is run: recipes, defaults, and what an encoder or stored features have settled.

What is recorded is what is run: every function gives settings with nothing left unsaid, or refuses.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mvtec_tf.errors import UsageError
from mvtec_tf.features.recipe import PARTS, RECIPES, SQUARE, Recipe
from mvtec_tf.jobs import unread
from mvtec_tf.jobs.fields import DEFAULTS, EncoderFields, FeatureFields, ThresholdSettings
from mvtec_tf.settings import in_words

if TYPE_CHECKING:
    # Not at run time: a command line is read and refused without TensorFlow.
    from mvtec_tf.features.feature_graph import FeatureKey, FeatureSettings

# The former names of recipes.
ALIASES = {"auto": "few_labels"}
# They make an encoder; one that is there has its own.
_OF_WEIGHTS = ("weights", "weights_partial")
_HAVE_A_SIZE = ("encoder", "features")


def recipe_of(settings: Any) -> Recipe | None:
    """The recipe that the settings name."""
    return None if settings.recipe in (None, "none") else RECIPES[ALIASES.get(settings.recipe, settings.recipe)]


def resolved(settings: EncoderFields) -> Any:
    """The same settings with the recipe's values and the defaults for what was not said.

    Raises:
      UsageError: a value was given beside a recipe, and says something else.
    """
    recipe, values = recipe_of(settings), {}
    if recipe is not None:
        values = {name: value for name, value in values_of(recipe).items() if hasattr(settings, name)}
        if any(getattr(settings, name, None) is not None for name in _HAVE_A_SIZE):
            del values["image_size"], values["image_shape"]
        name = ALIASES.get(settings.recipe, settings.recipe)
        for field, value in values.items():
            given = getattr(settings, field)
            if given is not None and given != value:
                raise UsageError(
                    f"`{field}`={in_words(given)}: `recipe`={name} has `{field}`={in_words(value)}. Leave out one of "
                    "them."
                )
        values["recipe"] = name
        # What a miss and a false alarm are worth is the user's to say, so another threshold contradicts nothing.
        if isinstance(settings, ThresholdSettings) and not settings.threshold_is_given and settings.cost_review is None:
            values["threshold_method"] = recipe.threshold
    found = dataclasses.replace(settings, **(unsaid(settings) | values))
    check_features(found)
    return found


def unsaid(settings: Any) -> dict[str, Any]:
    """The defaults of what was not said."""
    return {
        name: value
        for name, value in DEFAULTS.items()
        if hasattr(settings, name) and getattr(settings, name) is None
    }


def values_of(recipe: Recipe) -> dict[str, Any]:
    """Setting -> the recipe's value."""
    return {
        "head": recipe.head,
        "pooling": tuple(recipe.pooling),
        "centre_brightness": recipe.centre_brightness,
        "maps": recipe.maps,
        "neighbourhood": recipe.neighbourhood,
        "tiles": f"{recipe.tiles[0]}x{recipe.tiles[1]}",
        "image_size": recipe.image_size,
        "image_shape": recipe.image_shape,
    }


def check_source(settings: EncoderFields) -> None:
    """Raises UsageError for settings that do not go together, before anything heavy is imported.

    What is said beside an encoder, or stored features, is compared with these later: see `settled`.
    """
    if getattr(settings, "features", None) is None:
        if (settings.encoder is None) == (settings.weights is None):
            raise UsageError("Give either `encoder` or `weights`.")
        unread.of_weights(settings)
        return
    given = [name for name in _OF_WEIGHTS if getattr(settings, name)]
    if given:
        listed = ", ".join(f"`{name}`" for name in given)
        raise UsageError(f"`features`: what is stored there was made with its own encoder. Leave out {listed}.")


def settled(
    settings: EncoderFields, said: EncoderFields, card: Mapping[str, Any], source: str, key: "FeatureKey | None" = None
) -> Any:
    """The settings with what an encoder, or features that are stored, have settled.

    Args:
      settings: resolved.
      said: as they were given.
      card: what the encoder says of itself.
      source: the setting that named it, with its value, for the message.
      key: what stored features are of; None: features are yet to be made.

    Raises:
      UsageError: something was given, and says something else.
    """
    size, run = card["image_size"], card["run"]
    square = isinstance(size, int)
    own = {"image_size": size if square else run["image_size"], "image_shape": SQUARE if square else PARTS}
    own |= {"backbone": run.get("backbone", settings.backbone), "weights_partial": False}
    own["precision"] = card.get("precision", "float32")
    if key is not None:
        own |= {"tiles": "{}x{}".format(*key.tiles), "pooling": tuple(key.pooling), "feature_layers": tuple(key.layers)}
        own |= {"centre_brightness": key.centre_brightness, "neighbourhood": key.neighbourhood}
    given = {name: getattr(said, name) for name in own}
    other = [
        f"`{name}`={in_words(given[name])} (it has {in_words(value)})"
        for name, value in own.items()
        if given[name] not in (None, (), False, value)
        or (name == "centre_brightness" and given[name] is False and value)
    ]
    if other:
        raise UsageError(
            f"{source} was made with other values, which cannot be changed: {', '.join(other)}. Leave these out, or "
            "name the `weights` of a backbone to make such features of."
        )
    return dataclasses.replace(settings, **own)


def check_store(settings: EncoderFields, folder: str, key: "FeatureKey", made_of_weights: bool) -> None:
    """Raises UsageError if stored features are not those of the recipe, if one is asked for.

    Args:
      settings: with the recipe.
      folder: of the store, for the message.
      key: what its features are of.
      made_of_weights: whether the encoder is weights as they were given; one that was trained on images has the size
        that it was trained at.
    """
    recipe = recipe_of(settings)
    if recipe is None:
        return
    wanted = {
        name: getattr(recipe, name) for name in ("pooling", "centre_brightness", "maps", "neighbourhood", "tiles")
    }
    if made_of_weights:
        rows, columns = recipe.tiles
        square = rows * recipe.image_size, columns * recipe.image_size
        # As the parts are shaped: their sides are rounded, and so is the area.
        shaped = 0.5 < math.prod(key.image_size) / math.prod(square) < 2 and len(set(key.image_size)) > 1
        wanted["image_size"] = key.image_size if shaped else square
    other = [
        f"{name} {in_words(getattr(key, name))}, not {in_words(value)}"
        for name, value in wanted.items()
        if getattr(key, name) != value
    ]
    if other:
        raise UsageError(
            f"`features`={folder}: not the features of `recipe`={settings.recipe}: {'; '.join(other)}. Extract them by "
            "that recipe, or leave the recipe out."
        )


def check_features(settings: FeatureFields) -> None:
    """Raises UsageError for a value that makes no sense."""
    if settings.tiles is not None:
        parse_tiles(settings.tiles)
    if settings.neighbourhood is not None and settings.neighbourhood % 2 == 0:
        raise UsageError(f"`neighbourhood`={settings.neighbourhood}: expected an odd number.")


def parse_tiles(text: str) -> tuple[int, int]:
    """(rows, columns) of "RxC".

    Raises:
      UsageError: it is nothing of the kind.
    """
    match = re.fullmatch(r"([1-9]\d?)[xX]([1-9]\d?)", text)
    if not match:
        raise UsageError(f"`tiles`={text}: expected ROWSxCOLUMNS, such as 2x2, each from 1 to 99.")
    return int(match[1]), int(match[2])


def feature_settings(settings: FeatureFields, middle_stages: list[str], maps: bool) -> "FeatureSettings":
    """The features of an encoder that resolved settings ask for.

    Args:
      settings: resolved.
      middle_stages: the layers if none are named.
      maps: whether patch maps are wanted.
    """
    from mvtec_tf.features.feature_graph import FeatureSettings

    layers = tuple(settings.feature_layers or middle_stages)
    tiles = parse_tiles(settings.tiles)
    return FeatureSettings(layers, maps, settings.neighbourhood, tiles, settings.pooling, settings.centre_brightness)
