"""The graph of a probe: an encoder, read back from its SavedModel, with a fitted head."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mvtec_tf import files
from mvtec_tf.features.feature_graph import FeatureGraph, FeatureSettings
from mvtec_tf.graphs import heat_maps, saved_model, signatures
from mvtec_tf.graphs.signatures import Answer
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.networks.backbone import EMBEDDING

DEFECT_TYPE = "defect_type"
TYPE_SCORES = "type_scores"


class Probe(tf.Module):
    """Encoder and head as functions of pixels.

    Args:
      encoder: path of the encoder's SavedModel.
      settings: the features that the head was fitted on.
      head: fitted.
    """

    def __init__(self, encoder: files.PathLike, settings: FeatureSettings, head: PerCategoryHead) -> None:
        super().__init__()
        self._graph = FeatureGraph(encoder, settings)
        self._head = head
        self._arrays = {name: tf.Variable(value, trainable=False) for name, value in head.arrays().items()}

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what `judge`, `embed` and `explain` take."""
        return self._graph.image_size

    @property
    def max_pixels(self) -> int:
        """Encoded images that are larger are refused: the encoder's own limit."""
        return self._graph.max_pixels

    @property
    def precision(self) -> str:
        """Number format of the encoder's network, float32 or bfloat16."""
        return self._graph.precision

    @property
    def categories(self) -> tuple[str, ...]:
        """The names behind the numbers of `category`."""
        return tuple(self._head.heads)

    @property
    def types(self) -> tuple[str, ...]:
        """The names behind the columns of `type_scores`, none if the head names no defects."""
        return self._head.types if self._head.gives_types else ()

    def judge(self, images: tf.Tensor) -> Answer:
        """uint8 [B, height, width, 3] -> `anomaly_score` [B], `category` int64 [B], `embedding`, perhaps `probability`.

        A head that names defects also answers `type_scores` float32 [B, T] and `defect_type` string [B].
        """
        return self._answer(self._graph.features(images))

    def embed(self, images: tf.Tensor) -> Answer:
        """uint8 [B, height, width, 3] -> `embedding` float32 [B, D], the global averages of the joined layers."""
        return {EMBEDDING: self._graph.features(images).pooled}

    def explain(self, images: tf.Tensor) -> tuple[Answer, tf.Tensor]:
        """uint8 [B, height, width, 3] -> what `judge` answers, and a heat map, float32 [B, height, width].

        The map is the head's own where it has one, the distances of the patches. Of a head on global averages it is
        what each position of the encoder's maps adds to the score, see `heat_maps.contributions`, the layers together.
        """
        return self.explain_maps(self._graph.maps(images))

    def maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """uint8 [B, height, width, 3] -> the encoder's maps that the head sees, see `FeatureGraph.maps`."""
        return self._graph.maps(images)

    def explain_maps(self, maps: Sequence[tf.Tensor]) -> tuple[Answer, tf.Tensor]:
        """What `explain` answers to the images of these `maps`."""
        if self._head.gives_heat_maps:
            features = self._graph.features_of(maps)
            return self._answer(features), self._head.heat_map_ops(features, self._arrays)
        _, parts = heat_maps.contributions(
            maps, lambda values: self._head.score_ops(self._graph.features_of(values), self._arrays)
        )
        enlarged = [heat_maps.enlarge(self._graph.whole(part), self.image_size) for part in parts]
        return self._answer(self._graph.features_of(maps)), tf.nn.relu(tf.add_n(enlarged))

    def _answer(self, features: Any) -> Answer:
        answer = self._head.answer(features, self._arrays) | {EMBEDDING: features.pooled}
        if self._head.gives_types:
            answer[TYPE_SCORES] = self._head.type_scores(features, self._arrays)
            answer[DEFECT_TYPE] = tf.gather(tf.constant(self._head.types), tf.argmax(answer[TYPE_SCORES], axis=1))
        return answer


def write_probe(path: files.PathLike, probe: Probe, card: Mapping[str, Any]) -> None:
    """Writes a probe with the signatures of `signatures.of_module`."""
    height, width = probe.image_size
    facts = {"kind": "probe", "image_size": height if height == width else [height, width]}
    facts |= {"categories": list(probe.categories), "types": list(probe.types), "max_pixels": probe.max_pixels}
    facts["precision"] = probe.precision
    saved_model.write_module(path, probe, signatures.of_module(probe), dict(card) | facts)
