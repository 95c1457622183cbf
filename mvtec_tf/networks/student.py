"""A small network that answers as a large one: its score, its heat map, and features like those of its middle stages.

The backbone's last three stages are brought together at the finest of them (Lin et al., "Feature pyramid networks",
CVPR 2017), and everything is read off there.
"""

from collections.abc import Mapping, Sequence

from keras import layers

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import BATCH_NORM_MOMENTUM, EMBEDDING, Backbone
from mvtec_tf.networks.replicas import BatchNormalization

SCORE, HEAT_MAP, MATCHED = "student_score", "student_heat_map", "student_matched"
# Of the layers that read off: parts of their names. The maps that they read have 256 values in int8; what is read off
# has more.
READ_OFF = (SCORE, HEAT_MAP, EMBEDDING, *(f"student_{name}" for name in ("mean", "most", "seen", "dense")))
# Stages that are brought together, and channels of each then.
_STAGES, _CHANNELS = 3, 64


def grid_of(backbone: Backbone) -> tuple[int, int]:
    """(rows, columns) of the student's heat map: the finest of the stages that it is made of."""
    return backbone.model.get_layer(backbone.stages[-_STAGES:][0]).output.shape[1:3]


def build_student(backbone: Backbone, matched: int) -> keras.Model:
    """The whole student, as it is trained.

    Args:
      backbone: its graph is continued, not wrapped.
      matched: channels of the teacher's features that it learns to say, M.

    Returns:
      uint8 [B, S, S, 3] -> by name, float32: SCORE [B, 1], HEAT_MAP [B, h, w, 1], MATCHED [B, h, w, M],
      EMBEDDING [B, E].
    """
    *finer, coarsest = (backbone.model.get_layer(name).output for name in backbone.stages[-_STAGES:])
    whole = x = _convolved(coarsest, "student_top")
    for number, stage in enumerate(reversed(finer)):
        x = layers.Resizing(*stage.shape[1:3], interpolation="nearest", name=f"student_up_{number}")(x)
        x = layers.Add(name=f"student_add_{number}")([x, _convolved(stage, f"student_lateral_{number}")])
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"student_spread_{number}")(x)
        x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"student_spread_{number}_bn")(x)
        x = _convolved(layers.ReLU(6.0, name=f"student_spread_{number}_relu")(x), f"student_mix_{number}")
    # The mean says what an image looks like, the maximum whether there is a small defect anywhere.
    means = [layers.GlobalAveragePooling2D(name=f"student_mean_{n}")(maps) for n, maps in enumerate((whole, x))]
    embedding = layers.Concatenate(name=EMBEDDING)(means)
    seen = layers.Concatenate(name="student_seen")([embedding, layers.GlobalMaxPooling2D(name="student_most")(x)])
    seen = layers.Dense(_CHANNELS, activation="relu", name="student_dense")(seen)
    outputs = {
        SCORE: layers.Dense(1, dtype="float32", name=SCORE)(seen),
        HEAT_MAP: layers.Conv2D(1, 1, dtype="float32", name=HEAT_MAP)(x),
        MATCHED: layers.Conv2D(matched, 1, dtype="float32", name=MATCHED)(x),
        EMBEDDING: embedding,
    }
    return keras.Model(backbone.model.inputs, outputs, name=f"{backbone.model.name}_student")


def taught(outputs: Mapping[str, keras.KerasTensor], means: bool) -> dict[str, keras.KerasTensor]:
    """What is compared with the teacher's answers; of MATCHED the `means` over the image alone, [B, 1, 1, M]."""
    found = {name: outputs[name] for name in (SCORE, HEAT_MAP, MATCHED)}
    if means:
        found[MATCHED] = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32")(found[MATCHED])
    return found


def served(student: keras.Model, stages: Sequence[str]) -> keras.Model:
    """The student without what only its training asks for: the same but MATCHED, and the maps of backbone layers."""
    outputs = {name: one for name, one in student.output.items() if name != MATCHED}
    return keras.Model(student.inputs, outputs | {name: student.get_layer(name).output for name in stages})


def early(student: keras.Model, stages: Sequence[str]) -> list[str]:
    """The names of the layers that the maps of `stages` are made of, which bear int8 badly.

    Some channels of the first ones hardly ever differ from 0, and others by far more than the rest: in int8 the heat
    map of a MobileNetV2 was off by 0.41 of its standard deviation, without them by 0.08. And 256 steps are too few for
    how far a patch is from its like: of screws a head on such maps had a ROC-AUC of 0.979, on them as they are 0.993.
    """
    seen = keras.Model(student.inputs, [student.get_layer(name).output for name in stages])
    return [layer.name for layer in seen.layers]


def _convolved(maps: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(_CHANNELS, 1, use_bias=False, name=name)(maps)
    x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)
