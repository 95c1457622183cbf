"""The features that a probe is fitted on: of an encoder, computed in the run, or of a store that exists."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf.data import leaks, protocol
from mvtec_tf.data.protocol import Cut, SplitRow
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.features import extract
from mvtec_tf.features.feature_graph import FeatureKey, FeatureSettings, encoder_digest
from mvtec_tf.features.store import ENCODER, FeatureStore
from mvtec_tf.graphs import saved_model
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.jobs.encoders import resolve_encoder
from mvtec_tf.networks.copies import FLOAT32
from mvtec_tf.run_directory import RunDirectory, read_run


@dataclasses.dataclass(frozen=True)
class Features:
    """Frozen features of a cut.

    Attributes:
      encoder: SavedModel that they came from.
      key: which of its features, and what they are of.
      cut: who is who.
      frozen: of `cut.fit`; what is evaluated is judged by the exported graph alone.
      embedding: float32 [N, C], the encoder's last output alone, of `cut.fit` and, where they were asked for, of
        `cut.evaluate`.
    """

    encoder: pathlib.Path
    key: FeatureKey
    cut: Cut
    frozen: FrozenFeatures
    embedding: np.ndarray

    @property
    def precision(self) -> str:
        """Number format of the encoder's network, float32 or bfloat16."""
        return saved_model.read_card(self.encoder).get("precision", FLOAT32)

    @property
    def tiled(self) -> bool:
        """Whether images were cut into tiles."""
        return self.key.tiles != (1, 1)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where features come from.

    Attributes:
      encoder: SavedModel.
      store: that holds its features already, or None.
    """

    encoder: pathlib.Path
    store: FeatureStore | None = None

    @property
    def untrained(self) -> bool:
        """Whether the encoder is weights as they were given, trained on no images here."""
        return not self.card["pretrain_images"]

    @property
    def card(self) -> dict[str, Any]:
        """What the encoder says of itself."""
        return saved_model.read_card(self.encoder)

    def features(
        self,
        run: RunDirectory,
        cut: Cut,
        wanted: Callable[[list[str]], FeatureSettings],
        evaluated: bool = False,
    ) -> Features:
        """Those of the cut's images, from the store, or from the run, computed and kept there.

        Args:
          run: keeps what has to be computed.
          cut: who is who.
          wanted: the encoder's middle stages -> which features.
          evaluated: whether the embeddings of `cut.evaluate` are wanted too.

        Raises:
          LeakError: the encoder was trained on an image that is to be evaluated.
        """
        check_pretraining(self.encoder, cut.evaluate)
        store, records = self.store, (*cut.fit, *(cut.evaluate if evaluated else ()))
        if store is None:
            settings = wanted(saved_model.read_card(self.encoder)["middle_stages"])
            with run.timed("features"):
                # The study's cut evaluates images that it was also fitted on.
                store = extract.extract(self.encoder, tuple(dict.fromkeys(records)), settings, run.path / "features")
        print(f"Features: {store.describe()}", flush=True)
        self._note(run, store)
        return Features(self.encoder, store.key, cut, store.of(cut.fit), store.embeddings_of(records))

    def _note(self, run: RunDirectory, store: FeatureStore) -> None:
        """What the diagrams of the run's report are drawn from."""
        card = saved_model.read_card(self.encoder)
        run.note(
            architecture=card.get("architecture", []),
            encoder={
                "image_size": card["image_size"],
                "layers": list(store.key.layers),
                "pretrain_images": len(card["pretrain_images"]),
                "settings": card["run"],
            },
        )


def find_source(encoder: str | None, features: str | None, maps: bool) -> Source | None:
    """The source that the command line names, or None if an encoder is yet to be written.

    Args:
      encoder: of `encoder`, or None.
      features: of `features`, or None.
      maps: whether patch maps must be there.

    Raises:
      UserError: there is no such encoder, or the features are of another one.
      UsageError: the features hold no maps.
    """
    if features is None:
        return None if encoder is None else Source(resolve_encoder(encoder))
    store = FeatureStore(features)
    found = encoder_of(store) if encoder is None else resolve_encoder(encoder)
    if encoder_digest(found) != store.key.encoder:
        raise UserError(
            f"`features`={features}: these are features of another encoder than {found}. Extract them with that one, "
            "or leave `encoder` out."
        )
    if maps and not store.key.maps:
        raise UsageError(f"`features`={features}: holds no patch maps. Extract the features with `maps` for this head.")
    return Source(found, store)


def encoder_of(store: FeatureStore) -> pathlib.Path:
    """The SavedModel that stored features came from: of the folder itself, or of the run that it lies in.

    Raises:
      UserError: it is in neither.
    """
    candidates = [store.path / ENCODER]
    # RUN/features of fit_probe, RUN/features/NAME of label_efficiency.
    for run in store.path.resolve().parents[:2]:
        if not (run / "run.json").is_file():
            continue
        settings = read_run(run)["settings"]
        named = [settings.get("encoder"), *(settings.get("encoders") or [])]
        candidates += [run / ENCODER, *sorted((run / "encoders").glob("*"))]
        candidates += [resolve_encoder(name) for name in named if name and pathlib.Path(name).exists()]
        if settings.get("features"):
            candidates.append(pathlib.Path(settings["features"]) / ENCODER)
    there = [folder for folder in candidates if (folder / "saved_model.pb").is_file()]
    for folder in there:
        if encoder_digest(folder) == store.key.encoder:
            return folder
    looked = ", ".join(map(str, there or candidates))
    raise UserError(
        f"`features`={store.path}: the encoder that made these features is not with them (looked at {looked}). Name it "
        "with `encoder`, or write the features with mvtec-tf extract-features, which keeps it beside them."
    )


def encoder_of_run(
    run: pathlib.Path, record: Mapping[str, Any], digest: str, given: str | None = None, hint: str = ""
) -> pathlib.Path:
    """The SavedModel of the encoder that a run of fit_probe rests on.

    Args:
      run: its directory.
      record: of it.
      digest: of the encoder that its head was fitted on.
      given: where the encoder lies now; None: where it lay.
      hint: what to do where it is another one.

    Raises:
      UserError: there is none, or another one.
    """
    own, settings = run / ENCODER, record["settings"]
    if given:
        found = resolve_encoder(given)
    elif own.is_dir():
        found = own
    elif settings.get("encoder"):
        found = resolve_encoder(settings["encoder"])
    else:
        found = encoder_of(FeatureStore(settings["features"]))
    if encoder_digest(found) != digest:
        raise UserError(f"{found}: not the encoder that the head of {run} was fitted on.{hint}")
    return found


def check_pretraining(encoder: pathlib.Path, evaluated: Sequence[Record]) -> None:
    """Raises LeakError if the encoder was trained on an image that is to be evaluated."""
    images = saved_model.read_card(encoder)["pretrain_images"]
    seen = [SplitRow(image["path"], image["group"], image["category"], "pretrain") for image in images]
    leaks.check_leaks(seen + protocol.split_rows(evaluated, "evaluate"), source=str(encoder))


def pretrained_paths(encoder: pathlib.Path) -> frozenset[str]:
    """Paths of the images that an encoder was trained on here."""
    return frozenset(image["path"] for image in saved_model.read_card(encoder)["pretrain_images"])
