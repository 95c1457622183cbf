"""Improve: a model is fitted with the new labels, set beside the one in use, and promoted by a person."""

from typing import Annotated, Any

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from mvtec_tf.app import improving, labels
from mvtec_tf.app.improving import FINISHED, Job
from mvtec_tf.app.models import Export
from mvtec_tf.app.site import Number, Site, one_line
from mvtec_tf.errors import UserError
from mvtec_tf.serving import configs


def add(app: FastAPI, site: Site) -> None:
    """Adds the screen Improve."""
    kept = site.kept
    outcomes: dict[int, Any] = {}

    def job_of(number: int) -> Job:
        try:
            return improving.job_of(kept, number)
        except UserError as error:
            raise HTTPException(404, site.told(error)) from error

    def outcome(job: Job) -> Any:
        if job.state != FINISHED:
            return None
        if job.number not in outcomes:
            outcomes[job.number] = improving.outcome(job)
        return outcomes[job.number]

    def default(exports: list[Export]) -> dict[str, str]:
        asked = improving.asked_before(kept, exports[0]) if exports else {}
        defects = any(record.label for record in labels.records(kept))
        budget = "all" if defects or asked.get("label_budget", "0") != "0" else "0"
        return {"data": asked.get("data", ""), "weights": asked.get("weights", "imagenet"), "budget": budget}

    @app.get("/improve", include_in_schema=False)
    def screen(request: Request) -> Response:
        exports = site.models.there()
        template = "jobs.html" if "x-fragment" in request.headers else "improve.html"
        return site.page(
            request,
            template,
            jobs=[(job, outcome(job)) for job in improving.jobs(kept)],
            exports=exports,
            default=default(exports),
            labelled=len(labels.records(kept)),
        )

    @app.post("/improve", include_in_schema=False)
    def begin(
        request: Request,
        data: Annotated[str, Form()] = "",
        weights: Annotated[str, Form()] = "imagenet",
        label_budget: Annotated[str, Form(pattern=r"^(all|0(\.\d+)?)$")] = "0",
        with_labels: Annotated[bool, Form()] = False,
        in_use: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        who = site.person(who)
        if not data.strip() and not with_labels:
            raise HTTPException(422, site.text("no_data"))
        try:
            (export,) = site.models.chosen([in_use]) if in_use else (None,)
            asked = (data.strip(), weights.strip(), label_budget, with_labels, who, export)
            improving.begin(kept, *asked, site.settings.fit_flagfile)
        except UserError as error:
            raise HTTPException(422, site.told(error)) from error
        return RedirectResponse("/improve", 303)

    @app.post("/improve/{number}/{what}", include_in_schema=False)
    def change(
        request: Request,
        number: Number,
        what: str,
        name: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        job = job_of(number)
        if what == "cancel":
            improving.cancel(job)
        elif what == "go_on":
            improving.go_on(job)
        elif what == "promote":
            if not configs.is_name(name) or not one_line(who, 80):
                raise HTTPException(422, site.text("incomplete", fields="name, who"))
            try:
                improving.promote(job, name, site.models.root, one_line(who, 80))
            except UserError as error:
                raise HTTPException(422, site.told(error)) from error
        else:
            raise HTTPException(404, "Not Found")
        return RedirectResponse("/improve", 303)

    @app.get("/improve/{number}/report.html", include_in_schema=False)
    def report(number: Number) -> Response:
        file = job_of(number).run / "report.html"
        if not file.is_file():
            raise HTTPException(404, "Not Found")
        # A page of this program without a script, whose style and pictures stand in it.
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
        return Response(file.read_bytes(), media_type="text/html", headers={"Content-Security-Policy": policy})
