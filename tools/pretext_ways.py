"""Ways to an encoder from a line's good images, and training them one after another by graphs that are made once."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, synthetic
from mvtec_tf.data.augment_settings import ContrastiveAugmentation
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import NONE
from mvtec_tf.training import contrastive, supervised
from mvtec_tf.training.settings import SUPCON, ContrastiveSettings, SupervisedSettings

_FLAGS = pathlib.Path(__file__).parent.parent / "flags"
_SIMCLR = {"temperature": 0.2}
# Random weights are far from anything: the study's small steps would leave them there.
_FROM_NOTHING = {"weights": NONE, "learning_rate": 1e-3}


def _views(name: str) -> dict[str, Any]:
    """Views by name, from their flagfile."""
    lines = (_FLAGS / f"views_{name}.flags").read_text(encoding="utf-8").splitlines()
    pairs = (line.removeprefix("--augment_").split("=") for line in lines if line.startswith("--"))
    return {"augmentation": ContrastiveAugmentation(**{key: float(value) for key, value in pairs})}


# Name -> what differs from the defaults; `drawn`: copies of the good images with drawn defects are images of their own.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "start": {"trains": False},
    "simclr_0.07": {"temperature": 0.07},
    "simclr_0.2": _SIMCLR,
    "simclr_0.5": {"temperature": 0.5},
    **{f"simclr_0.2_{name}": _SIMCLR | _views(name) for name in ("strong", "texture", "aligned", "gentle")},
    "byol": {"method": "byol"},
    "vicreg": {"method": "vicreg"},
    "densecl": {"method": "densecl"} | _SIMCLR,
    "simclr_0.2_slow": _SIMCLR | {"learning_rate": 1e-5},
    "simclr_0.2_late": _SIMCLR | {"frozen_stages": 3},
    "simclr_0.2_frozen_norm": _SIMCLR | {"frozen_batch_norm": True},
    "simclr_0.2_aligned_frozen_norm": _SIMCLR | _views("aligned") | {"frozen_batch_norm": True},
    "simclr_0.2_drawn": _SIMCLR | {"drawn": True},
    "densecl_gentle_drawn": {"method": "densecl", "drawn": True} | _SIMCLR | _views("gentle"),
    "supcon_drawn": {"method": SUPCON, "drawn": True} | _SIMCLR | _views("gentle"),
    "random": {"weights": NONE, "trains": False},
    "random_simclr_0.2": _SIMCLR | _FROM_NOTHING,
    "random_densecl": {"method": "densecl"} | _SIMCLR | _FROM_NOTHING,
    # Told to tell drawn defects from good images, and judged by heads as the others are, and by what it says itself.
    "drawn_network": {},
    "drawn_network_nsa": {"synthetic_kinds": ("nsa",)},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What all ways share.

    Attributes:
      weights: weights file of the backbone.
      backbone: the network.
      image_size: side in pixels.
      steps: steps of a training.
      batch_size: pairs of views a step.
    """

    weights: str
    backbone: str = "mobilenetv2-0.35"
    image_size: int = 128
    steps: int = 60
    batch_size: int = 32


class Trainer:
    """Trains one way's network, from its starting weights anew for every set, by the steps that the commands take.

    The loop is one of its own: a graph of a step takes longer to be made than to be run a hundred times.

    Args:
      way: of `WAYS`.
      asked: what all ways share.
    """

    def __init__(self, way: str, asked: TrainingSettings) -> None:
        names = ("backbone", "image_size", "weights", "batch_size")
        # An epoch of one step, so that the schedule is of so many.
        common = {name: getattr(asked, name) for name in names} | {"epochs": max(asked.steps, 1)}
        self.way, self._asked, more = way, asked, dict(WAYS[way])
        self._drawn, self.trains = more.pop("drawn", False), more.pop("trains", True)
        self.told = more.get("method") == SUPCON
        self.classifies = way.startswith("drawn_network")
        if self.classifies:
            settings = SupervisedSettings(**common | more | {"synthetic_defects": 0.5})
            self._make = functools.partial(supervised.network_of, settings)
            self._network, self.backbone, _ = self._make()
            count = np.zeros(asked.batch_size, int)
            self._model = supervised.compiled(self._network, settings, count, jit=False)
        else:
            settings = ContrastiveSettings(**common | more)
            self._make = functools.partial(contrastive.network_of, settings)
            self._network, self.backbone, _ = self._make()
            self._model = contrastive.compiled(self._network, settings, asked.batch_size, jit=False)
        self._model.optimizer.build(self._network.trainable_variables)
        self._weights: dict[int, list[np.ndarray]] = {}
        self._outset = [np.array(one) for one in self._model.optimizer.variables]
        self.graph = InMemory(self.backbone.model, RECIPES[FEW_LABELS].settings(self.backbone.middle_stages))
        self.classifier = self._network if self.classifies else None

        @tf.function(autograph=False)
        def step(batch: tf.Tensor, known: tf.Tensor, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
            if self.classifies:
                share, kinds = settings.synthetic_defects, settings.synthetic_kinds
                batch, known = synthetic.on_some(batch, known, seeds, share, kinds)
                return self._model.train_step((augment.augment_classifier(batch, seeds, settings.augmentation), known))
            views = augment.two_views(batch, seeds, settings.augmentation)
            return self._model.train_step((*views, known) if self.told else views)

        self._step = step

    def train(self, good: np.ndarray, seed: int) -> dict[str, float]:
        """Trains on good images, uint8 [N, S, S, 3], and returns the logs, means over the last quarter of the steps."""
        if seed not in self._weights:
            keras.utils.set_random_seed(seed)
            self._weights[seed] = self._make()[0].get_weights()
        self._network.set_weights(self._weights[seed])
        for variable, value in zip(self._model.optimizer.variables, self._outset, strict=True):
            variable.assign(value)
        labels = np.zeros(len(good), np.int64)
        if self._drawn:
            good, labels = np.concatenate([good, with_defects(good, seed)]), np.repeat([0, 1], len(good))
        rng, asked, logs = np.random.default_rng(seed), self._asked, {}
        passes = -(-asked.steps * asked.batch_size // len(good))
        order = np.concatenate([rng.permutation(len(good)) for _ in range(passes)])
        for number in range(asked.steps if self.trains else 0):
            if number == 3 * asked.steps // 4:
                self._model.reset_metrics()
            draws = np.arange(number * asked.batch_size, (number + 1) * asked.batch_size)
            seeds = np.stack([np.full(len(draws), seed), draws], axis=1)
            rows = order[draws]
            logs = self._step(tf.constant(good[rows]), tf.constant(labels[rows]), tf.constant(seeds))
        return {name: round(float(value), 4) for name, value in logs.items()}


def with_defects(images: np.ndarray, seed: int) -> np.ndarray:
    """The same images, each with a drawn defect."""
    seeds = np.stack([np.arange(len(images)), np.full(len(images), seed)], axis=1)
    return _draw(tf.constant(images), tf.constant(seeds))[0].numpy()


_draw = tf.function(synthetic.with_defects, reduce_retracing=True)
