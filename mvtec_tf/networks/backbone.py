"""Name and weights to one flat functional graph that takes uint8 images.

Heads are built on this graph itself, never around it as a nested model: Grad-CAM needs to reach
the inner layers from the outer inputs.
"""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Sequence

from keras import layers

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import foundation
from mvtec_tf.networks.copies import prepared
from mvtec_tf.networks.replicas import BatchNormalization
from mvtec_tf.networks.weights import WeightsReport, load_weights_file

# PyTorch's batch norm keeps 0.9 of its moving statistics at each step, that of keras.applications 0.99. Fine-tuning
# here takes some hundred steps: at 0.99 a network is then judged with statistics that are still half ImageNet's.
BATCH_NORM_MOMENTUM = 0.9
# Name of an encoder's last output, whoever trained it.
EMBEDDING = "embedding"
IMAGENET = "imagenet"
NONE = "none"
# Channels of the first stage; each later one has twice as many.
_WIDTH = 32


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network without its top.

    Attributes:
      model: uint8 [B, H, W, 3] (RGB) -> float [B, h, w, C]; preprocessing is inside.
      stages: names of the last layer at each resolution, from the finest to the coarsest.
      weights: what was loaded; None for `imagenet` and `none`.
    """

    model: keras.Model
    stages: tuple[str, ...]
    weights: WeightsReport | None

    @property
    def middle_stages(self) -> tuple[str, ...]:
        """The two stages before the last: fine enough to show a small defect, coarse enough to
        know what it is on, and less bound to the classes of the pretraining than the last
        (Roth et al., CVPR 2022, section 3.1)."""
        return self.stages[-3:-1] if len(self.stages) >= 3 else self.stages


def names() -> list[str]:
    """Every backbone that `build_backbone` knows."""
    return sorted([*_SMALL, *foundation.ARCHITECTURES, *(name.lower() for name in _applications())])


def build_backbone(
    name: str,
    image_size: int | Sequence[int],
    weights: str = NONE,
    *,
    weights_partial: bool = False,
    cut_after_stage: int = 0,
) -> Backbone:
    """Builds a backbone under the current dtype policy.

    Args:
      name: `resnet10`, any network of `keras.applications`, in any case of letters, or one of
        `foundation.ARCHITECTURES`. A MobileNet's width (Keras' alpha) may stand behind it: `mobilenetv2-0.35`.
      image_size: side of the input in pixels, or its (height, width).
      weights: `imagenet` (downloaded by Keras), `none` (random), or a file for `load_weights_file`; of DINOv2 see
        `foundation.maps_of`.
      weights_partial: see `load_weights_file`.
      cut_after_stage: if positive, the network ends after that many stages (resolutions).

    Raises:
      UsageError: unknown name, an image size or a width that the network refuses, or a stage it does not have.
      UserError: weights that cannot be had or do not fit.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    inputs = keras.Input((height, width, 3), dtype="uint8", name="image")
    if name.lower() in foundation.ARCHITECTURES:
        if weights_partial or cut_after_stage:
            raise UsageError(f"`backbone`={name}: is taken whole, without `weights_partial` and `backbone_stages`.")
        return _foundation(name.lower(), inputs, weights)
    if weights == foundation.PRESET:
        raise UsageError(f"`weights`={weights}: {name} has none. Use imagenet, none, or a file.")
    outputs = _apply(name.lower(), inputs, image_size, weights)
    model = prepared(keras.Model(inputs, outputs, name=name.lower()))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    stages = _stage_layers(model)
    if cut_after_stage:
        if not 1 <= cut_after_stage <= len(stages):
            raise UsageError(f"`backbone_stages`={cut_after_stage}: {name} has the stages {', '.join(stages)}.")
        stages = stages[:cut_after_stage]
    report = None
    if weights not in (IMAGENET, NONE):
        # Before the cut: the file is judged against the network that it was made for.
        report = load_weights_file(model, weights, weights_partial)
    if cut_after_stage:
        model = keras.Model(model.inputs, model.get_layer(stages[-1]).output, name=model.name)
        report = report and report.within(model)
    return Backbone(model, stages, report)


def _foundation(name: str, inputs: keras.KerasTensor, weights: str) -> Backbone:
    output, stages, loaded = foundation.maps_of(name, inputs, weights)
    model = keras.Model(inputs, output, name=name)
    names = tuple(layer.name for layer in model.layers if layer.weights)
    return Backbone(model, stages, WeightsReport(names, (), ()) if loaded else None)


