"""Recipes: which features and which head go together. A recipe was fixed before the figures that are reported of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mvtec_tf.heads.settings import HeadSettings

if TYPE_CHECKING:
    # Not at run time: a command line is read and refused without TensorFlow.
    from mvtec_tf.features.feature_graph import FeatureSettings

FEW_LABELS = "few_labels"
# Shapes of what encoders that are made of weights look at.
SQUARE, PARTS = "square", "parts"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way from an encoder to a score, the same for every category.

    Attributes:
      head: a key of `heads.settings.HEADS`.
      pooling: how maps become global features, names of `patch_maps.POOLINGS`.
      centre_brightness: whether images are shifted to one mean brightness first.
      neighbourhood: side over which patches are averaged, 1 for none; patch maps are kept where the head looks at them.
      tiles: (rows, columns) into which images are cut.
      image_size: side in pixels of encoders that are made of weights; an encoder of a run has its own.
      image_shape: SQUARE, or PARTS for a height and a width of the same area, as the parts are shaped.
      threshold: how it is chosen where defects are labelled and nothing else is asked for, of `thresholds.METHODS`;
        without a labelled defect see `thresholds.choose_threshold`.
      words: what it is, for a command line.
    """

    head: str
    pooling: tuple[str, ...]
    centre_brightness: bool
    neighbourhood: int
    tiles: tuple[int, int]
    image_size: int
    image_shape: str
    threshold: str
    words: str

    @property
    def maps(self) -> bool:
        """Whether patch maps must be kept."""
        return HeadSettings(self.head).needs_maps

    def settings(self, middle_stages: Sequence[str]) -> "FeatureSettings":
        """Its features of an encoder with these middle stages (see `Backbone.middle_stages`)."""
        from mvtec_tf.features.feature_graph import FeatureSettings

        return FeatureSettings(
            tuple(middle_stages), self.maps, self.neighbourhood, self.tiles, self.pooling, self.centre_brightness
        )


RECIPES: Mapping[str, Recipe] = {
    FEW_LABELS: Recipe(
        head="fused",
        pooling=("mean", "gem8"),
        centre_brightness=True,
        # Averaging over neighbours blurs small defects, and what is usual at a place is smoothed by itself.
        neighbourhood=1,
        tiles=(1, 1),
        image_size=448,
        image_shape=PARTS,
        threshold="smooth_youden",
        words="one head for few labels or none, the same settings for every part; what a user should run",
    )
}
