"""The contract of every head: scikit-learn's, on frozen features, with scores that exist once, as the exported ops.

A fitted head is a handful of arrays (`arrays()`). `score_ops` computes scores from them in TensorFlow ops; NumPy
callers run the very same ops in batches, so that what is judged is what is served, and nothing is ever pickled.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from mvtec_tf import conformal
from mvtec_tf.errors import UserError
from mvtec_tf.heads import frozen
from mvtec_tf.heads.frozen import FrozenFeatures, inner_folds, objects_of
from mvtec_tf.heads.probability import Platt, fit_platt

# Rows of global features at a time; of maps, which are a thousand times as large, `batches` takes fewer.
_ROWS = 1024
# Of what heads take so many: of none, a mean would be NaN.
_COUNTS = ("neighbours", "memory_bank", "candidates", "channels")
_UNSTABLE = "Was the encoder's training stable? Lower its `learning_rate`, or choose another `head`."
_NO_DEFECTS = (
    "There is no probability without scores of held-out defects: the head was fitted on fewer than two defective "
    "objects. Use decision_function, or label more."
)
_NO_ORDER = (
    "There is no probability: of images held out from the fit, defective ones score no higher than good ones, so that "
    "the score says nothing of defects. Label more, or choose another head or encoder."
)

Arrays = dict[str, tf.Tensor]


class Scored:
    """What has `arrays`, `score_ops` and perhaps `heat_map_ops`; NumPy callers run the very ops that are exported."""

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N], higher = more defective."""
        return by_ops(self.score_ops, features, self.arrays())

    def heat_maps(self, features: FrozenFeatures) -> np.ndarray:
        """float32 [N, height, width], where the scores come from."""
        return by_ops(self.heat_map_ops, features, self.arrays())


class Head(Scored, ClassifierMixin, BaseEstimator):
    """What every head can do.

    `features` are `FrozenFeatures` of N images, or a plain float [N, D] of global features for heads that need no
    maps; in the ops they are `FrozenFeatures` of tensors. Labels are 1 for defective and 0 for good images.

    Attributes:
      needs_labels: whether defective images must be among those it is fitted on.
      needs_maps: whether it looks at patch maps.
      gives_heat_maps: whether it has `heat_map_ops`.
    """

    needs_labels = False
    needs_maps = False
    gives_heat_maps = False
    # Scores of the images that it was fitted on, float [N], each by a fit without its object, NaN where there is none;
    # None: the head holds out nothing by itself.
    held_out_: np.ndarray | None = None
    # The study's head is fitted on whatever there is, as it was in the study.
    _needs_both_classes: bool | None = None

    def fit(self, features: Any, labels: np.ndarray | None = None) -> "Head":
        """Fits the head.

        Args:
          features: of N images; objects in `groups` are never divided when images are held out.
          labels: [N], 1 or True for defective, 0 or False for good images; None: all images are good.

        Raises:
          ValueError: labels are others, or not as many as images; or a number of the head is below 1.
          UserError: the images are too few or too alike, a class is missing that the head needs, or the fit diverged.
        """
        for name in _COUNTS:
            if getattr(self, name, 1) < 1:
                raise ValueError(f"{name} must be 1 or more. Received: {getattr(self, name)}.")
        features = frozen.frozen(features)
        labels = np.zeros(len(features), int) if labels is None else frozen.labels_of(labels)
        needs_both = self.needs_labels if self._needs_both_classes is None else self._needs_both_classes
        frozen.check(features, labels, both_classes=needs_both, maps=self.needs_maps)
        try:
            self._learn(features, labels)
        except np.linalg.LinAlgError as error:
            raise UserError(f"The fit of the head diverged ({error}). {_UNSTABLE}") from error
        wrong = [name for name, value in self.arrays().items() if not np.all(np.isfinite(value))]
        if wrong:
            raise UserError(f"The fit of the head diverged: its {', '.join(wrong)} hold NaN or infinity. {_UNSTABLE}")
        self.classes_ = np.array([0, 1])
        self.n_features_in_ = features.shape[1]
        # `predict` and `predict_proba` need scores of images held out, which only they ask for.
        self._fitted_on: tuple[FrozenFeatures, np.ndarray] = (features, labels)
        self._calibrated: _Calibration | None = None
        return self

    def _learn(self, features: FrozenFeatures, labels: np.ndarray) -> None:
        """Learns what `arrays` holds, from checked features and int [N] labels."""
        raise NotImplementedError

    def decision_function(self, features: Any) -> np.ndarray:
        """float32 [N], higher = more defective.

        Raises:
          NotFittedError: the head was not fitted.
          ValueError: the images have other features than those that it was fitted on, in number or maps.
          UserError: features are no finite numbers.
        """
        return super().decision_function(self._checked(features))

    def heat_maps(self, features: FrozenFeatures) -> np.ndarray:
        """float32 [N, height, width], where the scores come from. Raises as `decision_function`."""
        return super().heat_maps(self._checked(features))

    def _checked(self, features: Any) -> FrozenFeatures:
        """What it was fitted for: a single column would be set against all of them, and NaN be called good."""
        check_is_fitted(self, "classes_")
        features = frozen.frozen(features)
        if len(features.shape) != 2 or features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"features must be [N, {self.n_features_in_}], as those that the head was fitted on. "
                f"Received: {features.shape}."
            )
        frozen.check_numbers(features, maps=self.needs_maps)
        known = self._fitted_on[0]
        sizes = {known.image_size, features.image_size}
        if self.needs_maps:
            # They say all: the image size beside them is that of a heat map alone.
            found, expected = _maps_of(features), _maps_of(known)
            if found != expected:
                raise ValueError(f"maps of {found}, expected {expected}, as those that the head was fitted on.")
        # Of an array alone nobody knows the image size.
        elif None not in sizes and len(sizes) > 1:
            raise ValueError(f"features at {features.image_size} px; the head was fitted on {known.image_size}.")
        return features

    def arrays(self) -> dict[str, np.ndarray]:
        """The learned state, by name."""
        raise NotImplementedError

    def score_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """Scores in TensorFlow ops on the state of `arrays`: float32 [N], higher = more defective."""
        raise NotImplementedError

    def heat_map_ops(self, features: FrozenFeatures, arrays: Arrays) -> tf.Tensor:
        """Where the score comes from: float32 [N, height, width]. Heads with `gives_heat_maps` only."""
        raise NotImplementedError

    def predict(self, features: Any) -> np.ndarray:
        """Calls, int [N], 1 = defective: at a probability of one half where `predict_proba` gives one, else
        above the score that 95 % of new good objects are to stay below (see `conformal.limit`)."""
        calibration = self._calibration()
        if calibration.platt is not None:
            return (self.predict_proba(features)[:, 1] >= 0.5).astype(int)
        return (self.decision_function(features) > calibration.threshold).astype(int)

    def predict_proba(self, features: Any) -> np.ndarray:
        """Calibrated probabilities of good and defective, float64 [N, 2].

        By Platt scaling of scores of images that were held out.

        Raises:
          UserError: the head was fitted without labelled defects, or on a single defective object; or it ranks
            held-out defective images no higher than good ones.
        """
        calibration = self._calibration()
        platt = calibration.platt
        if platt is None:
            raise UserError(calibration.why_none)
        defective = platt.probability(self.decision_function(features))
        return np.stack([1 - defective, defective], axis=1)

    def _calibration(self) -> "_Calibration":
        check_is_fitted(self, "classes_")
        if self._calibrated is None:
            features, labels = self._fitted_on
            scores = self._refitted(features, labels) if self.held_out_ is None else self.held_out_
            known = np.isfinite(scores)
            objects = objects_of(features)
            self._calibrated = _Calibration.of(scores[known], labels[known], objects[known])
        return self._calibrated

    def _refitted(self, features: FrozenFeatures, labels: np.ndarray) -> np.ndarray:
        """float64 [N], each image's score by a head that was fitted without its fold; NaN where none could be."""
        folds = inner_folds(labels, features.groups, 0)
        scores = np.full(len(labels), np.nan)
        for held, part in fits_without(folds, lambda: clone(self), features, labels):
            scores[held] = part.decision_function(features.select(held))
        return scores


