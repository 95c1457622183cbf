"""What a person says of a judged photograph: remembered for ever, and written as a list that every command reads."""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mvtec_tf import files
from mvtec_tf.app import models, store
from mvtec_tf.app.models import Export
from mvtec_tf.app.store import Store
from mvtec_tf.app.wording import WordedError
from mvtec_tf.data import masks, words
from mvtec_tf.data.formats import corrections
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.record import DEFECTIVE, GOOD, Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.predicted import UNSURE

UNCLEAR = "unclear"
LABELS = (GOOD, DEFECTIVE, UNCLEAR)
LIST = "labels.csv"
DOUBTFUL = "doubtful"
_LATEST = "SELECT * FROM labels WHERE id IN (SELECT max(id) FROM labels GROUP BY sha256) ORDER BY id"
# With the category of images that a model knows.
_LISTED = """
SELECT labels.*, images.file, (
    SELECT json_extract(row, '$.category') FROM judgements WHERE judgements.sha256 = labels.sha256
    ORDER BY json_extract(row, '$.category') DESC LIMIT 1) AS category
FROM labels JOIN images USING (sha256)
WHERE labels.id IN (SELECT max(id) FROM labels GROUP BY sha256) AND label <> ? ORDER BY sha256
"""
# The newest judgements among which what is most doubtful is looked for.
_LOOKED = 5000
# A stroke on a photograph as large as the page shows it, encoded.
_MOST_MASK, _MOST_SIDE = 4 * 2**20, 4096
_LONGEST = 60


class WrongLabelError(WordedError):
    """A label that says nothing, or contradicts itself."""


def add(kept: Store, sha256: str, label: str, defect: str, mask: str, who: str) -> dict[str, Any]:
    """Remembers a label, with what each model had said, and writes the list anew.

    Args:
      kept: where to.
      sha256: of a judged photograph.
      label: one of `LABELS`.
      defect: its type, "" if it is not said; of a defective one.
      mask: base64 of a PNG that is opaque where the defect is, of any size; "": none; of a defective one.
      who: says so.

    Returns:
      The label as it is remembered.

    Raises:
      WrongLabelError: the photograph is not known, or the label is none.
    """
    image = kept.image(sha256)
    if image is None:
        raise WrongLabelError("not_found")
    if label not in LABELS:
        raise WrongLabelError("no_label")
    if not who:
        raise WrongLabelError("no_name")
    if label != DEFECTIVE:
        defect = mask = ""
    defect = _checked(kept, defect)
    with kept.all_or_nothing():
        number = kept.ask("SELECT coalesce(max(id), 0) + 1 AS next FROM labels")[0]["next"]
        place = _write_mask(kept, image, mask, f"{sha256}-{number}.png") if mask else ""
        said = kept.ask("SELECT model, score, threshold, verdict FROM judgements WHERE sha256 = ?", (sha256,))
        kept.add_label((sha256, store.now(), who, label, defect, place), said)
    write_list(kept)
    return latest(kept)[sha256]


def latest(kept: Store) -> dict[str, dict[str, Any]]:
    """SHA-256 -> the newest label of each labelled photograph."""
    return {row["sha256"]: row for row in kept.ask(_LATEST)}


def types(kept: Store, exports: Sequence[Export] = ()) -> list[str]:
    """The types of defects that somebody has named, on the page or in the images that the models were judged by."""
    named = {row["defect"] for row in latest(kept).values()}
    for export in exports:
        table = models.evaluation(export)
        named |= set() if table is None else set(table.defect[table.label == 1].tolist())
    return sorted(named - {"", DEFECTIVE})


