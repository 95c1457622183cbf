"""A photograph that is shown: kept once by its content, judged once by each model, told in measured facts."""

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from mvtec_tf import drift, files
from mvtec_tf.app import pictures, store
from mvtec_tf.app.models import Explained, Export, Models
from mvtec_tf.app.store import Store
from mvtec_tf.app.wording import WordedError
from mvtec_tf.data.pillow_images import UnreadableImageError
from mvtec_tf.data.record import IMAGE_SUFFIXES

# Beginnings of the kinds of files that there are, and what they are then called.
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"BM": ".bmp"}
# A good part is as unlike the training images in one of 20 cases.
UNLIKE = 0.95
_CHUNK = 1 << 20
_LONGEST_NAME = 200


class RefusedError(WordedError):
    """A file that is not taken.

    Args:
      name: of the file.
      key, values: of the words.
    """

    def __init__(self, name: str, key: str, **values: Any) -> None:
        super().__init__(key, **values)
        self.name = name


def take(
    kept: Store, models: Models, exports: Sequence[Export], file: BinaryIO, name: str, most_bytes: int
) -> tuple[str, list[dict[str, Any]]]:
    """Judges a photograph by each model that has not judged it yet, and keeps it.

    A file that no model can read leaves nothing behind.

    Args:
      kept: where to.
      models: that are asked.
      exports: which of them; none: it is only kept.
      file: the photograph.
      name: that it came under; it names no file here.
      most_bytes: that it may have.

    Returns:
      Its SHA-256, and the judgements of these models, in their order.

    Raises:
      RefusedError: it is too large or no image.
    """
    name = clean(name)
    handle, temporary = tempfile.mkstemp(dir=kept.folder / store.INCOMING)
    try:
        with os.fdopen(handle, "wb") as target:
            digest, beginning = _copied(file, target, name, most_bytes)
        done = {row["model"] for row in kept.judgements(digest, [one.called for one in exports])}
        known = kept.image(digest)
        if known is None:
            suffix = next((one for start, one in _SUFFIXES.items() if beginning.startswith(start)), IMAGE_SUFFIXES[0])
            place = kept.folder / store.IMAGES / f"{digest}{suffix}"
        else:
            place = kept.folder / known["file"]
        found = []
        for export in exports:
            if export.called not in done:
                row, why = models.judge(export, temporary)
                if row["error"]:
                    raise _refused(name, beginning, row["error"])
                # The row is of the file where it will lie.
                found.append((row | {"path": os.path.relpath(place, kept.folder)}, why))
        if found or known is None:
            try:
                _keep(kept, digest, name, pathlib.Path(temporary), place, found)
            except UnreadableImageError as error:
                raise _refused(name, beginning, str(error)) from error
        return digest, kept.judgements(digest, [one.called for one in exports])
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)


def _refused(name: str, beginning: bytes, reason: str) -> RefusedError:
    """What a telephone sends by itself is told plainly; of a damaged image the decoder knows more."""
    is_known = beginning.startswith(tuple(_SUFFIXES))
    return RefusedError(name, "unreadable", reason=reason) if is_known else RefusedError(name, "no_image")


def _copied(file: BinaryIO, target: BinaryIO, name: str, most_bytes: int) -> tuple[str, bytes]:
    """SHA-256 and first bytes of what was copied; it is on the disk."""
    digest, size, beginning = hashlib.sha256(), 0, b""
    while chunk := file.read(_CHUNK):
        size, beginning = size + len(chunk), beginning or chunk[:8]
        if size > most_bytes:
            raise RefusedError(name, "too_large", limit=most_bytes // 2**20)
        digest.update(chunk)
        target.write(chunk)
    if not size:
        raise RefusedError(name, "empty_file")
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest(), beginning


def _keep(
    kept: Store,
    digest: str,
    name: str,
    temporary: pathlib.Path,
    place: pathlib.Path,
    found: Sequence[tuple[dict[str, Any], Explained]],
) -> None:
    """Files first: what a kill leaves behind then is a file without a row, which the next try takes over."""
    preview = kept.folder / store.PREVIEWS / f"{digest}.jpg"
    try:
        size = pictures.write_preview(temporary, preview)
    except UnreadableImageError:
        preview.unlink(missing_ok=True)
        raise
    hottest = [pictures.write_heat(why.heat_map, heat_file(kept, row), size, why.level) for row, why in found]
    for one in {near["sha256"]: near["file"] for _, why in found for near in why.nearest}.items():
        pictures.keep_small(*one, kept.folder / store.NEAREST)
    os.replace(temporary, place)
    files.to_the_disk(place.parent)
    with kept.all_or_nothing():
        kept.add_image(digest, os.path.relpath(place, kept.folder), name, size)
        for (row, why), facts in zip(found, hottest, strict=True):
            kept.add_judgement(row, facts, why.nearest)


def told(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """A judgement as programs are told: the row of `predict`, with its number, its moment and its photograph's name."""
    return judgement["row"] | {name: judgement[name] for name in ("id", "at", "name")}


def heat_file(kept: Store, row: Mapping[str, Any]) -> pathlib.Path:
    """Where the heat map of a judgement lies, if there is one."""
    model = hashlib.sha256(row["model"].encode()).hexdigest()[:12]
    return kept.folder / store.HEAT / f"{row['sha256']}-{model}.png"


def clean(name: str) -> str:
    """The last step of a name as it was sent, without what cannot be printed."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(one if one.isprintable() else "?" for one in name)[:_LONGEST_NAME] or "?"


def facts(
    row: Mapping[str, Any], heat: Mapping[str, Any], nearest: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """What was measured of a judged photograph, (key of the words, values) each; nothing that no model gave.

    Args:
      row: of `batch.Judge`.
      heat: of `pictures.write_heat`.
      nearest: of `models.Explained`.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    z, p = row.get("z_score"), row.get(drift.P_VALUE)
    if z is not None:
        found.append(("fact_above" if z >= 0 else "fact_below", {"z": abs(z)}))
    if p is not None:
        found.append(("fact_p_value", {"percent": 100 * p}))
    if pictures.has_region(heat):
        values = {"row": heat["row"], "column": heat["column"], "share": 100 * heat["share"]}
        found.append(("fact_hottest", values))
    if nearest:
        found.append(("fact_nearest", {"times": nearest[0]["times"]}))
    unlike = row.get(drift.UNLIKE)
    if unlike is not None and unlike > UNLIKE:
        found.append(("fact_unlike", {"percent": 100 * unlike}))
    if row.get("split") and row["split"] != "evaluate":
        found.append(("fact_seen", {}))
    return found
