"""Reading SavedModels, by TensorFlow alone: who asks an exported model does not wait for Keras."""

import contextlib
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from mvtec_tf import files
from mvtec_tf.errors import UserError

# TensorFlow Serving leaves the contents of this folder alone.
EXTRA = "assets.extra"
CARD = "mvtec_tf.json"
# With it TensorFlow asks for another Keras, the package tf_keras, and goes on where that is not there.
_OTHER_KERAS = "TF_USE_LEGACY_KERAS"
# One time in forty it is so on busy cores.
_TRIES_OF_A_STOPPED_GRAPH = 10


def tensorflow() -> Any:
    """TensorFlow, imported without Keras if this is its first import.

    Otherwise it imports all of Keras, two fifths of the whole time, for optimizers in SavedModels, of which an exported
    graph has none. `import keras` is as ever afterwards.
    """
    before = os.environ.get(_OTHER_KERAS)
    os.environ[_OTHER_KERAS] = "1"
    try:
        import tensorflow
    finally:
        os.environ.pop(_OTHER_KERAS)
        if before is not None:
            os.environ[_OTHER_KERAS] = before
    return tensorflow


def require_model(path: files.PathLike) -> None:
    """Raises UserError if `path` holds no SavedModel."""
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").is_file():
        way = "Expected saved_models/NAME/VERSION."
        if (path / "run.json").is_file():
            way = "It is a run, of which mvtec-tf export makes saved_models/NAME/VERSION."
        raise UserError(f"{path}: no SavedModel (no saved_model.pb in it). {way}")


def load(path: files.PathLike) -> Any:
    """The SavedModel in `path`: that which was read before, as long as its files are the same.

    A fit scores images, explains some and tells what is usual by one graph, and reading it takes seconds.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    require_model(path)
    tf = tensorflow()
    try:
        return _load(os.path.abspath(path), _state(path))
    # IndexError is what it makes of a file of variables that ends too soon.
    except (OSError, ValueError, IndexError, tf.errors.OpError) as error:
        raise UserError(f"{path}: the SavedModel cannot be read ({error}).") from error


def ask(signature: Callable[..., dict[str, Any]], image_bytes: Any) -> dict[str, Any]:
    """What a signature answers to a batch of encoded images, string [B].

    An op that refuses an image stops the others, and one of those may be the first to report that it was stopped: then
    the reason is not known, and the question is asked again.

    Raises:
      tf.errors.OpError: an image cannot be read.
    """
    for _ in range(_TRIES_OF_A_STOPPED_GRAPH - 1):
        with contextlib.suppress(tensorflow().errors.CancelledError):
            return signature(image_bytes=image_bytes)
    return signature(image_bytes=image_bytes)


def newest(path: files.PathLike) -> pathlib.Path:
    """The SavedModel that a path names: itself, or the newest version of a folder of versions, `saved_models/NAME`."""
    path = pathlib.Path(path)
    versions = files.versions(path)
    return path / str(versions[-1]) if versions and not (path / "saved_model.pb").exists() else path


def read_card(path: files.PathLike) -> dict[str, Any]:
    """What the SavedModel in `path` says of itself.

    Raises:
      UserError: it was not written by this program.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        missing = f"{path}: not a SavedModel written by this program ({EXTRA}/{CARD} is missing)."
    else:
        missing = f"{path}: there is no model. Runs of fit, train-cnn, baseline, distill, pretrain, finetune have one."
    return files.read_json(path / EXTRA / CARD, missing=missing)


def _state(path: files.PathLike) -> tuple[tuple[str | int, ...], ...]:
    """Names, sizes, times and inodes of the files that are read: another export in the same place has others."""
    folder = pathlib.Path(path)
    read = [folder / "saved_model.pb", *folder.glob("variables/*"), *folder.glob("assets/*")]
    found = [(file.relative_to(folder).as_posix(), file.stat()) for file in sorted(read)]
    return tuple((name, one.st_size, one.st_mtime_ns, one.st_ino) for name, one in found)


# An encoder and what rests on it.
@functools.lru_cache(maxsize=2)
def _load(path: str, state: tuple[tuple[str | int, ...], ...]) -> Any:
    """What lies at an absolute path, by another way where TensorFlow would take it for a pattern."""
    if not files.PATTERN.search(path):
        return tensorflow().saved_model.load(path)
    with tempfile.TemporaryDirectory() as folder:
        if files.PATTERN.search(folder):
            raise UserError(
                f"{path}: TensorFlow takes such a name for a pattern, and so it does the folder for temporary files, "
                f"{folder}. Set TMPDIR to a folder without any of [ ] \\ * ? in its name."
            )
        link = os.path.join(folder, "model")
        os.symlink(path, link)
        return tensorflow().saved_model.load(link)
