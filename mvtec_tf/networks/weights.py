"""Loading backbone weights from a file, with a word on every layer.

Keras' loading by name skips what it does not find without saying so: another network's file
changes a few like-named arrays, and training then starts from noise that nobody knows of.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator

import h5py
import numpy as np

from mvtec_tf.errors import UserError
from mvtec_tf.keras_settings import keras

# Where a .keras file, a ZIP archive, holds its weights.
_IN_KERAS_FILE = "model.weights.h5"
# Bytes that HDF5 needs for a weight beside its numbers, at most.
_OF_A_WEIGHT = 4096


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
    """Loads weights that Keras saved, by layer name: legacy HDF5 as of `keras.applications`, .weights.h5 or .keras.

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
    stored, in_order = _read_shapes(path)
    own = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers if layer.weights}
    if in_order and set(stored) != set(own) and list(stored.values()) == list(own.values()):
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


def save_weights(network: keras.Model, path: pathlib.Path) -> None:
    """Saves the weights of a network as Keras does, in a file `.weights.h5`, where there is room for it.

    HDF5 that finds no room in the middle ends the whole process when it is to be closed, so room is asked for first.

    Raises:
      OSError: there is none.
    """
    size = sum(4 * int(np.prod(weight.shape)) + _OF_A_WEIGHT for weight in network.weights)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    network.save_weights(path)


def _span(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return f" ({names[0]})" if len(names) == 1 else f" ({names[0]} ... {names[-1]})"


@contextlib.contextmanager
def _open(path: str) -> Iterator[h5py.File]:
    if not pathlib.Path(path).is_file():
        raise UserError(f"`weights`={path}: no such file. Use imagenet, none, or the name of a weights file.")
    with contextlib.ExitStack() as stack:
        try:
            held = path
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                held = io.BytesIO(archive.read(_IN_KERAS_FILE))
            file = stack.enter_context(h5py.File(held, "r"))
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"`weights`={path}: not an HDF5 file, nor a .keras file that holds one ({error})."
            ) from error
        yield file


def _weights(path: str, file: h5py.File) -> dict[str, list[h5py.Dataset]]:
    """The weights of every layer that has some, by its name."""
    # A whole saved model keeps its weights one level down.
    root = file.get("model_weights", file)
    if "layer_names" in root.attrs:
        layers = _names(root, "layer_names")
        stored = {name: [root[name][one] for one in _names(root[name], "weight_names")] for name in layers}
    elif "layers" in root:
        stored = {}

        def note(place: str, group: h5py.Group | h5py.Dataset) -> None:
            if place.endswith("/vars") and "name" in group.attrs:
                stored[group.attrs["name"]] = [group[number] for number in sorted(group, key=int)]

        root["layers"].visititems(note)
    else:
        raise UserError(
            f"`weights`={path}: no layers in it. Expected weights as Keras saves them: .weights.h5, .keras, or .h5 as "
            "those of keras.applications."
        )
    return {name: values for name, values in stored.items() if values}


def _names(group: h5py.Group, attribute: str) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]


def _read_shapes(path: str) -> tuple[dict[str, list[tuple[int, ...]]], bool]:
    """The shapes of every layer's weights by its name, and whether the layers stand in the network's order."""
    with _open(path) as file:
        stored = {name: [tuple(value.shape) for value in values] for name, values in _weights(path, file).items()}
        return stored, "layers" not in file


def _assign(model: keras.Model, path: str, names: dict[str, str]) -> None:
    """Loads layers; `names` says what each is called in the file."""
    with _open(path) as file:
        stored = _weights(path, file)
        for name, in_file in names.items():
            values = [np.asarray(value, np.float32) for value in stored[in_file]]
            for value in values:
                if not np.all(np.isfinite(value)):
                    raise UserError(f"`weights`={path}: layer {in_file!r} holds NaN or infinite numbers.")
            model.get_layer(name).set_weights(values)
