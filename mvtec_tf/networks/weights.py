"""Loading backbone weights from a file, with a word on every layer.

Keras' loading by name skips what it does not find without saying so: another network's file
changes a few like-named arrays, and training then starts from noise that nobody knows of.
"""

import dataclasses
import pathlib

import h5py
import numpy as np

from mvtec_tf.errors import UserError
from mvtec_tf.keras_settings import keras


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """What became of a weights file.

    Attributes:
      loaded: names of the layers that were loaded.
      random: layers of the network that the file does not hold; they keep their random start.
      unused: layers of the file that the network does not have in that form.
    """

    loaded: tuple[str, ...]
    random: tuple[str, ...]
    unused: tuple[str, ...]

    def within(self, model: keras.Model) -> "WeightsReport":
        """The report on a part of the network: what is random elsewhere does not matter to it."""
        there = {layer.name for layer in model.layers}
        return dataclasses.replace(self, random=tuple(name for name in self.random if name in there))

    def describe(self) -> str:
        """One paragraph for the log."""
        lines = [f"weights: {len(self.loaded)} layers loaded{_span(self.loaded)}"]
        if self.random:
            lines.append(f"{len(self.random)} layers NOT in the file keep their RANDOM start{_span(self.random)}")
        if self.unused:
            lines.append(f"{len(self.unused)} layers of the file were NOT used{_span(self.unused)}")
        return "; ".join(lines) + "."


def load_weights_file(model: keras.Model, path: str, partial: bool = False) -> WeightsReport:
    """Loads a legacy HDF5 weights file (the format of `keras.applications`) by layer name.

    If the file numbers its layers otherwise and all fit in their order, that order counts.

    Every layer of the file must fit a layer of the network. The network may reach further than
    the file: a file that holds its first stages only leaves the later ones random, and the
    report says so. A layer missing before one that is loaded means that this is another network.

    Args:
      model: flat functional network; changed in place.
      path: the file.
      partial: load what fits, whatever does not.

    Raises:
      UserError: no such file, not such a file, or it does not fit and `partial` is not set.
    """
    stored = _read_shapes(path)
    own = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers if layer.weights}
    if set(stored) != set(own) and list(stored.values()) == list(own.values()):
        # Layers that Keras named are numbered otherwise in every file; then their order tells which is which.
        in_file = dict(zip(own, stored, strict=True))
        _assign(model, path, in_file)
        return WeightsReport(tuple(own), (), ())
    loaded = tuple(name for name in own if stored.get(name) == own[name])
    report = WeightsReport(
        loaded=loaded,
        random=tuple(name for name in own if name not in loaded),
        unused=tuple(name for name in stored if name not in loaded),
    )
    last = max((list(own).index(name) for name in loaded), default=-1)
    gap = [name for name in list(own)[:last] if name not in loaded]
    if not loaded or ((report.unused or gap) and not partial):
        raise UserError(
            f"`weights`={path}: the file does not fit the network {model.name!r}. {report.describe()} "
            "Is it another network's file? Name the right `backbone`, or load what fits with `weights_partial`."
        )
    _assign(model, path, {name: name for name in loaded})
    return report


def _span(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return f" ({names[0]})" if len(names) == 1 else f" ({names[0]} ... {names[-1]})"


def _open(path: str) -> h5py.File:
    if not pathlib.Path(path).is_file():
        raise UserError(f"`weights`={path}: no such file. Use imagenet, none, or the name of a weights file.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"`weights`={path}: not an HDF5 file ({error}).") from error


def _layers(file: h5py.File) -> h5py.Group:
    # A whole saved model keeps its weights one level down.
    return file.get("model_weights", file)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]


def _read_shapes(path: str) -> dict[str, list[tuple[int, ...]]]:
    with _open(path) as file:
        root = _layers(file)
        if "layer_names" not in root.attrs:
            raise UserError(
                f"`weights`={path}: not in Keras' legacy HDF5 weights format (no layer_names), which is the "
                "format of the keras.applications weights."
            )
        shapes = {}
        for name in _names(root, "layer_names"):
            weights = _names(root[name], "weight_names")
            if weights:
                shapes[name] = [tuple(root[name][weight].shape) for weight in weights]
        return shapes


def _assign(model: keras.Model, path: str, names: dict[str, str]) -> None:
    """Loads layers; `names` says what each is called in the file."""
    with _open(path) as file:
        root = _layers(file)
        for name, in_file in names.items():
            group = root[in_file]
            values = [np.asarray(group[weight], np.float32) for weight in _names(group, "weight_names")]
            for value in values:
                if not np.all(np.isfinite(value)):
                    raise UserError(f"`weights`={path}: layer {in_file!r} holds NaN or infinite numbers.")
            model.get_layer(name).set_weights(values)