@dataclasses.dataclass(frozen=True)
class _Calibration:
    """What scores of held-out images say: a probability where both classes are among them, else a threshold."""

    platt: Platt | None
    threshold: float
    why_none: str = ""

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, objects: np.ndarray) -> "_Calibration":
        good = labels == 0
        if not good.any():
            raise UserError("No good image could be held out to set a threshold by: there are too few objects.")
        threshold = conformal.limit(scores[good], conformal.masses(objects[good]))
        if not labels.any():
            return cls(None, threshold, _NO_DEFECTS)
        platt = fit_platt(scores, labels)
        return cls(platt, threshold) if platt.slope > 0 else cls(None, threshold, _NO_ORDER)


def fits_without(
    folds: np.ndarray, make: Callable[[], Head], features: FrozenFeatures, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, Head]]:
    """A head fitted without each fold, where the rest has what it needs.

    Args:
      folds: int [N], see `inner_folds`.
      make: gives an unfitted head.
      features: of N images.
      labels: int [N].

    Yields:
      (bool [N], the images of the fold; the head).
    """
    for fold in range(folds.max() + 1):
        held, rest = folds == fold, folds != fold
        head = make()
        if held.any() and (not head.needs_labels or len(set(labels[rest].tolist())) == 2):
            yield held, head.fit(features.select(rest), labels[rest])


def by_ops(compute: Callable[[Any, Arrays], tf.Tensor], features: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Runs ops on features in memory or on disk, some images at a time.

    Args:
      compute: features as tensors and arrays as tensors -> [B, ...].
      features: of N images.
      arrays: the state of a head.

    Returns:
      [N, ...].
    """
    features = frozen.frozen(features)
    state = {name: tf.constant(value) for name, value in arrays.items()}
    size = None if features.maps else _ROWS
    parts = list(features.each(lambda batch: compute(as_tensors(batch), state).numpy(), size))
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _maps_of(features: FrozenFeatures) -> dict[str, tuple[int, ...]]:
    """Layer -> (height, width, channels) of its map."""
    return {name: tuple(map(int, source.shape[1:])) for name, source in features.maps.items()}


def part_of(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arrays whose names begin with `name/`, without that."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def as_tensors(features: FrozenFeatures) -> FrozenFeatures:
    """The same features, which must be in memory, as float32 tensors."""
    return dataclasses.replace(
        features,
        pooled=tf.constant(features.pooled, tf.float32),
        maps={name: tf.constant(value, tf.float32) for name, value in features.maps.items()},
        tiled=None if features.tiled is None else tf.constant(features.tiled, tf.float32),
    )
