"""The first start: good parts are shown or watched, and become a first model."""

import math
import pathlib
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from mvtec_tf import conformal
from mvtec_tf.app import improving, labels
from mvtec_tf.app.judging import RefusedError
from mvtec_tf.app.labels import UNCLEAR
from mvtec_tf.app.site import Site
from mvtec_tf.data.formats.division import TEST_SHARE
from mvtec_tf.data.record import GOOD

_SHOWN = 24
# Of the good parts that are fitted on: of fewer an export says nothing of drift; with so many the threshold promises
# how many new ones it stops at most.
_FEWEST, _ENOUGH = 10, conformal.objects_needed(conformal.FALSE_ALARMS / 2)


def page(site: Site, request: Request, **more: Any) -> Response:
    """The screen of a page without a model."""
    kept = [row["sha256"] for row in labels.latest(site.kept).values() if row["label"] == GOOD]
    fewest, enough = (math.ceil(count / (1 - TEST_SHARE)) for count in (_FEWEST, _ENOUGH))
    return site.page(
        request,
        "start.html",
        parts=[site.kept.image(digest) for digest in kept[: -_SHOWN - 1 : -1]],
        refused=[],
        count=len(kept),
        fewest=fewest,
        enough=enough,
        fitted=round((1 - TEST_SHARE) * len(kept)),
        jobs=improving.jobs(site.kept),
        **{name: pathlib.Path(getattr(site.settings, name)).absolute() for name in ("models", "project")},
        **more,
    )


def add(app: FastAPI, site: Site) -> None:
    """Adds what the first screen of a page without a model asks for."""

    @app.post("/start", include_in_schema=False)
    def collect(
        request: Request,
        photographs: Annotated[list[UploadFile], File()],
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        who = site.person(who)
        site.check_number(photographs)
        parts, refused = [], []
        for upload in photographs:
            try:
                digest = site.take(upload, [])
                image = site.kept.image(digest) or {}
                if labels.latest(site.kept).get(digest, {}).get("label") == GOOD:
                    image["double"] = True
                else:
                    labels.add(site.kept, digest, GOOD, "", "", who)
                parts.append(image)
            except RefusedError as error:
                refused.append({"name": error.name, "error": site.text.told(error)})
        if "x-fragment" in request.headers:
            return site.page(request, "collected.html", parts=parts, refused=refused)
        return RedirectResponse("/", 303)

    @app.post("/start/leave_out", include_in_schema=False)
    def leave_out(
        request: Request,
        sha256: Annotated[str, Form()],
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        who = site.person(who)
        with site.refusing(422):
            labels.add(site.kept, sha256, UNCLEAR, "", "", who)
        return RedirectResponse("/", 303)
