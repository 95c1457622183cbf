"""The page's addresses: screens for people, the same calls as JSON for programs."""

import functools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jinja2
from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

import mvtec_tf
from mvtec_tf import files
from mvtec_tf.app import guard as guard_lib
from mvtec_tf.app import judging, pictures, store
from mvtec_tf.app.guard import Door, Guard
from mvtec_tf.app.judging import RefusedError
from mvtec_tf.app.models import Models
from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.app.store import Store
from mvtec_tf.errors import UserError
from mvtec_tf.serving import batch

_ROOM = pathlib.Path(__file__).parent
_SHOWN = 24
_MOST_ROWS = 1000
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


@functools.cache
def words(language: str) -> Mapping[str, str]:
    """Every text of the page, by key."""
    return json.loads((_ROOM / "words" / f"{language}.json").read_text(encoding="utf-8"))


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
        self._words = words(settings.language)
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_ROOM / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._pages.globals |= {"t": self.text, "facts": self.facts, "scale": pictures.scale}

    def text(self, key: str, **values: Any) -> str:
        """A text of the page; values that are numbers are formatted as it says."""
        return self._words[key].format(**values)

    def facts(self, judgement: Mapping[str, Any]) -> str:
        """What was measured of a judged photograph, in sentences."""
        found = judging.facts(judgement["row"], judgement["heat"])
        named = {
            key: {name: self._words.get(f"place_{value}", value) for name, value in values.items()}
            for key, values in found
        }
        return " ".join(self.text(key, **named[key]) for key, _ in found)

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A screen, or a part of one."""
        values |= {"token": request.state.token, "settings": self.settings, "screen": template.partition(".")[0]}
        values |= {"asks": self.guard.asks, "version": mvtec_tf.__version__}
        return HTMLResponse(self._pages.get_template(template).render(values), status)

    def own(self, request: Request, token: str) -> None:
        """Raises HTTPException for a form that is none of this session's."""
        given = token or request.headers.get(guard_lib.TOKEN_HEADER, "")
        if not request.state.program and not self.guard.is_own(request.state.session, given):
            raise HTTPException(403, self.text("forged"))

    def judged(self, uploads: Sequence[UploadFile], names: Sequence[str]) -> tuple[list[dict[str, Any]], list[Any]]:
        """The photographs with their judgements, and the refused ones."""
        try:
            exports = self.models.chosen(names)
        except UserError as error:
            raise HTTPException(404, str(error)) from error
        if not exports:
            raise HTTPException(409, self.text("no_model"))
        if len(uploads) > self.settings.max_files:
            raise HTTPException(413, self.text("too_many", limit=self.settings.max_files))
        done, refused = [], []
        for upload in uploads:
            start = time.monotonic()
            try:
                most = self.settings.max_file_mb * 2**20
                digest, _ = judging.take(self.kept, self.models, exports, upload.file, upload.filename or "", most)
                done.append(self.part(digest))
            except RefusedError as error:
                known = str(error) in self._words
                reason = self.text(str(error), **error.values) if known else str(error)
                refused.append({"name": error.name, "error": reason})
                self.refused += 1
            self.asked += 1
            self.seconds += time.monotonic() - start
        return done, refused

    def part(self, digest: str) -> dict[str, Any]:
        """A photograph with what the models in use say of it: `image`, and (export, judgement) each."""
        exports = {one.called: one for one in self.models.there()}
        judgements = self.kept.judgements(digest, list(exports))
        return {"image": self.kept.image(digest), "verdicts": [(exports[row["model"]], row) for row in judgements]}


