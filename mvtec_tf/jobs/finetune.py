"""Fine-tuning an encoder on labelled images, kept only where it tells left-out objects better than before."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from mvtec_tf.data import protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import TEST, Record
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UsageError
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.graphs import rebuild, saved_model
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs import checks, encoders, opening
from mvtec_tf.jobs.settings import FinetuneRunSettings
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.networks.tuned import Tuned
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import finetune as training
from mvtec_tf.training import loop

RECIPE = RECIPES[FEW_LABELS]
FUSED, LOGISTIC = "out_of_fold_fused", "out_of_fold_logistic"
_HEADS = {FUSED: RECIPE.head, LOGISTIC: "logistic"}
# Each fold is a copy of the last stage that is trained, and a fit of the head after every epoch.
FOLDS = 3
# Good images that heads are fitted on after an epoch: enough to rank encoders by.
_MOST_GOOD = 100
_HIDDEN = -1


def finetune(said: FinetuneRunSettings) -> RunDirectory:
    """Fine-tunes and exports the encoder, or goes on where a stopped call left off.

    Returns:
      The finished run; its `saved_model` is the encoder.

    Raises:
      UsageError: settings contradict each other, or too few objects are labelled.
      UserError: images, weights or encoder cannot be used.
    """
    checks.of_finetuning(said)
    settings, start = _started(said)
    store = ImageStore(settings.image_size, settings.cache, settings.max_pixels)
    # What `fit` leaves out, it leaves out before it cuts.
    found, left_out = opening.usable_by_file(settings, opening.scan(settings), settings.max_pixels)
    cut = protocol.clean(found, protocol.parse_budget(settings.label_budget), settings.seed)
    if start is not None:
        encoders.check_pretraining(start, cut.evaluate)
    others = left_over(found, cut) if settings.pseudo_labels is not None else ()
    used, _ = opening.usable(settings, ((*cut.fit, *others), ()), store.readable)
    known = {record.path for record in cut.fit}
    fit, others = ([record for record in used if (record.path in known) is one] for one in (True, False))
    folds = folds_of(fit, settings.seed)
    with opening.opened("finetune", settings, used, left_out, ("saved_model",)) as run:
        if run.finished:
            return run
        defects = sum(record.label for record in fit)
        labels = [record.label for record in fit if record.split == TEST]
        labels += encoders.labels_besides(pathlib.Path(start), fit).values() if start else []
        run.note(labels_used=len(labels), labelled_defects=sum(labels))
        print(f"{counted(len(fit) - defects, 'good image')}, {defects} labelled defective, {len(others)} unlabelled.")
        if not run.saved_model.exists():
            _train(run, settings, start, store, fit, folds, others)
        run.finish(f"Encoder: {run.saved_model}")
        return run


def _started(said: FinetuneRunSettings) -> tuple[FinetuneRunSettings, str | None]:
    """The settings with backbone and size of the encoder that they name, and its SavedModel."""
    if said.encoder is None:
        return said, None
    start = encoders.resolve_encoder(said.encoder)
    card = saved_model.read_card(start)
    if not isinstance(card["image_size"], int):
        raise UsageError(
            f"`encoder`={said.encoder}: takes images of {card['image_size'][0]} x {card['image_size'][1]} pixels, and "
            "squares are fine-tuned here. Name a run of pretrain, or give `weights`."
        )
    if encoders.was_told_labels(start):
        raise UsageError(
            f"`encoder`={said.encoder}: was trained with labels already, so no score of a labelled image would be held "
            "out. Name the encoder that it started from."
        )
    backbone = card["run"].get("backbone", said.backbone)
    return dataclasses.replace(said, backbone=backbone, image_size=card["image_size"]), str(start)


def left_over(records: Sequence[Record], cut: Cut) -> list[Record]:
    """Test images that are neither labelled nor evaluated."""
    taken = {record.path for record in (*cut.fit, *cut.evaluate)}
    return [record for record in records if record.path not in taken]


def folds_of(records: Sequence[Record], seed: int) -> np.ndarray:
    """In which fold each image is left out, int [N]; -1: in none.

    Raises:
      UsageError: several categories, or fewer than two labelled defective objects, of which none can be left out.
    """
    categories = sorted({record.category for record in records})
    if len(categories) > 1:
        raise UsageError(
            f"`data_dir`: {len(categories)} categories, and one network is fine-tuned on one. Name one "
            f"(`categories`={categories[0]})."
        )
    objects = len({record.group for record in records if record.label})
    if objects < 2:
        raise UsageError(
            f"`label_budget`: {objects} defective object of category {categories[0]!r} is labelled, and to see whether "
            "fine-tuning helps two at least are needed, each left out in its turn. Raise it, or fit a head on the "
            "encoder as it is."
        )
    return protocol.folds(records, min(FOLDS, objects), seed)


def _train(
    run: RunDirectory,
    settings: FinetuneRunSettings,
    start: str | None,
    store: ImageStore,
    fit: Sequence[Record],
    folds: np.ndarray,
    others: Sequence[Record],
) -> None:
    def make() -> Backbone:
        if start is None:
            return loop.backbone_of(settings)
        return Backbone(rebuild.encoder_of(start), tuple(saved_model.read_card(start)["stages"]), None)

    images = store.load(fit)
    asked = Asked(fit, images, folds, settings.seed)
    targets, classes, shown = asked.targets, asked.labels, images
    if others:
        loop.make_deterministic(settings.seed)
        unlabelled = store.load(others)
        shown, classes, targets = asked.with_pseudo_labels(make(), unlabelled, settings.pseudo_labels)
        counts = [int((targets[len(images) :, -1] == label).sum()) for label in (0, 1)]
        words = f"Pseudo-labels: {counts[0]} good, {counts[1]} defective of {len(others)} unlabelled images."
        print(words, flush=True)
        run.note(pseudo_labels=words)
    with run.timed("train"):
        lessons = training.Lessons(shown, classes, targets)
        # So that what is said of the weights is where they are from.
        recipe = dataclasses.replace(settings, weights=settings.encoder or settings.weights)
        encoder, best = training.finetune(run, recipe, lessons, make, RECIPE.pooling, asked.watch, FUSED)
    seen = [*encoders.seen_images(fit), *encoders.seen_images(others, told=False)]
    seen += saved_model.read_card(start)["pretrain_images"] if start else []
    told = best > 0
    card = {"run": run.record["settings"], "pretrain_images": seen, "told_labels": told}
    saved_model.write_encoder(run.saved_model, encoder, card, max_pixels=settings.max_pixels)


class Asked:
    """Asks heads what they make of a network's copies, each of which has not seen the images of its fold.

    Args:
      records: N good training images and labelled ones, of one category.
      images: their pixels, uint8 [N, S, S, 3].
      folds: int [N], the copy that must not see the image; -1: none.
      seed: random seed of the draw of good images and of the heads.

    Attributes:
      labels: int [N].
      targets: int [N, K + 1], what K copies and the whole are told.
    """

    def __init__(self, records: Sequence[Record], images: np.ndarray, folds: np.ndarray, seed: int) -> None:
        self._records, self._images, self._folds, self._seed = list(records), images, folds, seed
        self.labels = np.array([record.label for record in records])
        self._groups = np.array([record.group for record in records])
        self.count = int(folds.max()) + 1
        self.targets = np.repeat(self.labels[:, None], self.count + 1, axis=1)
        for fold in range(self.count):
            self.targets[folds == fold, fold] = _HIDDEN
        good = np.flatnonzero(self.labels == 0)
        drawn = np.random.default_rng(seed).permutation(good)[:_MOST_GOOD]
        self._rows = np.sort(np.concatenate([drawn, np.flatnonzero(self.labels)]))

    def watch(self, tuned: Tuned) -> Callable[[], dict[str, float]]:
        """Starts the copies' heads as logistic regression on the images that they see.

        Returns:
          What gives, for the network as it is then, ROC-AUC of the scores of left-out images by each head.
        """
        graphs = [
            InMemory(encoder, RECIPE.settings(names))
            for encoder, names in zip(tuned.encoders, tuned.names, strict=True)
        ]
        pooled = graphs[-1].of(self._images).pooled
        for head, told in zip(tuned.heads, self.targets.T, strict=True):
            seen = told != _HIDDEN
            linear = Logistic().fit(FrozenFeatures(pooled[seen]), told[seen])
            head.begin(pooled[told == 0], linear.weights_, linear.bias_)
        return lambda: self._values(graphs)

    def _values(self, graphs: Sequence[InMemory]) -> dict[str, float]:
        labels, folds = self.labels[self._rows], self._folds[self._rows]
        scores = {name: np.full(len(labels), np.nan) for name in _HEADS}
        for fold in range(self.count):
            features = graphs[fold].of(self._images[self._rows])
            features = dataclasses.replace(features, groups=self._groups[self._rows])
            held = folds == fold
            for name, head in _HEADS.items():
                fitted = self._head(head).fit(features.select(~held), labels[~held])
                scores[name][held] = fitted.decision_function(features.select(held))
        return {name: ranked(labels, own, folds) for name, own in scores.items()}

    def _head(self, name: str) -> Any:
        return make_head(HeadSettings(name, seed=self._seed))

    def with_pseudo_labels(
        self, backbone: Backbone, images: np.ndarray, floor: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Adds images without labels: a copy is told what the recipe's head, fitted on what it may see, is sure of.

        Args:
          backbone: the start.
          images: uint8 [M, S, S, 3].
          floor: least calibrated probability of the likelier class.

        Returns:
          images uint8 [N + P, S, S, 3], labels int [N + P] and targets int [N + P, K + 1], -1 where the head is not
          sure, or not calibrated.
        """
        graph = InMemory(backbone.model, RECIPE.settings(backbone.middle_stages))
        known, unknown = graph.of(self._images[self._rows]), graph.of(images)
        told = np.full((len(images), self.count + 1), _HIDDEN)
        for number in range(self.count + 1):
            seen = self.targets[self._rows, number] != _HIDDEN
            records = [self._records[row] for row in self._rows[seen]]
            probe = fit_probe(lambda: self._head(RECIPE.head), known.select(seen), records, self._seed)
            scores = probe.head.decision_function(unknown)
            sure = probe.head.probability_of(scores, np.repeat(records[0].category, len(images)))
            if sure is not None:
                told[sure >= floor, number], told[sure <= 1 - floor, number] = 1, 0
        chosen = (told != _HIDDEN).any(axis=1)
        targets = np.concatenate([self.targets, told[chosen]])
        labels = np.concatenate([self.labels, told[chosen].max(axis=1)])
        return np.concatenate([self._images, images[chosen]]), labels, targets


def ranked(labels: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> float:
    """ROC-AUC over the pairs that one fold holds: scores of two copies are on no common scale.

    Args:
      labels: int [N].
      scores: float [N].
      folds: int [N]; images of a negative one are in no pair.
    """
    right, pairs = 0.0, 0
    for fold in np.unique(folds[folds >= 0]):
        own = folds == fold
        count = int(labels[own].sum()) * int((labels[own] == 0).sum())
        right += count * float(roc_auc_score(labels[own], scores[own])) if count else 0.0
        pairs += count
    return right / pairs