def freeze_up_to(model: keras.Model, backbone: Backbone, trainable_stages: int) -> list[str]:
    """Leaves the last `trainable_stages` stages of the backbone, and all that follows, trainable.

    Frozen batch norm runs in inference mode, as Keras does for every layer with `trainable=False`.

    Args:
      model: the backbone's own graph with a head on it; changed in place.
      backbone: says where the stages end.
      trainable_stages: 0 freezes the backbone, len(backbone.stages) or more nothing.

    Returns:
      The names of the frozen layers that have weights.
    """
    names_in_order = [layer.name for layer in model.layers]
    if trainable_stages >= len(backbone.stages):
        return []
    last_frozen = backbone.stages[len(backbone.stages) - 1 - trainable_stages]
    frozen = model.layers[: names_in_order.index(last_frozen) + 1]
    for layer in frozen:
        layer.trainable = False
    return [layer.name for layer in frozen if layer.weights]


def _applications() -> dict[str, tuple]:
    """name -> (constructor, its own preprocess_input), read off `keras.applications`."""
    modules = {
        name.replace("_", ""): module
        for name, module in inspect.getmembers(keras.applications, inspect.ismodule)
        if hasattr(module, "preprocess_input")
    }
    found = {}
    for name, build in inspect.getmembers(keras.applications, inspect.isfunction):
        home = [module for module in modules.values() if getattr(module, name, None) is build]
        # MobileNetV3's constructors stand beside their module, not in it.
        home += [module for short, module in modules.items() if name.lower().startswith(short)]
        if home:
            found[name] = (build, home[0].preprocess_input)
    return found


def _apply(name: str, inputs: keras.KerasTensor, image_size: int | Sequence[int], weights: str) -> keras.KerasTensor:
    pixels = keras.ops.cast(inputs, "float32")
    if name in _SMALL:
        if weights == IMAGENET:
            raise UserError(f"`weights`=imagenet: there are none for {name}. Use `weights`=none or another `backbone`.")
        return _SMALL[name](pixels / 127.5 - 1.0)
    stem, _, width = name.partition("-")
    application = {key.lower(): value for key, value in _applications().items()}.get(stem)
    if application is None:
        raise UsageError(f"`backbone`={name}: unknown. {_near(name)}")
    build, preprocess = application
    more = _of_width(name, width, build) if width else {}
    try:
        network = build(
            include_top=False,
            weights=IMAGENET if weights == IMAGENET else None,
            input_tensor=preprocess(pixels),
            **more,
        )
    except ValueError as error:
        raise UsageError(f"`backbone`={name} with `image_size`={image_size}: {error}") from error
    except Exception as error:
        # Keras reports a failed download as a bare Exception; anything else is a fault to be seen.
        if weights != IMAGENET or "URL fetch failure" not in str(error):
            raise
        raise UserError(
            f"`weights`=imagenet: the weights of {name} could not be downloaded ({error}). Without a network use "
            "`weights`=FILE with a weights file of this backbone, or `weights`=none for a random start."
        ) from error
    return network.output


def _near(name: str) -> str:
    """What may have been meant by a name that is none: other places write mobilenet_v2."""
    near = difflib.get_close_matches(re.sub("[^a-z0-9]", "", name), names(), 1, 0.75)
    if not near:
        return f"Known are {', '.join(names())}."
    more = f" Its width may stand behind it: {near[0]}-0.35." if near[0] == "mobilenetv2" else ""
    return f"Did you mean {near[0]}?{more}"


def _of_width(name: str, width: str, build: Callable[..., keras.Model]) -> dict[str, float]:
    """What a network is built with so that each layer has `width` times as many channels.

    Raises:
      UsageError: it comes in one width only, or that is no width.
    """
    if "alpha" not in inspect.signature(build).parameters:
        raise UsageError(f"`backbone`={name}: that network comes in one width only. Leave out -{width}.")
    try:
        alpha = float(width)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha <= 4:
        raise UsageError(f"`backbone`={name}: expected a width above 0 and up to 4, such as -0.35.")
    return {"alpha": alpha}


def _stage_layers(model: keras.Model) -> tuple[str, ...]:
    """The last layer of each resolution; padding layers make resolutions of their own and are left out."""
    last: dict[int, str] = {}
    for layer in model.layers:
        shape = getattr(layer.output, "shape", ())
        # Squeeze-and-excitation works on 1x1 maps beside the main road, normalised input has 3 channels.
        on_the_road = len(shape) == 4 and shape[1] >= model.output.shape[1] and shape[-1] > 3
        if on_the_road and not isinstance(layer, keras.layers.ZeroPadding2D):
            last[shape[1]] = layer.name
    # Networks without padding shrink by a pixel or two within a stage: only halvings count.
    stages: list[str] = []
    size = None
    for resolution in sorted(last):
        if size is None or resolution >= 1.6 * size:
            stages.insert(0, last[resolution])
            size = resolution
    return tuple(stages)


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


_SMALL = {"resnet10": resnet10}
