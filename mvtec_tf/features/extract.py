"""Features of records by an exported encoder, computed once and kept beside the run."""

import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np

from mvtec_tf import atomic
from mvtec_tf.data.records import Record, fingerprint
from mvtec_tf.errors import UsageError
from mvtec_tf.serving import saved_model
from mvtec_tf.serving.scoring import run_signature


def encoder_features(
    encoder: atomic.PathLike, records: Sequence[Record], store: atomic.PathLike, batch_size: int = 32
) -> dict[str, np.ndarray]:
    """Every output of the encoder for every record, read from `store` if it holds them already.

    Args:
      encoder: SavedModel with the signature `embed`.
      records: in the order of the result.
      store: an `.npz` file; written if it is missing or holds other images or another encoder.
      batch_size: images at a time.

    Returns:
      layer name -> float32 [N, C].
    """
    store = pathlib.Path(store)
    key = _key(encoder, records)
    if store.exists():
        with np.load(store, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return {name: kept[name] for name in kept.files if name != "key"}
    signature = saved_model.load(encoder).signatures["embed"]
    features = run_signature(signature, [record.file for record in records], batch_size, "encoded")
    with atomic.replacing(store) as temporary:
        np.savez(temporary, key=np.array(key), **features)
    return features


def join(features: dict[str, np.ndarray], layers: Sequence[str]) -> np.ndarray:
    """Concatenates layers: float32 [N, sum of their widths].

    Raises:
      UsageError: the encoder has no such layer.
    """
    missing = [layer for layer in layers if layer not in features]
    if missing:
        raise UsageError(f"--feature_layers: the encoder has no {', '.join(missing)}; it has {', '.join(features)}.")
    return np.concatenate([features[layer] for layer in layers], axis=1)


def _key(encoder: atomic.PathLike, records: Sequence[Record]) -> str:
    digest = hashlib.sha256(fingerprint(records).encode())
    for file in sorted((pathlib.Path(encoder) / "variables").iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()
