"""What is known of images that are judged, and whether the model was made with them."""

import copy
import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterable

from mvtec_tf import files
from mvtec_tf.data import known_images, leaks
from mvtec_tf.data.record import Record
from mvtec_tf.graphs import loading

# What says most of an image that was used in several ways.
_BY_WEIGHT = (leaks.FIT, leaks.PRETRAIN, leaks.CALIBRATE, leaks.EVALUATE)


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of one image; what is not known is empty.

    Attributes:
      category, defect, group: as in a `Record`.
      label: 1 defective, 0 good, None if unknown.
      split: how the model's run used the image, or another one of its object; "evaluate" if it did not.
    """

    category: str = ""
    defect: str = ""
    label: int | None = None
    group: str = ""
    split: str = ""


class Truth:
    """Tells what is known of an image file: from records, from the list of images in an export, or from its folders.

    Args:
      records: of images at their places; they are believed first.
      export: SavedModel of an export, which knows its images by content; None: nothing is known of the model's.
    """

    def __init__(self, records: Iterable[Record] = (), export: files.PathLike | None = None) -> None:
        self._records = {os.path.realpath(record.file): record for record in records}
        extra = pathlib.Path(export) / "assets.extra" if export is not None else None
        self._images = {}
        self._uses: dict[str, str] | None = None
        self._of_encoder: set[str] = set()
        if extra is not None and (extra / known_images.FILE).is_file():
            self._images = known_images.read(extra / known_images.FILE)
        if extra is not None and (extra / "predictions.csv").is_file():
            self._uses = _read_uses(extra / "predictions.csv")
        if self._uses is not None and (extra / loading.CARD).is_file():
            # Images of the encoder that are none of the run's own.
            for image in loading.read_card(export).get("pretrain_images", ()):
                for name in (image["path"], image["group"]):
                    self._uses.setdefault(name, leaks.PRETRAIN)
                self._of_encoder.add(image.get("sha256", image["path"]))

    def about(self, records: Iterable[Record]) -> "Truth":
        """The same of the model, with other records."""
        other = copy.copy(self)
        other._records = {os.path.realpath(record.file): record for record in records}
        return other

    @property
    def knows_contents(self) -> bool:
        """Whether the model's own images are known by content."""
        return bool(self._images)

    def name(self, file: str) -> str:
        """What the records call a file, "" if they do not know it."""
        record = self._records.get(os.path.realpath(file)) if self._records else None
        return record.path if record else ""

    def of(self, file: str, digest: str) -> Facts:
        """What is known of a file whose contents have this SHA-256; "": it could not be read."""
        same = self._images.get(digest, [])
        record = self._records.get(os.path.realpath(file)) if self._records else None
        found = record or next(iter(same), None) or known_images.of_place(file)
        if found is None:
            return Facts()
        return Facts(found.category, found.defect, found.label, found.group, self._split(found, same, digest))

    def _split(self, found: Record, same: list[Record], digest: str) -> str:
        if self._uses is None:
            return ""
        names = {name for record in same for name in (record.path, record.group)}
        # Names are used again and again; where contents are known only those count, and what is said of objects.
        if not self.knows_contents or found.group != found.path:
            names.add(found.group)
        if not self.knows_contents:
            names.add(found.path)
        uses = {self._uses[name] for name in names if name in self._uses}
        if digest in self._of_encoder:
            uses.add(leaks.PRETRAIN)
        return next((use for use in _BY_WEIGHT if use in uses), leaks.EVALUATE)


def _read_uses(file: pathlib.Path) -> dict[str, str]:
    """Name of an image, or of an object -> how a run used it."""
    uses: dict[str, str] = {}
    with file.open(newline="", encoding="utf-8") as content:
        for row in csv.DictReader(content):
            for name in filter(None, (row["path"], row.get("group"))):
                if name not in uses or _BY_WEIGHT.index(row["split"]) < _BY_WEIGHT.index(uses[name]):
                    uses[name] = row["split"]
    return uses
