"""Review: what was judged, the newest or the most doubtful first, and what a person says of it."""

from typing import Annotated, Any, Literal

import pydantic
from fastapi import FastAPI, Form, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from mvtec_tf.app import labels
from mvtec_tf.app.site import Site, one_line

_SHOWN = 12


class NewLabel(pydantic.BaseModel):
    """What somebody says of a judged photograph; `mask` is base64 of a PNG that is opaque where the defect is."""

    sha256: str
    label: Literal["good", "defective", "unclear"]
    who: str
    defect: str = ""
    mask: str = ""


def add(app: FastAPI, site: Site) -> None:
    """Adds the screen Review."""
    kept = site.kept
    labels.write_list(kept)

    def labelled(sha256: str, label: str, defect: str, mask: str, who: str) -> dict[str, Any]:
        with site.refusing(422):
            return labels.add(kept, sha256, label, one_line(defect, 100), mask, one_line(who, 80))

    @app.get("/review", include_in_schema=False)
    def screen(request: Request, order: Literal["newest", "doubtful"] = "doubtful", done: bool = False) -> Response:
        exports = site.models.ever()
        parts = [site.part(digest, exports) for digest in labels.waiting(kept, exports, order, _SHOWN, done)]
        known = labels.latest(kept)
        counts = {label: sum(row["label"] == label for row in known.values()) for label in labels.LABELS}
        return site.page(
            request,
            "review.html",
            parts=parts,
            order=order,
            done=done,
            known=known,
            types=labels.types(kept, site.models.there()),
            counts=counts,
            list_file=(kept.folder / labels.LIST).absolute(),
        )

    @app.post("/labels", include_in_schema=False)
    def label(
        request: Request,
        sha256: Annotated[str, Form()],
        label: Annotated[str, Form()],
        defect: Annotated[str, Form()] = "",
        mask: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        labelled(sha256, label, defect, mask, who)
        return RedirectResponse("/review", 303)

    @app.get("/labels.csv", include_in_schema=False)
    def table() -> Response:
        return FileResponse(kept.folder / labels.LIST, media_type="text/csv", filename=labels.LIST)

    @app.get("/api/labels", tags=["review"])
    def log() -> list[dict[str, Any]]:
        """Every label that was ever given, in order, with who, when, and what each model had said."""
        return kept.ask("SELECT * FROM labels ORDER BY id")

    @app.post("/api/labels", tags=["review"])
    def label_for_programs(request: Request, given: NewLabel) -> dict[str, Any]:
        """Labels a judged photograph; earlier labels of it stay in the log, and the list has the newest."""
        site.own(request, "")
        return labelled(given.sha256, given.label, given.defect, given.mask, given.who)
