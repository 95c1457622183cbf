"""Which recipe works on one's parts with the labels there are: encoders x heads x label budgets x draws."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

from mvtec_tf.data.formats.scan import Record
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.features import extract
from mvtec_tf.features.feature_graph import FeatureSettings
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import checks, judging, opening, probe_features, recipes
from mvtec_tf.jobs import encoders as encoders_lib
from mvtec_tf.jobs.checks import START
from mvtec_tf.jobs.settings import LabelEfficiencySettings
from mvtec_tf.label_efficiency import grid as grid_lib
from mvtec_tf.label_efficiency import report as efficiency_report
from mvtec_tf.label_efficiency.grid import Grid
from mvtec_tf.label_efficiency.run import Method, Runner
from mvtec_tf.run_directory import RunDirectory


def label_efficiency(said: LabelEfficiencySettings) -> RunDirectory:
    """Computes the cells of the grid that are missing, and the report.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: images or encoders cannot be used.
    """
    settings, heads, names = checks.of_label_efficiency(said)
    budgets = grid_lib.parse_budgets(settings.budgets)
    encoders = find_encoders(names)
    records, skipped = opening.usable_by_file(settings, opening.scan(settings), max_pixels(settings, encoders))
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    methods = [(encoder.name, head) for encoder in encoders for head in heads]
    grid = grid_lib.make_grid(records, methods, budgets, seeds, head_names(heads))
    check_encoders(encoders, grid)
    # The grid itself finds what is missing of a finished run.
    with opening.opened("label_efficiency", settings, records, skipped, results=None) as run:
        run_grid(run, settings, grid, encoders, heads, records)
        judging.finish(run)
        return run


@dataclasses.dataclass(frozen=True)
class NamedEncoder:
    """An encoder of the grid.

    Attributes:
      name: in the table.
      path: its SavedModel; None: that of `weights`, which is yet to be written.
    """

    name: str
    path: pathlib.Path | None


def find_encoders(names: Mapping[str, str]) -> list[NamedEncoder]:
    """Finds the encoders of the grid.

    Args:
      names: name in the table -> START or a folder, see `checks.of_label_efficiency`.

    Raises:
      UserError: there is no such encoder.
    """
    return [
        NamedEncoder(name, None if item == START else encoders_lib.resolve_encoder(item, "encoders"))
        for name, item in names.items()
    ]


def max_pixels(settings: LabelEfficiencySettings, encoders: Sequence[NamedEncoder]) -> int:
    """The limit of the settings, or the lowest in the graph of an encoder."""
    cards = [saved_model.read_card(encoder.path) for encoder in encoders if encoder.path]
    return min([settings.max_pixels, *(card["max_pixels"] for card in cards if "max_pixels" in card)])


def head_names(heads: Mapping[str, str]) -> dict[str, str]:
    """Name in the table -> key of `head_settings.HEADS`."""
    return {name: RECIPES[recipe].head if recipe else name for name, recipe in heads.items()}


def check_encoders(encoders: Sequence[NamedEncoder], grid: Grid) -> None:
    """Raises LeakError if an encoder was trained on an image that is to be evaluated."""
    for encoder in encoders:
        if encoder.path:
            probe_features.check_pretraining(encoder.path, grid.evaluated())


def run_grid(
    run: RunDirectory,
    settings: LabelEfficiencySettings,
    grid: Grid,
    encoders: Sequence[NamedEncoder],
    heads: Mapping[str, str],
    records: Sequence[Record],
) -> None:
    """Computes features and cells, and writes the report after every seed, from complete seeds only.

    Args:
      run: everything goes there.
      settings: with nothing left unsaid.
      grid: of what is to be computed.
      encoders: that are in it.
      heads: name in the table -> the recipe that it is of, or "".
      records: all images.
    """
    methods = _methods(run, settings, encoders, heads, records)
    costs = settings.rule_and_costs()["costs"]
    runner = Runner(grid, methods, records, run, costs, functools.partial(print, flush=True))
    for _ in runner.run():
        summary = efficiency_report.write(run.path, grid, runner.results, runner.left_out, run.record)
    run.note(cells=len(runner.results), cells_left_out=len(runner.left_out))
    print(summary, flush=True)


def _methods(
    run: RunDirectory,
    settings: LabelEfficiencySettings,
    encoders: Sequence[NamedEncoder],
    heads: Mapping[str, str],
    records: Sequence[Record],
) -> dict[tuple[str, str], Method]:
    """(encoder, head) -> how; features are computed, or completed, here."""
    found = {}
    stores: dict[tuple[pathlib.Path, FeatureSettings], FeatureStore] = {}
    plain = [_head_settings(settings, name, "", 0) for name, recipe in heads.items() if not recipe]
    maps = any(head.needs_maps for head in plain)
    for encoder in encoders:
        for name, recipe in heads.items():
            path = encoder.path or _start(run, settings, recipe, records)
            stages = saved_model.read_card(path)["middle_stages"]
            wanted = _features_of(settings, recipe, stages, maps)
            if (path, wanted) not in stores:
                folder = run.path / "features" / f"{encoder.name}_{recipe or 'heads'}"
                with run.timed(f"features {folder.name}"):
                    stores[path, wanted] = extract.extract(path, records, wanted, folder)
                print(f"Features of {encoder.name}: {stores[path, wanted].describe()}", flush=True)
            tiled = wanted.tiles != (1, 1)
            make = functools.partial(_make_head, settings, name, recipe, tiled)
            found[encoder.name, name] = Method(
                stores[path, wanted], make, _rule(settings, recipe), probe_features.pretrained_paths(path)
            )
    return found


def _features_of(
    settings: LabelEfficiencySettings, recipe: str, middle_stages: list[str], maps: bool
) -> FeatureSettings:
    if recipe:
        return RECIPES[recipe].settings(middle_stages)
    return recipes.feature_settings(settings, middle_stages, maps)


def _rule(settings: LabelEfficiencySettings, recipe: str) -> Rule:
    """The rule of the settings; a recipe has one of its own where they say nothing."""
    rule = settings.rule_and_costs()["rule"]
    if not recipe or settings.threshold_is_given:
        return rule
    return dataclasses.replace(rule, method=RECIPES[recipe].threshold)


def _start(
    run: RunDirectory, settings: LabelEfficiencySettings, recipe: str, records: Sequence[Record]
) -> pathlib.Path:
    """The SavedModel of the backbone of the weights, written if it is not there."""
    side, shape = settings.image_size, settings.image_shape
    if recipe:
        side, shape = settings.recipe_image_size, RECIPES[recipe].image_shape
    size = encoders_lib.size_of(side, shape, records)
    path = run.path / "encoders" / f"{START}_{side if size == side else f'{size[0]}x{size[1]}'}"
    run.note(network={"weights": encoders_lib.write_start(path, settings, side, size, seed=0)})
    return path


def _head_settings(settings: LabelEfficiencySettings, name: str, recipe: str, seed: int) -> HeadSettings:
    return settings.head_settings(RECIPES[recipe].head if recipe else name, seed)


def _make_head(settings: LabelEfficiencySettings, name: str, recipe: str, tiled: bool, seed: int) -> object:
    return make_head(_head_settings(settings, name, recipe, seed), tiled)