def records(kept: Store) -> list[Record]:
    """Every photograph that is good or defective by its newest label; each shows an object of its own."""
    found, labelled = [], kept.ask(_LISTED, (UNCLEAR,))
    # New photographs are of the category that a model knows of the others, if that is one.
    known = {row["category"] for row in labelled if row["category"]}
    new = known.pop() if len(known) == 1 else kept.folder.absolute().name.lstrip(".") or "page"
    for row in labelled:
        category, is_defective = row["category"] or new, row["label"] == DEFECTIVE
        defect = (row["defect"] or DEFECTIVE) if is_defective else GOOD
        file, mask = (str(kept.folder / name) if name else "" for name in (row["file"], row["mask"]))
        path = f"{category}/{row['file']}"
        found.append(Record(path, file, category, defect, int(is_defective), "", path, mask))
    return found


def write_list(kept: Store) -> None:
    """Writes `labels.csv`, see `formats.image_list`: what a kill has kept it from, the next label or start does."""
    with kept.all_or_nothing():
        corrections.write_list(kept.folder / LIST, records(kept))


def waiting(kept: Store, exports: Sequence[Export], order: str, most: int, again: bool = False) -> list[str]:
    """SHA-256 of the judged photographs that have no label, one of each.

    Args:
      kept: what was judged.
      exports: whose verdicts count, those of a model with the newest version first.
      order: "newest", or "doubtful": unsure and contradicting verdicts first, then the scores nearest to their
        threshold, in standard deviations of the scores of held-out good parts.
      most: of the photographs.
      again: those that have a label instead.
    """
    done, known = latest(kept), {one.called for one in exports}
    said: dict[str, list[Mapping[str, Any]]] = {}
    for row in kept.latest(_LOOKED):
        if row["model"] in known and (row["sha256"] in done) == again:
            said.setdefault(row["sha256"], []).append(row)
    if order == DOUBTFUL:
        return sorted(said, key=lambda sha256: _doubt(models.standing(said[sha256], exports)))[:most]
    return list(said)[:most]


def _doubt(said: Sequence[tuple[Export, Mapping[str, Any]]]) -> tuple[bool, bool, float]:
    verdicts = {row["verdict"] for _, row in said}
    distances = []
    for export, row in said:
        good, _ = models.held_out(export)
        spread = float(good.std()) if len(good) > 1 else 0.0
        distances.append(abs(row["score"] - row["threshold"]) / (spread or 1.0))
    return UNSURE not in verdicts, len(verdicts) == 1, min(distances)


def _checked(kept: Store, defect: str) -> str:
    """A type of defect that a list may hold."""
    if "/" in defect or "\\" in defect or defect.startswith(".") or len(defect) > _LONGEST:
        raise WrongLabelError("wrong_type")
    if words.is_good(defect) or words.sounds_good(defect) or words.is_placeholder(defect):
        raise WrongLabelError("good_type")
    for known in types(kept) if defect else ():
        try:
            words.refuse_twins("types of defects", (known, defect))
        except UserError as error:
            raise WrongLabelError("twin_type", defect=defect, known=known) from error
    return defect


def _write_mask(kept: Store, image: Mapping[str, Any], encoded: str, name: str) -> str:
    """Writes what was drawn as a mask of the photograph's own size; returns its place."""
    try:
        content = base64.b64decode(encoded.rpartition(",")[2], validate=True)
        if len(content) > _MOST_MASK:
            raise WrongLabelError("wrong_mask")
        drawn = Image.open(io.BytesIO(content), formats=["PNG"])
        if max(drawn.size) > _MOST_SIDE:
            raise WrongLabelError("wrong_mask")
        opaque = np.asarray(drawn.convert("RGBA"))[..., 3] > 127
    # What is no PNG makes Pillow raise whatever it stumbles over.
    except (binascii.Error, ValueError, OSError, SyntaxError) as error:
        raise WrongLabelError("wrong_mask") from error
    size = image["width"], image["height"]
    whole = Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    place = kept.folder / store.MASKS / name
    with files.replacing(place) as temporary:
        whole.save(temporary, "PNG")
    try:
        masks.read(place, size[::-1])
    except MaskError as error:
        place.unlink()
        raise WrongLabelError("wrong_area") from error
    return f"{store.MASKS}/{name}"
