"""What a student judges by: the recipe's head on maps of its backbone, fitted on the teacher's labels, and what its
network says of the teacher's score, at the weight that labelled defects give it."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mvtec_tf import files
from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.features.feature_graph import InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.features.student_graph import Judge, imitated, imitation_of
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.fused import added
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings
from mvtec_tf.jobs.settings import DistilRunSettings
from mvtec_tf.keras_settings import keras
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training.distil import Questions

_FILE = "held_out.npz"
# One is held out by nobody.
_LEAST_DEFECTIVE = 2
_TOO_FEW = (
    f"Fewer than {_LEAST_DEFECTIVE} labelled objects are defective, so nothing says how much the teacher's imitation "
    "should count beside the head, and a student may rank far worse than its teacher: label more defects for the "
    "teacher, or look at the difference of ROC-AUC before it is used."
)


@dataclasses.dataclass(frozen=True)
class Parts:
    """Images by use, all by the teacher's own record.

    Attributes:
      fit: good training images that the student's network is trained on.
      held: other good training images, which its threshold comes from.
      labelled: the teacher's labelled test images.
      evaluate: those that the teacher was judged on.
    """

    fit: list[Record]
    held: list[Record]
    labelled: list[Record]
    evaluate: list[Record]

    @property
    def used(self) -> list[Record]:
        """All that something is fitted on; the network has seen the first, `fit`."""
        return [*self.fit, *self.held, *self.labelled]

    @property
    def note(self) -> str:
        """For the report: who saw what."""
        defects = sum(record.label for record in self.labelled)
        few = len({record.group for record in self.labelled if record.label}) < _LEAST_DEFECTIVE
        return (
            f"The student's network was trained on the teacher's answers to {counted(len(self.fit), 'good image')} and "
            "changed copies of them. Its head was fitted on them, on "
            f"{len(self.held)} other good training images and on the {len(self.labelled)} labelled test images of "
            f"the teacher, {defects} of them defective. Its threshold, and that of each form, comes from held-out "
            f"scores of the last two. The {counted(len(self.evaluate), 'evaluated image')} are the teacher's, and "
            "nothing was trained or chosen on them."
            + few * f" {_TOO_FEW}"
        )


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Images that the network was not trained on, and what a head says of each that was fitted without it.

    Attributes:
      records: M images.
      less: float64 [M], by how much that is less than what the student says, which was fitted on them.
    """

    records: list[Record]
    less: np.ndarray

    @classmethod
    def read(cls, run: RunDirectory, parts: Parts) -> "HeldOut":
        """What `fit` kept in the run."""
        with np.load(run.path / _FILE) as kept:
            less = dict(zip(kept["path"].tolist(), kept["less"].tolist(), strict=True))
        records = [record for record in (*parts.labelled, *parts.held) if record.path in less]
        return cls(records, np.array([less[record.path] for record in records]))

    def scores(self, said: Sequence[float]) -> np.ndarray:
        """Held-out scores, float64 [M], in a form of the student that says float [M] of the images."""
        return np.asarray(said, np.float64) - self.less


def fit(
    run: RunDirectory,
    settings: DistilRunSettings,
    network: keras.Model,
    stages: Sequence[str],
    asked: Questions,
    parts: Parts,
) -> Judge:
    """Fits the head, and weighs the imitation beside it; keeps held-out scores in the run.

    Args:
      run: where to.
      settings: its seed, and how images are read.
      network: of `networks.student.build_student`, float32.
      stages: the backbone's middle stages.
      asked: questions with the teacher's answers.
      parts: which images.

    Raises:
      UserError: there are too few good images for the head, or the network's heat maps are not finite.
    """
    recipe, records = RECIPES[FEW_LABELS], parts.used
    kind = HeadSettings(recipe.head, seed=settings.seed)
    imitation = imitation_of(network, pixels.centre_brightness(asked.images).numpy(), asked.score)
    images = ImageStore(settings.image_size, max_pixels=settings.max_pixels).load(records)
    features = InMemory(network, recipe.settings(stages)).of(images)
    said = imitated(network, imitation, pixels.centre_brightness(images).numpy()).astype(np.float64)
    print(f"Fitting the head {kind.name} on the student's maps, and again for held-out scores ...", flush=True)
    probe = fit_probe(functools.partial(make_head, kind), features, records, settings.seed)
    of_head = np.full(len(records), np.nan)
    of_head[probe.calibrate] = probe.calibrate_scores
    labels = np.array([record.label for record in records])
    _, objects = np.unique([record.group for record in records], return_inverse=True)
    unseen = np.where(np.arange(len(records)) < len(parts.fit), np.nan, said)

    def joined(rows: np.ndarray) -> tuple[float, float]:
        return added(np.where(rows, unseen, np.nan), of_head, labels, objects)

    mean, factor = joined(np.ones(len(records), bool))
    whole = probe.head.decision_function(features) + factor * (said - mean)
    held_out = of_head + factor * (unseen - mean)
    for one in np.unique(objects[labels == 1]):
        own = objects == one
        mean_without, factor_without = joined(~own)
        held_out[own] = of_head[own] + factor_without * (unseen[own] - mean_without)
    spread = unseen[np.isfinite(unseen) & (labels == 0)].std()
    print(f"What the network says of the teacher's score weighs {factor * spread:.2f} beside the head's.", flush=True)
    run.note(weight_of_imitation=float(factor * spread))
    known = np.isfinite(held_out)
    with files.replacing(run.path / _FILE) as temporary, temporary.open("wb") as handle:
        paths = np.array([record.path for record in records])
        np.savez(handle, path=paths[known], less=(whole - held_out)[known])
    return Judge(probe.head, recipe.settings(stages), imitation, mean, factor)
