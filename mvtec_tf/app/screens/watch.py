"""Watch over: what the page has done, for people and for monitoring programs."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from mvtec_tf.app import lines
from mvtec_tf.app.lines import Lines
from mvtec_tf.app.site import Site


def add(app: FastAPI, site: Site) -> None:
    """Adds the screen Watch over, and the addresses that a monitoring program asks."""
    of_models = Lines(site.kept)

    @app.get("/watch", include_in_schema=False)
    def screen(request: Request) -> Response:
        exports = site.models.there()
        shown = lines.hours(site.kept, exports)
        told = [of_models.told(one) for one in exports]
        return site.page(request, "watch.html", told=told, hours=shown, bars=lines.bars(shown))

    @app.get("/api/watch", tags=["watch"])
    def watch() -> dict[str, Any]:
        """Verdicts an hour, and verdicts and drift of each model in use."""
        exports = site.models.there()
        return {"models": [of_models.told(one) for one in exports], "hours": lines.hours(site.kept, exports)}

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
