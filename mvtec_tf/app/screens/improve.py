"""Improve: a model is fitted with the new labels, set beside the one in use, and promoted by a person."""

from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from mvtec_tf.app import improving, labels
from mvtec_tf.app.improving import FINISHED, Job, Outcome
from mvtec_tf.app.models import Export
from mvtec_tf.app.site import Number, Site
from mvtec_tf.app.wording import WordedError
from mvtec_tf.serving import configs


def add(app: FastAPI, site: Site) -> None:
    """Adds the screen Improve."""
    kept = site.kept
    outcomes: dict[int, Outcome] = {}

    def job_of(number: int) -> Job:
        with site.refusing(404):
            return improving.job_of(kept, number)

    def outcome(job: Job) -> Outcome | None:
        if job.state != FINISHED:
            return None
        if job.number not in outcomes:
            outcomes[job.number] = improving.outcome(job)
        return outcomes[job.number]

    def told(job: Job, found: Outcome) -> list[str]:
        """What is said of a new model: whether it is shown to be better, what it finds and stops, what to do now."""
        if found.own is None:
            return [site.text("outcome_unknown")]
        if found.new and found.old:
            new, old = found.new.calls, found.old.calls
            return [
                site.text(f"shown_{found.shown or 'nothing'}", parts=found.parts),
                site.text("found_beside", found=new.tp, defective=new.defective, than=than(new.tp - old.tp)),
                site.text("stopped_beside", stopped=new.fp, good=new.good, than=than(new.fp - old.fp)),
                site.text(f"todo_{found.shown or 'nothing'}"),
            ]
        beside = ["shown_none"] if job.asked["in_use"] else []
        own = found.own
        said = [site.text(key, defective=found.defective, good=found.good) for key in beside]
        said.append(site.text("tried", images=own.defective + own.good))
        said.append(
            site.text("tried_found", found=own.tp, defective=own.defective)
            if own.defective
            else site.text("tried_none")
        )
        said += [site.text("tried_stopped", stopped=own.fp, good=own.good)] if own.good else []
        return [*said, site.text("todo_none" if beside else "todo_first")]

    def than(more: int) -> str:
        return site.text("than_more" if more > 0 else "than_fewer" if more else "than_same", count=abs(more))

    def default(exports: list[Export]) -> dict[str, str]:
        last = next((job.asked for job in improving.jobs(kept)), {})
        asked = improving.asked_before(kept, exports[0]) if exports else last
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
            told=told,
            figures=improving.FIGURES,
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
        with site.refusing(422):
            (export,) = site.models.chosen([in_use]) if in_use else (None,)
            asked = (data.strip(), weights.strip(), label_budget, with_labels, who, export)
            improving.begin(kept, *asked, site.settings.fit_flagfile)
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
        with site.refusing(422):
            if what == "cancel":
                improving.cancel(job)
            elif what == "go_on":
                improving.go_on(job)
            elif what == "promote":
                if not configs.is_name(name):
                    raise WordedError("no_model_name")
                improving.promote(job, name, site.models.root, site.person(who))
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
