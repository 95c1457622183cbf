"""The supervised network: a backbone with the study's head, on the backbone's own graph."""

from keras import layers

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import BATCH_NORM_MOMENTUM, Backbone
from mvtec_tf.networks.replicas import BatchNormalization, Dropout

LOGITS = "logits"
POOLED = "pooled"


def build_classifier(backbone: Backbone) -> keras.Model:
    """Dropout 0.5, dense 512, ReLU, batch norm, dropout 0.3, dense 2.

    Args:
      backbone: its graph is continued, not wrapped.

    Returns:
      uint8 [B, S, S, 3] -> float32 logits [B, 2], of good and defective.
    """
    x = layers.GlobalAveragePooling2D(name=POOLED)(backbone.model.output)
    x = Dropout(0.5, name="head_dropout_1")(x)
    x = layers.Dense(512, name="head_dense")(x)
    x = layers.ReLU(name="head_relu")(x)
    x = BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="head_bn")(x)
    x = Dropout(0.3, name="head_dropout_2")(x)
    # Logits stay float32 under mixed precision: a cross-entropy of bfloat16 logits is coarse.
    logits = layers.Dense(2, dtype="float32", name=LOGITS)(x)
    return keras.Model(backbone.model.inputs, logits, name=f"{backbone.model.name}_classifier")


def log_odds(logits: keras.KerasTensor) -> keras.KerasTensor:
    """[B, 2] -> [B]: logit of defective minus logit of good; its sigmoid is the softmax probability.

    The score of a prediction: unlike the probability it does not saturate into ties.
    """
    return logits[:, 1] - logits[:, 0]
