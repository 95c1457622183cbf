"""What decides a training run beside the images, as plain data; zero is allowed where it has a meaning of its own.

No TensorFlow here, so that a command line can show and check its flags at once.
"""

import dataclasses
from typing import Literal

from mvtec_tf.data.augment_settings import DRAWN_DEFECTS, ClassifierAugmentation, ContrastiveAugmentation
from mvtec_tf.settings import apart, field

# The method of pretraining that learns from labels, and those whose loss has a temperature.
SUPCON = "supcon"
TEMPERED = ("simclr", "densecl", SUPCON)
# Changes that leave an image what it is.
_SLIGHT = ClassifierAugmentation(
    brightness=0.1, contrast=0.1, saturation=0.1, hue=0.02, rotation_degrees=5.0, blur_probability=0.0
)


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """What every training has.

    Attributes:
      image_size: side in pixels of the square that images are resized to.
      batch_size: images a step; all there are where that is more.
      epochs: epochs at most.
      weight_decay: weight decay of AdamW.
      precision: number format: auto, float32 or mixed_bfloat16; auto is bfloat16 where the processor has it.
      jit: whether the step is compiled with XLA: auto, on or off; auto is on where there is a GPU.
      seed: random seed of weights, order, augmentation and dropout.
      checkpoint_every: epochs between checkpoints.
      checkpoint_minutes: minutes between checkpoints within an epoch; 0: only at the end of epochs.
      keep_checkpoints: checkpoints kept, the newest; one that is damaged is replaced by the one before.
    """

    image_size: int = field(224, above=0)
    batch_size: int = field(64, above=0)
    epochs: int = field(50, above=0)
    weight_decay: float = field(1e-4, least=0)
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    jit: Literal["auto", "on", "off"] = "auto"
    seed: int = field(0, least=0)
    checkpoint_every: int = field(1, above=0)
    checkpoint_minutes: float = apart(10.0, least=0)
    keep_checkpoints: int = apart(2, above=0)


@dataclasses.dataclass(frozen=True)
class TrainingSettings(LoopSettings):
    """What every training of a backbone has.

    Attributes:
      backbone: network: resnet50, any other network of keras.applications by name (a MobileNet also with its width,
        mobilenetv2-0.35), or resnet10.
      weights: starting weights: imagenet (downloaded by Keras), none (random), or a weights file of this backbone.
      weights_partial: load what fits of a weights file that is another network's.
      strategy: what trains together: one, a single device; mirrored, all GPUs of this machine; multi_worker, the
        machines that the environment variable TF_CONFIG names; auto: multi_worker where TF_CONFIG names several,
        mirrored where there are several GPUs, else one.
    """

    backbone: str = "resnet50"
    weights: str = "imagenet"
    weights_partial: bool = False
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = apart("auto")


@dataclasses.dataclass(frozen=True)
class SupervisedSettings(TrainingSettings):
    """The supervised training; the defaults are those of the study where it said them.

    Attributes:
      backbone_stages: stages (resolutions) after which the backbone is cut off; 0: it is whole.
      trainable_stages: last stages of the backbone, which are trained; the rest is frozen.
      patience: epochs without a better validation F1 before the run stops.
      learning_rate: peak of the one-cycle schedule, which starts at a 25th of it.
      balanced_sampling: draw good and defective equally often, with an unweighted loss.
      synthetic_defects: probability of a good training image to get a drawn defect, each time it is shown, and to count
        as defective; with some, no real defect is needed.
      synthetic_kinds: kinds of drawn defects, equally often: cutpaste, scar, perlin; nsa, a rectangle of another good
        image that is blended in without a seam; generated, patches of defect_patches likewise.
      defect_patches: defect_patches.npz (or cut_patches.npz) of a run of generate-defects with the same seed and label
        budget.
      augmentation: strengths of the augmentations.
    """

    backbone_stages: int = field(0, least=0)
    trainable_stages: int = field(2, least=0)
    patience: int = field(5, above=0)
    learning_rate: float = field(1e-3, above=0)
    balanced_sampling: bool = False
    synthetic_defects: float = field(0.0, least=0, most=0.9)
    synthetic_kinds: tuple[str, ...] = DRAWN_DEFECTS
    defect_patches: str | None = None
    augmentation: ClassifierAugmentation = dataclasses.field(default_factory=ClassifierAugmentation)


