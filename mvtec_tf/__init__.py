"""Industrial defect detection: supervised and self-supervised learning, judged side by side.

    import mvtec_tf as mt

    model = mt.fit("DATA/bottle", weights="imagenet", recipe="few_labels", label_budget=0.1, run_dir="results/bottle")
    model.score(["part.png"])

Everything is found when it is asked for: importing the package costs nothing and loads no TensorFlow.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvtec_tf import heads
    from mvtec_tf.api import (
        Explanation,
        Model,
        Report,
        compare,
        extract_features,
        fit,
        judge,
        load,
        pretrain,
        scan,
        split,
        train_classifier,
    )

# Before anything here imports Keras: it stands above the user's keras.json, see keras_settings.
os.environ["KERAS_BACKEND"] = "tensorflow"
# A GPU is often shared: TensorFlow takes as much of its memory as it needs, not all there is.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# TensorFlow leaves oneDNN off on processors without AVX-512 or AMX, where it is faster too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.2.0"
__all__ = [
    "Explanation",
    "Model",
    "Report",
    "compare",
    "extract_features",
    "fit",
    "heads",
    "judge",
    "load",
    "pretrain",
    "scan",
    "split",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    if name == "heads":
        return importlib.import_module("mvtec_tf.heads")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("mvtec_tf.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
