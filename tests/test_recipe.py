"""--recipe sets features and head together, and nothing that contradicts it goes with it."""

import dataclasses
import json

import pytest
from absl import flags

from mvtec_tf.bin.flags import features as feature_flags
from mvtec_tf.bin.flags import recipes as recipe_flags
from mvtec_tf.errors import UsageError
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.features.store import FeatureKey
from mvtec_tf.heads.settings import HEADS, HeadSettings
from tests.conftest import run_binary

AUTO = RECIPES["auto"]
TILES = f"{AUTO.tiles[0]}x{AUTO.tiles[1]}"
KEY = FeatureKey(
    encoder="0" * 64,
    image_size=(AUTO.tiles[0] * AUTO.image_size, AUTO.tiles[1] * AUTO.image_size),
    layers=("a", "b"),
    maps=False,
    neighbourhood=1,
    tiles=AUTO.tiles,
    pooling=AUTO.pooling,
    centre_brightness=AUTO.centre_brightness,
)


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line of --recipe and the flags that it sets, without the process' own."""

    def parsed(*arguments):
        values = flags.FlagValues()
        flags.DEFINE_enum("recipe", None, list(RECIPES), "", flag_values=values)
        flags.DEFINE_enum("head", "logistic", list(HEADS), "", flag_values=values)
        flags.DEFINE_list("pooling", ["mean"], "", flag_values=values)
        flags.DEFINE_boolean("centre_brightness", False, "", flag_values=values)
        flags.DEFINE_string("tiles", "1x1", "", flag_values=values)
        flags.DEFINE_integer("image_size", 224, "", flag_values=values)
        flags.DEFINE_string("threshold_method", None, "", flag_values=values)
        flags.DEFINE_float("target_recall", None, "", flag_values=values)
        values(["program", *arguments])
        monkeypatch.setattr(recipe_flags, "FLAGS", values)
        recipe_flags.apply()
        return values

    return parsed


def _kept(values):
    return (values.head, values.pooling, values.centre_brightness, values.tiles, values.image_size)


def test_a_recipe_sets_head_and_features(parse):
    expected = (AUTO.head, list(AUTO.pooling), AUTO.centre_brightness, TILES, AUTO.image_size)
    assert _kept(parse("--recipe=auto")) == expected


def test_without_a_recipe_the_flags_are_what_they_were(parse):
    assert _kept(parse("--head=lda", "--tiles=2x1")) == ("lda", ["mean"], False, "2x1", 224)


def test_what_says_the_same_as_the_recipe_is_no_contradiction(parse):
    values = parse("--recipe=auto", f"--head={AUTO.head}", f"--pooling={','.join(AUTO.pooling)}", f"--tiles={TILES}")
    assert _kept(values) == _kept(parse("--recipe=auto"))


def test_another_threshold_goes_with_a_recipe(parse):
    assert parse("--recipe=auto").threshold_method == AUTO.threshold
    assert parse("--recipe=auto", "--threshold_method=best_f1").threshold_method == "best_f1"
    assert parse("--recipe=auto", "--target_recall=0.9").threshold_method is None
    assert parse().threshold_method is None


@pytest.mark.parametrize("flag", ["--head=logistic", "--pooling=mean", "--nocentre_brightness", "--tiles=3x1"])
def test_a_flag_that_says_something_else_is_refused_by_its_name(flag, parse):
    name = flag.removeprefix("--").removeprefix("no").split("=")[0]
    with pytest.raises(UsageError, match=f"^--{name}=.*--recipe=auto has --{name}="):
        parse("--recipe=auto", flag)


def test_stored_features_of_other_settings_are_refused(parse):
    parse("--recipe=auto")
    recipe_flags.check_store("here", KEY, made_of_weights=True)
    for change in ({"pooling": ("mean",)}, {"centre_brightness": False}, {"tiles": (3, 1)}):
        with pytest.raises(UsageError, match=f"--features=here: .*{next(iter(change))} "):
            recipe_flags.check_store("here", dataclasses.replace(KEY, **change), made_of_weights=False)


def test_only_weights_as_they_are_must_have_the_recipes_size(parse):
    parse("--recipe=auto")
    other = dataclasses.replace(KEY, image_size=(96, 96))
    recipe_flags.check_store("here", other, made_of_weights=False)
    with pytest.raises(UsageError, match="image_size 96,96, not"):
        recipe_flags.check_store("here", other, made_of_weights=True)
    parse()
    recipe_flags.check_store("here", other, made_of_weights=True)


def test_the_recipes_features_are_those_that_its_flags_ask_for():
    settings = AUTO.settings(["a", "b"])
    assert settings.layers == ("a", "b")
    assert (settings.pooling, settings.centre_brightness) == (AUTO.pooling, AUTO.centre_brightness)
    assert feature_flags.parse_tiles(TILES) == settings.tiles
    assert not HeadSettings(AUTO.head).needs_maps


@pytest.mark.slow
def test_a_run_by_the_recipe_is_repeated_by_its_flagfile(toy, tmp_path):
    """Stored features, and the flags.txt of a run on them."""
    store, run = tmp_path / "features", tmp_path / "run"
    encoder = ("--backbone=resnet10", "--weights=none", f"--data_dir={toy}", "--categories=flange")
    run_binary("extract_features", *encoder, "--recipe=auto", f"--out={store}")
    assert json.loads((store / "features.json").read_text())["key"]["pooling"] == list(AUTO.pooling)
    data = (f"--data_dir={toy}", "--categories=flange", f"--features={store}", "--label_budget=0.25")
    run_binary("fit_probe", *data, "--recipe=auto", f"--run_dir={run}")
    written = (run / "flags.txt").read_text()
    assert "--recipe=auto" in written
    assert f"--head={AUTO.head}" in written
    again = run_binary("fit_probe", f"--flagfile={run / 'flags.txt'}", f"--run_dir={tmp_path / 'again'}")
    assert "again" in again.stdout
    scores = [(place / "predictions.csv").read_text() for place in (run, tmp_path / "again")]
    assert scores[0] == scores[1]
