"""Judge: photographs come, verdicts go."""

import pathlib
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Path, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from mvtec_tf import files
from mvtec_tf.app import camera, judging, pictures, sources, store
from mvtec_tf.app.screens import start
from mvtec_tf.app.site import Number, Site, one_line
from mvtec_tf.app.sources import Asked
from mvtec_tf.serving import batch

_SHOWN = 24
_MOST_ROWS = 1000
_EVENTS = 5
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def add(app: FastAPI, site: Site) -> None:
    """The screen Judge."""
    kept, watching = site.kept, site.watching
    watching.go_on(site.settings.folders)

    def of_source() -> dict[str, Any]:
        takes = (camera.EACH, camera.STILL)
        return {"source": watching, "events": site.events(_EVENTS), "kinds": sources.KINDS, "takes": takes}

    @app.get("/", include_in_schema=False)
    def screen(request: Request) -> Response:
        exports = site.models.there()
        if not exports:
            return start.page(site, request, **of_source())
        digests, ever = dict.fromkeys(row["sha256"] for row in kept.latest(_SHOWN)), site.models.ever()
        parts = [part for part in (site.part(digest, ever) for digest in digests) if part["verdicts"]]
        return site.page(request, "judge.html", exports=exports, parts=parts, refused=[], **of_source())

    @app.get("/source", include_in_schema=False)
    def source(request: Request) -> Response:
        newest, collects = watching.newest, watching.collects
        if collects:
            parts = [kept.image(newest)] if newest else []
        else:
            parts = [part for part in [site.part(newest, site.models.there())] if part["verdicts"]] if newest else []
        return site.page(request, "newest.html", parts=parts, refused=[], collects=collects, **of_source())

    @app.post("/source", include_in_schema=False)
    def watch(
        request: Request,
        kind: Annotated[str, Form()] = "",
        place: Annotated[str, Form(max_length=2000)] = "",
        take: Annotated[str, Form()] = camera.EACH,
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        # The address of a camera comes from a person at the page, and from no program.
        site.own_form(request, csrf)
        who = site.person(who)
        asked = Asked(kind=kind, place=place.strip(), take=take, collect=not site.models.there(), who=who)
        with site.refusing(422):
            watching.begin(sources.checked(asked, site.settings.folders))
        return RedirectResponse("/", 303)

    @app.post("/source/stop", include_in_schema=False)
    def stop(request: Request, who: Annotated[str, Form()] = "", csrf: Annotated[str, Form()] = "") -> Response:
        site.own_form(request, csrf)
        watching.stop(one_line(who, 80))
        return RedirectResponse("/", 303)

    @app.get("/api/source", tags=["judge"])
    def source_for_programs() -> dict[str, Any]:
        """What is watched: a folder, a camera or a film, whether it is there, and how many parts have come of it."""
        place = watching.asked.shown if watching.asked else ""
        names = ("state", "reason", "judged", "refused", "missed", "newest", "collects")
        return {"place": place} | {name: getattr(watching, name) for name in names}

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
        return site.page(request, template, exports=site.models.there(), parts=parts, refused=refused, **of_source())

    @app.get("/photographs/{digest}.jpg", include_in_schema=False)
    def photograph(digest: str) -> Response:
        known = kept.image(digest)
        return _picture(known and kept.folder / store.PREVIEWS / f"{known['sha256']}.jpg", "image/jpeg")

    @app.get("/nearest/{digest}.jpg", include_in_schema=False)
    def good_part(digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> Response:
        return _picture(kept.folder / store.NEAREST / f"{digest}.jpg", "image/jpeg")

    @app.get("/heat/{number}.png", include_in_schema=False)
    def heat(number: Number, outline: bool = False) -> Response:
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
            judging.told(verdict | {"name": part["image"]["name"]}) for part in parts for _, verdict in part["verdicts"]
        ]
        return {"judgements": rows, "refused": refused}

    @app.get("/api/judgements", tags=["judge"])
    def judgements(before: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0, most: int = 100) -> list[dict[str, Any]]:
        """The newest judgements, `most` of them; `before`: only those below this id."""
        return [judging.told(row) for row in kept.latest(max(1, min(most, _MOST_ROWS)), before)]

    @app.get("/judgements.csv", include_in_schema=False)
    def table() -> Response:
        rows = [row["row"] for row in reversed(kept.latest(-1))]
        text = files.csv_text(batch.COLUMNS, ([row[name] for name in batch.COLUMNS] for row in rows))
        return Response(text, media_type="text/csv", headers={"Content-Disposition": "attachment; filename=judged.csv"})


def _picture(file: pathlib.Path | None, kind: str, draw: Any = pathlib.Path.read_bytes) -> Response:
    if file is None or not file.is_file():
        raise HTTPException(404, "Not Found")
    return Response(draw(file), media_type=kind, headers=_FOR_EVER)
