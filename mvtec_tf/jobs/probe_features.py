"""The features that a probe is fitted on: of an encoder, computed in the run, or of a store that exists."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from mvtec_tf.data.protocol import Cut
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.features import extract
from mvtec_tf.features.feature_graph import FeatureKey, FeatureSettings, encoder_digest
from mvtec_tf.features.store import FeatureStore
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.jobs import encoders
from mvtec_tf.networks.copies import FLOAT32
from mvtec_tf.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Features:
    """Frozen features of a cut.

    Attributes:
      encoder: SavedModel that they came from.
      key: which of its features, and what they are of.
      cut: who is who.
      frozen: of `cut.fit`; what is evaluated is judged by the exported graph alone.
      embedding: float32 [N, C], the encoder's last output alone, of `cut.fit` and `cut.evaluate`; None: not asked for.
    """

    encoder: pathlib.Path
    key: FeatureKey
    cut: Cut
    frozen: FrozenFeatures
    embedding: np.ndarray | None

    @property
    def precision(self) -> str:
        """Number format of the encoder's network, float32 or bfloat16."""
        return saved_model.read_card(self.encoder).get("precision", FLOAT32)

    @property
    def tiled(self) -> bool:
        """Whether images were cut into tiles."""
        return self.key.tiles != (1, 1)


def of_cut(
    run: RunDirectory,
    encoder: pathlib.Path,
    store: FeatureStore | None,
    cut: Cut,
    wanted: Callable[[list[str]], FeatureSettings],
    end: bool,
) -> Features:
    """Features of the cut's images, from the store, or from the run, computed and kept there.

    Args:
      run: keeps what has to be computed, and what the diagrams of its report are drawn from.
      encoder: SavedModel.
      store: what holds its features already, or None.
      cut: who is who.
      wanted: the encoder's middle stages -> which features.
      end: whether the encoder's last output is wanted, of `cut.evaluate` too.

    Raises:
      LeakError: the encoder was trained on an image that is to be evaluated.
    """
    encoders.check_pretraining(encoder, cut.evaluate)
    card, records = saved_model.read_card(encoder), (*cut.fit, *(cut.evaluate if end else ()))
    if store is None:
        with run.timed("features"):
            # The study's cut evaluates images that it was also fitted on.
            every = tuple(dict.fromkeys(records))
            store = extract.extract(encoder, every, wanted(card["middle_stages"]), run.path / "features", end=end)
    print(f"Features: {store.describe()}", flush=True)
    run.note(
        architecture=card.get("architecture", []),
        encoder={
            "image_size": card["image_size"],
            "layers": list(store.key.layers),
            "pretrain_images": len(card["pretrain_images"]),
            "settings": card["run"],
        },
    )
    return Features(encoder, store.key, cut, store.of(cut.fit), store.embeddings_of(records) if end else None)


def find_source(
    encoder: pathlib.Path | None, features: str | None, maps: bool
) -> tuple[pathlib.Path | None, FeatureStore | None]:
    """The encoder, None if one is yet to be written; and the store of its features, or None.

    Args:
      encoder: that `encoder` names, or None.
      features: of `features`, or None.
      maps: whether patch maps must be there.

    Raises:
      UserError: the features are of another encoder, or theirs is nowhere.
      UsageError: the features hold no maps.
    """
    if features is None:
        return encoder, None
    store = FeatureStore(features)
    found = encoders.encoder_of_store(store) if encoder is None else encoder
    if encoder_digest(found) != store.key.encoder:
        raise UserError(
            f"`features`={features}: these are features of another encoder than {found}. Extract them with that one, "
            "or leave `encoder` out."
        )
    if maps and not store.key.maps:
        raise UsageError(f"`features`={features}: holds no patch maps. Extract the features with `maps` for this head.")
    return found, store
