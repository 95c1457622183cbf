"""Judge: photographs come, verdicts go."""

import pathlib
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import Response

from mvtec_tf import files
from mvtec_tf.app import judging, pictures, store
from mvtec_tf.app.site import Site
from mvtec_tf.serving import batch

_SHOWN = 24
_MOST_ROWS = 1000
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def add(app: FastAPI, site: Site) -> None:
    """The screen Judge."""
    kept = site.kept

    @app.get("/", include_in_schema=False)
    def screen(request: Request) -> Response:
        exports = site.models.there()
        if not exports:
            places = {name: pathlib.Path(getattr(site.settings, name)).absolute() for name in ("models", "project")}
            return site.page(request, "start.html", **places)
        digests = dict.fromkeys(row["sha256"] for row in kept.latest(_SHOWN))
        parts = [part for part in (site.part(digest, exports) for digest in digests) if part["verdicts"]]
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


def _picture(file: pathlib.Path | None, kind: str, draw: Any = pathlib.Path.read_bytes) -> Response:
    if file is None or not file.is_file():
        raise HTTPException(404, "Not Found")
    return Response(draw(file), media_type=kind, headers=_FOR_EVER)
