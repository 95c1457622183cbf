"""Strengths of the augmentations as plain data, without TensorFlow: a command line shows and checks them at once."""

import dataclasses

from mvtec_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClassifierAugmentation:
    """Strengths for the supervised network. Probabilities are per image, each drawn alone.

    Attributes:
      horizontal_flip: probability.
      vertical_flip: probability.
      rotation_degrees: the angle is uniform in +-this.
      rotation_probability: probability.
      brightness: the factor is uniform in 1 +- this; so for contrast and saturation.
      contrast: see brightness.
      saturation: see brightness.
      hue: the shift is uniform in +-this, in turns of the colour circle, at most 0.5.
      jitter_probability: of brightness, contrast, saturation and hue together.
      blur_kernel_min: smallest width of the Gaussian kernel, odd, in pixels of a 224 px image.
      blur_kernel_max: largest width; the odd widths between are equally likely.
      blur_probability: probability.

    Raises:
      UserError: a strength is out of its range.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.3
    rotation_degrees: float = 30.0
    rotation_probability: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.1
    jitter_probability: float = 0.5
    blur_kernel_min: int = 3
    blur_kernel_max: int = 7
    blur_probability: float = 0.3

    def __post_init__(self) -> None:
        """Refuses strengths out of their range."""
        _check_range(self, ("horizontal_flip", "vertical_flip", "rotation_probability"), 0.0, 1.0)
        _check_range(self, ("jitter_probability", "blur_probability"), 0.0, 1.0)
        _check_range(self, ("brightness", "contrast", "saturation"), 0.0, 1.0)
        _check_range(self, ("hue",), 0.0, 0.5)
        _check_range(self, ("rotation_degrees",), 0.0, 180.0)
        _check_range(self, ("blur_kernel_min",), 1, self.blur_kernel_max)
        if self.blur_kernel_min % 2 == 0 or self.blur_kernel_max % 2 == 0:
            found = f"{self.blur_kernel_min} and {self.blur_kernel_max}"
            raise UserError(f"blur_kernel_min and blur_kernel_max are {found}; expected odd widths, such as 3 and 7.")


@dataclasses.dataclass(frozen=True)
class ContrastiveAugmentation:
    """Strengths for SimCLR's views (Chen et al., ICML 2020, appendix A), milder than the paper's:
    a crop of 8 % of the image, its default, cuts most defects away.

    Attributes:
      crop_area_min: the crop's area is uniform between this share of the image and 1.
      crop_aspect_max: width / height is log-uniform between 1 / this and this.
      horizontal_flip: probability.
      brightness: the factor is uniform in 1 +- this; so for contrast and saturation.
      contrast: see brightness.
      saturation: see brightness.
      hue: the shift is uniform in +-this, in turns of the colour circle, at most 0.5.
      jitter_probability: of brightness, contrast, saturation and hue together.
      grey_probability: of losing all colour.
      blur_sigma_min: standard deviation of the Gaussian, uniform from this, in pixels of a 224 px image.
      blur_sigma_max: to this.
      blur_probability: probability.

    Raises:
      UserError: a strength is out of its range.
    """

    crop_area_min: float = 0.6
    crop_aspect_max: float = 4 / 3
    horizontal_flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_sigma_min: float = 0.1
    blur_sigma_max: float = 2.0
    blur_probability: float = 0.5

    def __post_init__(self) -> None:
        """Refuses strengths out of their range."""
        _check_range(self, ("horizontal_flip", "jitter_probability", "grey_probability"), 0.0, 1.0)
        _check_range(self, ("blur_probability", "brightness", "contrast", "saturation"), 0.0, 1.0)
        _check_range(self, ("hue",), 0.0, 0.5)
        _check_range(self, ("crop_area_min",), 0.01, 1.0)
        _check_range(self, ("crop_aspect_max",), 1.0, 10.0)
        _check_range(self, ("blur_sigma_min",), 0.0, self.blur_sigma_max)


def _check_range(config: object, names: tuple[str, ...], low: float, high: float) -> None:
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:  # also true of NaN
            raise UserError(f"{name} is {value}, expected {low} to {high}. Give another strength of augmentation.")
