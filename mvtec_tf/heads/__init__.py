"""Light heads on frozen features, by the contract of scikit-learn: `fit`, `decision_function`, `predict_proba`.

    from mvtec_tf import heads
    head = heads.Fused().fit(features, labels)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvtec_tf.heads.distance import Mahalanobis, NearestNeighbours, RbfSvm
    from mvtec_tf.heads.fused import Fused
    from mvtec_tf.heads.linear import Lda, LinearSvm, Logistic
    from mvtec_tf.heads.patch import Padim, PatchCore

# name -> where it lives; found when it is asked for, so that a command line needs no TensorFlow.
_ROOMS = {
    "Fused": "fused",
    "Lda": "linear",
    "LinearSvm": "linear",
    "Logistic": "linear",
    "Mahalanobis": "distance",
    "NearestNeighbours": "distance",
    "Padim": "patch",
    "PatchCore": "patch",
    "RbfSvm": "distance",
}
__all__ = ["Fused", "Lda", "LinearSvm", "Logistic", "Mahalanobis", "NearestNeighbours", "Padim", "PatchCore", "RbfSvm"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
