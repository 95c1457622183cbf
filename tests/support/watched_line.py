"""A watched folder whose looks are counted, not timed, and a model that is none."""

import csv
import pathlib

from mvtec_tf.serving.batch import COLUMNS, Judge
from mvtec_tf.serving.client import BadImageError, UnavailableError
from mvtec_tf.serving.journal import Journal
from mvtec_tf.serving.watch import DropBox, watch

WHOLE = b"image, whole"


def nothing():
    """A look later."""


class Fake:
    """A model that can read what ends in "whole" and remembers what it was shown."""

    name = "fake"

    def __init__(self):
        self.shown = []
        self.away = False

    def __call__(self, signature, images):
        if self.away:
            raise UnavailableError("away")
        self.shown += images
        if not all(image.endswith(b"whole") for image in images):
            raise BadImageError("torn")
        answer = {name: [0.5] * len(images) for name in ("anomaly_score", "threshold")}
        return answer | {"label": [1] * len(images), "overlay_bytes": [b"png"] * len(images)}


class Line:
    """A watched folder whose looks are counted, not timed."""

    def __init__(self, folder, out):
        self.folder, self.out, self.model, self.overlays = folder, out, Fake(), None
        folder.mkdir(exist_ok=True)

    def look(self, *steps):
        """One look before each step, as a new process would begin, and one after the last."""
        judge = Judge(self.model, overlays=self.overlays)
        left = list(steps)

        def pause():
            if self.first:
                self.first = False
                return True
            if not left:
                return False
            left.pop(0)()
            return True

        self.first = True
        with Journal(self.out, COLUMNS, ".csv") as table:
            watch(DropBox(str(self.folder), judge.name), judge, table, 8, pause)

    def rows(self):
        with self.out.open(newline="") as content:
            return {pathlib.Path(row["path"]).name: row["error"] for row in csv.DictReader(content)}
