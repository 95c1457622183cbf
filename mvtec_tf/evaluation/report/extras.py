"""What there is to show beside the table itself: images, masks, heat maps, an embedding."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation import pixel_metrics, pixel_section
from mvtec_tf.evaluation.localisation.heatmaps import GivenMaps, HeatMaps
from mvtec_tf.evaluation.report import gallery
from mvtec_tf.evaluation.report.page import Section
from mvtec_tf.evaluation.table import Predictions

# Kinds of pictures that these sections draw.
KINDS = (
    pixel_section.KIND,
    *(f"{gallery.KIND}_{name}" for name in ("misses", "false_alarms")),
    *(f"{method}_{colouring}" for method in ("tsne", "pca") for colouring in ("label", "category", "defect")),
)


@dataclasses.dataclass(frozen=True)
class Extras:
    """Sources of further sections; each may be missing.

    Attributes:
      files: image and mask of every evaluate row, by path; empty if unknown.
      maps: folders of heat maps.
      about_maps: what must be known to read the maps, a sentence each.
      features: float32 [N, D], of the evaluate rows in their order; None if there is no embedding.
      tsne: whether t-SNE of the features is wanted.
      seed: of t-SNE and of the sample.
      projector: folder for TensorBoard's projector; None: none is written.
      say: is told what takes a while.
      about_files: what must be known to read the masks, a sentence each.
      explain: paths of a few images -> their heat maps, made when they are to be shown; None: nothing can make them.
    """

    files: Mapping[str, ImageFiles] = dataclasses.field(default_factory=dict)
    maps: tuple[HeatMaps, ...] = ()
    about_maps: tuple[str, ...] = ()
    features: np.ndarray | None = None
    tsne: bool = True
    seed: int = 0
    projector: pathlib.Path | None = None
    say: Callable[[str], None] = lambda text: None
    about_files: tuple[str, ...] = ()
    explain: Callable[[Sequence[str]], GivenMaps] | None = None

    def sections(self, judged: Assessment, evaluate: Predictions) -> list[Section]:
        """The sections, in the order of the page.

        Raises:
          UserError: an image or a heat map is missing or cannot be used.
        """
        found = []
        if self.maps:
            figures = [
                pixel_metrics.measure(evaluate, self.files, maps, judged.bootstrap, self._progress(maps.name))
                for maps in self.maps
            ]
            made = pixel_section.section(judged, evaluate, figures, self.files, self.maps, self.about_maps)
            found.append(dataclasses.replace(made, notes=[*made.notes, *self.about_files]))
        found.append(gallery.section(judged, evaluate, self.files, self.maps, self.explain))
        if self.features is not None:
            found.append(self._embedding(evaluate))
        return found

    def _embedding(self, evaluate: Predictions) -> Section:
        # Not above: scikit-learn takes a second to import, and most tables come without an embedding.
        from mvtec_tf.evaluation import embedding
        from mvtec_tf.evaluation.report import embedding_pictures

        try:
            points = embedding.reduce(evaluate, self.features, self.tsne, self.seed, self.say)
        except embedding.TooFewPointsError as error:
            return embedding_pictures.without(str(error))
        if self.projector is not None:
            # Not above: who wants no projector need not load TensorBoard.
            from mvtec_tf.evaluation.report import embedding_projector

            embedding_projector.write(self.projector, points, self.files)
        return embedding_pictures.section(points, self.projector is not None)

    def _progress(self, name: str) -> Callable[[int, int], None]:
        def tell(done: int, of: int) -> None:
            if done % 1000 == 0 and done < of:
                self.say(f"pixels of {name}: {done:,} of {of:,} steps")

        return tell
