"""Threshold: moved on the images that a model was judged by, and saved as a new version."""

import urllib.parse
from typing import Annotated, Any, Literal

import pydantic
from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from mvtec_tf.app import limits
from mvtec_tf.app.models import Export, versions
from mvtec_tf.app.site import Site, one_line
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import thresholds
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.thresholds import Rule


class NewThreshold(pydantic.BaseModel):
    """A threshold with who wants it and why."""

    value: float
    reason: str
    who: str
    low: float | None = None
    high: float | None = None


def add(app: FastAPI, site: Site) -> None:
    """The screen Threshold."""

    def export_of(name: str) -> Export:
        try:
            return site.models.chosen([name] if name else [])[0]
        except (UserError, IndexError) as error:
            raise HTTPException(404, site.text.told(error) if name else site.text("no_model")) from error

    def zone_of(export: Export, low: float | None, high: float | None) -> tuple[float, float] | None:
        if not export.has_zone:
            if (low, high) != (None, None):
                raise HTTPException(422, site.text("no_zone", model=export.name, low=low, high=high))
            return None
        own = export.card["thresholds"]["unsure"][""]
        return (own[0] if low is None else low, own[1] if high is None else high)

    def save_version(name: str, value: float, low: float | None, high: float | None, why: str, who: str) -> int:
        export = export_of(name)
        if not why.strip() or not who.strip():
            raise HTTPException(422, site.text("incomplete", fields="reason, who"))
        with site.refusing(422):
            path = limits.save(export, value, zone_of(export, low, high), one_line(why, 300), one_line(who, 80))
        return int(path.name)

    @app.get("/threshold", include_in_schema=False)
    def screen(
        request: Request,
        model: str = "",
        value: float | None = None,
        low: float | None = None,
        high: float | None = None,
        rule: Literal["", "target_recall", "target_specificity", "least_cost"] = "",
        target: float = 95,
        saved: int = 0,
    ) -> Response:
        export, found, wrong = export_of(model), None, ""
        if rule:
            least_cost = rule == thresholds.LEAST_COST
            try:
                asked = Rule(rule, target=None if least_cost else target / 100)
                found = limits.wanted(export, asked, Costs(miss=target) if least_cost else Costs())
            except ValueError:
                wrong = site.text("wrong_cost" if least_cost else "wrong_target")
            if found is not None and found.value is None:
                found, wrong = None, site.text("nothing_to_choose_on")
            elif found is not None and not found.defects and rule != thresholds.TARGET_SPECIFICITY:
                wrong = site.text("no_defect_to_find", images=found.images)
                found = None
            elif found is not None:
                value = found.value
        value, zone = export.threshold if value is None else value, zone_of(export, low, high)
        if found is not None and zone is not None:
            # What the zone was does not go with another threshold: nobody is asked.
            zone = (value, value)
        counts, wrong_counts = counted(export, value, zone)
        fragment = "x-fragment" in request.headers
        return site.page(
            request,
            "counts.html" if fragment else "threshold.html",
            export=export,
            exports=site.models.there(),
            counts=counts or wrong_counts,
            wrong_counts=wrong_counts,
            value=value,
            zone=zone,
            rule=rule,
            target=target,
            found=found,
            reason=limits.chosen(found, target / 100) if found else None,
            is_above_expected=found is not None and limits.is_above_expected(export, found, target / 100),
            origin=limits.origin,
            wrong=wrong,
            saved=site.text("saved", number=saved) if saved else "",
            versions=versions(export),
        )

    def counted(export: Export, value: float, zone: tuple[float, float] | None) -> tuple[Any, str]:
        try:
            return limits.counts(export, value, zone), ""
        except UserError as error:
            return None, site.text.told(error)

    @app.post("/threshold", include_in_schema=False)
    def save(
        request: Request,
        model: Annotated[str, Form()],
        value: Annotated[float, Form()],
        low: Annotated[float | None, Form()] = None,
        high: Annotated[float | None, Form()] = None,
        reason: Annotated[str, Form()] = "",
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own(request, csrf)
        number = save_version(model, value, low, high, reason, who)
        return RedirectResponse("/threshold?" + urllib.parse.urlencode({"model": model, "saved": number}), 303)

    @app.get("/api/models/{name}/counts", tags=["threshold"])
    def count(name: str, value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
        """What a threshold does on the images that the model was judged by, with the intervals of `judge`."""
        export = export_of(name)
        found, wrong = counted(export, value, zone_of(export, low, high))
        if found is None:
            raise HTTPException(422, wrong or site.text("no_table"))
        return found.as_json()

    @app.post("/api/models/{name}/versions", tags=["threshold"])
    def save_for_programs(request: Request, name: str, given: NewThreshold) -> dict[str, Any]:
        """Writes the next version of the model with another threshold; nothing is overwritten."""
        site.own(request, "")
        return {"version": save_version(name, given.value, given.low, given.high, given.reason, given.who)}