def create(settings: ServeSettings, password: str = "", guard: Guard | None = None) -> FastAPI:
    """The application.

    Args:
      settings: of the page.
      password: that it asks for; "": none.
      guard: of its sessions; None: a new one.
    """
    site = Site(settings, guard or Guard(password))
    app = FastAPI(
        title="mvtec_tf", version=mvtec_tf.__version__, openapi_url="/api/openapi.json", docs_url=None, redoc_url=None
    )
    app.state.site = site
    app.mount("/static", StaticFiles(directory=_ROOM / "static"), "static")
    _door(app, site)
    _judge(app, site)
    _watch(app, site)
    app.add_middleware(Door, guard=site.guard, settings=settings)
    return app


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _door(app: FastAPI, site: Site) -> None:
    """Errors, and the way in."""

    @app.exception_handler(HTTPException)
    def failed(request: Request, error: HTTPException) -> Response:
        if _is_api(request):
            return JSONResponse({"error": error.detail}, error.status_code)
        return site.page(request, "error.html", error.status_code, message=error.detail)

    @app.exception_handler(404)
    def missing(request: Request, error: HTTPException) -> Response:
        told = error.detail if error.detail != "Not Found" else site.text("not_found")
        return failed(request, HTTPException(404, told))

    @app.exception_handler(RequestValidationError)
    def incomplete(request: Request, error: RequestValidationError) -> Response:
        fields = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return failed(request, HTTPException(422, site.text("incomplete", fields=fields)))

    @app.exception_handler(UserError)
    def unusable(request: Request, error: UserError) -> Response:
        return failed(request, HTTPException(500, str(error)))

    @app.get("/login", include_in_schema=False)
    def login(request: Request) -> Response:
        return site.page(request, "login.html", wrong="")

    @app.post("/login", include_in_schema=False)
    def enter(request: Request, password: Annotated[str, Form()] = "", csrf: Annotated[str, Form()] = "") -> Response:
        site.own(request, csrf)
        address = request.client.host if request.client else ""
        if site.guard.waits(address):
            return site.page(request, "login.html", 429, wrong=site.text("too_often"))
        if not site.guard.asks or not site.guard.opens(password, address):
            return site.page(request, "login.html", 403, wrong=site.text("wrong_password"))
        return RedirectResponse("/", 303, {"set-cookie": guard_lib.cookie(site.guard.enter())})

    @app.post("/logout", include_in_schema=False)
    def leave(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        site.own(request, csrf)
        site.guard.leave(request.state.session)
        return RedirectResponse("/login", 303)

    @app.get("/healthz", include_in_schema=False)
    def health() -> Response:
        return PlainTextResponse("ok\n")


def _judge(app: FastAPI, site: Site) -> None:
    """The screen Judge."""
    kept = site.kept

    @app.get("/", include_in_schema=False)
    def screen(request: Request) -> Response:
        exports = site.models.there()
        if not exports:
            places = {name: pathlib.Path(getattr(site.settings, name)).absolute() for name in ("models", "project")}
            return site.page(request, "start.html", **places)
        digests = dict.fromkeys(row["sha256"] for row in kept.latest(_SHOWN))
        parts = [part for part in map(site.part, digests) if part["verdicts"]]
        return site.page(request, "judge.html", exports=exports, parts=parts, refused=[])

    @app.post("/judge", include_in_schema=False)
    def judge(
        request: Request,
        photographs: Annotated[list[UploadFile], File()],
        models: Annotated[list[str] | None, Form()] = None,
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        parts, refused = site.judged(photographs, models or ())
        template = "parts.html" if "x-fragment" in request.headers else "judge.html"
        return site.page(request, template, exports=site.models.there(), parts=parts, refused=refused)

    @app.get("/photographs/{digest}.jpg", include_in_schema=False)
    def photograph(digest: str) -> Response:
        known = kept.image(digest)
        return _picture(known and kept.folder / store.PREVIEWS / f"{known['sha256']}.jpg", "image/jpeg")

    @app.get("/heat/{number}.png", include_in_schema=False)
    def heat(number: int, outline: bool = False) -> Response:
        known = kept.judgement(number)
        file = judging.heat_file(kept, known) if known else None
        draw = pictures.outline_layer if outline else pictures.heat_layer
        return _picture(file, "image/png", draw)

    @app.get("/api/models", tags=["judge"])
    def list_models() -> list[dict[str, Any]]:
        """The models that can be asked: the newest version of each."""
        return [
            {
                "name": one.name,
                "version": one.version,
                "model": one.called,
                "threshold": one.threshold,
                "unsure": one.zone,
                "kind": one.card["kind"],
            }
            for one in site.models.there()
        ]

    @app.post("/api/judge", tags=["judge"])
    def judge_for_programs(
        request: Request,
        photographs: Annotated[list[UploadFile], File()],
        models: Annotated[list[str] | None, Form()] = None,
    ) -> dict[str, Any]:
        """Judges photographs by the models named, or by all; rows as the command predict writes them."""
        site.own(request, "")
        parts, refused = site.judged(photographs, models or ())
        rows = [
            verdict["row"] | {"id": verdict["id"], "at": verdict["at"], "name": part["image"]["name"]}
            for part in parts
            for _, verdict in part["verdicts"]
        ]
        return {"judgements": rows, "refused": refused}

    @app.get("/api/judgements", tags=["judge"])
    def judgements(before: int = 0, most: int = 100) -> list[dict[str, Any]]:
        """The newest judgements, `most` of them; `before`: only those below this id."""
        return [
            row["row"] | {"id": row["id"], "at": row["at"], "name": row["name"]}
            for row in kept.latest(max(1, min(most, _MOST_ROWS)), max(before, 0))
        ]

    @app.get("/judgements.csv", include_in_schema=False)
    def table() -> Response:
        rows = [row["row"] for row in reversed(kept.latest(-1))]
        text = files.csv_text(batch.COLUMNS, ([row[name] for name in batch.COLUMNS] for row in rows))
        return Response(text, media_type="text/csv", headers={"Content-Disposition": "attachment; filename=judged.csv"})


def _watch(app: FastAPI, site: Site) -> None:
    """What a monitoring program asks."""

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        lines = ["# TYPE mvtec_tf_judgements_total counter"]
        for row in site.kept.counts():
            model = row["model"].replace("\\", r"\\").replace('"', r"\"")
            labels = f'model="{model}",verdict="{row["verdict"]}"'
            lines.append(f"mvtec_tf_judgements_total{{{labels}}} {row['count']}")
        for name, value in (
            ("photographs_asked_total", site.asked),
            ("photographs_refused_total", site.refused),
            ("judging_seconds_total", site.seconds),
        ):
            lines += [f"# TYPE mvtec_tf_{name} counter", f"mvtec_tf_{name} {value}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _picture(file: pathlib.Path | None, kind: str, draw: Any = pathlib.Path.read_bytes) -> Response:
    if file is None or not file.is_file():
        raise HTTPException(404, "Not Found")
    return Response(draw(file), media_type=kind, headers=_FOR_EVER)
