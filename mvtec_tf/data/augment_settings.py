"""Strengths of the augmentations as plain data, without TensorFlow: a command line shows and checks them at once."""

import dataclasses
import math

from mvtec_tf.errors import UserError

# name -> (least, most), the latter a number or the name of another strength; of the others 0 and 1.
_BOUNDS: dict[str, tuple[float, float | str]] = {
    "rotation_degrees": (0.0, 180.0),
    "hue": (0.0, 0.5),
    "crop_area_min": (0.01, 1.0),
    "crop_aspect_max": (1.0, 10.0),
    "blur_kernel_min": (1, "blur_kernel_max"),
    "blur_kernel_max": (1, math.inf),
    "blur_sigma_min": (0.0, "blur_sigma_max"),
    "blur_sigma_max": (0.0, math.inf),
}


# Kinds of defects that are drawn where nothing else is said, and all that there are; see `synthetic`.
DRAWN_DEFECTS = ("cutpaste", "scar", "perlin")
SYNTHETIC_DEFECTS = (*DRAWN_DEFECTS, "nsa", "generated")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strengths that every augmentation has. Probabilities are per image, each drawn alone.

    Attributes:
      horizontal_flip: probability of a flip of left and right.
      brightness: reach of the factor of brightness, uniform in 1 +- this.
      contrast: reach of the factor of contrast, uniform in 1 +- this.
      saturation: reach of the factor of saturation, uniform in 1 +- this.
      hue: reach of the shift of hue, uniform in +-this, in turns of the colour circle, at most 0.5.
      jitter_probability: probability of a change of brightness, contrast, saturation and hue together.
      blur_probability: probability of a blur.

    Raises:
      UserError: a strength is out of its range.
    """

    horizontal_flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.1
    jitter_probability: float = 0.5
    blur_probability: float = 0.3

    def __post_init__(self) -> None:
        """Refuses strengths out of their range."""
        for field in dataclasses.fields(self):
            least, most = _BOUNDS.get(field.name, (0.0, 1.0))
            value, most = getattr(self, field.name), getattr(self, most) if isinstance(most, str) else most
            if not least <= value <= most:  # also true of NaN
                raise UserError(
                    f"{field.name} is {value}, expected {least} to {most}. Give another strength of augmentation."
                )


@dataclasses.dataclass(frozen=True)
class ClassifierAugmentation(Augmentation):
    """Strengths for the supervised network.

    Attributes:
      vertical_flip: probability of a flip of top and bottom.
      rotation_degrees: largest angle, uniform in +-this.
      rotation_probability: probability of a rotation.
      blur_kernel_min: smallest width of the Gaussian kernel, odd, in pixels of a 224 px image.
      blur_kernel_max: largest width; the odd widths between are equally likely.
    """

    vertical_flip: float = 0.3
    rotation_degrees: float = 30.0
    rotation_probability: float = 0.5
    blur_kernel_min: int = 3
    blur_kernel_max: int = 7

    def __post_init__(self) -> None:
        """Refuses strengths out of their range, and even widths."""
        super().__post_init__()
        if self.blur_kernel_min % 2 == 0 or self.blur_kernel_max % 2 == 0:
            found = f"{self.blur_kernel_min} and {self.blur_kernel_max}"
            raise UserError(f"blur_kernel_min and blur_kernel_max are {found}; expected odd widths, such as 3 and 7.")


@dataclasses.dataclass(frozen=True)
class ContrastiveAugmentation(Augmentation):
    """Strengths for SimCLR's views (Chen et al., ICML 2020, appendix A), milder than the paper's:
    a crop of 8 % of the image, its default, cuts most defects away.

    Attributes:
      crop_area_min: smallest share of the image in a crop; shares are uniform from it to 1.
      crop_aspect_max: largest width / height of a crop, log-uniform between 1 / this and this.
      grey_probability: probability of losing all colour.
      blur_sigma_min: smallest standard deviation of the Gaussian, in pixels of a 224 px image.
      blur_sigma_max: largest standard deviation of the Gaussian; those between are equally likely.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    jitter_probability: float = 0.8
    blur_probability: float = 0.5
    crop_area_min: float = 0.6
    crop_aspect_max: float = 4 / 3
    grey_probability: float = 0.2
    blur_sigma_min: float = 0.1
    blur_sigma_max: float = 2.0
