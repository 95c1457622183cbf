"""A fitted head in one `.npz` file: arrays and a line of JSON, nothing pickled.

The file says which features the head was fitted on, and is not opened for others.
"""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.defect_types import PerCategoryTypeHead, TypeHead
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.settings import HeadSettings

_HEADER = "header"


def save_head(
    path: files.PathLike, head: PerCategoryHead, settings: HeadSettings, key: Mapping[str, Any], tiled: bool = False
) -> None:
    """Writes a fitted head.

    Args:
      path: ends in `.npz`.
      head: fitted.
      settings: that its heads were made with.
      key: what the features that it was fitted on are of, as JSON.
      tiled: as its heads were made.
    """
    numbers = dataclasses.asdict(settings)
    header = {
        "settings": numbers | {"c": numbers.pop("head_c")},
        "categories": list(head.heads),
        "key": dict(key),
        "tiled": tiled,
    }
    if head.gives_types:
        header["types"] = {category: list(own.classes_) for category, own in head.heads.items()}
    with files.replacing(path) as temporary:
        np.savez(temporary, **{_HEADER: np.array(json.dumps(header))}, **head.arrays())


def read_head(path: files.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a head's file says of itself (settings, categories, key, tiled, perhaps types), and the head's arrays.

    Raises:
      UserError: no such file, or no head.
    """
    try:
        with np.load(pathlib.Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop(_HEADER))), arrays
    except FileNotFoundError as error:
        raise UserError(f"{path}: no head there.") from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no head written by this program ({error}).") from error


def settings_of(header: Mapping[str, Any]) -> HeadSettings:
    """The settings in what a head's file says of itself."""
    found = dict(header["settings"])
    return HeadSettings(head_c=found.pop("c"), hybrid_of=tuple(found.pop("hybrid_of")), **found)


def load_head(path: files.PathLike, key: Mapping[str, Any]) -> PerCategoryHead:
    """Reads a fitted head, for features of the same kind.

    Args:
      path: of `save_head`.
      key: what the features that it is to judge are of.

    Raises:
      UserError: no such file, no head, or one that was fitted on features of something else.
    """
    header, arrays = read_head(path)
    differences = [
        f"{name}: {header['key'].get(name)} when it was fitted, {key.get(name)} here"
        for name in sorted({*header["key"], *key})
        if header["key"].get(name) != key.get(name)
    ]
    if differences:
        raise UserError(
            f"{path}: the head was fitted on other features. {'; '.join(differences)}. Extract the features as they "
            "were for the fit, or fit a head on these."
        )
    settings = settings_of(header)
    if settings.name == "fused" and "0/0/bank" not in arrays:
        raise UserError(
            f"{path}: a head of an older version, which remembered no patches. Repeat the run that wrote it, into a "
            "new directory."
        )
    if "types" in header:
        own = {category: TypeHead(settings.name, settings.head_c, settings.seed) for category in header["categories"]}
        return PerCategoryTypeHead.named(own, arrays, header["types"])
    heads = {category: make_head(settings, header["tiled"]) for category in header["categories"]}
    return PerCategoryHead.restored(heads, arrays)
