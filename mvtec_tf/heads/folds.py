"""Folds in which a head holds out some of the images that it is fitted on, whole objects at a time."""

import numpy as np

from mvtec_tf.heads.frozen import FrozenFeatures

INNER_FOLDS = 3


def objects_of(features: FrozenFeatures) -> np.ndarray:
    """int64 [N], equal for images of one object."""
    groups = features.groups
    return np.arange(len(features)) if groups is None else np.unique(groups, return_inverse=True)[1]


def inner_folds(labels: np.ndarray, groups: np.ndarray | None, seed: int, count: int = INNER_FOLDS) -> np.ndarray:
    """A fold for each image, whole objects, each class spread over all folds; -1 for the only object of a class.

    Args:
      labels: int [N].
      groups: [N] or None.
      seed: random seed of the order.
      count: of folds; those that good objects lie in are the first ones.

    Returns:
      int64 [N].
    """
    names = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    folds = np.empty(len(labels), np.int64)
    rng = np.random.default_rng(seed)
    # An object with a defective image is defective: its good views stay with it.
    defective = np.unique(names[labels == 1])
    for objects in (defective, np.setdiff1d(names, defective)):
        if len(objects) == 1:
            folds[names == objects[0]] = -1
            continue
        for number, one in enumerate(rng.permutation(objects)):
            folds[names == one] = number % count
    return folds
