"""--recipe sets features and head together, and nothing that contradicts it goes with it."""

import dataclasses
import json

import pytest

from mvtec_tf.errors import UsageError
from mvtec_tf.features.feature_graph import FeatureKey
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import recipes
from mvtec_tf.jobs.settings import FitSettings
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

RECIPE = RECIPES["few_labels"]
TILES = f"{RECIPE.tiles[0]}x{RECIPE.tiles[1]}"
KEY = FeatureKey(
    encoder="0" * 64,
    image_size=(RECIPE.tiles[0] * RECIPE.image_size, RECIPE.tiles[1] * RECIPE.image_size),
    layers=("a", "b"),
    maps=RECIPE.maps,
    neighbourhood=RECIPE.neighbourhood,
    tiles=RECIPE.tiles,
    pooling=RECIPE.pooling,
    centre_brightness=RECIPE.centre_brightness,
)


def _said(**more):
    return FitSettings(data_dir=("data",), run_dir="run", weights="none", **more)


def _resolved(**more):
    return recipes.resolved(_said(**more))


def _kept(settings):
    return (settings.head, settings.pooling, settings.centre_brightness, settings.tiles, settings.image_size)


def test_a_recipe_sets_head_and_features():
    expected = (RECIPE.head, RECIPE.pooling, RECIPE.centre_brightness, TILES, RECIPE.image_size)
    assert _kept(_resolved(recipe="few_labels")) == expected


def test_a_recipes_former_name_is_the_same_recipe():
    assert _resolved(recipe="auto") == _resolved(recipe="few_labels")


def test_without_a_recipe_what_is_unsaid_has_its_default():
    assert _kept(_resolved(head="lda", tiles="2x1")) == ("lda", ("mean",), False, "2x1", 224)


def test_what_says_the_same_as_the_recipe_is_no_contradiction():
    said = _resolved(recipe="few_labels", head=RECIPE.head, pooling=RECIPE.pooling, tiles=TILES)
    assert said == _resolved(recipe="few_labels")


def test_another_threshold_goes_with_a_recipe():
    assert _resolved(recipe="few_labels").threshold_method == RECIPE.threshold
    assert _resolved(recipe="few_labels", threshold_method="best_f1").threshold_method == "best_f1"
    assert _resolved(recipe="few_labels", target_recall=0.9).threshold_method is None
    assert _resolved().threshold_method is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head", "logistic"),
        ("pooling", ("mean",)),
        ("centre_brightness", False),
        ("tiles", "3x1"),
        ("neighbourhood", 3),
    ],
)
def test_a_setting_that_says_something_else_is_refused_by_its_name(name, value):
    with pytest.raises(UsageError, match=f"^`{name}`=.*`recipe`=few_labels has `{name}`="):
        _resolved(recipe="few_labels", **{name: value})


def test_stored_features_of_other_settings_are_refused():
    settings = _resolved(recipe="few_labels")
    recipes.check_store(settings, "here", KEY, made_of_weights=True)
    for change in (
        {"pooling": ("mean",)},
        {"centre_brightness": False},
        {"tiles": (3, 1)},
        {"maps": False},
        {"neighbourhood": 3},
    ):
        with pytest.raises(UsageError, match=f"`features`=here: .*{next(iter(change))} "):
            recipes.check_store(settings, "here", dataclasses.replace(KEY, **change), made_of_weights=False)


def test_only_weights_as_they_are_must_have_the_recipes_size():
    settings = _resolved(recipe="few_labels")
    other = dataclasses.replace(KEY, image_size=(96, 96))
    recipes.check_store(settings, "here", other, made_of_weights=False)
    with pytest.raises(UsageError, match="image_size 96,96, not"):
        recipes.check_store(settings, "here", other, made_of_weights=True)
    recipes.check_store(_resolved(), "here", other, made_of_weights=True)


def test_the_recipes_features_are_those_that_its_flags_ask_for():
    settings = RECIPE.settings(["a", "b"])
    assert settings.layers == ("a", "b")
    assert (settings.pooling, settings.centre_brightness) == (RECIPE.pooling, RECIPE.centre_brightness)
    assert recipes.parse_tiles(TILES) == settings.tiles
    assert settings.maps == HeadSettings(RECIPE.head).needs_maps
    assert settings.neighbourhood == RECIPE.neighbourhood


@pytest.mark.slow
def test_features_extracted_by_the_recipe_are_its_own(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "few_labels", dataclasses.replace(RECIPE, image_size=64))
    store = tmp_path / "features"
    encoder = ("--backbone=resnet10", "--weights=none", f"--data_dir={toy}", "--categories=flange")
    with in_place_of_resnet10():
        run_binary("extract_features", *encoder, "--recipe=auto", f"--out={store}")
    assert json.loads((store / "features.json").read_text())["key"]["pooling"] == list(RECIPE.pooling)
