"""Watch over: what the page has done, for people and for monitoring programs."""

from typing import Annotated, Any

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from mvtec_tf.app import lines, sinks
from mvtec_tf.app.lines import Lines
from mvtec_tf.app.site import Number, Site, one_line

_EVENTS = 20


def add(app: FastAPI, site: Site) -> None:
    """Adds the screen Watch over, and the addresses that a monitoring program asks."""
    of_models = Lines(site.kept)
    site.sinks.go_on(site.settings.folders)

    def watched() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What is told of each model in use and of earlier versions that judged, and the verdicts by the hour."""
        ever, newest = site.models.ever(), {one.called for one in site.models.there()}
        told = [(one.called in newest, of_models.told(one)) for one in ever]
        return [one for in_use, one in told if in_use or one["judged"]], lines.hours(site.kept, ever)

    def shown(request: Request, said: str = "", failed: bool = False) -> Response:
        told, hours = watched()
        return site.page(
            request,
            "watch.html",
            told=told,
            hours=hours,
            bars=lines.bars(hours),
            scale=lines.scale(hours),
            sinks=site.sinks.told(),
            kinds=sinks.KINDS,
            which=sinks.WHICH,
            most=sinks.MOST_PER_MINUTE,
            said=said,
            failed=failed,
            events=site.events(_EVENTS),
        )

    @app.get("/watch", include_in_schema=False)
    def screen(request: Request) -> Response:
        return shown(request)

    @app.post("/sinks", include_in_schema=False)
    def add_sink(
        request: Request,
        kind: Annotated[str, Form()] = "",
        place: Annotated[str, Form(max_length=2000)] = "",
        which: Annotated[str, Form()] = sinks.ALL,
        per_minute: Annotated[int, Form()] = 60,
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        # As with a camera's address: from a person at the page, and from no program.
        site.own_form(request, csrf)
        who = site.person(who)
        with site.refusing(422):
            place = sinks.checked(kind, place.strip(), which, per_minute, site.settings.folders)
        site.sinks.add(kind, place, which, per_minute, who)
        return RedirectResponse("/watch", 303)

    @app.post("/sinks/{number}/{what}", include_in_schema=False)
    def change_sink(
        request: Request,
        number: Number,
        what: str,
        who: Annotated[str, Form()] = "",
        csrf: Annotated[str, Form()] = "",
    ) -> Response:
        site.own_form(request, csrf)
        with site.refusing(404):
            if what == "test":
                why = site.sinks.test(number)
                said = site.text("sink_not_taken", reason=why) if why else site.text("sink_taken")
                return shown(request, said, bool(why))
            if what == "remove":
                site.sinks.remove(number, one_line(who, 80))
                return RedirectResponse("/watch", 303)
        raise HTTPException(404, site.text("not_found"))

    @app.get("/api/sinks", tags=["watch"])
    def sinks_for_programs() -> list[dict[str, Any]]:
        """Where verdicts go, with how many messages were sent, failed, were refused, and wait."""
        return site.sinks.told()

    @app.get("/api/watch", tags=["watch"])
    def watch() -> dict[str, Any]:
        """Verdicts an hour, and verdicts and drift of each model in use and of its earlier versions that judged."""
        told, hours = watched()
        return {"models": told, "hours": hours}

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        found = ["# TYPE mvtec_tf_judgements_total counter"]
        for row in site.kept.counts():
            labels = f'model="{_escaped(row["model"])}",verdict="{row["verdict"]}"'
            found.append(f"mvtec_tf_judgements_total{{{labels}}} {row['count']}")
        found.append("# TYPE mvtec_tf_drift_alarms gauge")
        for export in site.models.there():
            count = sum(alarm.over is None for alarm in of_models.of(export).alarms)
            found.append(f'mvtec_tf_drift_alarms{{model="{_escaped(export.called)}"}} {count}')
        for column in ("sent", "failed", "refused"):
            found.append(f"# TYPE mvtec_tf_sink_{column}_total counter")
            found += [
                f'mvtec_tf_sink_{column}_total{{sink="{one["id"]}",kind="{one["kind"]}"}} {one[column]}'
                for one in site.sinks.told()
            ]
        for name, value in (
            ("photographs_asked_total", site.asked),
            ("photographs_refused_total", site.refused),
            ("judging_seconds_total", site.seconds),
        ):
            found += [f"# TYPE mvtec_tf_{name} counter", f"mvtec_tf_{name} {value}"]
        return PlainTextResponse("\n".join(found) + "\n", media_type="text/plain; version=0.0.4")


def _escaped(text: str) -> str:
    """A value of a label in Prometheus' text format."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
