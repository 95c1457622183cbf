"""The page as an application: all screens behind one door."""

import pydantic
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import mvtec_tf
from mvtec_tf.app.guard import Door, Guard
from mvtec_tf.app.screens import door, improve, judge, review, start, threshold, watch
from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.app.site import ROOM, Site


class Refusal(pydantic.BaseModel):
    """Why a request was not taken, in a sentence."""

    error: str


# Whatever may be answered in place of what was asked for; 401 and 403 to who may not ask, 421 by another name.
_REFUSED = {status: {"model": Refusal} for status in (400, 401, 403, 404, 409, 413, 421, 422, 500)}


def create(settings: ServeSettings, password: str = "", guard: Guard | None = None) -> FastAPI:
    """The application.

    Args:
      settings: of the page.
      password: that it asks for; "": none.
      guard: of its sessions; None: a new one.
    """
    site = Site(settings, guard or Guard(password))
    app = FastAPI(
        title="mvtec_tf",
        version=mvtec_tf.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=_REFUSED,
    )
    app.state.site = site
    app.mount("/static", StaticFiles(directory=ROOM / "static"), "static")
    door.add(app, site)
    judge.add(app, site)
    start.add(app, site)
    threshold.add(app, site)
    review.add(app, site)
    improve.add(app, site)
    watch.add(app, site)
    app.add_middleware(Door, guard=site.guard, settings=settings)
    return app