@dataclasses.dataclass(frozen=True)
class ContrastiveSettings(TrainingSettings):
    """Learning from two views; the defaults are those of the study, of SimCLR, where it said them.

    Attributes:
      method: method of learning: simclr, byol, simsiam, barlow_twins, vicreg or densecl; or, with
        labels, supcon.
      frozen_stages: first stages (resolutions) of the backbone, which keep their starting weights.
      frozen_batch_norm: whether the backbone's batch norm keeps its starting statistics and weights, those of many
        photographs, instead of those of augmented good parts.
      projection_hidden: width of the projection head's hidden layer.
      projection_dimensions: width of the projection head's output.
      temperature: temperature of NT-Xent, the loss of simclr, densecl and supcon.
      batch_size: pairs of views a step; one of each image where that is more.
      epochs: epochs of the run; 0 keeps the starting weights, the baseline without pretraining.
      passes_per_epoch: times that each image is drawn in one epoch.
      learning_rate: peak of the cosine schedule.
      final_learning_rate: learning rate to which the schedule falls.
      schedule: fall of the learning rate: cosine, with every step; cosine_by_epoch, in one stair an epoch, without
        warm-up.
      warmup_share: share of all steps in which the rate rises to its peak.
      clip_norm: bound of the global norm of the gradients.
      augmentation: strengths of the augmentations.
    """

    method: Literal["simclr", "byol", "simsiam", "barlow_twins", "vicreg", "densecl", "supcon"] = "simclr"
    frozen_stages: int = field(0, least=0)
    frozen_batch_norm: bool = False
    projection_hidden: int = field(1024, above=0)
    projection_dimensions: int = field(256, above=0)
    temperature: float = field(0.07, above=0)
    batch_size: int = field(48, above=0)
    epochs: int = field(7, least=0)
    passes_per_epoch: int = field(1, above=0)
    learning_rate: float = field(1e-4, above=0)
    final_learning_rate: float = field(0.0, least=0)
    schedule: Literal["cosine", "cosine_by_epoch"] = "cosine"
    warmup_share: float = field(0.1, least=0)
    clip_norm: float = field(1.0, above=0)
    augmentation: ContrastiveAugmentation = dataclasses.field(default_factory=ContrastiveAugmentation)


@dataclasses.dataclass(frozen=True)
class DiffusionSettings(LoopSettings):
    """A denoising-diffusion model of patches of defects.

    Attributes:
      width: channels of the network at its finest resolution.
      epochs: epochs of the run.
      steps_per_epoch: steps of an epoch, in which each patch is seen as often as the others, give or take one.
      batch_size: patches a step.
      learning_rate: peak of the cosine schedule, after a twentieth of the run.
      clip_norm: bound of the global norm of the gradients.
      average: share that the moving average of the weights, which is what is kept, keeps in a step.
    """

    # No setting: a denoiser begins with random weights.
    weights = "none"

    image_size: int = field(256, above=0)
    width: int = field(32, least=8)
    batch_size: int = field(16, above=0)
    epochs: int = field(30, above=0)
    steps_per_epoch: int = field(100, above=0)
    learning_rate: float = field(1e-3, above=0)
    clip_norm: float = field(1.0, above=0)
    average: float = field(0.995, least=0, most=0.9999)


@dataclasses.dataclass(frozen=True)
class DistilSettings(TrainingSettings):
    """A small student that learns a large teacher's answers on the last stage of its backbone, which keeps the others.

    Attributes:
      backbone: network of the student: mobilenetv2-0.35, or another width, mobilenetv3small, mobilenetv3large, or any
        other of keras.applications by name.
      passes: times that the teacher is asked about every good training image: once as it is, then with other light,
        turned or mirrored, and some with a drawn defect.
      synthetic_defects: share of these that get a drawn defect.
      learning_rate: peak of the one-cycle schedule, which starts at a 25th of it.
      heat_map_weight: weight of the heat maps' loss beside that of the score.
      matching_weight: weight of the loss of the features at the teacher's middle stages.
      augmentation: strengths of the changes.
    """

    backbone: str = "mobilenetv2-0.35"
    image_size: int = field(256, above=0)
    batch_size: int = field(32, above=0)
    epochs: int = field(20, above=0)
    passes: int = field(3, above=0)
    synthetic_defects: float = field(0.5, least=0, most=1)
    learning_rate: float = field(2e-3, above=0)
    heat_map_weight: float = field(4.0, least=0)
    matching_weight: float = field(0.5, least=0)
    augmentation: ClassifierAugmentation = _SLIGHT


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(TrainingSettings):
    """Fine-tuning the last stage that features are made of, on labelled images and drawn defects.

    Attributes:
      batch_size: images a step, good and defective ones by turns.
      epochs: epochs at most, each of 20 steps, or one pass where that is more.
      learning_rate: peak of the cosine schedule.
      synthetic_defects: share of the good images that get a drawn defect, each time they are shown, and then count as
        defective.
      mixup: largest share of its neighbour, which is of the other class, that is mixed into an image's features; what
        is mixed is drawn up to it.
      patience: epochs without a better out-of-fold score before the run stops.
      augmentation: strengths of the changes.
    """

    batch_size: int = field(32, least=2)
    epochs: int = field(2, above=0)
    learning_rate: float = field(1e-4, above=0)
    synthetic_defects: float = field(0.3, least=0, most=0.9)
    mixup: float = field(0.5, least=0, most=0.5)
    patience: int = field(2, above=0)
    augmentation: ClassifierAugmentation = _SLIGHT
