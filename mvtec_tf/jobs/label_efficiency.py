"""The steps of label_efficiency: encoders by name, their features, the grid, the report."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

from mvtec_tf.bin.flags import features as feature_flags
from mvtec_tf.bin.flags import heads as head_flags
from mvtec_tf.bin.flags import run as run_flags
from mvtec_tf.bin.flags import thresholds as threshold_flags
from mvtec_tf.bin.flags.label_efficiency import START
from mvtec_tf.data.formats.scan import Record
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.features import extract
from mvtec_tf.features.feature_graph import FeatureSettings
from mvtec_tf.features.recipe import RECIPES
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import encoders as encoders_lib
from mvtec_tf.jobs import probe_features
from mvtec_tf.label_efficiency import report as efficiency_report
from mvtec_tf.label_efficiency.grid import Grid
from mvtec_tf.label_efficiency.run import Method, Runner
from mvtec_tf.run_directory import RunDirectory

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class NamedEncoder:
    """An encoder of the grid.

    Attributes:
      name: in the table.
      path: its SavedModel; None: that of --weights, which is yet to be written.
    """

    name: str
    path: pathlib.Path | None


def find_encoders(names: Mapping[str, str]) -> list[NamedEncoder]:
    """The encoders of --encoders.

    Args:
      names: name in the table -> START or a folder, see `efficiency_flags.encoders`.

    Raises:
      UserError: there is no such encoder.
    """
    return [
        NamedEncoder(name, None if item == START else encoders_lib.resolve_encoder(item, "--encoders"))
        for name, item in names.items()
    ]


def max_pixels(encoders: Sequence[NamedEncoder]) -> int:
    """--max_pixels, or the lowest limit in the graph of an encoder."""
    cards = [saved_model.read_card(encoder.path) for encoder in encoders if encoder.path]
    return min([FLAGS.max_pixels, *(card["max_pixels"] for card in cards if "max_pixels" in card)])


def head_names(heads: Mapping[str, str]) -> dict[str, str]:
    """Name in the table -> key of `head_settings.HEADS`."""
    return {name: RECIPES[recipe].head if recipe else name for name, recipe in heads.items()}


def check_encoders(encoders: Sequence[NamedEncoder], grid: Grid) -> None:
    """Raises LeakError if an encoder was trained on an image that is to be evaluated."""
    for encoder in encoders:
        if encoder.path:
            probe_features.check_pretraining(encoder.path, grid.evaluated())


def run_grid(
    run: RunDirectory, grid: Grid, encoders: Sequence[NamedEncoder], heads: Mapping[str, str], records: Sequence[Record]
) -> None:
    """Computes features and cells, and writes the report after every seed, from complete seeds only.

    Args:
      run: everything goes there.
      grid: of what is to be computed.
      encoders: that are in it.
      heads: name in the table -> the recipe that it is of, or "".
      records: all images.
    """
    methods = _methods(run, encoders, heads, records)
    costs = threshold_flags.rule_and_costs()["costs"]
    runner = Runner(grid, methods, records, run, costs, functools.partial(print, flush=True))
    for _ in runner.run():
        summary = efficiency_report.write(run.path, grid, runner.results, runner.left_out, run.record)
    run.note(cells=len(runner.results), cells_left_out=len(runner.left_out))
    print(summary, flush=True)


def _methods(
    run: RunDirectory, encoders: Sequence[NamedEncoder], heads: Mapping[str, str], records: Sequence[Record]
) -> dict[tuple[str, str], Method]:
    """(encoder, head) -> how; features are computed, or completed, here."""
    found = {}
    stores: dict[tuple[pathlib.Path, FeatureSettings], FeatureStore] = {}
    plain = [_settings(name, "", 0) for name, recipe in heads.items() if not recipe]
    maps = any(settings.needs_maps for settings in plain)
    for encoder in encoders:
        for name, recipe in heads.items():
            path = encoder.path or _start(run, FLAGS.recipe_image_size if recipe else FLAGS.image_size)
            stages = saved_model.read_card(path)["middle_stages"]
            wanted = RECIPES[recipe].settings(stages) if recipe else feature_flags.feature_settings(stages, maps)
            if (path, wanted) not in stores:
                folder = run.path / "features" / f"{encoder.name}_{recipe or 'heads'}"
                with run.timed(f"features {folder.name}"):
                    stores[path, wanted] = extract.extract(path, records, wanted, folder)
                print(f"Features of {encoder.name}: {stores[path, wanted].describe()}", flush=True)
            tiled = wanted.tiles != (1, 1)
            make = functools.partial(_make_head, name, recipe, tiled)
            found[encoder.name, name] = Method(stores[path, wanted], make, _rule(recipe))
    return found


def _rule(recipe: str) -> Rule:
    """As the flags say; a recipe has a rule of its own where they say nothing."""
    rule = threshold_flags.rule_and_costs()["rule"]
    if not recipe or threshold_flags.method_is_given():
        return rule
    return dataclasses.replace(rule, method=RECIPES[recipe].threshold)


def _start(run: RunDirectory, image_size: int) -> pathlib.Path:
    """The SavedModel of the backbone of --weights, written if it is not there."""
    path = run.path / "encoders" / f"{START}_{image_size}"
    settings = encoders_lib.starting_settings(FLAGS.backbone, image_size, FLAGS.weights, FLAGS.weights_partial, seed=0)
    provenance = run_flags.settings_of()
    layers = FLAGS.feature_layers
    words = encoders_lib.export_starting_encoder(path, settings, provenance, layers, FLAGS.max_pixels)
    run.note(network={"weights": words})
    return path


def _settings(name: str, recipe: str, seed: int) -> HeadSettings:
    return head_flags.head_settings(seed, RECIPES[recipe].head if recipe else name)


def _make_head(name: str, recipe: str, tiled: bool, seed: int) -> object:
    return make_head(_settings(name, recipe, seed), tiled)
