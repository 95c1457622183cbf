"""What all screens share: the words, the templates, what is kept, the models, who may send a form."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import HTTPException, Path, Request, UploadFile
from fastapi.responses import HTMLResponse

import mvtec_tf
from mvtec_tf.app import guard as guard_lib
from mvtec_tf.app import judging, labels, pictures, store
from mvtec_tf.app.guard import Guard
from mvtec_tf.app.judging import RefusedError
from mvtec_tf.app.models import Export, Models, good_parts, standing
from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.app.sinks import Sinks
from mvtec_tf.app.sources import Watching
from mvtec_tf.app.store import Store
from mvtec_tf.app.wording import Words
from mvtec_tf.data.record import FORMAT_OF_SUFFIX, GOOD
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report.page import environment

ROOM = pathlib.Path(__file__).parent
# What a field for files offers: phones go by kinds, others by suffixes.
_IMAGE_FILES = ",".join([*FORMAT_OF_SUFFIX, *(f"image/{one.lower()}" for one in sorted({*FORMAT_OF_SUFFIX.values()}))])
# Of a row, as SQLite can have it.
Number = Annotated[int, Path(ge=0, le=2**63 - 1)]


class Site:
    """What all addresses share.

    Args:
      settings: of the page.
      guard: of its sessions.
    """

    def __init__(self, settings: ServeSettings, guard: Guard) -> None:
        self.settings, self.guard = settings, guard
        self.kept = Store(settings.project)
        self.models = Models(settings.models, self.kept.folder)
        self.seconds, self.asked, self.refused = 0.0, 0, 0
        self.text = Words(settings.language)
        self.sinks = Sinks(self.kept)
        self.watching = Watching(
            self.kept,
            self.models,
            settings.most_bytes,
            lambda digest, who: labels.add(self.kept, digest, GOOD, "", "", who),
            self.text.told,
        )
        self._pages = environment("mvtec_tf.app")
        self._pages.globals |= {"t": self.text, "facts": self.facts, "nearest": self.nearest}
        self._pages.globals |= {"scale": pictures.scale, "has_region": pictures.has_region, "limits": self.limits}
        self._pages.globals |= {"n": self.text.format_field, "between": self.between, "here": store.here}
        self._pages.globals["image_files"] = _IMAGE_FILES

    def close(self) -> None:
        """Ends what runs beside the requests; the page begins with it again."""
        self.watching.close()
        self.sinks.close()
        self.kept.close()

    def facts(self, judgement: Mapping[str, Any]) -> str:
        """What was measured of a judged photograph, in sentences."""
        found = judging.facts(judgement["row"], judgement["heat"], judgement["nearest"])
        named = [
            (
                key,
                {
                    name: self.text(f"place_{value}") if f"place_{value}" in self.text else value
                    for name, value in values.items()
                },
            )
            for key, values in found
        ]
        return " ".join(self.text(key, **values) for key, values in named)

    def nearest(self, export: Export, judgement: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The nearest good parts: `name`, and `address` of a picture where there is one; None: the model keeps none."""
        if good_parts(export) is None:
            return None
        shown = []
        for one in judgement["nearest"]:
            there = (self.kept.folder / store.NEAREST / f"{one['sha256']}.jpg").is_file()
            name = self.kept.name_of(one["file"], one["sha256"])
            shown.append({"name": name, "address": f"/nearest/{one['sha256']}.jpg" if there else ""})
        return shown

    def limits(self, metric: Metric) -> str:
        """The interval of what is missing from a share to all, in per cent."""
        if metric.low is None or metric.high is None:
            return ""
        share, low, high = (100 * (1 - one) for one in (metric.value, metric.high, metric.low))
        return self.text("interval", share=share, low=low, high=high)

    def between(self, metric: Metric, form: str = ".3f") -> str:
        """A figure with its interval; one of no width would claim certainty."""
        if metric.value is None:
            return "-"
        if metric.low is None or metric.low == metric.high:
            return self.text.format_field(metric.value, form)
        ends = {name: self.text.format_field(getattr(metric, name), form) for name in ("value", "low", "high")}
        return self.text("between", **ends)

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A screen, or a part of one."""
        values |= {"token": request.state.token, "settings": self.settings, "screen": template.partition(".")[0]}
        values |= {"asks": self.guard.asks, "version": mvtec_tf.__version__}
        return HTMLResponse(self._pages.get_template(template).render(values), status)

    def own(self, request: Request, token: str) -> None:
        """Raises HTTPException for a form that is none of this session's, and that no program has sent."""
        if not request.state.program:
            self.own_form(request, token)

    def own_form(self, request: Request, token: str) -> None:
        """Raises HTTPException for what is no form of this session."""
        given = token or request.headers.get(guard_lib.TOKEN_HEADER, "")
        if not self.guard.is_own(request.state.session, given):
            raise HTTPException(403, self.text("forged"))

    @contextlib.contextmanager
    def refusing(self, status: int) -> Iterator[None]:
        """Raises HTTPException with this status for a UserError, in words of the page."""
        try:
            yield
        except UserError as error:
            raise HTTPException(status, self.text.told(error)) from error

    def judged(self, uploads: Sequence[UploadFile], names: Sequence[str]) -> tuple[list[dict[str, Any]], list[Any]]:
        """The photographs with their judgements, and the refused ones."""
        with self.refusing(404):
            exports = self.models.chosen(names)
        if not exports:
            raise HTTPException(409, self.text("no_model"))
        self.check_number(uploads)
        done, refused, shown = [], [], self.models.there()
        for upload in uploads:
            start = time.monotonic()
            try:
                done.append(self.part(self.take(upload, exports), shown))
            except RefusedError as error:
                refused.append({"name": error.name, "error": self.text.told(error)})
                self.refused += 1
            self.asked += 1
            self.seconds += time.monotonic() - start
        return done, refused

    def take(self, upload: UploadFile, exports: Sequence[Export]) -> str:
        """Keeps a photograph, judged by these models, and returns its SHA-256; see `judging.take`."""
        most = self.settings.most_bytes
        return judging.take(self.kept, self.models, exports, upload.file, upload.filename or "", most)[0]

    def person(self, who: str) -> str:
        """Who sends a form, as one line. Raises HTTPException if nobody says so."""
        if not (name := one_line(who, 80)):
            raise HTTPException(422, self.text("no_name"))
        return name

    def events(self, most: int) -> list[tuple[str, str]]:
        """(moment, what has happened), the newest first."""
        rows = self.kept.events(most)
        return [(store.here(row["at"]), self.text(row["what"], **row["said"])) for row in rows]

    def check_number(self, uploads: Sequence[UploadFile]) -> None:
        """Raises HTTPException for more photographs than are taken at once."""
        if len(uploads) > self.settings.max_files:
            raise HTTPException(413, self.text("too_many", limit=self.settings.max_files))

    def part(self, digest: str, exports: Sequence[Export]) -> dict[str, Any]:
        """A photograph with what these models say of it: `image`, and (export, judgement) each, see `standing`."""
        judgements = self.kept.judgements(digest, [one.called for one in exports])
        return {"image": self.kept.image(digest), "verdicts": standing(judgements, exports)}


def one_line(text: str, most: int) -> str:
    """What a person wrote, as one line that can be printed."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:most]
