"""A small residual network for small images: tests, the toy factory, a first look at one's own data."""

from keras import layers

from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.batch_norm import BatchNormalization

# Channels of the first stage; each later one has twice as many.
_WIDTH = 32


def resnet10(inputs: keras.KerasTensor) -> keras.KerasTensor:
    """ResNet-10: a 3x3 stem and one basic block in each of four stages (He et al., CVPR 2016).

    The stem is a strided 3x3 convolution without pooling, because on 64-pixel images the 7x7 stem
    and pooling of the larger networks would leave a 2x2 map.

    Args:
      inputs: float [B, H, W, 3], about zero mean and unit scale.

    Returns:
      float [B, H/16, W/16, 256].
    """
    x = _conv_bn(inputs, _WIDTH, 3, 2, "conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    for stage in range(4):
        x = _basic_block(x, _WIDTH * 2**stage, 1 if stage == 0 else 2, f"conv{stage + 2}_block1")
    return x


def _basic_block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _conv_bn(x, filters, 1, stride, f"{name}_0")
    x = _conv_bn(x, filters, 3, stride, f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv_bn(x, filters, 3, 1, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)


def _conv_bn(x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return BatchNormalization(name=f"{name}_bn")(x)
