"""Training a small network to answer as a large one does (Hinton et al., "Distilling the knowledge in a neural
network", 2015): a regression of its score, its heat map and its features, on questions that it was asked once."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, input_pipeline
from mvtec_tf.data.decoding import pixels
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import student
from mvtec_tf.networks.backbone import NONE, Backbone
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import loop, precision
from mvtec_tf.training.schedules import OneCycleAdamW
from mvtec_tf.training.settings import DistilSettings

# Another light at each step, so little that the teacher's answer stays.
_LIGHT, _STREAM = 0.05, 7
# Of a backbone that knows something. What its middle stages know of ImageNet tells more of defects that no question
# showed than what they would learn of the questions, and images that it was trained on look there like any others.
_TRAINED_STAGES = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """What the teacher was asked, and what it answered.

    Attributes:
      images: uint8 [N, S, S, 3], as the student sees them.
      score: float32 [N], of about 1 for a step that matters.
      heat_map: float16 [N, h, w], of about 1, below 0 only where nothing speaks for a defect.
      matched: float16 [N, h', w', M], features of unit variance; h' = w' = 1: their mean over the image alone.
    """

    images: np.ndarray
    score: np.ndarray
    heat_map: np.ndarray
    matched: np.ndarray

    def __len__(self) -> int:
        """N."""
        return len(self.images)


def backbone_of(settings: DistilSettings) -> Backbone:
    """The student's backbone in the number format of its training, seeded.

    Raises:
      UserError: see `networks.backbone.build_backbone`.
    """
    loop.make_deterministic(settings.seed)
    with precision.dtype_policy(precision.resolve_precision(settings.precision)):
        return loop.backbone_of(settings)


def train_student(
    run: RunDirectory, settings: DistilSettings, questions: Questions, backbone: Backbone
) -> keras.Model:
    """Trains, or goes on training.

    Args:
      run: checkpoints, logs and facts go there.
      settings: of the training.
      questions: with the teacher's answers.
      backbone: see `backbone_of`; it becomes part of the network.

    Returns:
      The network of `networks.student.build_student`, float32.
    """
    size = input_pipeline.fitting_batch_size(len(questions), settings.batch_size)
    settings = dataclasses.replace(settings, batch_size=size)
    make = functools.partial(_network_of, settings, backbone, questions.matched.shape[-1])
    network, _, jit = loop.build(run, settings, make, len(questions))
    steps = input_pipeline.steps_per_epoch(len(questions), size)
    model = keras.Model(network.inputs, student.taught(network.output, questions.matched.shape[1] == 1))
    weights = {student.SCORE: 1.0, student.HEAT_MAP: settings.heat_map_weight}
    weights[student.MATCHED] = settings.matching_weight
    model.compile(
        OneCycleAdamW(settings.learning_rate, steps * settings.epochs, weight_decay=settings.weight_decay),
        loss={name: "huber" if name == student.SCORE else "mse" for name in weights},
        loss_weights=weights,
        jit_compile=jit,
    )
    if not run.resumed:
        loop.log_images(run, {"questions": questions.images[:16]})
    batches = functools.partial(_batches, questions, settings)
    history = loop.run_epochs(run, model, network, batches, settings, steps, [])
    run.note(history=history)
    return in_float32(network)


def _network_of(
    settings: DistilSettings, backbone: Backbone, matched: int
) -> tuple[keras.Model, Backbone, dict[str, str]]:
    network = student.build_student(backbone, matched)
    facts = {"size": f"student: {network.count_params():,} numbers."}
    if settings.weights != NONE:
        facts |= loop.freeze(network, backbone, _TRAINED_STAGES)
    return network, backbone, facts


def _batches(
    questions: Questions, settings: DistilSettings, first_epoch: int = 0, first_step: int = 0
) -> tf.data.Dataset:
    answers = [tf.constant(one) for one in (questions.score, questions.heat_map, questions.matched)]

    def transform(images: tf.Tensor, which: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        factors = [1 + augment.spread(one, _LIGHT) for one in tf.unstack(augment.uniform(seeds, _STREAM, 3), axis=1)]
        images = pixels.centre_brightness(augment.jitter(images, *factors, tf.zeros_like(factors[0])))
        score, heat_map, matched = (tf.cast(tf.gather(one, which), tf.float32) for one in answers)
        return images, {
            student.SCORE: score[:, None],
            student.HEAT_MAP: heat_map[..., None],
            student.MATCHED: matched,
        }

    which = np.arange(len(questions))
    return loop.batches_of(
        questions.images, which, settings, transform, first_epoch=first_epoch, first_step=first_step
    )
