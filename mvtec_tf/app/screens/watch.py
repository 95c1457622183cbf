"""Watch over: what the page has done, for people and for monitoring programs."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from mvtec_tf.app.site import Site


def add(app: FastAPI, site: Site) -> None:
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
