"""Which recipe works on one's parts with the labels there are: encoders x heads x label budgets x draws."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.features import extract
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.make import make_head
from mvtec_tf.jobs import checks, judging, opening, recipes
from mvtec_tf.jobs import encoders as encoders_lib
from mvtec_tf.jobs.checks import START
from mvtec_tf.jobs.settings import LabelEfficiencySettings
from mvtec_tf.label_efficiency import grid as grid_lib
from mvtec_tf.label_efficiency import report as efficiency_report
from mvtec_tf.label_efficiency.cell import Method
from mvtec_tf.label_efficiency.run import Runner
from mvtec_tf.run_directory import RunDirectory


def label_efficiency(said: LabelEfficiencySettings) -> RunDirectory:
    """Computes the cells of the grid that are missing, and the report after every seed, from complete seeds only.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: images or encoders cannot be used.
    """
    settings, heads, items = checks.of_label_efficiency(said)
    budgets = grid_lib.parse_budgets(settings.budgets)
    encoders = {
        name: None if item == START else encoders_lib.resolve_encoder(item, "encoders") for name, item in items.items()
    }
    there = [path for path in encoders.values() if path]
    limit = encoders_lib.max_pixels(settings.max_pixels, there)
    records, skipped = opening.usable_by_file(settings, opening.scan(settings), limit)
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    pairs = [(encoder, head) for encoder in encoders for head in heads]
    kinds = {name: _kind(name, recipe) for name, recipe in heads.items()}
    goods = grid_lib.parse_good_budgets(settings.good_budgets)
    grid = grid_lib.make_grid(records, pairs, budgets, seeds, kinds, goods)
    for path in there:
        encoders_lib.check_pretraining(path, grid.evaluated())
        _check_labels(path, grid)
    # The grid itself finds what is missing of a finished run.
    with opening.opened("label_efficiency", settings, records, skipped, results=None) as run:
        methods = _methods(run, settings, encoders, heads, records)
        costs = settings.rule_and_costs()["costs"]
        runner = Runner(grid, methods, records, run, costs, functools.partial(print, flush=True))
        for _ in runner.run():
            summary = efficiency_report.write(run.path, grid, runner.results, runner.left_out, run.record)
        run.note(cells=len(runner.results), cells_left_out=len(runner.left_out))
        print(summary, flush=True)
        judging.finish(run)
        return run


def _check_labels(encoder: pathlib.Path, grid: grid_lib.Grid) -> None:
    """Raises UserError if an encoder has used labels that a cell would not count."""
    bought: dict[tuple, list[Record]] = collections.defaultdict(list)
    for (_, *cell), cut in grid.cuts.items():
        bought[tuple(cell)] += cut.labelled
    for (budget, seed, _), labelled in bought.items():
        if besides := encoders_lib.labels_besides(encoder, labelled):
            raise UserError(
                f"`encoders`={encoder}: has used the labels of {counted(len(besides), 'test image')} that `budgets`="
                f"{budget} does not buy (seed {seed}), so the table would count too few. Fit heads on it with mvtec-tf "
                "fit, which counts them, and set the runs side by side with mvtec-tf compare."
            )


def _kind(name: str, recipe: str) -> str:
    """Key of `heads.settings.HEADS`: the recipe's head, or that of a head's own name."""
    return RECIPES[recipe].head if recipe else name


def _methods(
    run: RunDirectory,
    settings: LabelEfficiencySettings,
    encoders: Mapping[str, pathlib.Path | None],
    heads: Mapping[str, str],
    records: Sequence[Record],
) -> dict[tuple[str, str], Method]:
    """(encoder, head) -> how; features are computed, or completed, here.

    Args:
      run: everything goes there.
      settings: with nothing left unsaid.
      encoders: name -> SavedModel; None: that of `weights`, which is written if it is not there.
      heads: name in the table -> the recipe that it is of, or "".
      records: all images.
    """
    found, stores = {}, {}
    maps = any(settings.head_settings(name, seed=0).needs_maps for name, recipe in heads.items() if not recipe)
    plain = settings.rule_and_costs()["rule"]
    # Once for each recipe, not for each head.
    start = functools.cache(lambda recipe: _start(run, settings, recipe, records))
    for encoder, folder in encoders.items():
        for name, recipe in heads.items():
            path, rule = folder or start(recipe), plain
            stages = saved_model.read_card(path)["middle_stages"]
            if recipe:
                wanted = RECIPES[recipe].settings(stages)
                if not settings.threshold_is_given:
                    rule = dataclasses.replace(plain, method=RECIPES[recipe].threshold)
            else:
                wanted = recipes.feature_settings(settings, stages, maps)
            if (path, wanted) not in stores:
                called = f"{encoder}_{recipe or 'heads'}"
                with run.timed(f"features {called}"):
                    stores[path, wanted] = extract.extract(path, records, wanted, run.path / "features" / called)
                print(f"Features of {encoder}: {stores[path, wanted].describe()}", flush=True)
            make = functools.partial(_make_head, settings, _kind(name, recipe), wanted.tiles != (1, 1))
            seen = encoders_lib.pretrained_paths(path, records)
            found[encoder, name] = Method(stores[path, wanted], make, rule, seen)
    return found


def _start(
    run: RunDirectory, settings: LabelEfficiencySettings, recipe: str, records: Sequence[Record]
) -> pathlib.Path:
    """The SavedModel of the backbone of the weights, written if it is not there."""
    side, shape = settings.image_size, settings.image_shape
    if recipe:
        side, shape = settings.recipe_image_size, RECIPES[recipe].image_shape
    size = encoders_lib.size_of(side, shape, records, settings.backbone)
    path = run.path / "encoders" / f"{START}_{side if size == side else f'{size[0]}x{size[1]}'}"
    run.note(network={"weights": encoders_lib.write_start(path, settings, side, size, seed=0)})
    return path


def _make_head(settings: LabelEfficiencySettings, kind: str, tiled: bool, seed: int) -> Any:
    return make_head(settings.head_settings(kind, seed), tiled)
